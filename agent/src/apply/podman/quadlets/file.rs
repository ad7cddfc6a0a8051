//! One quadlet: what its file asks for, whether it may, and what is written for podman's generator. Pure.
//!
//! What is written is put together from the settings that were looked at, one in a line, so that the generator reads what
//! was checked and nothing else: the two may take the ends of lines and comments for different things.

use std::{collections::BTreeSet, path::Path};

use super::{
    keys::{Rule, Sort},
    values,
};
use crate::{
    apply::{
        ApplyError,
        podman::{
            fields,
            kube::not_named,
            marks::{self, Labels},
            references::{self, Mount},
        },
        systemd::{
            names,
            unit_file::UnitFile,
            units::{OURS, Start, Unit},
        },
    },
    claims::Claim,
    config::appliers::{self, Podman},
};

/// The key of the host's configuration that says where images may come from.
const REGISTRIES: &str = "appliers.podman.registries";
/// The key that says what of the host may be mounted.
const MOUNTS: &str = "appliers.podman.mounts";

/// One quadlet.
#[derive(Debug, Clone)]
pub(in super::super) struct Quadlet {
    /// Its file, which is the only one of that name on the host.
    pub(in super::super) file: String,
    /// What it is.
    pub(in super::super) sort: Sort,
    /// The unit that podman's generator makes of it.
    pub(in super::super) unit: String,
    /// The same, as far as its state is to be judged.
    pub(in super::super) model: Unit,
    /// What the unit makes.
    pub(in super::super) thing: Option<Claim>,
    /// The images that it wants.
    pub(in super::super) images: BTreeSet<String>,
    /// What it mounts of the host.
    pub(in super::super) mounts: Vec<Mount>,
    /// Other quadlets of the bundle that it names.
    pub(in super::super) needs: BTreeSet<String>,
    /// The permission bits of its file: whoever may not read it there may not read it here.
    pub(in super::super) mode: u32,
    /// Whether what it makes goes when the deployment leaves.
    goes: bool,
    settings: Vec<Setting>,
}

#[derive(Debug, Clone)]
struct Setting {
    section: String,
    key: String,
    value: Vec<Part>,
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it was written.
    Text(String),
    /// A path on this host.
    Path(Mount),
    /// The image that this reference means.
    Image(String),
}

/// Reads one file, and says what in it is wrong.
pub(super) struct Reader<'a> {
    /// The file.
    pub(super) file: &'a str,
    /// What the owner allows.
    pub(super) allowed: &'a Podman,
    /// The names of all quadlets of the bundle, and of their units.
    pub(super) own: &'a BTreeSet<String>,
}

impl Reader<'_> {
    pub(super) fn malformed(&self, message: impl Into<String>) -> ApplyError {
        ApplyError::Malformed { path: self.file.to_owned(), message: message.into() }
    }

    /// Refuses what only an owner who allows `privileged` lets through.
    pub(super) fn privileged(&self, setting: &str) -> Result<(), ApplyError> {
        if self.allowed.privileged {
            return Ok(());
        }
        Err(ApplyError::Beyond { what: format!("{}: {setting}", self.file), key: fields::PRIVILEGED })
    }

    /// Returns a path of the host that may be mounted.
    pub(super) fn mount(&self, path: &str, setting: &str) -> Result<Mount, ApplyError> {
        if path.contains('%') {
            return Err(self.malformed(format!("{setting}: the path has to be said without %")));
        }
        Mount::of(path, &self.allowed.mounts)
            .ok_or_else(|| ApplyError::Beyond { what: format!("{}: mounting {path}", self.file), key: MOUNTS })
    }

    /// Checks an image's name.
    pub(super) fn image(&self, reference: &str) -> Result<(), ApplyError> {
        references::check_image(reference, &self.allowed.registries, REGISTRIES).map_err(|error| error.of(self.file))
    }

    /// Checks that another quadlet is in the bundle.
    pub(super) fn known(&self, file: &str, setting: &str) -> Result<String, ApplyError> {
        if self.own.contains(file) {
            return Ok(file.to_owned());
        }
        Err(self.malformed(format!("{setting}: {file} is not in the bundle")))
    }

    fn named(&self, kind: &str, name: &str) -> Result<(), ApplyError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.len() > 128 || !name.bytes().all(plain) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let message = format!("{name:?} is not a name: letters, digits, and within '_', '.' and '-', at most 128");
            return Err(self.malformed(message));
        }
        if appliers::allows(&self.allowed.names, name) { Ok(()) } else { Err(not_named(kind, name)) }
    }
}

