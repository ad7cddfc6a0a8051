//! What people and programs see: formats, colour, width and exit codes.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;
use serde_json::Value;

pub(crate) mod ages;
pub(crate) mod canvas;
pub(crate) mod diffs;
pub(crate) mod lines;
pub(crate) mod progress;
pub(crate) mod tables;
pub(crate) mod watch;

use tables::Table;

/// How a command ended, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done = 0,
    /// It was tried and went wrong.
    Failed = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The control plane refused.
    Refused = 4,
    /// The control plane cannot be reached.
    Unreachable = 5,
    /// There are differences, and the command was asked to say so.
    Differences = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The shape of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    // Not documentation comments: those would take six lines in the help of every command.
    // Columns for people.
    #[default]
    Table,
    // More columns, not cut to the terminal.
    Wide,
    // JSON, as the API answers it.
    Json,
    // YAML; a list is a stream of documents.
    Yaml,
    // One `kind/name` a line.
    Name,
}

/// The meaning of a piece of text, shown as colour where there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On the way, or worth a look.
    Care,
    /// Wrong.
    Bad,
    /// Of little weight.
    Faint,
    /// A heading.
    Strong,
}

impl Tone {
    /// Returns `text` between the escape codes of the tone.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Care => "33",
            Self::Bad => "31",
            Self::Faint => "2",
            Self::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// What one command has to show, in every format at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    data: Value,
    names: Vec<String>,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
enum Block {
    Text(String),
    Table(Table),
}

impl View {
    /// Returns a view whose JSON and YAML are `data`.
    pub(crate) fn new(data: &impl Serialize) -> Self {
        // Wire types are maps with text keys; writing them cannot fail.
        Self { data: serde_json::to_value(data).unwrap_or_default(), ..Self::default() }
    }

    /// Returns the view with one more name for `-o name`.
    pub(crate) fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Returns the view with a paragraph more for people; it may hold colour.
    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Text(text.into()));
        self
    }

    /// Returns the view with a table more for people.
    pub(crate) fn table(mut self, table: Table) -> Self {
        self.blocks.push(Block::Table(table));
        self
    }

    /// Returns the view as it is printed in `format`, at most `width` columns wide where that is known.
    pub(crate) fn render(&self, format: Format, width: Option<u16>) -> String {
        match format {
            Format::Json => format!("{:#}\n", self.data),
            Format::Yaml => yaml_stream(&self.data),
            Format::Name => self.names.iter().map(|name| format!("{name}\n")).collect(),
            Format::Table | Format::Wide => {
                let wide = format == Format::Wide;
                let width = if wide { None } else { width };
                self.blocks
                    .iter()
                    .map(|block| match block {
                        Block::Text(text) => format!("{}\n", text.trim_end_matches('\n')),
                        Block::Table(table) => table.render(wide, width),
                    })
                    .collect()
            }
        }
    }
}

/// Returns `value` as YAML; `{items: [...]}` becomes one document for each item.
fn yaml_stream(value: &Value) -> String {
    let items =
        value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("items")).and_then(Value::as_array);
    match items {
        Some(items) => items.iter().map(yaml).collect::<Vec<_>>().join("---\n"),
        None => yaml(value),
    }
}

/// Returns `value` as one YAML document.
pub(crate) fn yaml(value: &Value) -> String {
    // JSON is always writable as YAML.
    serde_yaml::to_string(value).unwrap_or_default()
}

/// Where a command's output goes, and how it looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// The format that was asked for.
    pub(crate) format: Format,
}

impl Output {
    /// Returns an output in `format` to the process's standard streams.
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether people read the output, rather than programs.
    pub(crate) const fn for_people(self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Whether standard output is a terminal.
    #[expect(clippy::unused_self, reason = "reads as a property of the output")]
    pub(crate) fn is_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether standard output is a terminal on which people see a picture painted again and again in its place.
    pub(crate) fn repaints(self) -> bool {
        let moves = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        self.for_people() && self.is_terminal() && moves
    }

    /// Whether colours are seen on standard output: it is a terminal, and nobody said that he wants none.
    #[expect(clippy::unused_self, reason = "reads as a property of the output")]
    pub(crate) fn in_colour(self) -> bool {
        AutoStream::choice(&io::stdout()) != ColorChoice::Never
    }

    /// Sends `text` to the terminal as it is, whether or not colours are wanted: where the cursor stands is no colour.
    #[expect(clippy::unused_self, reason = "the one way to the terminal")]
    pub(crate) fn steer(self, text: &str) -> io::Result<()> {
        let mut stream = io::stdout().lock();
        stream.write_all(text.as_bytes())?;
        stream.flush()
    }

    /// Prints `view` in the format.
    pub(crate) fn show(self, view: &View) -> io::Result<()> {
        self.raw(&view.render(self.format, terminal_width()))
    }

    /// Prints a line, colour included only where it can be seen.
    pub(crate) fn line(self, text: &str) -> io::Result<()> {
        self.raw(&format!("{text}\n"))
    }

    /// Prints `text` as it is, colour included only where it can be seen.
    #[expect(clippy::unused_self, reason = "the one way to standard output")]
    pub(crate) fn raw(self, text: &str) -> io::Result<()> {
        let mut stream = AutoStream::auto(io::stdout());
        stream.write_all(text.as_bytes())?;
        stream.flush()
    }

    /// Prints a line to standard error, for people only; failures are ignored.
    pub(crate) fn note(self, text: &str) {
        if self.for_people() {
            warn(text);
        }
    }
}

/// Prints a line to standard error; a closed stream is not an error.
pub(crate) fn warn(text: &str) {
    let mut stream = AutoStream::auto(io::stderr());
    // Nobody is left to tell when standard error is closed.
    let _closed = writeln!(stream, "{text}");
}

/// Returns the width of the terminal that standard output is, or `None` if it is not one.
pub(crate) fn terminal_width() -> Option<u16> {
    terminal_size().map(|(columns, _)| columns)
}

/// Returns how many columns and rows the terminal has that standard output is, or `None` if it is not one.
pub(crate) fn terminal_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col >= 20).then_some((size.ws_col, if size.ws_row == 0 { 24 } else { size.ws_row }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_yaml_streams_and_json_lists() {
        let view = View::new(&json!({"items": [{"a": 1}, {"a": 2}]})).name("host/a").name("host/b");
        assert_eq!(view.render(Format::Yaml, None), "a: 1\n---\na: 2\n");
        assert_eq!(view.render(Format::Name, None), "host/a\nhost/b\n");
        let json: Value = serde_json::from_str(&view.render(Format::Json, None)).expect("json");
        assert_eq!(json["items"][1]["a"], 2);
    }

    #[test]
    fn blocks_end_with_one_newline() {
        let view = View::new(&json!({})).text("one\n\n").text("two");
        assert_eq!(view.render(Format::Table, None), "one\ntwo\n");
    }
}
