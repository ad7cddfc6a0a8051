//! The benchmarks of `docs/performance.md`: `cargo bench -p titan-tests -- [MEASURE...] [--json] [--quick] [--agent FILE]`.
//!
//! Every figure stands beside the least that any program would have to do, measured in the same run, in turns. Servers
//! are child processes: this very binary in another [role](roles). Each measure is bounded in rounds and time.

mod agents;
mod bodies;
mod calls;
mod changes;
mod children;
mod hosts;
mod options;
mod polls;
mod renders;
mod reports;
mod roles;
mod rollouts;
mod rows;
mod views;
mod wire;
mod workplans;

use std::process::ExitCode;

use anyhow::Context as _;
use titan_tests::measures::{Figure, table};

use crate::options::{Measure, Options};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = roles::play(&args) {
        return code;
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<std::ffi::OsString>) -> anyhow::Result<()> {
    let options = Options::parse(args.into_iter().skip(1))?;
    titan_tests::planes::choose_tls();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut all = Vec::new();
    for measure in &options.measures {
        tell(&format!("measuring {} ...", measure.as_str()));
        let figures =
            runtime.block_on(taken(*measure, &options)).with_context(|| format!("measuring {}", measure.as_str()))?;
        if options.json {
            figures.iter().for_each(|figure| say(&figure.to_json().to_string()));
        }
        all.extend(figures);
    }
    if !options.json {
        say(table(&all).trim_end());
    }
    Ok(())
}

async fn taken(measure: Measure, options: &Options) -> anyhow::Result<Vec<Figure>> {
    match measure {
        Measure::Polls => polls::speed(options).await,
        Measure::Bytes => polls::bytes().await,
        Measure::Renders => renders::speed(options).await,
        Measure::Agent => agents::rest(options).await,
        Measure::Rounds => agents::rounds(options).await,
        Measure::Plans => changes::plans(options).await,
        Measure::Answers => changes::answers(options).await,
        Measure::Bodies => bodies::speed(options).await,
        Measure::Memory => views::memory(options).await,
        Measure::Reports => reports::speed(options).await,
        Measure::Rollouts => rollouts::speed(options).await,
        Measure::Workplans => workplans::steps(options).await,
        Measure::PlanCalls => calls::speed(options).await,
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "where errors stop, and word of what is being measured")]
fn tell(text: &str) {
    eprintln!("{text}");
}
