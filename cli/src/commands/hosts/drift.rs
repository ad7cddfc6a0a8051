//! `titan host drift`.

use clap::Args;
use titan_api::{
    Kind, Name,
    client::{Client, WriteOptions},
    drift::{AdoptAnswer, AdoptRequest, HostDrift},
    hosts::HostSpec,
};

use crate::{
    commands::documents::slug,
    errors::CliError,
    output::{
        Exit, Tone, View, diffs,
        tables::{Cell, Table},
    },
    session::Session,
};

/// Show what on a host is not as it was applied; ends with 6 if something is not. Or make it the declared state there.
///
/// What a person changed on a host can be adopted: it is written into the host's document and laid over what the template
/// comes out as on this host alone, until it is given up again with --unadopt.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan host drift tim-pi
  titan host drift tim-pi --adopt default/web --path app.conf --reason 'tuned during the outage'
  titan host drift tim-pi --unadopt default/web --reason 'in the template since version 7'")]
pub(crate) struct Drift {
    /// Name of the host.
    host: Name,
    /// Adopt the files of this deployment that were found changed.
    #[arg(long, value_name = "WORKSPACE/DEPLOYMENT", value_parser = deployment, conflicts_with = "unadopt", requires = "reason")]
    adopt: Option<String>,
    /// Return the files of this deployment that were adopted to what the template says.
    #[arg(long, value_name = "WORKSPACE/DEPLOYMENT", value_parser = deployment, requires = "reason")]
    unadopt: Option<String>,
    /// Only this file, by its path as shown or in the template; may be given several times.
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Reads `workspace/deployment`.
fn deployment(text: &str) -> Result<String, String> {
    let names = text.split_once('/').map(|(workspace, name)| [workspace, name].map(Name::new));
    match names.is_some_and(|names| names.iter().all(Result::is_ok)) {
        true => Ok(text.to_owned()),
        false => Err("write it as WORKSPACE/DEPLOYMENT".to_owned()),
    }
}

impl Drift {
    /// Shows or adopts.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let paths = (!self.paths.is_empty()).then_some(self.paths);
        let request =
            |deployment: String| AdoptRequest { deployment, paths: paths.clone(), reason: self.reason.clone() };
        let options = WriteOptions::default();
        match (self.adopt, self.unadopt) {
            (Some(deployment), _) => {
                let answer = client.adopt(&self.host, &request(deployment.clone()), &options).await?;
                session.output.show(&written(&answer, &self.host, &deployment))?;
                Ok(Exit::Done)
            }
            (None, Some(deployment)) => {
                let answer = client.unadopt(&self.host, &request(deployment.clone()), &options).await?;
                session.output.show(&written(&answer, &self.host, &deployment))?;
                Ok(Exit::Done)
            }
            (None, None) if paths.is_some() || self.reason.is_some() => {
                Err(CliError::usage("--path and --reason say nothing by themselves", "add --adopt or --unadopt"))
            }
            (None, None) => {
                let drift = client.drift(&self.host).await?;
                session.output.show(&view(&drift, &adopted(&client, &self.host).await?))?;
                let open = drift.deployments.iter().flat_map(|of| &of.drift).any(|drift| !drift.repaired);
                Ok(if open { Exit::Differences } else { Exit::Done })
            }
        }
    }
}

/// Returns what of a host is adopted, as `workspace/deployment` and path.
async fn adopted(client: &Client, host: &Name) -> Result<Vec<(String, String)>, CliError> {
    let document = client.get(Kind::Host, None, host, None).await?;
    let spec: HostSpec = serde_json::from_value(document.spec).unwrap_or_default();
    let files = spec.files.into_iter();
    Ok(files.flat_map(|(of, files)| files.into_keys().map(move |path| (of.clone(), path))).collect())
}

