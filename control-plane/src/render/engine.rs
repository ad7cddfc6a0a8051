//! The engine: one template, compiled, rendered from one context after another.
//!
//! Plain data in, a bundle out. It bounds steps, depth and output; memory and time are the business of whoever runs it
//! ([`super::worker`]).

use std::{collections::BTreeMap, io};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, syntax::SyntaxConfig};
use titan_api::{
    limits::BUNDLE_BYTES,
    poll::{Bundle, BundleFile},
    templates::{MANIFEST, RENDERED, TemplateFile, TemplateManifest, TemplateSpec, check_path},
};

use super::{
    bounds,
    failure::{Failure, NAME_OF},
    filters, lexer,
    lexer::Code,
    manifest,
};

/// Instructions that one file may take.
pub const STEPS: u64 = 1_000_000;
/// Includes and macros inside each other.
const DEPTH: usize = 100;

/// A template, ready to be rendered.
#[derive(Debug)]
pub struct Engine {
    environment: Environment<'static>,
    manifest: TemplateManifest,
    entries: Vec<Entry>,
}

/// One file of the output.
#[derive(Debug)]
struct Entry {
    /// The file in the template.
    source: String,
    /// The path in the output, or the name under which the environment knows the expression for it.
    path: Path,
    body: Body,
    executable: bool,
}

#[derive(Debug)]
enum Path {
    Fixed(String),
    Rendered(String),
}

#[derive(Debug)]
enum Body {
    Fixed(TemplateFile),
    Rendered,
}

/// A file of a template that holds code: its text, or its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The file.
    pub file: String,
    /// What the environment calls it.
    pub name: String,
    /// The text.
    pub text: String,
    /// The code in it.
    pub code: Vec<Code>,
}

/// Returns everything in `spec` that holds code, or what is wrong with it.
pub fn sources(spec: &TemplateSpec) -> Result<Vec<Source>, Vec<Failure>> {
    let mut sources = Vec::new();
    let mut failures = Vec::new();
    for (path, file) in spec.files.iter().filter(|(path, _)| *path != MANIFEST) {
        let mut texts = Vec::new();
        if has_code(path) {
            texts.push((format!("{NAME_OF}{path}"), stem(path).to_owned()));
        }
        if path.ends_with(RENDERED) {
            match file.bytes().map(String::from_utf8) {
                Ok(Ok(text)) => texts.push((path.clone(), text)),
                _ => failures.push(Failure::new(path, "a file that is rendered must be UTF-8 text")),
            }
        }
        for (name, text) in texts {
            let in_name = name != *path;
            let checked = lexer::code(&text).and_then(|code| bounds::check(&code).map(|()| code));
            match checked {
                Ok(code) => sources.push(Source { file: path.clone(), name, text, code }),
                Err(error) => {
                    let failure = Failure::new(path, error.message).line(Some(error.line));
                    failures.push(if in_name { failure.in_name() } else { failure });
                }
            }
        }
    }
    if failures.is_empty() { Ok(sources) } else { Err(failures) }
}

/// Whether a file is only there for others to include: its name begins with `_` and it would be rendered.
fn is_partial(path: &str) -> bool {
    path.ends_with(RENDERED) && path.rsplit('/').next().is_some_and(|name| name.starts_with('_'))
}

fn has_code(path: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|marker| path.contains(marker))
}

fn stem(path: &str) -> &str {
    path.strip_suffix(RENDERED).unwrap_or(path)
}

impl Engine {
    /// Returns `spec` compiled. `sources` are its own, as [`sources`] returned them.
    pub fn new(spec: &TemplateSpec, manifest: TemplateManifest, sources: Vec<Source>) -> Result<Self, Vec<Failure>> {
        let mut environment = language();
        let mut failures: Vec<Failure> = sources
            .into_iter()
            .filter_map(|source| environment.add_template_owned(source.name, source.text).err())
            .map(|error| Failure::of_engine(&error))
            .collect();
        let mut entries = Vec::new();
        let mut fixed = BTreeMap::new();
        for (source, file) in spec.files.iter().filter(|(path, _)| *path != MANIFEST && !is_partial(path)) {
            let path = if has_code(source) {
                Path::Rendered(format!("{NAME_OF}{source}"))
            } else {
                let path = stem(source).to_owned();
                if let Some(other) = fixed.insert(path.clone(), source) {
                    let message = format!("{source} and {other} both come out as {path}");
                    failures.push(Failure::new(source, message));
                }
                Path::Fixed(path)
            };
            let body = if source.ends_with(RENDERED) {
                Body::Rendered
            } else {
                match file.bytes() {
                    Ok(bytes) => Body::Fixed(TemplateFile::of(bytes, file.executable)),
                    Err(detail) => {
                        failures.push(Failure::new(source, detail));
                        continue;
                    }
                }
            };
            entries.push(Entry { source: source.clone(), path, body, executable: file.executable });
        }
        if entries.is_empty() && failures.is_empty() {
            failures.push(Failure::new("", "the template has no file to put on a host"));
        }
        if failures.is_empty() { Ok(Self { environment, manifest, entries }) } else { Err(failures) }
    }

