//! Documents in files: YAML streams and JSON, whole directories, and templates beside them.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;
use titan_api::{Kind, Name, limits};

use crate::directory::{self, DirectoryError};

/// A document and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// The file and, if it holds several, which one: `fleet.yaml#3`.
    pub(crate) source: String,
    /// The document.
    pub(crate) value: Value,
}

/// Why documents cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file is too large.
    #[error("{0} is larger than {limit} bytes", limit = limits::DOCUMENT_BODY_BYTES)]
    TooLarge(String),
    /// A file is not UTF-8.
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    /// A file is neither YAML nor JSON.
    #[error("{source_name} cannot be read as YAML or JSON")]
    Malformed {
        /// The file.
        source_name: String,
        /// What the parser said, with line and column.
        #[source]
        source: serde_yaml::Error,
    },
    /// A document is not a map.
    #[error("{0} is not a document: it has to be a map with apiVersion, kind, metadata and spec")]
    NotADocument(String),
    /// There is no document at all.
    #[error("there is no document in {0}")]
    Empty(String),
    /// A template names files and a directory.
    #[error("{0}: a template has either spec.files or spec.directory")]
    Both(String),
    /// A template's directory is not below the file that names it.
    #[error(
        "{source_name}: spec.directory {directory:?} has to be a relative path that stays below the file's directory"
    )]
    Outside {
        /// The document.
        source_name: String,
        /// What it names.
        directory: String,
    },
    /// A template's directory cannot be taken.
    #[error("{source_name}: the template's directory cannot be taken: {source}")]
    Directory {
        /// The document.
        source_name: String,
        /// What is wrong.
        source: DirectoryError,
    },
    /// A document lacks what is needed to find its live one.
    #[error("{0} has no valid kind and name")]
    Unnamed(String),
}

impl ManifestError {
    /// Returns the way out.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Empty(_) => Some("name a file, a directory with *.yaml files, or - for standard input".into()),
            Self::Directory { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// Returns the documents at `path`: of a file, of every `*.yaml`, `*.yml` and `*.json` below a directory (hidden and
/// template directories left out), or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<Manifest>, ManifestError> {
    let manifests = if path == Path::new("-") {
        let text = bounded(io::stdin().lock(), "standard input", path)?;
        file("standard input", Path::new("."), &text)?
    } else if path.is_dir() {
        tree(path)?
    } else {
        let opened = fs::File::open(path).map_err(|error| ManifestError::Read(path.to_owned(), error))?;
        let text = bounded(opened, &path.display().to_string(), path)?;
        file(&path.display().to_string(), parent(path), &text)?
    };
    if manifests.is_empty() { Err(ManifestError::Empty(path.display().to_string())) } else { Ok(manifests) }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn bounded(reader: impl Read, name: &str, path: &Path) -> Result<String, ManifestError> {
    let mut bytes = Vec::new();
    reader
        .take(limits::DOCUMENT_BODY_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| ManifestError::Read(path.to_owned(), error))?;
    if bytes.len() > limits::DOCUMENT_BODY_BYTES {
        return Err(ManifestError::TooLarge(name.to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| ManifestError::NotText(name.to_owned()))
}

/// Reads every file below a directory. Files of template directories are not documents: a directory is one if a
/// document names it or if it holds a `template.yaml`.
fn tree(root: &Path) -> Result<Vec<Manifest>, ManifestError> {
    let mut paths = Vec::new();
    let mut templates = BTreeSet::new();
    collect(root, &mut paths, &mut templates)?;
    paths.sort();
    let mut read = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let parsed = fs::File::open(&path)
            .map_err(|error| ManifestError::Read(path.clone(), error))
            .and_then(|opened| bounded(opened, &name, &path))
            .and_then(|text| parse(&name, &text));
        for manifest in parsed.iter().flatten() {
            if let Some(directory) = template_directory(&manifest.value) {
                templates.insert(plain(&parent(&path).join(directory)));
            }
        }
        read.push((path, parsed));
    }
    let mut manifests = Vec::new();
    for (path, parsed) in read {
        let own = plain(&path);
        if templates.iter().any(|directory| own.starts_with(directory)) {
            continue;
        }
        for mut manifest in parsed? {
            resolve(&mut manifest, parent(&path))?;
            manifests.push(manifest);
        }
    }
    Ok(manifests)
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>, templates: &mut BTreeSet<PathBuf>) -> Result<(), ManifestError> {
    let unread = |error| ManifestError::Read(directory.to_owned(), error);
    if directory.join(titan_api::templates::MANIFEST).is_file() {
        templates.insert(plain(directory));
        return Ok(());
    }
    for entry in fs::read_dir(directory).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().map_err(unread)?.is_dir() {
            collect(&path, paths, templates)?;
        } else if path.is_file()
            && path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        {
            paths.push(path);
        }
    }
    Ok(())
}

/// Returns `path` without `.` parts, so that prefixes can be compared.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

fn file(name: &str, base: &Path, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = parse(name, text)?;
    for manifest in &mut manifests {
        resolve(manifest, base)?;
    }
    Ok(manifests)
}

/// Returns the documents of a text: a YAML stream, JSON, or a list of documents as `items` or an array.
pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let malformed = |source| ManifestError::Malformed { source_name: name.to_owned(), source };
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        documents.push(json(document).map_err(malformed)?);
    }
    let documents: Vec<Value> = documents.into_iter().flat_map(flat).filter(|document| !document.is_null()).collect();
    let several = documents.len() > 1;
    let named = documents.into_iter().enumerate().map(|(index, value)| {
        let source = if several { format!("{name}#{}", index + 1) } else { name.to_owned() };
        if value.is_object() { Ok(Manifest { source, value }) } else { Err(ManifestError::NotADocument(source)) }
    });
    named.collect()
}

