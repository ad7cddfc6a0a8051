//! What to measure, and how it is told.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context as _, bail};

/// One thing that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Unchanged polls per second.
    Polls,
    /// Bytes of an unchanged poll.
    Bytes,
    /// Renderings per second.
    Renders,
    /// The agent at rest, and its binary.
    Agent,
    /// One round of the agent over twenty files.
    Rounds,
    /// From a write to all assignments.
    Plans,
    /// From a write to the answer of a held poll.
    Answers,
    /// Bodies of answers per second.
    Bodies,
    /// Memory of the control plane.
    Memory,
    /// Reports acknowledged per second.
    Reports,
    /// From a write to a fleet that is proven healthy.
    Rollouts,
    /// What a step of a plan costs.
    Workplans,
    /// How soon people are answered who speak to plans.
    PlanCalls,
}

impl Measure {
    const ALL: [Self; 13] = [
        Self::Polls,
        Self::Bytes,
        Self::Renders,
        Self::Agent,
        Self::Rounds,
        Self::Plans,
        Self::Answers,
        Self::Bodies,
        Self::Memory,
        Self::Reports,
        Self::Rollouts,
        Self::Workplans,
        Self::PlanCalls,
    ];

    /// Returns its name on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Polls => "polls",
            Self::Bytes => "bytes",
            Self::Renders => "renders",
            Self::Agent => "agent",
            Self::Rounds => "rounds",
            Self::Plans => "plans",
            Self::Answers => "answers",
            Self::Bodies => "bodies",
            Self::Memory => "memory",
            Self::Reports => "reports",
            Self::Rollouts => "rollouts",
            Self::Workplans => "workplans",
            Self::PlanCalls => "plan-calls",
        }
    }
}

/// The command line.
#[derive(Debug)]
pub(crate) struct Options {
    /// What to measure, in this order.
    pub(crate) measures: Vec<Measure>,
    /// Whether figures are written for programs, one a line.
    pub(crate) json: bool,
    /// Whether everything is done once and briefly: to see that it works, not for figures.
    pub(crate) quick: bool,
    /// The agent's binaries, as `cargo build -p titan-agent --profile edge` makes them.
    pub(crate) agents: Vec<PathBuf>,
}

impl Options {
    /// Reads the arguments, the program's name left out.
    pub(crate) fn parse(mut args: impl Iterator<Item = OsString>) -> anyhow::Result<Self> {
        let named = std::env::var_os("TITAN_AGENT_BINARY").unwrap_or_default();
        let agents = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
        let mut options = Self { measures: Vec::new(), json: false, quick: false, agents };
        while let Some(arg) = args.next() {
            match arg.to_str() {
                // Cargo says this to every benchmark.
                Some("--bench") => {}
                Some("--json") => options.json = true,
                Some("--quick") => options.quick = true,
                Some("--agent") => options.agents.push(args.next().context("--agent takes a file")?.into()),
                Some(name) => match Measure::ALL.into_iter().find(|measure| measure.as_str() == name) {
                    Some(measure) => options.measures.push(measure),
                    None => bail!("{name:?} is no measure; there are {}", Measure::ALL.map(Measure::as_str).join(", ")),
                },
                None => bail!("{} is no argument", arg.display()),
            }
        }
        if options.measures.is_empty() {
            options.measures = Measure::ALL.to_vec();
        }
        Ok(options)
    }

    /// Returns `often`, or `once` if it is to be brief.
    pub(crate) const fn pick<T: Copy>(&self, often: T, once: T) -> T {
        if self.quick { once } else { often }
    }
}
