//! Errors sorted by whose turn it is: each has an exit code and, where there is a way out, a hint.

use std::{error::Error, io, path::PathBuf};

use serde_json::json;
use titan_api::{
    Problem,
    client::ClientError,
    labels::LabelError,
    names::NameError,
    problems::{Code, Fault},
};

use crate::{
    builtin::BuiltinError,
    config::{ConfigError, TOKEN_BYTES},
    demo::DemoError,
    directory::DirectoryError,
    manifests::ManifestError,
    output::{Exit, Format, Tone, ages, warn},
    values::ValuesError,
};

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line does not make sense.
    #[error("{detail}")]
    Usage {
        /// What is wrong.
        detail: String,
        /// What to type instead.
        hint: String,
    },
    /// There is no server or no token.
    #[error("not logged in: {missing} is not known")]
    NotLoggedIn {
        /// What is missing.
        missing: &'static str,
    },
    /// The command line's own configuration is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The control plane did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Documents were refused.
    #[error("{}", .problem.detail)]
    Refused {
        /// The problem, with pointers into the request.
        problem: Box<Problem>,
        /// What each document of the request is called where it came from.
        titles: Vec<String>,
    },
    /// Documents cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A template's directory cannot be taken.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Something is not built into the binary, or cannot be copied out.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// Values cannot be read.
    #[error(transparent)]
    Values(#[from] ValuesError),
    /// A name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Labels are malformed.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// A length of time is malformed.
    #[error(transparent)]
    Duration(#[from] ages::DurationError),
    /// A time is malformed.
    #[error(transparent)]
    Moment(#[from] ages::MomentError),
    /// The demo did not work out.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// A file cannot be used.
    #[error("{} cannot be {doing}", .path.display())]
    File {
        /// What was tried: `read`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was done and did not end well.
    #[error("{0}")]
    Failed(String),
    /// Standard output or the runtime does not work.
    #[error("output cannot be written")]
    Output(#[from] io::Error),
}

impl CliError {
    /// Returns a usage error.
    pub(crate) fn usage(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { detail: detail.into(), hint: hint.into() }
    }

    /// Returns that there is something else where a token should be.
    pub(crate) fn no_token(place: impl std::fmt::Display) -> Self {
        Self::usage(
            format!("{place} does not hold a token"),
            format!(
                "a token is one line of at most {TOKEN_BYTES} letters, digits and signs; `titan token create NAME` makes one"
            ),
        )
    }

    /// Returns how the command ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. }
            | Self::NotLoggedIn { .. }
            | Self::Config(_)
            | Self::Manifest(_)
            | Self::Directory(_)
            | Self::Values(_)
            | Self::Name(_)
            | Self::Labels(_)
            | Self::Duration(_)
            | Self::Moment(_) => Exit::Usage,
            Self::Builtin(error) => error.exit(),
            Self::Client(error) => client_exit(error),
            Self::Refused { problem, .. } => problem_exit(problem),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Demo(_) | Self::File { .. } | Self::Failed(_) | Self::Output(_) => Exit::Failed,
        }
    }

    fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused { problem, .. } | Self::Client(ClientError::Refused { problem, .. }) => Some(problem),
            _ => None,
        }
    }

    /// Returns each thing that is wrong, with its place in the words of whoever wrote it.
    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Directory(DirectoryError::Faults { faults, .. }) => faults.clone(),
            Self::Refused { problem, titles } => located(&problem.errors, titles),
            _ => self.problem().map(|problem| problem.errors.clone()).unwrap_or_default(),
        }
    }

    fn hint(&self) -> Option<String> {
        let told = self.problem().and_then(|problem| problem.hint.clone());
        let own = match self {
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::NotLoggedIn { .. } => Some(
                "titan login --server http://127.0.0.1:7420 --token-file FILE, or set TITAN_SERVER and TITAN_TOKEN"
                    .into(),
            ),
            Self::Config(error) => error.hint(),
            Self::Manifest(error) => error.hint(),
            Self::Directory(error) => error.hint(),
            Self::Builtin(error) => error.hint(),
            Self::Client(ClientError::Unreachable { server, .. }) => {
                Some(format!("is the control plane running at {server}? `titan doctor` looks at each step"))
            }
            Self::Client(ClientError::NotTitan { .. }) => {
                Some("check the address, and whether a proxy stands in between: `titan doctor`".into())
            }
            Self::Client(ClientError::Address(_)) => {
                Some("write the address as http://HOST:PORT or https://HOST".into())
            }
            _ => match self.problem().map(|problem| problem.code) {
                Some(Code::Unauthorized) => Some("log in again: titan login --server URL --token-file FILE".into()),
                Some(Code::AlreadyExists) => {
                    Some("change it with `titan edit KIND NAME` or `titan apply -f FILE`".into())
                }
                Some(Code::Stale) => Some("get it again and repeat your change".into()),
                Some(Code::Overloaded | Code::Unavailable) => Some("try again in a moment".into()),
                _ => None,
            },
        };
        // The control plane speaks to every program; of logging in this one knows more.
        if self.problem().is_some_and(|problem| problem.code == Code::Unauthorized) { own } else { told.or(own) }
    }

    /// Returns the message with the innermost cause.
    fn sentence(&self) -> String {
        let text = self.to_string();
        let mut cause = self.source();
        while let Some(next) = cause.and_then(Error::source) {
            cause = Some(next);
        }
        match cause {
            Some(cause) => format!("{text}: {cause}"),
            None => text,
        }
    }

    /// Tells the error on standard error: in words, or under `-o json` as a problem.
    pub(crate) fn report(&self, format: Format) {
        if self.exit() == Exit::Done {
            return;
        }
        if format == Format::Json {
            warn(&format!("{:#}", self.to_json()));
            return;
        }
        warn(&format!("{} {}", Tone::Bad.paint("error:"), one_line(&self.sentence())));
        for fault in self.faults() {
            let pointer = if fault.pointer.is_empty() { "/" } else { fault.pointer.as_str() };
            warn(&format!("  {pointer}: {}", one_line(&fault.detail)));
        }
        if let Some(hint) = self.hint() {
            warn(&format!("{} {}", Tone::Strong.paint("hint:"), one_line(&hint)));
        }
        if let Some(id) =
            self.problem().filter(|problem| problem.status >= 500).and_then(|problem| problem.request_id.as_ref())
        {
            warn(&format!("  request {id}; the control plane's log has more"));
        }
    }

    fn to_json(&self) -> serde_json::Value {
        if let Some(problem) = self.problem() {
            return json!(problem);
        }
        let code = match self.exit() {
            Exit::Usage => "usage",
            Exit::NotFound => "not_found",
            Exit::Unreachable => "unreachable",
            _ => "failed",
        };
        let mut problem = json!({
            "type": format!("urn:titan:problem:{code}"),
            "title": "The command did not succeed",
            "detail": self.sentence(),
            "code": code,
        });
        if let Some(hint) = self.hint() {
            problem["hint"] = hint.into();
        }
        if !self.faults().is_empty() {
            problem["errors"] = json!(self.faults());
        }
        problem
    }
}