impl Quadlet {
    /// Reads one file.
    pub(super) fn read(reader: &Reader<'_>, sort: Sort, text: &str, mode: u32) -> Result<Self, ApplyError> {
        let says = UnitFile::parse(text).map_err(|message| reader.malformed(message))?;
        let stem = reader.file.rsplit_once('.').map_or(reader.file, |(stem, _)| stem);
        if stem.contains('@') {
            let message = "templates of quadlets are not supported: write a file for each instance, without @";
            return Err(reader.malformed(message));
        }
        reader.named("quadlet", stem)?;
        let unit = format!("{stem}{}", sort.suffix());
        if names::suffix(&unit).is_none() {
            return Err(reader.malformed(format!("{unit:?} would be no name of a unit")));
        }
        let mut model = Unit::new(&unit, says.clone())?;
        let flag = says.flag(OURS, "Start").map_err(|message| reader.malformed(message))?;
        model.start = if flag == Some(false) { Start::ByOthers { restart: true } } else { Start::Now };
        let goes = match says.last(OURS, "OnRemove").as_deref() {
            Some("delete") => true,
            None | Some("keep") => false,
            Some(other) => return Err(reader.malformed(format!("OnRemove={other} in [{OURS}]: keep or delete"))),
        };
        let thing = match sort.thing() {
            Some((kind, named)) => {
                let name = says.last(sort.section(), named).unwrap_or_else(|| format!("systemd-{stem}"));
                reader.named(kind, &name)?;
                Some(Claim::new(kind, name))
            }
            None => None,
        };
        let mut quadlet = Self {
            file: reader.file.to_owned(),
            sort,
            unit,
            model,
            thing,
            images: BTreeSet::new(),
            mounts: Vec::new(),
            needs: BTreeSet::new(),
            mode: mode & 0o666,
            goes,
            settings: Vec::new(),
        };
        for (section, key, value) in says.settings() {
            quadlet.take(reader, section, key, value)?;
        }
        if matches!(sort, Sort::Container | Sort::Image) && quadlet.images.is_empty() && quadlet.needs.is_empty() {
            return Err(reader.malformed("it names no image: say Image= with its registry and digest"));
        }
        Ok(quadlet)
    }

    /// Takes one setting, if it may stand there.
    fn take(&mut self, reader: &Reader<'_>, section: &str, key: &str, value: &str) -> Result<(), ApplyError> {
        let setting = format!("{key}={value} in [{section}]");
        let good = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !good || value.contains(char::is_control) || value.ends_with('\\') {
            return Err(reader.malformed(format!("{setting:?} cannot be passed on as it is")));
        }
        let Some(rule) = self.sort.rule(section, key) else {
            let section = format!("[{section}] is no section of such a file; it has [{}]", self.sort.section());
            return Err(reader.malformed(section));
        };
        let plain = || vec![Part::Text(value.to_owned())];
        // An empty value takes back what came before it.
        let value = if value.is_empty() && !matches!(rule, Rule::Never(_) | Rule::Privileged) {
            plain()
        } else {
            match rule {
                Rule::Free => plain(),
                Rule::Privileged => reader.privileged(&setting).map(|()| plain())?,
                Rule::Never(instead) => return Err(reader.malformed(format!("{setting}: {instead}"))),
                Rule::Name => plain(),
                Rule::Image if value.ends_with(".image") && !value.contains('/') => {
                    self.needs.insert(reader.known(value, &setting)?);
                    plain()
                }
                Rule::Image => {
                    reader.image(value)?;
                    self.images.insert(value.to_owned());
                    // What pulls an image has to know it by its name.
                    if self.sort == Sort::Container { vec![Part::Image(value.to_owned())] } else { plain() }
                }
                Rule::Pod => {
                    self.needs.insert(reader.known(value, &setting)?);
                    plain()
                }
                rule => values::read(reader, rule, &setting, value, &mut self.needs)?,
            }
        };
        self.mounts.extend(value.iter().filter_map(|part| match part {
            Part::Path(mount) => Some(mount.clone()),
            _ => None,
        }));
        self.settings.push(Setting { section: section.to_owned(), key: key.to_owned(), value });
        Ok(())
    }

    /// Returns what is written for podman's generator: with these labels, with each image as `image` knows it, and with
    /// paths on this host.
    pub(in super::super) fn text(&self, labels: &Labels, home: &Path, image: impl Fn(&str) -> String) -> String {
        let (mut text, mut section) = (String::new(), "");
        for setting in &self.settings {
            if setting.section != section {
                section = &setting.section;
                text.push_str(&format!("[{section}]\n"));
            }
            text.push_str(&setting.key);
            text.push('=');
            for part in &setting.value {
                match part {
                    Part::Text(part) => text.push_str(part),
                    Part::Path(mount) => text.push_str(&mount.path(home).to_string_lossy()),
                    Part::Image(reference) => text.push_str(&image(reference)),
                }
            }
            text.push('\n');
        }
        let mut labels = labels.clone();
        if self.sort == Sort::Volume {
            let what = if self.goes { "delete" } else { "keep" };
            labels.insert(marks::ON_REMOVE.to_owned(), what.to_owned());
        }
        let (key, flag) = match self.sort {
            Sort::Image => return text,
            // The key for labels of a pod is younger than pods are.
            Sort::Pod => ("PodmanArgs", "--label="),
            Sort::Container | Sort::Network | Sort::Volume => ("Label", ""),
        };
        if !labels.is_empty() {
            text.push_str(&format!("[{}]\n", self.sort.section()));
        }
        for (name, value) in &labels {
            text.push_str(&format!("{key}={flag}{name}={value}\n"));
        }
        text
    }
}
