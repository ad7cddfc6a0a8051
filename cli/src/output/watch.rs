//! Looking again and again: redrawn on a terminal, appended elsewhere.

use std::{collections::HashSet, io, time::Duration};

use super::{Format, Output, View, terminal_width};

/// How long to wait before looking again.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// What was shown last, and how to show what comes next.
#[derive(Debug)]
pub(crate) struct Watch {
    output: Output,
    last: Option<String>,
}

impl Watch {
    /// Returns a watch that has shown nothing.
    pub(crate) const fn new(output: Output) -> Self {
        Self { output, last: None }
    }

    /// Shows `view` if it is not what was shown before: on a terminal instead of it, elsewhere only the new lines.
    pub(crate) fn show(&mut self, view: &View) -> io::Result<()> {
        let redraw = self.output.repaints();
        let text = view.render(self.output.format, terminal_width());
        if self.last.as_ref() == Some(&text) {
            return Ok(());
        }
        if redraw {
            // To the top left; then clear what the new text does not cover.
            self.output.steer("\u{1b}[H\u{1b}[2J")?;
            self.output.raw(&text)?;
        } else {
            self.output.raw(&news(self.last.as_deref(), &text, self.output.format))?;
        }
        self.last = Some(text);
        Ok(())
    }
}

/// Returns what of `text` is worth printing after `last`: lines that were not in it, or for JSON and YAML all of it.
fn news(last: Option<&str>, text: &str, format: Format) -> String {
    match (last, format) {
        (Some(_), Format::Yaml) => format!("---\n{text}"),
        (None, _) | (Some(_), Format::Json) => text.to_owned(),
        (Some(last), _) => {
            let before: HashSet<_> = last.lines().collect();
            text.lines().filter(|line| !before.contains(line)).map(|line| format!("{line}\n")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_lines_are_appended() {
        assert_eq!(news(None, "H\na 1\n", Format::Table), "H\na 1\n");
        assert_eq!(news(Some("H\na 1\nb 1\n"), "H\na 2\nb 1\n", Format::Table), "a 2\n");
        assert_eq!(news(Some("{}\n"), "{\"a\": 1}\n", Format::Json), "{\"a\": 1}\n");
    }
}
