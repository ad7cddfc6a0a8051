//! `titan completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{arguments::Arguments, errors::CliError, output::Exit, session::Session};

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan completions bash > /etc/bash_completion.d/titan
  titan completions fish > ~/.config/fish/completions/titan.fish")]
pub(crate) struct Completions {
    /// Shell to complete for.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(crate) fn run(self, session: &Session) -> Result<Exit, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "titan", &mut script);
        session.output.raw(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
