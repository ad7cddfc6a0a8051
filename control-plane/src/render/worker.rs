//! The render worker: a process that renders what it is told and nothing else.
//!
//! It has one thread, an empty environment, a limit on its memory, and ends when its standard input does. Whatever a
//! template makes it do, only this process suffers.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use titan_api::limits::BUNDLE_BYTES;

use super::{
    engine::Engine,
    failure::Failure,
    frames::{self, Head, Kind, SLOTS},
    template,
};

/// Bytes that a worker may take on top of what its program takes by itself.
pub const MEMORY: u64 = 192 << 20;
/// What a program is taken to need by itself where the system does not say.
const PROGRAM: u64 = 64 << 20;
/// The argument under which each binary runs [`worker_main`].
pub const COMMAND: &str = "render-worker";

/// Runs the worker until its standard input ends; for the hidden argument [`COMMAND`], before any runtime is started.
#[must_use]
pub fn worker_main() -> ExitCode {
    if limit().is_err() {
        return ExitCode::from(2);
    }
    match serve(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Limits this process's memory and forbids it to leave a core or to make files.
fn limit() -> io::Result<()> {
    let both = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::As, both(program_bytes() + MEMORY))?;
    setrlimit(Resource::Core, both(0))?;
    setrlimit(Resource::Fsize, both(0))?;
    Ok(())
}

/// Returns the address space that the process has taken by now.
fn program_bytes() -> u64 {
    let taken = || {
        let text = std::fs::read_to_string("/proc/self/statm").ok()?;
        let pages: u64 = text.split(' ').next()?.parse().ok()?;
        pages.checked_mul(rustix::param::page_size() as u64)
    };
    taken().unwrap_or(PROGRAM)
}

/// Answers every frame of `input` on `output`.
fn serve(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut slots: [Result<Engine, Failure>; SLOTS] =
        std::array::from_fn(|_| Err(Failure::new("", "the template was not sent")));
    let mut body = Vec::new();
    frames::write(output, Kind::Ready, 0, &[])?;
    while let Some(Head { kind, slot, .. }) = frames::read(input, &mut body)? {
        let Some(place) = slots.get_mut(usize::from(slot)) else { return Err(io::ErrorKind::InvalidData.into()) };
        let answer = match kind {
            Kind::Template => {
                *place = prepare(&body);
                Ok((Kind::Prepared, Vec::new()))
            }
            Kind::Render => match place {
                Ok(engine) => render(engine, &body).map(|bundle| (Kind::Bundle, bundle)),
                Err(failure) => Err(failure.clone()),
            },
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        match answer {
            Ok((kind, body)) => frames::write(output, kind, slot, &body)?,
            Err(failure) => frames::write(output, Kind::Failed, slot, &serde_json::to_vec(&failure)?)?,
        }
        // A large context or template is not kept.
        body.clear();
        body.shrink_to(1 << 20);
    }
    Ok(())
}

fn prepare(body: &[u8]) -> Result<Engine, Failure> {
    let spec = serde_json::from_slice(body).map_err(|error| Failure::new("", format!("the template: {error}")))?;
    template::compile(&spec).map_err(|failures| {
        failures.into_iter().next().unwrap_or_else(|| Failure::new("", "the template is not valid"))
    })
}

/// Returns what a template renders to from a context in JSON, as the bytes of a bundle.
pub fn render(engine: &Engine, context: &[u8]) -> Result<Vec<u8>, Failure> {
    let context: minijinja::Value =
        serde_json::from_slice(context).map_err(|error| Failure::new("", format!("the context: {error}")))?;
    let bundle = engine.render(&context)?;
    let bytes = serde_json::to_vec(&bundle).map_err(|error| Failure::new("", format!("the bundle: {error}")))?;
    if bytes.len() > BUNDLE_BYTES {
        return Err(Failure::new("", format!("more than {} MiB of output", BUNDLE_BYTES >> 20)));
    }
    Ok(bytes)
}
