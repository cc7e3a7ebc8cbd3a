//! A table: columns that stand under one another, numbers right, colours only where a terminal sees them.

use std::fmt::Write as _;

use anstyle::Style;

use crate::cli::output::{PLAIN, STRONG, styled, tame};

/// The most characters of a text of unknown length; the rest is cut off, `--json` has it whole.
const TEXT_MAX: usize = 72;

/// One cell.
pub(super) struct Cell {
    text: String,
    style: Style,
    is_number: bool,
}

impl Cell {
    /// A text, which stands left.
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        let mut text = tame(text.as_ref());
        if let Some((at, _)) = text.char_indices().nth(TEXT_MAX) {
            text.truncate(at);
            text.push('…');
        }
        Self { text, style: PLAIN, is_number: false }
    }

    /// A number, which stands right; `-` for one that is not known.
    pub(super) fn number(number: Option<impl ToString>) -> Self {
        let text = number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        Self { text, style: PLAIN, is_number: true }
    }

    /// The same in a style.
    pub(super) const fn styled(mut self, style: Style) -> Self {
        self.style = style;
        self
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}

/// A table under construction.
pub(super) struct Table {
    titles: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(titles: &[&'static str]) -> Self {
        Self { titles: titles.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.titles.len(), "a cell for each title");
        self.rows.push(cells);
    }

    /// The lines, with colours.
    pub(super) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.chain([self.titles[column].len()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.titles.len()).map(width).collect();
        let is_number = |column: usize| self.rows.first().is_some_and(|row| row[column].is_number);
        let titles = self.titles.iter().enumerate().map(|(column, title)| Cell {
            text: (*title).to_owned(),
            style: STRONG,
            is_number: is_number(column),
        });
        let titles: Vec<Cell> = titles.collect();
        let mut text = String::new();
        for row in [&titles].into_iter().chain(&self.rows) {
            write_row(&mut text, row, &widths);
        }
        text
    }
}

fn write_row(text: &mut String, row: &[Cell], widths: &[usize]) {
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.text.chars().count());
        let shown = styled(cell.style, &cell.text);
        let gap = if column == 0 { "" } else { "  " };
        let result = match (cell.is_number, column + 1 == row.len()) {
            (true, _) => write!(text, "{gap}{padding}{shown}"),
            (false, true) => write!(text, "{gap}{shown}"),
            (false, false) => write!(text, "{gap}{shown}{padding}"),
        };
        result.expect("writing to a String cannot fail");
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// Names and values under one another, without a title.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = pairs.iter().map(|(name, value)| {
        let padding = " ".repeat(width - name.len());
        format!("{}{padding}  {}\n", styled(STRONG, name), tame(value))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_stand_under_one_another_and_numbers_right() {
        let mut table = Table::new(&["QUEUE", "PENDING", "STATE"]);
        table.row(vec!["orders".into(), Cell::number(Some(12_345_678)), "ok".into()]);
        table.row(vec!["ü".into(), Cell::number(None::<u64>), "".into()]);
        let expected = "QUEUE    PENDING  STATE\norders  12345678  ok\nü              -\n";
        assert_eq!(plain(&table.render()), expected);
        assert_eq!(pairs(&[("id", "1".to_owned()), ("queue", "a\nb".to_owned())]).lines().count(), 2);
    }

    #[test]
    fn a_long_text_is_cut_and_an_order_to_the_terminal_is_none() {
        let cell = Cell::text("x".repeat(TEXT_MAX + 1));
        assert_eq!(cell.text.chars().count(), TEXT_MAX + 1);
        assert!(cell.text.ends_with('…'));
        assert_eq!(Cell::text("x".repeat(TEXT_MAX)).text.len(), TEXT_MAX);
        assert_eq!(Cell::text("\u{1b}c").text, "\\u{1b}c");
    }
}
