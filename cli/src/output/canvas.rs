//! A picture that is painted again and again in the same place of a terminal.

use std::io;

use super::{Output, lines::Line};

/// What a terminal is taken for that does not tell its size: columns and rows.
const USUAL: (u16, u16) = (80, 24);

/// The place of a picture: the last lines of what is on the terminal.
#[derive(Debug)]
pub(crate) struct Canvas {
    output: Output,
    /// How wide the lines are that were painted last.
    painted: Vec<usize>,
    columns: usize,
}

impl Canvas {
    /// Returns a canvas that shows nothing yet.
    pub(crate) const fn new(output: Output) -> Self {
        Self { output, painted: Vec::new(), columns: 0 }
    }

    /// Returns how many columns and rows a picture may take now.
    pub(crate) fn size() -> (usize, usize) {
        let (columns, rows) = super::terminal_size().unwrap_or(USUAL);
        // A line as wide as the terminal would be broken by some, and the cursor stands below the last one.
        (usize::from(columns).saturating_sub(1), usize::from(rows).saturating_sub(1))
    }

    /// Paints `lines` in place of those that were painted before. What does not fit below each other is left out.
    pub(crate) fn paint(&mut self, lines: &[Line]) -> io::Result<()> {
        let (columns, rows) = Self::size();
        let text = self.frame(lines, (columns, rows), self.output.in_colour());
        self.output.steer(&text)
    }

    /// Returns what to send to a terminal of this size.
    fn frame(&mut self, lines: &[Line], (columns, rows): (usize, usize), colours: bool) -> String {
        // On a terminal that became narrower, lines of before take more than one row each.
        let taken: usize = self.painted.iter().map(|width| width.div_ceil((columns + 1).max(1)).max(1)).sum();
        let up = taken.min(rows);
        let mut text = "\r".to_owned();
        if up > 0 {
            text.push_str(&format!("\u{1b}[{up}A"));
        }
        if columns != self.columns {
            text.push_str("\u{1b}[J");
        }
        self.painted.clear();
        for line in lines.iter().take(rows) {
            let line = line.clone().fit(columns);
            self.painted.push(line.width());
            // Each line is cleared only behind what is new, so that nothing flickers.
            text.push_str(&line.render(colours));
            text.push_str("\u{1b}[K\r\n");
        }
        text.push_str("\u{1b}[J");
        self.columns = columns;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, Tone};

    fn lines(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| Line::new().add(Tone::Good, text)).collect()
    }

    #[test]
    fn a_picture_is_painted_over_the_one_before() {
        let mut canvas = Canvas::new(Output::new(Format::Table));
        let first = canvas.frame(&lines(&["one", "two"]), (20, 10), false);
        assert_eq!(first, "\r\u{1b}[Jone\u{1b}[K\r\ntwo\u{1b}[K\r\n\u{1b}[J");
        let second = canvas.frame(&lines(&["three"]), (20, 10), false);
        assert_eq!(second, "\r\u{1b}[2Athree\u{1b}[K\r\n\u{1b}[J");
        let third = canvas.frame(&lines(&["four"]), (20, 10), true);
        assert_eq!(third, "\r\u{1b}[1A\u{1b}[32mfour\u{1b}[0m\u{1b}[K\r\n\u{1b}[J");
    }

    #[test]
    fn a_terminal_that_became_smaller_is_not_painted_beyond() {
        let mut canvas = Canvas::new(Output::new(Format::Table));
        canvas.frame(&lines(&["0123456789012345678", "b"]), (20, 10), false);
        // The first of the two takes two rows of ten columns now.
        let narrow = canvas.frame(&lines(&["0123456789012345678", "b"]), (9, 10), false);
        assert_eq!(narrow, "\r\u{1b}[3A\u{1b}[J01234567…\u{1b}[K\r\nb\u{1b}[K\r\n\u{1b}[J");
        let low = canvas.frame(&lines(&["a", "b", "c"]), (9, 2), false);
        assert_eq!(low, "\r\u{1b}[2Aa\u{1b}[K\r\nb\u{1b}[K\r\n\u{1b}[J");
    }
}
