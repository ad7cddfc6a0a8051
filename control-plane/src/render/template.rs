//! A template that was checked.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use titan_api::{
    Code, Problem,
    digests::Digest,
    parse::escape,
    templates::{MANIFEST, TemplateManifest, TemplateSpec},
    values::Values,
};

use super::{
    engine::{self, Engine},
    failure::Failure,
    manifest,
    reads::Reads,
    schema::Schema,
    upkeep::Declared,
};

/// Faults that are told at once.
const FAULTS: usize = 50;

/// A template whose files, manifest and schema are sound. Cheap to share in an [`Arc`], dear to make: a megabyte of
/// template takes a good part of a second, so parse it off the threads that answer requests.
#[derive(Debug)]
pub struct Template {
    digest: Digest,
    manifest: TemplateManifest,
    reads: Reads,
    schema: Option<Schema>,
    spec: Arc<TemplateSpec>,
}

impl Template {
    /// Returns `spec` checked. A problem has the code `bad_template` and names every file and line that is wrong, with
    /// pointers from `/spec`.
    pub fn parse(spec: &TemplateSpec) -> Result<Self, Problem> {
        let faults = spec.faults("/spec");
        if let Some(first) = faults.first() {
            return Err(Problem::new(Code::BadTemplate, first.detail.clone()).with(faults));
        }
        let (manifest, upkeep, schema) = described(spec).map_err(|failure| bad(&[failure]))?;
        let sources = engine::sources(spec, &upkeep).map_err(|failures| bad(&failures))?;
        let mut reads = Reads::of(sources.iter().flat_map(|source| &source.code));
        if schema.is_some() {
            reads.add(&["values"]);
        }
        Engine::new(spec, manifest.clone(), upkeep, sources).map_err(|failures| bad(&failures))?;
        Ok(Self { digest: digest(spec), manifest, reads, schema, spec: Arc::new(spec.clone()) })
    }

    /// Returns the digest of the files: their paths, contents and whether they are executable.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns what `template.yaml` says, or its defaults.
    #[must_use]
    pub const fn manifest(&self) -> &TemplateManifest {
        &self.manifest
    }

    /// Returns which parts of a context the template can see.
    #[must_use]
    pub const fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Returns the files as they were declared.
    #[must_use]
    pub const fn spec(&self) -> &Arc<TemplateSpec> {
        &self.spec
    }

    /// Checks merged values against the schema, if there is one; faults point below `/values`.
    pub fn check_values(&self, values: &Values) -> Result<(), Problem> {
        self.schema.as_ref().map_or(Ok(()), |schema| schema.check(values))
    }
}

/// Returns the engine of a spec that was checked before, as a worker does.
pub fn compile(spec: &TemplateSpec) -> Result<Engine, Vec<Failure>> {
    let read = || {
        let (manifest, text) = manifest_of(spec)?;
        let upkeep = Declared::new(&manifest, &text)?;
        Ok((manifest, upkeep))
    };
    let (manifest, upkeep) = read().map_err(|failure| vec![failure])?;
    let sources = engine::sources(spec, &upkeep)?;
    Engine::new(spec, manifest, upkeep, sources)
}

fn manifest_of(spec: &TemplateSpec) -> Result<(TemplateManifest, String), Failure> {
    let Some(file) = spec.files.get(MANIFEST) else { return Ok((TemplateManifest::default(), String::new())) };
    let text = file.bytes().ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| Failure::new(MANIFEST, "it is not UTF-8 text"))?;
    Ok((manifest::read(&text)?, text))
}

fn described(spec: &TemplateSpec) -> Result<(TemplateManifest, Declared, Option<Schema>), Failure> {
    let (manifest, text) = manifest_of(spec)?;
    let upkeep = Declared::new(&manifest, &text)?;
    let schema = manifest.schema.as_ref().map(Schema::compile).transpose().map_err(|error| {
        let pointer = format!("/schema{}", error.pointer);
        manifest::at(&text, &pointer, &error.detail)
    })?;
    Ok((manifest, upkeep, schema))
}

fn bad(failures: &[Failure]) -> Problem {
    let Some((first, rest)) = failures.split_first() else {
        return Problem::new(Code::BadTemplate, "the template is not valid");
    };
    let mut problem = first.bad_template();
    if !rest.is_empty() {
        problem.detail = format!("{first}, and {} more", rest.len());
    }
    problem.with(rest.iter().take(FAULTS).flat_map(|failure| failure.bad_template().errors))
}

fn digest(spec: &TemplateSpec) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"titan template 1\n");
    for (path, file) in &spec.files {
        // Checked before: the contents can be read.
        let bytes = file.bytes().unwrap_or_default();
        hash.update(format!("{} {} {}\n", escape(path), u8::from(file.executable), bytes.len()));
        hash.update(&bytes);
    }
    Digest::from_bytes(&hash.finalize()).unwrap_or_else(|| Digest::of(&[]))
}
