//! Templates: versioned directories of files, some of them rendered.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{limits, parse::escape, problems::Fault, values::Values};

/// The optional description at the root of a template's directory.
pub const MANIFEST: &str = "template.yaml";
/// The ending of files that are rendered; they lose it.
pub const RENDERED: &str = ".j2";

/// A directory of files. `template.yaml` at its root, if any, is a [`TemplateManifest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateSpec {
    /// The files by path below the directory, with `/` between the parts.
    pub files: BTreeMap<String, TemplateFile>,
}

/// One file, as text or as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateFile {
    /// The content of a text file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The content of any other file, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Whether it is executable; a rule in the manifest wins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl TemplateFile {
    /// Returns a file of these bytes: as text if they are UTF-8, else as base64.
    #[must_use]
    pub fn of(bytes: Vec<u8>, executable: bool) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { content: Some(text), content_base64: None, executable },
            Err(error) => {
                let content_base64 = Some(STANDARD.encode(error.as_bytes()));
                Self { content: None, content_base64, executable }
            }
        }
    }

    /// Returns the bytes, or what is wrong with them.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        match (&self.content, &self.content_base64) {
            (Some(text), None) => Ok(text.clone().into_bytes()),
            (None, Some(text)) => {
                STANDARD.decode(text).map_err(|error| format!("contentBase64 is not base64: {error}"))
            }
            _ => Err("a file has either content or contentBase64".to_owned()),
        }
    }
}

/// What `template.yaml` says. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateManifest {
    /// What the template is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What applies the files on the host.
    #[serde(default)]
    pub applier: Applier,
    /// Default values: the weakest layer.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
    /// JSON Schema (2020-12) of the merged values; it may not refer to other documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// What has to hold for it to be healthy: a [`Health`](crate::health::Health), any text of which may hold expressions,
    /// also where a number belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Value>,
    /// Commands around what the applier does: [`Hooks`](crate::hooks::Hooks), any text of which may hold expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Value>,
    /// What a host does when others change what was applied: a [`DriftPolicy`](crate::drift::DriftPolicy), or an
    /// expression for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Value>,
    /// Rules for files by path (of the rendered file, before `destination`), `*` and `**` allowed; the last that matches
    /// wins for each setting.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileRule>,
}

/// What applies a bundle on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Applier {
    /// Files below the agent's root.
    #[default]
    Files,
    /// Units of systemd.
    Systemd,
    /// Containers of podman: pods from `kube` YAML, or quadlets.
    Podman,
    /// A project of Compose.
    Compose,
    /// Objects of a Kubernetes cluster.
    Kubernetes,
}

impl Applier {
    /// Returns the applier as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Systemd => "systemd",
            Self::Podman => "podman",
            Self::Compose => "compose",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// Settings of the files that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileRule {
    /// Permissions in octal, as `"0640"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// The owning user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The owning group's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The directory below the agent's root to which the file goes, instead of `<workspace>/<deployment>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// Permissions of a file, written in octal: `"0644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^0?[0-7]{3}$"))]
pub struct FileMode(u16);

/// Why a text is not a [`FileMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a file mode: write three octal digits in quotes, as in \"0644\"; set-id and sticky bits are not allowed"
)]
pub struct ModeError(String);

impl FileMode {
    /// Permissions of an ordinary file.
    pub const PLAIN: Self = Self(0o644);
    /// Permissions of an executable file.
    pub const EXECUTABLE: Self = Self(0o755);

    /// Returns the permission bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }
}

impl TryFrom<String> for FileMode {
    type Error = ModeError;

    fn try_from(text: String) -> Result<Self, ModeError> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(&text);
        let octal = digits.len() == 3 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u16::from_str_radix(digits, 8) {
            Ok(mode) if octal => Ok(Self(mode)),
            _ => Err(ModeError(text)),
        }
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

/// Why a text is not a path that Titan writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty or has an empty part.
    #[error("it has an empty part")]
    Empty,
    /// It begins at the root.
    #[error("it is absolute; write it relative to the template's directory")]
    Absolute,
    /// It leaves its directory.
    #[error("it has a part '.' or '..'")]
    Dots,
    /// It has a character that is no good in a path.
    #[error(
        "it has a control character, or a backslash that is not part of an escape such as \\x2d in the name of a unit"
    )]
    Character,
    /// It is too long.
    #[error("it is longer than {limit} bytes", limit = limits::PATH_BYTES)]
    TooLong,
}