/// Returns a YAML document as JSON. The way over YAML's own map refuses keys that stand twice.
pub(crate) fn json<'de>(
    document: impl serde::Deserializer<'de, Error = serde_yaml::Error>,
) -> Result<Value, serde_yaml::Error> {
    let value = serde_yaml::Value::deserialize(document)?;
    serde_yaml::from_value(value)
}

fn flat(document: Value) -> Vec<Value> {
    match document {
        Value::Array(items) => items,
        Value::Object(mut map) if map.len() == 1 && map.get("items").is_some_and(Value::is_array) => {
            match map.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        other => vec![other],
    }
}

fn template_directory(value: &Value) -> Option<&str> {
    let is_template = value.get("kind").and_then(Value::as_str) == Some(Kind::Template.as_str());
    value.pointer("/spec/directory").and_then(Value::as_str).filter(|_| is_template)
}

/// Replaces `spec.directory` of a template with `spec.files`. The directory has to be below `base`, links resolved:
/// documents may come from elsewhere, and must not be able to name what else is on this machine.
fn resolve(manifest: &mut Manifest, base: &Path) -> Result<(), ManifestError> {
    let Some(directory) = template_directory(&manifest.value).map(str::to_owned) else { return Ok(()) };
    let source_name = manifest.source.clone();
    if manifest.value.pointer("/spec/files").is_some() {
        return Err(ManifestError::Both(source_name));
    }
    let outside = || ManifestError::Outside { source_name: source_name.clone(), directory: directory.clone() };
    if Path::new(&directory).is_absolute() {
        return Err(outside());
    }
    let path = base.join(&directory);
    if let (Ok(whole), Ok(base)) = (path.canonicalize(), base.canonicalize())
        && !whole.starts_with(base)
    {
        return Err(outside());
    }
    let spec = directory::read(&path).map_err(|source| ManifestError::Directory { source_name, source })?;
    if let Some(fields) = manifest.value.get_mut("spec").and_then(Value::as_object_mut) {
        fields.remove("directory");
        // A map with text keys; writing it cannot fail.
        fields.insert("files".to_owned(), serde_json::to_value(spec.files).unwrap_or_default());
    }
    Ok(())
}

impl Manifest {
    /// Sets the workspace of a document that names none, if its kind lives in one.
    pub(crate) fn default_workspace(&mut self, workspace: &Name) {
        let in_workspace = self.kind().is_some_and(Kind::in_workspace);
        if let Some(metadata) = self.value.get_mut("metadata").and_then(Value::as_object_mut)
            && in_workspace
        {
            metadata.entry("workspace").or_insert_with(|| workspace.as_str().into());
        }
    }

    /// Returns the kind, if it is known.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let text = self.value.get("kind")?.as_str()?;
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Returns kind, workspace and name of the live document, with `workspace` where the document names none.
    pub(crate) fn key(&self, workspace: &Name) -> Result<(Kind, Option<Name>, Name), ManifestError> {
        let name = |pointer: &str| self.value.pointer(pointer).and_then(Value::as_str).map(|text| Name::new(text).ok());
        let unnamed = || ManifestError::Unnamed(self.source.clone());
        let kind = self.kind().ok_or_else(unnamed)?;
        let own = name("/metadata/name").flatten().ok_or_else(unnamed)?;
        let place = match (kind.in_workspace(), name("/metadata/workspace")) {
            (false, _) => None,
            (true, None) => Some(workspace.clone()),
            (true, Some(given)) => Some(given.ok_or_else(unnamed)?),
        };
        Ok((kind, place, own))
    }

    /// Returns how to speak of the document: `fleet.yaml#3 (Host tim-pi)`.
    pub(crate) fn title(&self) -> String {
        let text = |pointer: &str| self.value.pointer(pointer).and_then(Value::as_str);
        match (text("/kind"), text("/metadata/name")) {
            (Some(kind), Some(name)) => format!("{} ({kind} {name})", self.source),
            _ => self.source.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const HOST: &str = "apiVersion: titan/v1\nkind: Host\nmetadata: {name: a}\n";
    const TEMPLATE: &str = "apiVersion: titan/v1\nkind: Template\nmetadata: {name: t}\nspec: {directory: ./files}\n";

    fn names(manifests: &[Manifest]) -> Vec<&str> {
        manifests.iter().filter_map(|manifest| manifest.value.pointer("/metadata/name")?.as_str()).collect()
    }

    #[test]
    fn streams_lists_and_json_are_documents() {
        let stream =
            parse("f", &format!("---\n{HOST}---\n# nothing\n---\n{}", HOST.replace("a}", "b}"))).expect("yaml");
        assert_eq!(names(&stream), ["a", "b"]);
        assert_eq!(stream[1].source, "f#2");
        let list = parse("f", r#"{"items": [{"kind": "Host", "metadata": {"name": "x"}}]}"#).expect("json");
        assert_eq!((names(&list), list[0].source.as_str()), (vec!["x"], "f"));
    }

    #[test]
    fn malformed_text_is_refused_with_its_place() {
        let error = parse("f", "a: [1\nb: 2").expect_err("yaml");
        assert!(std::error::Error::source(&error).expect("source").to_string().contains("line"));
        assert!(matches!(parse("f", "a: 1\na: 2"), Err(ManifestError::Malformed { .. })), "a key twice");
        assert!(matches!(parse("f", "just text"), Err(ManifestError::NotADocument(_))));
        assert!(matches!(parse("f", "? [a]\n: b"), Err(ManifestError::Malformed { .. })), "a key that is no text");
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
        }
        assert!(matches!(parse("f", &text), Err(ManifestError::Malformed { .. })));
    }

    #[test]
    fn a_directory_is_read_without_its_templates() {
        let root = tempfile::tempdir().expect("directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        };
        write("fleet.yaml", TEMPLATE);
        write("files/deployment.yaml", "kind: {{ not yaml");
        write("other/template.yaml", "description: x");
        write("other/x.yaml", "also: not a document");
        write("hosts/a.yml", HOST);
        write(".git/config.yaml", "x: y");
        write("README.md", "# words");
        let manifests = read(root.path()).expect("documents");
        assert_eq!(names(&manifests), ["t", "a"]);
        assert!(manifests[0].value.pointer("/spec/files/deployment.yaml/content").is_some());
        assert!(manifests[0].value.pointer("/spec/directory").is_none());
    }

    #[test]
    fn template_directories_stay_below_their_file() {
        let root = tempfile::tempdir().expect("directory");
        let deep = root.path().join("deep");
        fs::create_dir(&deep).expect("mkdir");
        fs::create_dir(root.path().join("files")).expect("mkdir");
        fs::write(root.path().join("files/a"), "x").expect("write");
        symlink(root.path().join("files"), deep.join("link")).expect("symlink");
        for bad in ["../files", "/etc", "./link"] {
            fs::write(deep.join("t.yaml"), TEMPLATE.replace("./files", bad)).expect("write");
            assert!(matches!(read(&deep.join("t.yaml")), Err(ManifestError::Outside { .. })), "{bad}");
        }
        fs::write(deep.join("t.yaml"), TEMPLATE).expect("write");
        assert!(matches!(read(&deep.join("t.yaml")), Err(ManifestError::Directory { .. })), "not there");
    }

    #[test]
    fn empty_and_missing_files_are_refused() {
        let root = tempfile::tempdir().expect("directory");
        assert!(matches!(read(root.path()), Err(ManifestError::Empty(_))));
        assert!(matches!(read(&root.path().join("none")), Err(ManifestError::Read(..))));
    }

    #[test]
    fn titles_name_file_and_document() {
        assert_eq!(parse("f", HOST).expect("yaml")[0].title(), "f (Host a)");
    }

    #[test]
    fn the_workspace_is_filled_in_where_it_belongs() {
        let iot = Name::new("iot").expect("name");
        let mut host = parse("f", HOST).expect("yaml").remove(0);
        host.default_workspace(&iot);
        assert_eq!(host.key(&iot).expect("key").1, None);
        let mut target = parse("f", &HOST.replace("Host", "Target")).expect("yaml").remove(0);
        target.default_workspace(&iot);
        assert_eq!(target.value.pointer("/metadata/workspace").and_then(Value::as_str), Some("iot"));
    }
}
