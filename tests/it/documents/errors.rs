//! docs/API.md says what the code does: each error has its row, and no other has one.

use posthaste::api::code::CODES;

const API: &str = include_str!("../../../docs/API.md");

#[test]
fn every_error_has_its_row_and_no_row_is_without_its_error() {
    for row in CODES {
        let start = format!("| `{}` | {} | ", row.word, row.status);
        assert!(API.contains(&start), "no row begins with {start}");
    }
    let section =
        API.split("\n## Errors\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("errors");
    let rows = section.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, CODES.len());
}