/// Checks that `path` is relative, stays below its directory and has only plain characters. A backslash is one only as
/// systemd writes it in names of units: `dev-disk-by\x2dlabel.mount`.
pub fn check_path(path: &str) -> Result<(), PathError> {
    if path.len() > limits::PATH_BYTES {
        return Err(PathError::TooLong);
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if path.chars().any(char::is_control) || path.split('\\').skip(1).any(|rest| !begins_escape(rest)) {
        return Err(PathError::Character);
    }
    path.split('/').try_for_each(|part| match part {
        "" => Err(PathError::Empty),
        "." | ".." => Err(PathError::Dots),
        _ => Ok(()),
    })
}

/// Whether what stands behind a backslash makes it an escape: `x` and two digits.
fn begins_escape(rest: &str) -> bool {
    let digits = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    rest.as_bytes().strip_prefix(b"x").and_then(|rest| rest.get(..2)).is_some_and(digits)
}

impl TemplateSpec {
    /// Returns what is wrong with paths, contents and sizes, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.files.is_empty() {
            faults.push(Fault::new(format!("{pointer}/files"), "a template needs at least one file"));
        }
        if self.files.len() > limits::TEMPLATE_FILES {
            let detail = format!("{} files, the limit is {}", self.files.len(), limits::TEMPLATE_FILES);
            faults.push(Fault::new(format!("{pointer}/files"), detail));
        }
        let mut total = 0;
        for (path, file) in &self.files {
            let at = format!("{pointer}/files/{}", escape(path));
            if let Err(error) = check_path(path) {
                faults.push(Fault::new(&at, format!("the path {path:?} is refused: {error}")));
            }
            match file.bytes() {
                Ok(bytes) => total += bytes.len(),
                Err(detail) => faults.push(Fault::new(at, detail)),
            }
        }
        if total > limits::TEMPLATE_BYTES {
            let detail = format!("{total} bytes, the limit is {} for all files together", limits::TEMPLATE_BYTES);
            faults.push(Fault::new(format!("{pointer}/files"), detail));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        for good in
            ["a", "a/b.j2", "etc/{{ values.name }}.conf", ".hidden", "...", r"dev-disk-by\x2dlabel-a\x5Cb.mount"]
        {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("../x", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("./a", PathError::Dots),
            ("/etc/passwd", PathError::Absolute),
            ("", PathError::Empty),
            ("a//b", PathError::Empty),
            ("a/", PathError::Empty),
            ("a\\b", PathError::Character),
            (r"a\x2g", PathError::Character),
            (r"a\x2d\\x2d", PathError::Character),
            ("a\\", PathError::Character),
            (r"..\x2d/..", PathError::Dots),
            (r"a\xä", PathError::Character),
            ("a\0", PathError::Character),
            (&"x".repeat(256), PathError::TooLong),
        ] {
            assert_eq!(check_path(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn modes_are_three_octal_digits() {
        let mode = |text: &str| FileMode::try_from(text.to_owned()).map(FileMode::bits);
        assert_eq!(mode("0640"), Ok(0o640));
        assert_eq!(mode("755"), Ok(0o755));
        for bad in ["4755", "04755", "0o644", "648", "+64", "", "64"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_contents_are_checked() {
        let spec = |files: &[(&str, TemplateFile)]| TemplateSpec {
            files: files.iter().map(|(path, file)| ((*path).to_owned(), file.clone())).collect(),
        };
        assert_eq!(spec(&[("a", TemplateFile::of(vec![0xff], false))]).faults(""), []);
        let large = TemplateFile::of(vec![b'x'; limits::TEMPLATE_BYTES + 1], false);
        assert_eq!(spec(&[("a", large)]).faults("/spec")[0].pointer, "/spec/files");
        let neither = TemplateFile { content: None, content_base64: None, executable: false };
        assert_eq!(spec(&[("a/b", neither)]).faults("")[0].pointer, "/files/a~1b");
        let many = (0..=limits::TEMPLATE_FILES).map(|n| (n.to_string(), TemplateFile::of(vec![], false))).collect();
        assert_eq!(TemplateSpec { files: many }.faults("").len(), 1);
    }
}
