//! The walk agrees with `serde_json` on what is JSON, and goes through anything without a panic.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::http::batch::tests::block_on;

/// Whether a text is one value with blanks around it.
fn walk(text: &[u8]) -> Result<Range<usize>, NoJson> {
    block_on(async {
        let (mut walk, mut pace) = (Walk::new(text, LEVELS_MAX), Pace::default());
        walk.blanks(&mut pace).await;
        let found = walk.value(&mut pace).await?;
        walk.blanks(&mut pace).await;
        match walk.next() {
            None => Ok(found),
            Some(_) => Err(walk.wrong("something follows")),
        }
    })
}

#[test]
fn values_are_found_whole() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "10.5e-7",
        "1E+2",
        r#""""#,
        r#""a\"b\\\/\b\f\n\r\t\u00e9""#,
        "[]",
        "[ ]",
        "{}",
        "{ }",
        r#"{"a":[1,{"b":null}],"a":""}"#,
        "[[],[]]",
        r#""😀\ud83d\ude00""#,
    ] {
        let padded = format!(" \n{text}\t");
        assert_eq!(walk(padded.as_bytes()), Ok(2..2 + text.len()), "{text}");
    }
}

#[test]
fn what_is_no_json_is_refused_where_it_goes_wrong() {
    for (text, at) in [
        ("", 0),
        ("nul", 0),
        ("tru e", 0),
        ("01", 1),
        ("-", 1),
        ("1.", 2),
        ("1e", 2),
        ("+1", 0),
        (".5", 0),
        ("NaN", 0),
        ("'a'", 0),
        ("\"", 1),
        ("\"a", 2),
        (r#""\x""#, 1),
        (r#""\u12g4""#, 1),
        (r#""\u12"#, 1),
        (r#""\ud800""#, 1),
        (r#""\ud800\ud800""#, 1),
        (r#""\udc00""#, 1),
        (r#""\ud800\n""#, 1),
        ("[", 1),
        ("[1", 2),
        ("[1,", 3),
        ("[1,]", 3),
        ("[,1]", 1),
        ("[1 2]", 3),
        ("[1}", 2),
        ("{", 1),
        ("{1:2}", 1),
        (r#"{"a"}"#, 4),
        (r#"{"a":}"#, 5),
        (r#"{"a":1,}"#, 7),
        (r#"{"a":1"#, 6),
        (r#"{"a":1]"#, 6),
        ("]", 0),
        ("1 2", 2),
        ("/* */1", 0),
    ] {
        assert_eq!(walk(text.as_bytes()).map_err(|wrong| wrong.at), Err(at), "{text}");
    }
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(walk(nested(LEVELS_MAX).as_bytes()).is_ok());
    assert!(walk(nested(LEVELS_MAX + 1).as_bytes()).is_err());
    assert!(walk("[".repeat(1_000_000).as_bytes()).is_err());
    assert!(walk(r#"{"a":"#.repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn long_strings_are_looked_at_in_pieces() {
    for shift in 0..5 {
        let text = format!("\"{}{}\"", "x".repeat(shift), "ä€😀\\n".repeat(20_000));
        assert_eq!(walk(text.as_bytes()), Ok(0..text.len()));
        let raw = &text.as_bytes()[1..text.len() - 1];
        let unescaped = block_on(unescape(raw, &mut Pace::default()));
        assert_eq!(unescaped, serde_json::from_str::<String>(&text).expect("JSON").into_bytes());
        // Cut within the last character.
        let cut = [&text.as_bytes()[..text.len() - 4], b"\""].concat();
        assert!(walk(&cut).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        walk(&text).ok();
    }

    #[test]
    fn it_agrees_with_serde_json(text in r#"[\[\]{}:,"a01.e \\u\-+dnulltrue]{0,32}"#) {
        let theirs = serde_json::from_str::<Value>(&text);
        // A number beyond every range is JSON all the same.
        let is_json = theirs.as_ref().map_or_else(|error| error.to_string().contains("out of range"), |_| true);
        if !is_json || theirs.is_ok() {
            prop_assert_eq!(walk(text.as_bytes()).is_ok(), is_json, "{}", text);
        }
    }

    #[test]
    fn what_serde_json_writes_is_walked_and_unescaped(text in ".{0,40}", number: i64, float: f64) {
        let value = serde_json::json!([{"a": text, "b": [number, float, null]}, text]);
        for written in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
            prop_assert_eq!(walk(written.as_bytes()), Ok(0..written.len()));
        }
        let written = Value::from(text.as_str()).to_string();
        let raw = &written.as_bytes()[1..written.len() - 1];
        prop_assert_eq!(block_on(unescape(raw, &mut Pace::default())), text.into_bytes());
    }
}
