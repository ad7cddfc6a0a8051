//! The command line's grammar.

use clap::{Args, Parser, Subcommand};
use titan_api::Name;

use crate::{
    commands::{
        changes, completions, deployments, doctor, documents, hosts, login, pipelines, plans, rollouts, status,
        targets, tasks, templates, tokens, workloads, workplans, workspaces,
    },
    demo,
    errors::CliError,
    output::{Exit, Format},
    session::Session,
};

const EXAMPLES: &str = "\
Examples:
  titan demo
  titan login --server http://127.0.0.1:7420 --token-file admin.token
  titan create host --name tim-pi --labels name=tim-pi,platform=kubernetes
  titan create template device-service -f ./device-service
  titan create workload temperature-sensor --repo https://github.com/timfpark/temp-sensor
  titan create target tim-pi --labels name=tim-pi
  titan create deployment prod --workload temperature-sensor \
      --template device-service --target tim-pi
  titan status deployment prod --wait
  titan plan -f fleet/
  titan apply -f fleet/ --wait

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 unreachable, 6 differences found.";

/// Titan keeps fleets in the state that was declared for them.
#[derive(Debug, Parser)]
#[command(name = "titan", version, after_help = EXAMPLES, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Shape of the output.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Workspace to work in, instead of `default` or the one kept at login.
    #[arg(short, long, global = true, value_name = "WORKSPACE")]
    pub(crate) workspace: Option<Name>,
    /// Control plane's address, instead of the one kept at login.
    #[arg(long, global = true, env = "TITAN_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Token, instead of the one kept at login; prefer the variable, which others do not see.
    #[arg(long, global = true, env = "TITAN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Wide => "wide",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Name => "name",
        })
    }
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Login(login::Login),
    /// Make a host, template, workload, target, deployment or workspace.
    #[command(subcommand)]
    Create(Create),
    Get(documents::get::Get),
    Describe(documents::describe::Describe),
    Apply(documents::apply::Apply),
    Delete(documents::delete::Delete),
    Edit(documents::edit::Edit),
    Diff(documents::diff::Diff),
    Plan(plans::Plan),
    Status(status::Status),
    Why(deployments::Why),
    Values(deployments::Values),
    History(changes::History),
    Events(changes::Events),
    Task(tasks::Task),
    /// Make, list and end tokens of people and pipelines.
    #[command(subcommand)]
    Token(tokens::Token),
    /// Bring hosts in, cordon them, look at drift, remove what nobody declares.
    #[command(subcommand)]
    Host(hosts::Host),
    /// List and copy the ready-made templates, check one's own.
    #[command(subcommand)]
    Template(templates::Template),
    /// Follow how a deployment's release is handed out, and decide about it.
    #[command(subcommand, alias = "rollouts")]
    Rollout(rollouts::Rollout),
    /// Follow plans, tell them something, do their work.
    #[command(subcommand, alias = "workplans")]
    Workplan(workplans::WorkPlan),
    /// Tell, from a pipeline, that a commit was seen or a build began or ended.
    #[command(subcommand)]
    Report(pipelines::Report),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Demo(demo::Demo),
}

/// What can be made.
#[derive(Debug, Subcommand)]
pub(crate) enum Create {
    Host(hosts::Create),
    Template(templates::Create),
    Workload(workloads::Create),
    Target(targets::Create),
    Deployment(deployments::Create),
    Workspace(workspaces::Create),
}

/// The name of what is made, by position or by flag.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct NameArgument {
    /// Name, unique in its workspace and kind.
    #[arg(value_name = "NAME")]
    positional: Option<Name>,
    /// Name, as a flag.
    #[arg(long = "name", value_name = "NAME")]
    flag: Option<Name>,
}

impl NameArgument {
    /// Returns the name.
    pub(crate) fn get(&self) -> Result<Name, CliError> {
        let name = self.positional.as_ref().or(self.flag.as_ref());
        name.cloned().ok_or_else(|| CliError::usage("no name is given", "write it after the kind, or as --name NAME"))
    }
}

