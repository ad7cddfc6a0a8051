//! `titan status host`.

use titan_api::{
    Document, Kind, Name, Revision,
    client::Client,
    hosts::{HostSpec, HostStatus},
    status::HostDeployment,
};

use serde_json::json;

use crate::{
    commands::deployments::status::{commit, drift, reason, state},
    errors::CliError,
    output::{
        Tone, View,
        ages::age,
        tables::{Cell, Table},
    },
};

/// How many questions are asked at once.
const AT_ONCE: usize = 16;

/// Returns what is known of a host and of each deployment on it.
pub(crate) async fn view(client: &Client, name: &Name, now: Revision) -> Result<View, CliError> {
    let document = client.get(Kind::Host, None, name, None).await?;
    let spec: HostSpec = serde_json::from_value(document.spec.clone()).unwrap_or_default();
    let status: HostStatus =
        document.status.clone().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    let deployments = deployments(client, name, |_| true).await?;

    let state = match (&status, spec.cordoned) {
        (HostStatus { enrolled_at: None, .. }, _) => {
            format!("{}: no agent has enrolled yet", Tone::Care.paint("new"))
        }
        (HostStatus { online: false, .. }, _) => Tone::Bad.paint("offline"),
        (_, true) => Tone::Care.paint("online, cordoned"),
        (_, false) => Tone::Good.paint("online"),
    };
    let seen = status.last_seen.map(|seen| format!(", seen {} ago", age(seen, now))).unwrap_or_default();
    let mut view =
        View::new(&json!({ "host": document, "deployments": deployments.iter().map(|(workspace, name, row)| {
        json!({ "workspace": workspace, "deployment": name, "assignment": row })
    }).collect::<Vec<_>>() }))
        .name(format!("host/{name}"))
        .text(format!("{} {state}{seen}", Tone::Strong.paint(name)));
    if !status.facts.is_empty() {
        let facts: Vec<_> = status.facts.iter().map(|(key, value)| format!("{key}={value}")).collect();
        view = view.text(Tone::Faint.paint(&facts.join(" ").replace('"', "")));
    }
    view = blocks(view, name, &deployments, now);
    if !status.orphans.is_empty() {
        let mut orphans = Table::new(&["ORPHAN", "WORKSPACE", "ID"]);
        for orphan in &status.orphans {
            orphans.row([orphan.name.as_str().into(), orphan.workspace.as_str().into(), orphan.id.to_string().into()]);
        }
        view = view.table(orphans).text(format!("nobody declares these; remove them with `titan host prune {name}`"));
    }
    Ok(view)
}

/// Returns `view` with how far each deployment is on a host.
pub(crate) async fn deployed(view: View, client: &Client, name: &Name, now: Revision) -> Result<View, CliError> {
    let deployments = deployments(client, name, |_| true).await?;
    Ok(blocks(view, name, &deployments, now))
}

fn blocks(mut view: View, name: &Name, deployments: &[Row], now: Revision) -> View {
    if deployments.is_empty() {
        return view.text("it is to run nothing");
    }
    view = view.table(table(deployments, now));
    if deployments.iter().any(|(_, _, row)| row.has_drifted()) {
        view = view.text(format!("what has drifted is shown by `titan host drift {name}`"));
    }
    view
}

/// The workspace and name of a deployment, and how far it is on the host.
pub(super) type Row = (Name, Name, HostDeployment);

fn table(deployments: &[Row], now: Revision) -> Table {
    let mut table =
        Table::new(&["WORKSPACE", "DEPLOYMENT", "STATE", "RELEASE", "DIGEST", "COMMIT", "DRIFT", "AGE", "MESSAGE"]);
    for (workspace, name, row) in deployments {
        table.row([
            workspace.as_str().into(),
            name.as_str().into(),
            state(row),
            row.release.as_str().into(),
            Cell::maybe(row.digest.map(|digest| digest.short())),
            commit(row),
            drift(&row.drift),
            age(row.revision, now).into(),
            Cell::maybe(Some(reason(row))),
        ]);
    }
    table
}

/// Returns each of the wanted deployments that the host has, is to have, or is removing.
pub(super) async fn deployments(
    client: &Client,
    host: &Name,
    wanted: impl Fn(&Document) -> bool,
) -> Result<Vec<Row>, CliError> {
    let mut questions = tokio::task::JoinSet::new();
    let mut rows = Vec::new();
    for document in client.list_all(Kind::Deployment, None, None).await? {
        if !wanted(&document) {
            continue;
        }
        let Some(workspace) = document.metadata.workspace else { continue };
        let (client, host, name) = (client.clone(), host.clone(), document.metadata.name);
        while questions.len() >= AT_ONCE {
            rows.extend(answered(questions.join_next().await)?);
        }
        questions.spawn(async move {
            let why = client.why(&host, &workspace, &name).await?;
            Ok::<_, CliError>(why.assignment.map(|assignment| (workspace, name, assignment)))
        });
    }
    while !questions.is_empty() {
        rows.extend(answered(questions.join_next().await)?);
    }
    rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(rows)
}

type Answer = Option<Result<Result<Option<Row>, CliError>, tokio::task::JoinError>>;

fn answered(answer: Answer) -> Result<Option<Row>, CliError> {
    match answer {
        Some(Ok(row)) => row,
        Some(Err(error)) => Err(CliError::Failed(format!("a request was given up: {error}"))),
        None => Ok(None),
    }
}