/// Returns an error with all its causes, for a place that shows every one.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns faults with pointers such as `/resources/3/spec/port` led by the name of the document.
fn located(faults: &[Fault], titles: &[String]) -> Vec<Fault> {
    let place = |pointer: &str| {
        let rest = pointer.strip_prefix("/resources/")?;
        let (index, below) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let title = titles.get(index.parse::<usize>().ok()?)?;
        Some(format!("{title} {below}").trim_end().to_owned())
    };
    faults
        .iter()
        .map(|fault| Fault::new(place(&fault.pointer).unwrap_or_else(|| fault.pointer.clone()), fault.detail.as_str()))
        .collect()
}

/// Returns text that cannot break a line or steer the terminal.
fn one_line(text: &str) -> String {
    text.lines().map(|line| line.replace(char::is_control, " ")).collect::<Vec<_>>().join("\n    ")
}

fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Address(_) => Exit::Usage,
        ClientError::Setup(_) | ClientError::Tls(_) => Exit::Failed,
        ClientError::Unreachable { .. } | ClientError::NotTitan { .. } | ClientError::Slow { .. } => Exit::Unreachable,
        ClientError::Refused { problem, .. } => problem_exit(problem),
    }
}

const fn problem_exit(problem: &Problem) -> Exit {
    match problem.status {
        404 => Exit::NotFound,
        429 | 503 => Exit::Unreachable,
        400..=499 => Exit::Refused,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> CliError {
        ClientError::Refused { problem: Box::new(Problem::new(code, "no")), retry_after: None }.into()
    }

    #[test]
    fn exit_codes_say_whose_turn_it_is() {
        for (code, exit) in [
            (Code::NotFound, Exit::NotFound),
            (Code::Invalid, Exit::Refused),
            (Code::AlreadyExists, Exit::Refused),
            (Code::Forbidden, Exit::Refused),
            (Code::Unauthorized, Exit::Refused),
            (Code::Stale, Exit::Refused),
            (Code::Internal, Exit::Failed),
            (Code::Overloaded, Exit::Unreachable),
            (Code::Unavailable, Exit::Unreachable),
        ] {
            assert_eq!(refused(code).exit(), exit, "{code}");
        }
        assert_eq!(CliError::usage("a", "b").exit(), Exit::Usage);
        assert_eq!(CliError::NotLoggedIn { missing: "the server" }.exit(), Exit::Usage);
        assert_eq!(CliError::Failed("x".into()).exit(), Exit::Failed);
        assert_eq!(CliError::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Done);
        let proxy = ClientError::NotTitan {
            server: "http://a".into(),
            status: 200,
            what: "text/html".into(),
            retry_after: None,
        };
        assert_eq!(CliError::from(proxy).exit(), Exit::Unreachable);
    }

    #[test]
    fn problems_are_passed_on_as_they_came() {
        let problem = Problem::new(Code::Invalid, "Host a is not valid").at("/spec/port", "too large").hint("smaller");
        let error = CliError::Refused { problem: Box::new(problem), titles: Vec::new() };
        assert_eq!(error.to_json()["errors"][0]["pointer"], "/spec/port");
        assert_eq!(error.hint().as_deref(), Some("smaller"));
    }

    #[test]
    fn faults_name_the_document_they_are_in() {
        let faults =
            [Fault::new("/resources/1/spec/port", "x"), Fault::new("/resources/7", "y"), Fault::new("/x", "z")];
        let located = located(&faults, &["a".to_owned(), "f#2 (Host b)".to_owned()]);
        let pointers: Vec<_> = located.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["f#2 (Host b) /spec/port", "/resources/7", "/x"]);
    }

    #[test]
    fn own_errors_are_problems_too() {
        let json = CliError::usage("no name", "give one").to_json();
        assert_eq!((json["code"].as_str(), json["hint"].as_str()), (Some("usage"), Some("give one")));
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(one_line("a\u{1b}[31mb"), "a [31mb");
    }
}
