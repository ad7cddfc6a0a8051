//! The engine: one template, compiled, rendered from one context after another.
//!
//! Plain data in, a bundle out. It bounds steps, depth and output; memory and time are the business of whoever runs it
//! ([`super::worker`]).

mod layout;
mod output;

use std::{collections::BTreeMap, ops::Range};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, syntax::SyntaxConfig};
use titan_api::{
    limits::{BUNDLE_BYTES, PROBE_TEXT_BYTES},
    poll::Bundle,
    templates::{Applier, MANIFEST, RENDERED, TemplateFile, TemplateManifest, TemplateSpec, check_path},
};

use self::{layout::Layout, output::Output};
use super::{
    appliers, bounds,
    failure::{Failure, NAME_OF},
    filters, lexer,
    lexer::Code,
    upkeep::{Declared, Upkeep},
};

/// Instructions that one file may take.
pub const STEPS: u64 = 1_000_000;
/// Includes and macros inside each other.
const DEPTH: usize = 100;
/// The end of a bundle as JSON.
const CLOSING: &[u8] = b"]}";

/// A template, ready to be rendered.
#[derive(Debug)]
pub struct Engine {
    environment: Environment<'static>,
    manifest: TemplateManifest,
    entries: Vec<Entry>,
    opening: Opening,
    /// Where the files go, if no path has to be rendered for that.
    places: Option<Places>,
}

