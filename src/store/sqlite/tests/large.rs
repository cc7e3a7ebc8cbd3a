//! That no cost grows with what waits.

use super::*;

/// The plan of a statement must look rows up by key: a scan of a table grows with it.
fn assert_by_key(sql: &rusqlite::Connection, text: &str) {
    let mut statement = sql.prepare(&format!("EXPLAIN QUERY PLAN {text}")).expect("a statement");
    let unbound = statement.parameter_count();
    let nulls = vec![rusqlite::types::Null; unbound];
    let details: Vec<String> = statement
        .query_map(rusqlite::params_from_iter(nulls), |row| row.get(3))
        .expect("a plan")
        .collect::<Result<_, _>>()
        .expect("details");
    assert!(details.iter().all(|detail| !detail.starts_with("SCAN")), "{text}\n{details:?}");
    assert!(details.iter().all(|detail| !detail.contains("TEMP B-TREE")), "{text}\n{details:?}");
}

/// Every SQL text of this store that reads or changes rows.
fn statements() -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_none_or(|extension| extension != "rs")
            || ["audit", "schema"].contains(&name.as_str())
        {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        for literal in text.split('"').skip(1).step_by(2) {
            let sql = literal.trim();
            let verbs = ["SELECT ", "UPDATE ", "DELETE "];
            if verbs.iter().any(|verb| sql.starts_with(verb)) && !sql.contains('{') && !sql.ends_with("WHERE")
            {
                found.push(sql.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_statement_finds_its_rows_by_key() {
    let stand = Stand::new(Clock::system());
    let sql = stand.sql();
    // Small by nature: one row, one row a queue, or read once at start; and the one search for a damaged row's id.
    let small = [
        "meta",
        "FROM queues",
        "FROM graves",
        "sqlite_schema",
        "SELECT id FROM ids WHERE queue = ?1 AND seq",
    ];
    // A count of dead letters is a walk over those of one queue, on the reader.
    let grouped = ["GROUP BY"];
    let all = statements();
    assert!(all.len() > 40, "{} statements were found", all.len());
    for text in all.iter().filter(|text| !small.iter().chain(&grouped).any(|word| text.contains(word))) {
        assert_by_key(&sql, text);
    }
}

#[test]
#[ignore = "takes a minute and prints figures"]
fn a_million_pending_cost_no_more_than_a_thousand() {
    run(async {
        let mut stand = Stand::new(Clock::system());
        let limits = crate::domain::queue::LimitSettings { length_max: 10_000_000, ..Default::default() };
        let mut costs = Vec::new();
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", QueueSettings { limits, ..settings() }).await;
        for (first, count) in [(0, 20_000), (100_000, 1_000_000)] {
            publish(&connection, &queue, first, count, 2_000).await;
            let began = std::time::Instant::now();
            for _ in 0..100 {
                let leased = connection.lease(request(&queue, LeaseKind::Worker, 128)).await.expect("leased");
                connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
            }
            costs.push(began.elapsed());
        }
        println!(
            "100 × lease and settle of 128: {:?} with 20,000 pending, {:?} with 1,000,000",
            costs[0], costs[1]
        );
        drop(connection);
        stand.end();
        let began = std::time::Instant::now();
        stand.open();
        println!("opened in {:?}", began.elapsed());
    });
}
