//! Word of how it goes, on standard error: one line that is drawn again on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal as _,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    processes,
    simulator::{fleet::Fleet, histogram::Histogram},
};

/// How often a line is written where it cannot be drawn again.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Says something in a line of its own.
#[expect(clippy::print_stderr, reason = "where errors stop, and word of what is going on")]
pub fn tell(text: &str) {
    eprintln!("{text}");
}

/// Draws how a fleet is doing.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    told: Instant,
    polls: u64,
    processor: Duration,
}

impl Progress {
    /// Begins.
    #[must_use]
    pub fn new(fleet: &Fleet) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, told: Instant::now(), polls: fleet.tally.polls(), processor: Duration::ZERO }
    }

    /// Draws, if it is time to. `server` is the id of the control plane's process.
    pub fn draw(&mut self, fleet: &Fleet, server: Option<u32>) {
        let since = self.told.elapsed();
        if since < if self.terminal { Duration::from_secs(1) } else { ELSEWHERE } {
            return;
        }
        let tally = &fleet.tally;
        let polls = tally.polls();
        let rate = polls.saturating_sub(self.polls) as f64 / since.as_secs_f64();
        let mut line = format!(
            "{:.0} s: {} agents, {rate:.0} polls/s, {} under way, {} changed, {} errors, {}, {:.0} ms late",
            tally.elapsed().as_secs_f64(),
            fleet.agents(),
            tally.under_way.load(Ordering::Relaxed),
            tally.deltas.get() + tally.fulls.get(),
            tally.errors(),
            p99(&tally.answered),
            tally.late.quantile(0.99).as_secs_f64() * 1e3,
        );
        if let Some(id) = server
            && let (Ok(resident), Ok(processor)) = (processes::resident(id), processes::processor(id))
        {
            let cores = processor.own.saturating_sub(self.processor).as_secs_f64() / since.as_secs_f64();
            let mebibytes = resident / (1 << 20);
            line.push_str(&format!("; server {mebibytes} MiB"));
            // The first look has nothing to compare with, and a restart begins anew.
            if !self.processor.is_zero() && processor.own >= self.processor {
                line.push_str(&format!(", {cores:.2} cores"));
            }
            self.processor = processor.own;
        }
        (self.told, self.polls) = (Instant::now(), polls);
        self.write(&line);
    }

    #[expect(clippy::print_stderr, reason = "word of what is going on")]
    fn write(&self, line: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            self.write("");
        }
    }
}

fn p99(histogram: &Histogram) -> String {
    format!("p99 {:.1} ms", histogram.quantile(0.99).as_secs_f64() * 1e3)
}