/// What a [`Layout`] said of the files.
#[derive(Debug)]
struct Places {
    each: Vec<Result<Vec<u8>, Failure>>,
    order: Result<Option<Vec<usize>>, Failure>,
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

/// A bundle as JSON up to its first file.
#[derive(Debug)]
enum Opening {
    Fixed(Vec<u8>),
    /// It is made of what expressions in the manifest come out as.
    Rendered(Declared),
}

#[derive(Debug)]
enum Body {
    /// The content as it follows a file's place in JSON, and its length by itself.
    Fixed(Vec<u8>, usize),
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

/// Returns the code in a text, if it is cheap to compile.
pub fn code(text: &str) -> Result<Vec<Code>, lexer::LexError> {
    lexer::code(text).and_then(|code| bounds::check(&code).map(|()| code))
}

/// Returns everything in `spec` that holds code, or what is wrong with it. `upkeep` is what its manifest says of that.
pub fn sources(spec: &TemplateSpec, upkeep: &Declared) -> Result<Vec<Source>, Vec<Failure>> {
    let (mut sources, mut failures) =
        upkeep.sources().map_or_else(|failures| (Vec::new(), failures), |sources| (sources, Vec::new()));
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
            match code(&text) {
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

/// Whether a text would be rendered.
pub fn has_code(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|marker| text.contains(marker))
}

fn stem(path: &str) -> &str {
    path.strip_suffix(RENDERED).unwrap_or(path)
}

impl Engine {
    /// Returns `spec` compiled. `sources` are its own, as [`sources`] returned them.
    pub fn new(
        spec: &TemplateSpec,
        manifest: TemplateManifest,
        upkeep: Declared,
        sources: Vec<Source>,
    ) -> Result<Self, Vec<Failure>> {
        let mut environment = language();
        let mut failures: Vec<Failure> = sources
            .into_iter()
            .filter_map(|source| environment.add_template_owned(source.name, source.text).err())
            .map(|error| upkeep.placed(Failure::of_engine(&error)))
            .collect();
        let mut entries = Vec::new();
        let mut paths = BTreeMap::new();
        for (source, file) in spec.files.iter().filter(|(path, _)| *path != MANIFEST && !is_partial(path)) {
            let path = if has_code(source) {
                Path::Rendered(format!("{NAME_OF}{source}"))
            } else {
                let path = stem(source).to_owned();
                if let Some(other) = paths.insert(path.clone(), source) {
                    let message = format!("{source} and {other} both come out as {path}");
                    failures.push(Failure::new(source, message));
                }
                Path::Fixed(path)
            };
            let body = if source.ends_with(RENDERED) {
                Body::Rendered
            } else {
                match fixed(file) {
                    Ok(body) => body,
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
        if !failures.is_empty() {
            return Err(failures);
        }
        let opening = match upkeep.fixed() {
            Ok(Some(fixed)) => Opening::Fixed(opening(manifest.applier, fixed).map_err(|failure| vec![failure])?),
            Ok(None) => Opening::Rendered(upkeep),
            Err(failure) => return Err(vec![failure]),
        };
        let places = places(&manifest, &entries);
        Ok(Self { environment, manifest, entries, opening, places })
    }

    /// Adds to `out` what the template renders to from `context`: a [`Bundle`] as JSON. After a failure a part of it may
    /// be there.
    pub fn render(&self, context: &Value, out: &mut Vec<u8>) -> Result<(), Failure> {
        let begun = out.len();
        match &self.opening {
            Opening::Fixed(opening) => out.extend_from_slice(opening),
            Opening::Rendered(upkeep) => {
                let upkeep = upkeep.on_host(|name| self.text(name, context, PROBE_TEXT_BYTES))?;
                out.extend(opening(self.manifest.applier, upkeep)?);
            }
        }
        let first = out.len();
        let mut left = BUNDLE_BYTES;
        let mut layout = Layout::default();
        let mut files = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let file = out.len();
            match &self.places {
                Some(places) => out.extend_from_slice(places.each[index].as_ref().map_err(Clone::clone)?),
                None => {
                    let path = self.path(entry, context)?;
                    out.extend(layout.add(&self.manifest, &entry.source, path, entry.executable)?);
                }
            }
            match &entry.body {
                Body::Rendered => {
                    out.extend_from_slice(br#","content":""#);
                    left = self
                        .run(&entry.source, context, out, left)
                        .map_err(|stopped| stopped.failure(&entry.source))?;
                    out.push(b'"');
                }
                Body::Fixed(json, length) => {
                    left = left.checked_sub(*length).ok_or_else(|| Stopped::Output.failure(&entry.source))?;
                    out.extend_from_slice(json);
                }
            }
            out.push(b'}');
            files.push(file..out.len());
        }
        let order = match &self.places {
            Some(places) => places.order.clone()?,
            None => layout.order()?,
        };
        if let Some(order) = &order {
            reorder(out, first, &files, order);
        }
        out.extend_from_slice(CLOSING);
        if let Some((file, message)) = appliers::fault(self.manifest.applier, &out[begun..]) {
            let entry = file.map(|index| order.as_ref().map_or(index, |order| order[index]));
            let source = entry.map_or("", |entry| self.entries[entry].source.as_str());
            return Err(Failure::new(source, message));
        }
        if out.len() - begun > BUNDLE_BYTES {
            return Err(Stopped::Output.failure(""));
        }
        Ok(())
    }

    /// Returns the path of a file before the manifest has its say.
    fn path(&self, entry: &Entry, context: &Value) -> Result<String, Failure> {
        let name = match &entry.path {
            Path::Fixed(path) => return Ok(path.clone()),
            Path::Rendered(name) => name,
        };
        let path = self.text(name, context, BUNDLE_BYTES).map_err(|failure| match failure.file == *name {
            true => Failure { file: entry.source.clone(), ..failure }.in_name(),
            false => failure.in_name(),
        })?;
        check_path(&path).map_err(|error| {
            Failure::new(&entry.source, format!("it comes out as {path:?}, which is refused: {error}")).in_name()
        })?;
        Ok(path)
    }

    /// Returns a short text by what the environment calls it.
    fn text(&self, name: &str, context: &Value, most: usize) -> Result<String, Failure> {
        let mut json = vec![b'"'];
        self.run(name, context, &mut json, most).map_err(|stopped| match stopped {
            Stopped::Output if most < BUNDLE_BYTES => {
                Failure::new(name, format!("it comes out as more than {most} bytes"))
            }
            stopped => stopped.failure(name),
        })?;
        json.push(b'"');
        serde_json::from_slice(&json).map_err(|error| Failure::new(name, format!("it cannot be read: {error}")))
    }

    /// Adds the text of one file to a JSON string in `out` and returns how much is left of `most` bytes.
    fn run(&self, name: &str, context: &Value, out: &mut Vec<u8>, most: usize) -> Result<usize, Stopped> {
        let template = self.environment.get_template(name).map_err(Stopped::Engine)?;
        let mut output = Output::new(out, most);
        let rendered = template.render_captured_to(context.clone(), &mut output).map(drop);
        let left = output.left().ok_or(Stopped::Output)?;
        rendered.map(|()| left).map_err(Stopped::Engine)
    }
}

/// Returns a bundle as JSON up to its first file.
fn opening(applier: Applier, Upkeep { health, hooks, drift }: Upkeep) -> Result<Vec<u8>, Failure> {
    let empty = Bundle { applier, health, hooks, drift, files: Vec::new() };
    let mut opening = serde_json::to_vec(&empty).map_err(|error| Failure::new("", format!("the bundle: {error}")))?;
    // The list of files is the last thing in it.
    opening.truncate(opening.len().saturating_sub(CLOSING.len()));
    Ok(opening)
}

/// Returns where the files go unless a path has to be rendered first.
fn places(manifest: &TemplateManifest, entries: &[Entry]) -> Option<Places> {
    let mut layout = Layout::default();
    let each = entries.iter().map(|entry| match &entry.path {
        Path::Fixed(path) => Some(layout.add(manifest, &entry.source, path.clone(), entry.executable)),
        Path::Rendered(_) => None,
    });
    let each = each.collect::<Option<Vec<_>>>()?;
    Some(Places { each, order: layout.order() })
}

/// Puts the files that lie in `out` from `first` on, with a comma between, into another order.
fn reorder(out: &mut Vec<u8>, first: usize, files: &[Range<usize>], order: &[usize]) {
    let unordered = out.split_off(first);
    for (place, index) in order.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&unordered[files[*index].start - first..files[*index].end - first]);
    }
}

/// Returns the content of a file that travels as it is.
fn fixed(file: &TemplateFile) -> Result<Body, String> {
    let (key, content) = match TemplateFile::of(file.bytes()?, false) {
        TemplateFile { content: Some(text), .. } => ("content", text),
        TemplateFile { content_base64, .. } => ("contentBase64", content_base64.unwrap_or_default()),
    };
    let json = serde_json::to_string(&content).map_err(|error| error.to_string())?;
    Ok(Body::Fixed(format!(",\"{key}\":{json}").into_bytes(), content.len()))
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

#[cfg(test)]
mod tests;
