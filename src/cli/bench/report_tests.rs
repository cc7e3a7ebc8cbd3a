//! Both ways of telling say the same, and what is not known is said to be unknown.

use super::*;
use crate::cli::bench::meter::Usage;
use crate::cli::bench::plan::{Own, Store, Which};

fn plan(scenario: Scenario) -> Plan {
    Plan {
        scenario,
        rate_per_s: Some(200.0),
        spacing: Spacing::Poisson,
        connections: 4,
        lasting: Duration::from_secs(3),
        warmup: Duration::ZERO,
        payload_bytes: 200,
        batch_size: 7,
        messages: 9,
        failing: Duration::ZERO,
        delay: Duration::ZERO,
        destinations: 2,
        rss_growth_percent_max: None,
        sink: std::net::Ipv4Addr::LOCALHOST.into(),
        which: Which::Own(Own { store: Store::Sqlite, durability: None, folder: None, set: Vec::new() }),
        json: true,
    }
}

fn about(store: &str) -> About {
    About {
        url: "http://a".to_owned(),
        version: "1.2.3".to_owned(),
        is_own: false,
        store: store.to_owned(),
        durability: "strict".to_owned(),
        durability_means: None,
    }
}

fn sample(cpu_ms: u64, mib: u64) -> Sample {
    let cpu = Some(Duration::from_millis(cpu_ms));
    let usage = Usage { cpu, memory_bytes: Some(mib << 20), ..Usage::default() };
    Sample { gateway: usage, store: Usage::default(), disk_bytes: None }
}

fn plain(report: &Report) -> String {
    anstream::adapter::strip_str(&report.describe()).to_string()
}

#[test]
fn a_cost_is_of_a_message_and_a_rate_of_a_second() {
    let mut latencies = Latencies::new();
    latencies.add(Duration::from_millis(5));
    let mut findings = Findings::of(1_000, Duration::from_secs(2), sample(100, 10), sample(150, 12))
        .with("x_per_s", 1.23456);
    findings.latency = Some(("until then", latencies));
    let report = Report::new(&plan(Scenario::Drain), about("sqlite"), findings);
    let json = serde_json::to_value(&report).expect("it is JSON");
    assert_eq!(json["rate_per_s"], 500.0);
    assert_eq!(json["cpu_us_per_message"]["gateway"], 50.0);
    assert_eq!(json["memory_bytes"]["gateway_after"], 12 << 20);
    assert_eq!((&json["scenario"], &json["store_is_inside"]), (&"drain".into(), &true.into()));
    assert_eq!((&json["figures"]["x_per_s"], &json["latency_ms"]["count"]), (&1.235.into(), &1.into()));
    assert_eq!(
        (&json["requests"], &json["asked"]["loop"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    let text = plain(&report);
    for words in [
        "500.0 messages/s (1000 in 2.00 s)",
        "gateway 50.0 µs, the store is a part of it",
        "10.0 MiB before",
        "until then: p50 5.0",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_is_not_known_is_unknown_and_not_nothing() {
    let findings = Findings::of(1, Duration::from_secs(1), Sample::default(), Sample::default());
    let report = Report::new(&plan(Scenario::Deliver), about("redis"), findings);
    let json = serde_json::to_value(&report).expect("it is JSON");
    for name in ["gateway", "store"] {
        assert!(json["cpu_us_per_message"][name].is_null(), "{json}");
    }
    assert!(
        json["memory_bytes"].as_object().expect("an object").values().all(serde_json::Value::is_null),
        "{json}"
    );
    assert!(plain(&report).contains("gateway unknown, store unknown"), "{}", plain(&report));
}
