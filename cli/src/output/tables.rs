//! Tables: one line a row, cut to the terminal, coloured by meaning.

use comfy_table::{ContentArrangement, Row, presets};

use super::Tone;

/// One cell: a text and what it means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Returns a cell of a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { tone, ..Self::from(text.into()) }
    }

    /// Returns `text`, or a dash if there is none.
    pub(crate) fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map(Into::into).filter(|text| !text.is_empty()).map_or_else(|| Self::toned("-", Tone::Faint), Self::from)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        // A row is a line: what would break it, or move the cursor, becomes a space.
        let text = if text.chars().any(char::is_control) {
            let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            plain.split_whitespace().collect::<Vec<_>>().join(" ")
        } else {
            text
        };
        Self { text, tone: Tone::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// Rows under headings. Columns marked as wide are shown with `-o wide` only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    headings: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Returns an empty table with these columns; a heading that begins with `+` is for `-o wide`.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let headings = headings.iter().map(|text| match text.strip_prefix('+') {
            Some(text) => (text, true),
            None => (*text, false),
        });
        Self { headings: headings.collect(), rows: Vec::new() }
    }

    /// Adds a row with a cell for every column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns the table with `heading` and a cell of each row as its first column.
    pub(crate) fn led_by(mut self, heading: &'static str, cells: impl IntoIterator<Item = Cell>) -> Self {
        self.headings.insert(0, (heading, false));
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.insert(0, cell);
        }
        self
    }

    /// Returns the table as text, each row on one line of at most `width` columns.
    pub(crate) fn render(&self, wide: bool, width: Option<u16>) -> String {
        let shown = |index: usize| self.headings.get(index).is_some_and(|(_, only_wide)| wide || !only_wide);
        let headings: Vec<_> = (0..self.headings.len()).filter(|i| shown(*i)).map(|i| self.headings[i].0).collect();
        let rows: Vec<Vec<&Cell>> = self
            .rows
            .iter()
            .map(|row| row.iter().enumerate().filter(|(i, _)| shown(*i)).map(|(_, cell)| cell).collect())
            .collect();
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_truncation_indicator("…").set_header(headings.clone());
        match width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for row in &rows {
            let mut line = Row::from(row.iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>());
            line.max_height(1);
            table.add_row(line);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut lines = table.lines();
        let header = lines.next().unwrap_or_default();
        let offsets = offsets(&header, &headings);
        let mut text = format!("{}\n", Tone::Faint.paint(header.trim_end()));
        for (line, row) in lines.zip(&rows) {
            text.push_str(paint(&line, row, &offsets).trim_end());
            text.push('\n');
        }
        text
    }
}

/// Returns where each heading begins in the header line, as far as it can be told.
fn offsets(header: &str, headings: &[&str]) -> Vec<Option<usize>> {
    let mut from = 0;
    headings
        .iter()
        .map(|heading| {
            let at = from + header.get(from..)?.find(heading)?;
            from = at + heading.len();
            Some(at)
        })
        .collect()
}

/// Returns `line` with the toned cells painted. Headings are ASCII, so offsets count columns; a cell that is not found
/// where its heading stands (cut off, or after characters of double width) stays plain.
fn paint(line: &str, row: &[&Cell], offsets: &[Option<usize>]) -> String {
    let mut painted = String::new();
    let mut done = 0;
    for (cell, offset) in row.iter().zip(offsets) {
        let Some(offset) = offset else { continue };
        if cell.tone == Tone::Plain || cell.text.is_empty() {
            continue;
        }
        let Some(start) = line.char_indices().nth(*offset).map(|(byte, _)| byte) else { continue };
        if start >= done && line[start..].starts_with(&cell.text) {
            painted.push_str(&line[done..start]);
            painted.push_str(&cell.tone.paint(&cell.text));
            done = start + cell.text.len();
        }
    }
    painted.push_str(&line[done..]);
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn hosts() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "+FACTS", "MESSAGE"]);
        table.row(["tim-pi".into(), Cell::toned("healthy", Tone::Good), "arch=arm".into(), "all is well".into()]);
        table.row(["a".into(), Cell::toned("failed", Tone::Bad), "".into(), Cell::maybe(None::<String>)]);
        table
    }

    #[test]
    fn columns_line_up_and_wide_ones_wait_for_wide() {
        assert_eq!(
            plain(&hosts().render(false, None)),
            "NAME    STATE    MESSAGE\ntim-pi  healthy  all is well\na       failed   -\n"
        );
        assert!(plain(&hosts().render(true, None)).starts_with("NAME    STATE    FACTS     MESSAGE\n"));
    }

    #[test]
    fn states_are_coloured_where_they_stand() {
        let text = hosts().render(false, None);
        assert!(text.contains("\u{1b}[32mhealthy\u{1b}[0m"), "{text:?}");
        assert!(text.contains("\u{1b}[31mfailed\u{1b}[0m"), "{text:?}");
    }

    #[test]
    fn every_row_is_one_line_that_fits() {
        let mut table = Table::new(&["NAME", "MESSAGE"]);
        table.row(["tim-pi".into(), "a long story ".repeat(20).into()]);
        table.row(["other".into(), "with\na break and \u{1b}[31mescapes".into()]);
        let text = plain(&table.render(false, Some(40)));
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains('…'));
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(plain(&Table::new(&["NAME"]).render(false, Some(80))), "NAME\n");
    }

    #[test]
    fn a_leading_column_goes_first() {
        let table = hosts().led_by("WORKSPACE", ["iot".into(), "default".into()]);
        assert!(plain(&table.render(false, None)).starts_with("WORKSPACE  NAME"));
    }
}
