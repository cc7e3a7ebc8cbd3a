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
