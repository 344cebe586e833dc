//! Tables for people: columns as wide as their widest cell.

/// A table under construction.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading, or without when it is empty.
    pub(super) fn new(heading: &[&str]) -> Self {
        let rows = if heading.is_empty() {
            Vec::new()
        } else {
            vec![heading.iter().map(|&cell| cell.to_owned()).collect()]
        };
        Self { rows }
    }

    /// Adds a row. What callers chose (names, addresses) cannot move the terminal's cursor.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The text.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

/// Text without control characters; an empty one as a dash, so that columns stay countable.
pub(super) fn printable(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_control_characters_are_shown_as_marks() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(vec!["conference-1".to_owned(), String::new()]);
        table.row(vec!["x".to_owned(), "Zoë\u{1b}[2J".to_owned()]);
        assert_eq!(
            table.render(),
            "ID            NAME\nconference-1  -\nx             Zoë?[2J\n"
        );
    }
}
