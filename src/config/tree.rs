//! A configuration as a tree whose every value knows where it was given.

use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Origin;
use crate::domain::format::secret;

/// A value and where it was given.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Clone)]
pub(super) enum Value {
    /// Text of the environment or of a flag: read as what its key asks for.
    Raw(String),
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// No key takes one.
    Datetime,
    List(Vec<Node>),
    Table(Table),
}

/// Keys and their values.
pub(super) type Table = BTreeMap<String, Node>;

/// Shows no value: it may be a secret.
impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Node({})", self.origin)
    }
}

impl Node {
    /// The table that it is, if it is one.
    pub(super) const fn as_table(&self) -> Option<&Table> {
        if let Value::Table(table) = &self.value { Some(table) } else { None }
    }
}

/// A key's full name as TOML writes it: dotted, with quotes where they are needed, and without a password in an origin.
pub(super) fn dotted(path: &[impl AsRef<str>]) -> String {
    let quoted = |segment: &str| {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !segment.is_empty() && segment.bytes().all(bare) {
            segment.to_owned()
        } else {
            format!("{:?}", secret::unreadable(segment))
        }
    };
    path.iter().map(|segment| quoted(segment.as_ref())).collect::<Vec<_>>().join(".")
}

/// Lays one table over another: tables are merged, anything else replaces what was there.
pub(super) fn overlay(base: &mut Table, over: Table) {
    for (key, node) in over {
        match (base.get_mut(&key), node) {
            (Some(Node { value: Value::Table(below), .. }), Node { value: Value::Table(above), .. }) => {
                overlay(below, above);
            }
            (_, node) => {
                base.insert(key, node);
            }
        }
    }
}

/// The value at a path.
pub(super) fn find<'a>(table: &'a Table, path: &[impl AsRef<str>]) -> Option<&'a Node> {
    let (last, parents) = path.split_last()?;
    let mut table = table;
    for segment in parents {
        table = table.get(segment.as_ref())?.as_table()?;
    }
    table.get(last.as_ref())
}

/// Puts a value at a path, with tables on the way to it. What stands in the way and is no table is replaced.
pub(super) fn insert(table: &mut Table, path: &[impl AsRef<str>], node: Node) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut over = Table::from([(last.as_ref().to_owned(), node)]);
    for segment in parents.iter().rev() {
        let origin = over.values().next().map_or(Origin::BuiltIn { line: 0 }, |node| node.origin.clone());
        let parent = Node { origin, value: Value::Table(over) };
        over = Table::from([(segment.as_ref().to_owned(), parent)]);
    }
    overlay(table, over);
}

/// Takes the value at a path away.
pub(super) fn remove(table: &mut Table, path: &[impl AsRef<str>]) -> Option<Node> {
    let (last, parents) = path.split_last()?;
    let mut table = table;
    for segment in parents {
        let Value::Table(inner) = &mut table.get_mut(segment.as_ref())?.value else { return None };
        table = inner;
    }
    table.remove(last.as_ref())
}

/// Reads a TOML file. `origin` makes the origin of a line. Gives everything that is no TOML with its line.
pub(super) fn parse(text: &str, origin: &impl Fn(usize) -> Origin) -> Result<Table, Vec<(usize, String)>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = TomlReader::new(text, origin);
    for error in errors {
        reader.fail(error.span().map_or(0, |span| span.start), error.message());
    }
    let table = reader.table(table.into_inner());
    if reader.errors.is_empty() { Ok(table) } else { Err(reader.errors) }
}

/// Reads one TOML value, a list or a table for example, all of the same origin.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    let same = |_| origin.clone();
    let mut reader = TomlReader::new(text, &same);
    let node = reader.node(value, 0);
    reader.errors.is_empty().then_some(node)
}

struct TomlReader<'a, F> {
    /// Where each line begins but the first.
    line_starts: Vec<usize>,
    origin: &'a F,
    errors: Vec<(usize, String)>,
}

impl<'a, F: Fn(usize) -> Origin> TomlReader<'a, F> {
    fn new(text: &str, origin: &'a F) -> Self {
        let line_starts = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        Self { line_starts, origin, errors: Vec::new() }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.line_starts.partition_point(|start| *start <= offset)
    }

