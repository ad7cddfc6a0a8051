//! The render worker: a process that renders what it is told and nothing else.
//!
//! It has one thread, an empty environment, a limit on its memory, and ends when its standard input does. Whatever a
//! template makes it do, only this process suffers.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    os::fd::AsFd,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{
    engine::Engine,
    failure::Failure,
    frames::{self, Head, Kind, SLOTS},
    patch::Kept,
    template,
};

/// Bytes that a worker may take on top of what its program takes by itself.
pub const MEMORY: u64 = 192 << 20;
/// What a program is taken to need by itself where the system does not say.
const PROGRAM: u64 = 64 << 20;
/// Bytes of requests that are read at once.
const READ: usize = 1 << 16;
/// Bytes of answers that are sent off at once, if they come that quickly.
const HELD: usize = 1 << 15;
/// How long an answer is held back while there is more to be done.
const HELD_FOR: Duration = Duration::from_millis(1);
/// The argument under which each binary runs [`worker_main`].
pub const COMMAND: &str = "render-worker";

/// Runs the worker until its standard input ends; for the hidden argument [`COMMAND`], before any runtime is started.
#[must_use]
pub fn worker_main() -> ExitCode {
    if limit().is_err() {
        return ExitCode::from(2);
    }
    // Not through `std`'s own handle: that looks for line ends.
    let Ok(output) = io::stdout().as_fd().try_clone_to_owned() else { return ExitCode::from(2) };
    match serve(&mut BufReader::with_capacity(READ, io::stdin().lock()), &mut File::from(output)) {
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

/// What lies in a slot.
struct Slot {
    engine: Result<Engine, Failure>,
    /// The last context, which the next one may be a patch of.
    kept: Kept,
}

impl Default for Slot {
    fn default() -> Self {
        Self { engine: Err(Failure::new("", "the template was not sent")), kept: Kept::default() }
    }
}

/// Answers every frame of `input` on `output`.
///
/// Bundles are held back while more is there to be done: until there are [`HELD`] bytes of them, or for [`HELD_FOR`]. So
/// whoever waits for one waits for one render and a little more, and a worker that has nothing to do owes nothing.
fn serve(input: &mut BufReader<impl Read>, output: &mut impl Write) -> io::Result<()> {
    let mut slots: [Slot; SLOTS] = Default::default();
    let (mut body, mut answers) = (Vec::new(), Vec::new());
    let (mut sent, mut hold) = (Instant::now(), false);
    frames::push(&mut answers, Kind::Ready, 0, &[])?;
    loop {
        if !hold || input.buffer().is_empty() || answers.len() >= HELD || sent.elapsed() >= HELD_FOR {
            output.write_all(&answers)?;
            output.flush()?;
            answers.clear();
            answers.shrink_to(2 * HELD);
            sent = Instant::now();
        }
        let Some(Head { kind, slot: number, .. }) = frames::read(input, &mut body)? else { return Ok(()) };
        let slot = slots.get_mut(usize::from(number)).ok_or(io::ErrorKind::InvalidData)?;
        // There is another time limit for what comes after a template.
        hold = kind != Kind::Template;
        match kind {
            Kind::Template => {
                *slot = Slot { engine: prepare(&body), kept: Kept::default() };
                frames::push(&mut answers, Kind::Prepared, number, &[])?;
            }
            Kind::Render | Kind::RenderOnce => {
                slot.kept.update(&body)?;
                render(slot, number, &mut answers)?;
                if kind == Kind::RenderOnce {
                    slot.kept = Kept::default();
                }
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        // A large context or template is not kept.
        body.clear();
        body.shrink_to(1 << 20);
    }
}

fn prepare(body: &[u8]) -> Result<Engine, Failure> {
    let spec = serde_json::from_slice(body).map_err(|error| Failure::new("", format!("the template: {error}")))?;
    template::compile(&spec).map_err(|failures| {
        failures.into_iter().next().unwrap_or_else(|| Failure::new("", "the template is not valid"))
    })
}

/// Adds the answer to a render to `answers`.
fn render(slot: &Slot, number: u8, answers: &mut Vec<u8>) -> io::Result<()> {
    let begun = frames::begin(answers);
    let rendered = match &slot.engine {
        Ok(engine) => engine.render(&slot.kept.value(), answers),
        Err(failure) => Err(failure.clone()),
    };
    match rendered {
        Ok(()) => frames::end(answers, begun, Kind::Bundle, number),
        Err(failure) => {
            answers.truncate(begun);
            frames::push(answers, Kind::Failed, number, &serde_json::to_vec(&failure)?)
        }
    }
}