impl Command {
    /// Does what the command says. The demo, which needs threads of its own, is not run here.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        match self {
            Self::Login(command) => command.run(session).await,
            Self::Create(Create::Host(command)) => command.run(session).await,
            Self::Create(Create::Template(command)) => command.run(session).await,
            Self::Create(Create::Workload(command)) => command.run(session).await,
            Self::Create(Create::Target(command)) => command.run(session).await,
            Self::Create(Create::Deployment(command)) => command.run(session).await,
            Self::Create(Create::Workspace(command)) => command.run(session).await,
            Self::Get(command) => command.run(session).await,
            Self::Describe(command) => command.run(session).await,
            Self::Apply(command) => command.run(session).await,
            Self::Delete(command) => command.run(session).await,
            Self::Edit(command) => command.run(session).await,
            Self::Diff(command) => command.run(session).await,
            Self::Plan(command) => command.run(session).await,
            Self::Status(command) => command.run(session).await,
            Self::Why(command) => command.run(session).await,
            Self::Values(command) => command.run(session).await,
            Self::History(command) => command.run(session).await,
            Self::Events(command) => command.run(session).await,
            Self::Task(command) => command.run(session).await,
            Self::Token(command) => command.run(session).await,
            Self::Host(command) => command.run(session).await,
            Self::Template(command) => command.run(session),
            Self::Rollout(command) => command.run(session).await,
            Self::Workplan(command) => command.run(session).await,
            Self::Report(command) => command.run(session).await,
            Self::Doctor(command) => command.run(session).await,
            Self::Completions(command) => command.run(session),
            Self::Demo(command) => command.run(session).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use titan_api::workplans::Signal;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lines_of_the_founding_document_are_read() {
        for line in [
            "titan create host --name tim-pi --labels name=tim-pi,platform=kubernetes",
            "titan create template device-service -f ./device-service",
            "titan get workspaces",
            "titan create workload temperature-sensor --repo https://github.com/timfpark/temp-sensor",
            "titan create workload temperature-sensor --repo https://github.com/timfpark/temp-sensor --workspace iot",
            "titan create target tim-pi --labels name=tim-pi",
            "titan create target tim-pi --labels name=tim-pi --workspace iot",
            "titan create deployment prod --workload temperature-sensor --template device-service --target tim-pi",
            "titan create workspace iot",
            "titan -w iot create target tim-pi --labels name=tim-pi",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_usage_errors() {
        for line in [
            "titan",
            "titan create host",
            "titan create host a --name b",
            "titan create host ../x",
            "titan create target Upper --labels a=b",
            "titan get nothings",
            "titan status",
            "titan get hosts -o xml",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn names_are_taken_as_they_are_printed() {
        let id = "0198f2c4-7d3e-7a11-9c55-0d6c1f1e2a3b";
        for (printed, plain) in [
            (format!("titan task task/{id}"), format!("titan task {id}")),
            (format!("titan get tasks --parent task/{id}"), format!("titan get tasks --parent {id}")),
            ("titan workplan watch workplan/p".to_owned(), "titan workplan watch p".to_owned()),
            ("titan workplan history workplan/p".to_owned(), "titan workplan history p".to_owned()),
            ("titan workplan approve workplan/p gate".to_owned(), "titan workplan approve p gate".to_owned()),
        ] {
            let read = |line: &str| parse(line).map(|read| format!("{read:?}")).map_err(|error| error.to_string());
            assert_eq!(read(&printed), read(&plain), "{printed}");
        }
    }

    #[test]
    fn kinds_of_tasks_that_there_are_not_are_refused_with_those_that_there_are() {
        assert!(parse("titan get tasks --task-kind enrolAll").is_ok());
        let error = parse("titan get tasks --task-kind bogus").expect_err("refused").to_string();
        assert!(error.contains("[possible values: enrol, enrolAll, remove, rollout, workplan]"), "{error}");
    }

    #[test]
    fn a_reason_is_needed_exactly_where_the_control_plane_needs_one() {
        for signal in Signal::ALL.into_iter().filter(|signal| *signal != Signal::Update) {
            for (noun, node) in [("rollout web", ""), ("workplan p", " gate")] {
                let (noun, name) = noun.split_once(' ').expect("two words");
                // A rollout is begun by its release.
                if (noun, signal) == ("rollout", Signal::Start) {
                    continue;
                }
                let node = if signal.is_about_a_node() { node } else { "" };
                let line = format!("titan {noun} {signal} {name}{node}");
                assert_eq!(parse(&line).is_err(), signal.needs_a_reason(), "{line}");
                assert!(parse(&format!("{line} --reason enough")).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn every_command_and_flag_is_documented() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no description", argument.get_id());
            }
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                check(inner, &path);
            }
        }
        let mut command = Arguments::command();
        command.build();
        check(&command, "");
    }
}
