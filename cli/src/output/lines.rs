//! Lines of a picture: pieces of text with a meaning each, cut to the width that there is.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Tone;

/// One line of a picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pieces: Vec<(Tone, String)>,
}

impl Line {
    /// Returns an empty line.
    pub(crate) const fn new() -> Self {
        Self { pieces: Vec::new() }
    }

    /// Returns the line with `text` behind it. What would break the line or steer the terminal becomes a space.
    pub(crate) fn add(mut self, tone: Tone, text: impl AsRef<str>) -> Self {
        let text: String = text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if !text.is_empty() {
            self.pieces.push((tone, text));
        }
        self
    }

    /// Returns the line with `text` of no special meaning behind it.
    pub(crate) fn text(self, text: impl AsRef<str>) -> Self {
        self.add(Tone::Plain, text)
    }

    /// Returns the line with another one behind it.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.pieces.extend(other.pieces);
        self
    }

    /// Returns how many columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| text.width()).sum()
    }

    /// Returns the line with spaces behind it up to `width` columns.
    pub(crate) fn pad(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        self.text(" ".repeat(missing))
    }

    /// Returns the line cut to `width` columns, with `…` at its end if something was cut.
    pub(crate) fn fit(self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut room = width.saturating_sub(1);
        let mut cut = Self::new();
        for (tone, text) in self.pieces {
            let mut kept = String::new();
            let mut full = false;
            for c in text.chars() {
                let columns = c.width().unwrap_or(0);
                if columns > room {
                    full = true;
                    break;
                }
                room -= columns;
                kept.push(c);
            }
            cut = cut.add(tone, kept);
            if full {
                return if width > 0 { cut.add(Tone::Faint, "…") } else { cut };
            }
        }
        cut
    }

    /// Returns it as text, with colours or without.
    pub(crate) fn render(&self, colours: bool) -> String {
        let piece = |(tone, text): &(Tone, String)| if colours { tone.paint(text) } else { text.clone() };
        let text: String = self.pieces.iter().map(piece).collect();
        // Spaces at the end of a line are of no use to anybody.
        if colours { text } else { text.trim_end().to_owned() }
    }
}

/// Returns `text` as one line of at most `width` columns, with `…` at its end if something was cut.
pub(crate) fn cut(text: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if text.width() > width => Line::new().text(text).fit(width).render(false),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_the_columns_that_there_are() {
        let line = Line::new().text("ab").add(Tone::Good, "cdef");
        assert_eq!(line.width(), 6);
        assert_eq!(line.clone().fit(6).render(false), "abcdef");
        assert_eq!(line.clone().fit(4).render(false), "abc…");
        assert_eq!(line.clone().fit(1).render(false), "…");
        assert_eq!(line.clone().fit(0).render(false), "");
        assert_eq!(line.clone().pad(8).width(), 8);
        assert_eq!(line.fit(3).render(true), "ab\u{1b}[2m…\u{1b}[0m");
        // Letters of double width are counted as what they are.
        let wide = Line::new().text("設定変更");
        assert_eq!((wide.width(), wide.fit(6).render(false).as_str()), (8, "設定…"));
    }

    #[test]
    fn nothing_in_a_text_steers_the_terminal() {
        assert_eq!(Line::new().text("a\u{1b}[2Jb\nc").render(true), "a [2Jb c");
    }
}
