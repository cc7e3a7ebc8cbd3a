//! The `log` processor in the real binary: what it writes, and what it only counts.

use std::time::Duration;

use crate::support::gateway::Gateway;

const WITHIN: Duration = Duration::from_secs(30);
const MESSAGES: u64 = 30;

/// Messages that have a line, and messages that lines count as left out.
fn logged(log: &str) -> (u64, u64) {
    let lines = log.lines().filter(|line| line.contains("message.id="));
    let counts = log.lines().filter_map(|line| {
        let (_, count) = line.split_once("more messages than lines")?.1.split_once("messages=")?;
        count.split_whitespace().next()?.parse::<u64>().ok()
    });
    (lines.count() as u64, counts.sum())
}

#[test]
fn messages_without_a_line_are_counted_although_no_more_come_and_the_gateway_goes_on() {
    let mut gateway = Gateway::start("", &[]);
    for _ in 0..MESSAGES {
        gateway.publish("default", &[], b"x");
    }
    gateway.wait_until_drained(WITHIN);
    let (lines, counted) = gateway.wait_for("all are accounted for", WITHIN, |gateway| {
        let (lines, counted) = logged(&gateway.log());
        (lines + counted == MESSAGES).then_some((lines, counted))
    });
    assert!(lines >= 10, "{lines} lines, {counted} counted");
    gateway.stop();
    assert_eq!(logged(&gateway.log()), (lines, counted), "nothing is counted twice");
}