/// Shows what was done and what is adopted now.
fn written(answer: &AdoptAnswer, host: &Name, deployment: &str) -> View {
    let word = match answer.revision {
        Some(_) => Tone::Good.paint("changed"),
        None => Tone::Faint.paint("unchanged"),
    };
    let slug = slug(Kind::Host, host);
    let mut view = View::new(answer).text(format!("{slug} {word}")).name(slug);
    for path in &answer.paths {
        view = view.text(format!("{deployment} {} is adopted", plain(path)));
    }
    if answer.paths.is_empty() {
        view = view.text(Tone::Faint.paint(&format!("nothing of {deployment} is adopted now")));
    }
    view
}

/// Returns text of a host that cannot steer the terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Returns the table, then the differences.
fn view(drift: &HostDrift, adopted: &[(String, String)]) -> View {
    let mut view = View::new(drift);
    let mut table = Table::new(&["DEPLOYMENT", "WHAT", "HOW", "REPAIRED"]);
    let (mut diffs, mut open) = (String::new(), 0);
    for of in &drift.deployments {
        let title = format!("{}/{}", of.workspace, of.deployment);
        view = view.name(slug(Kind::Deployment, &of.deployment));
        for one in &of.drift {
            open += usize::from(!one.repaired);
            let repaired = if one.repaired { Cell::toned("yes", Tone::Good) } else { Cell::toned("no", Tone::Bad) };
            table.row([title.as_str().into(), one.what.as_str().into(), one.how.as_str().into(), repaired]);
            if !one.diff.is_empty() {
                let what = format!("{title} {}", plain(&one.what));
                diffs.push_str(&format!("\n{}\n{}", Tone::Strong.paint(&what), diffs::paint(&one.diff, "", None)));
            }
        }
    }
    if !drift.deployments.is_empty() {
        view = view.table(table);
    }
    if !diffs.is_empty() {
        view = view.text(diffs);
    }
    for (deployment, path) in adopted {
        view = view.text(Tone::Faint.paint(&format!("{deployment} {path} is adopted")));
    }
    let summary = match open {
        0 if drift.deployments.is_empty() => format!("{}: everything is as it was applied", drift.host),
        0 => format!("{}: everything was put right", drift.host),
        1 => format!("{}: 1 thing is not as it was applied", drift.host),
        many => format!("{}: {many} things are not as they were applied", drift.host),
    };
    view.text(Tone::Faint.paint(&summary))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Format;

    fn shown(drift: serde_json::Value, adopted: &[(String, String)]) -> String {
        let drift = serde_json::from_value(drift).expect("drift");
        anstream::adapter::strip_str(&view(&drift, adopted).render(Format::Table, None)).to_string()
    }

    #[test]
    fn table_comes_first_and_differences_after() {
        let diff = "--- applied\n+++ found\n@@ -1 +1 @@\n-port=1\n+port=2\n";
        let text = shown(
            json!({"host": "tim-pi", "deployments": [{
                "workspace": "iot", "deployment": "web", "release": "web#1", "phase": "healthy",
                "reportedAt": "2026-11-20T15:00:00Z",
                "drift": [
                    {"what": "iot/web/app.conf", "how": "content", "diff": diff, "found": "port=2\n"},
                    {"what": "unit:web.service", "how": "stopped", "repaired": true},
                ],
            }]}),
            &[("iot/web".to_owned(), "b.conf".to_owned())],
        );
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "DEPLOYMENT WHAT HOW REPAIRED",
                "iot/web iot/web/app.conf content no",
                "iot/web unit:web.service stopped yes",
                "",
                "iot/web iot/web/app.conf",
                "--- applied",
                "+++ found",
                "@@ -1 +1 @@",
                "-port=1",
                "+port=2",
                "iot/web b.conf is adopted",
                "tim-pi: 1 thing is not as it was applied",
            ]
        );
    }

    #[test]
    fn host_without_drift_says_so() {
        assert_eq!(shown(json!({"host": "a", "deployments": []}), &[]), "a: everything is as it was applied\n");
    }

    #[test]
    fn deployments_are_written_with_their_workspace() {
        assert!(deployment("a/b").is_ok());
        for bad in ["a", "a/b/c", "/b", "A/b", ""] {
            assert!(deployment(bad).is_err(), "{bad}");
        }
    }
}