    /// Returns what the template renders to from `context`.
    pub fn render(&self, context: &Value) -> Result<Bundle, Failure> {
        let mut left = BUNDLE_BYTES;
        let mut taken: BTreeMap<(bool, String), &str> = BTreeMap::new();
        let mut files = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let path = match &entry.path {
                Path::Fixed(path) => path.clone(),
                Path::Rendered(name) => self.path(name, entry, context)?,
            };
            let (content, content_base64) = match &entry.body {
                Body::Rendered => {
                    let text =
                        self.run(&entry.source, context, left).map_err(|stopped| stopped.failure(&entry.source))?;
                    (Some(text), None)
                }
                Body::Fixed(file) => (file.content.clone(), file.content_base64.clone()),
            };
            let length = content.as_ref().or(content_base64.as_ref()).map_or(0, String::len);
            left = left.checked_sub(length).ok_or_else(|| Stopped::Output.failure(&entry.source))?;
            let settings = manifest::settings(&self.manifest, &path, entry.executable);
            let rooted = settings.destination.is_some();
            let path = match settings.destination {
                Some(destination) => format!("{destination}/{path}"),
                None => path,
            };
            check_path(&path)
                .map_err(|error| Failure::new(&entry.source, format!("the path {path:?} is refused: {error}")))?;
            if let Some(other) = taken.insert((rooted, path.clone()), &entry.source) {
                let message = format!("{} and {other} both come out as {path}", entry.source);
                return Err(Failure::new(&entry.source, message));
            }
            files.push(BundleFile {
                path,
                rooted,
                mode: settings.mode,
                owner: settings.owner,
                group: settings.group,
                content,
                content_base64,
            });
        }
        directories_are_not_files(&taken)?;
        files.sort_by(|a, b| (&a.path, a.rooted).cmp(&(&b.path, b.rooted)));
        Ok(Bundle { applier: self.manifest.applier, files })
    }

    /// Returns what the expression in a file's name comes to.
    fn path(&self, name: &str, entry: &Entry, context: &Value) -> Result<String, Failure> {
        let path = self.run(name, context, BUNDLE_BYTES).map_err(|stopped| stopped.failure(&entry.source).in_name())?;
        check_path(&path).map_err(|error| {
            Failure::new(&entry.source, format!("it comes out as {path:?}, which is refused: {error}")).in_name()
        })?;
        Ok(path)
    }

    fn run(&self, name: &str, context: &Value, most: usize) -> Result<String, Stopped> {
        let template = self.environment.get_template(name).map_err(Stopped::Engine)?;
        let mut output = Limited { bytes: Vec::new(), most, full: false };
        let rendered = template.render_captured_to(context.clone(), &mut output).map(drop);
        match rendered {
            _ if output.full => Err(Stopped::Output),
            Err(error) => Err(Stopped::Engine(error)),
            // Only whole pieces of text are written.
            Ok(()) => String::from_utf8(output.bytes).map_err(|_| Stopped::Output),
        }
    }
}

/// Why a file was not rendered to its end.
enum Stopped {
    Output,
    Engine(minijinja::Error),
}

impl Stopped {
    fn failure(&self, file: &str) -> Failure {
        match self {
            Self::Output => Failure::new(file, format!("more than {} MiB of output", BUNDLE_BYTES >> 20)),
            Self::Engine(error) => Failure::of_engine(error),
        }
    }
}

/// Returns the language of templates.
fn language() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(STEPS));
    environment.set_recursion_limit(DEPTH);
    // Without it errors do not say which name is missing.
    environment.set_debug(true);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    filters::install(&mut environment);
    environment
}

fn directories_are_not_files(taken: &BTreeMap<(bool, String), &str>) -> Result<(), Failure> {
    for ((rooted, path), source) in taken {
        for (at, _) in path.match_indices('/') {
            if let Some(other) = taken.get(&(*rooted, path[..at].to_owned())) {
                let message = format!("{other} comes out as the file {}, in which {path} would lie", &path[..at]);
                return Err(Failure::new(*source, message));
            }
        }
    }
    Ok(())
}

/// Takes bytes up to a limit.
struct Limited {
    bytes: Vec<u8>,
    most: usize,
    full: bool,
}

impl io::Write for &mut Limited {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.most - self.bytes.len() {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