    fn fail(&mut self, offset: usize, message: &str) {
        let line = self.line(offset);
        self.errors.push((line, format!("is no valid TOML: {}", message.replace('\n', ", "))));
    }

    fn table(&mut self, table: DeTable<'_>) -> Table {
        let mut nodes = Table::new();
        for (key, value) in table {
            let offset = key.span().start;
            nodes.insert(key.into_inner().into_owned(), self.node(value, offset));
        }
        nodes
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>, offset: usize) -> Node {
        let origin = (self.origin)(self.line(offset));
        let value = match value.into_inner() {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(number) => {
                Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or_else(|_| {
                    self.fail(offset, "an integer lies between -2^63 and 2^63 - 1");
                    0
                }))
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or_else(|_| {
                self.fail(offset, "a number that cannot be read");
                0.0
            })),
            DeValue::Boolean(boolean) => Value::Boolean(boolean),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(array) => Value::List(
                array
                    .into_iter()
                    .map(|element| {
                        let offset = element.span().start;
                        self.node(element, offset)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { origin, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(line: usize) -> Origin {
        Origin::File { path: "test.toml".into(), line }
    }

    fn lines(text: &str) -> Vec<(usize, String)> {
        parse(text, &origin).expect_err("must be refused")
    }

    #[test]
    fn every_value_knows_its_line_however_the_key_is_written() {
        let text = "[a]\nb = 1\nc.d = 'x'\n[a.e]\nf = [\n  1,\n  2,\n]\ng = { h = true, i.j = 0.5 }\n";
        let table = parse(text, &origin).expect("valid");
        for (path, line) in
            [("a b", 2), ("a c d", 3), ("a e", 4), ("a e f", 5), ("a e g h", 9), ("a e g i j", 9)]
        {
            let path: Vec<_> = path.split(' ').collect();
            assert_eq!(find(&table, &path).expect("there").origin, origin(line), "{path:?}");
        }
        let Value::List(list) = &find(&table, &["a", "e", "f"]).expect("there").value else {
            panic!("no list")
        };
        assert_eq!(list.iter().map(|node| node.origin.clone()).collect::<Vec<_>>(), [origin(6), origin(7)]);
    }

    #[test]
    fn everything_that_is_no_toml_is_named_with_its_line_and_without_its_text() {
        let errors = lines("a = 1\na = 2\nsecret = \"whsec_abc\nb = 99999999999999999999\n");
        assert_eq!(errors.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4], "{errors:?}");
        assert!(errors.iter().all(|(_, message)| !message.contains("whsec")), "{errors:?}");
        assert_eq!(errors[2].1, "is no valid TOML: an integer lies between -2^63 and 2^63 - 1");
    }

    #[test]
    fn tables_are_merged_and_all_else_is_replaced() {
        let mut base = parse("a.b = 1\na.c = [1, 2]\nd = 1", &origin).expect("valid");
        overlay(&mut base, parse("\n\na.c = [3]\nd.e = 1", &origin).expect("valid"));
        assert_eq!(find(&base, &["a", "b"]).expect("kept").origin, origin(1));
        assert!(
            matches!(&find(&base, &["a", "c"]).expect("there").value, Value::List(list) if list.len() == 1)
        );
        assert_eq!(find(&base, &["d", "e"]).expect("replaced").origin, origin(4));
        assert!(remove(&mut base, &["a", "b"]).is_some());
        assert!(find(&base, &["a", "b"]).is_none());
        assert!(remove(&mut base, &["x", "y"]).is_none());
    }

    #[test]
    fn a_key_is_shown_as_toml_writes_it() {
        assert_eq!(dotted(&["queues", "mail-1", "retry"]), "queues.mail-1.retry");
        assert_eq!(dotted(&["queues", "a.b", ""]), r#"queues."a.b"."""#);
        assert_eq!(dotted(&["lanes", "http://[::1]:8080", "rate"]), r#"lanes."http://[::1]:8080".rate"#);
        assert_eq!(dotted(&["lanes", "http://u:pw@a.example"]), r#"lanes."http://***@a.example""#);
    }
}
