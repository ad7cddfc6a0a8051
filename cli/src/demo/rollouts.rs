//! `titan demo rollout`: a good release goes from stage to stage, a bad one stops at the first and is taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::{
    Code, Kind, Name,
    workplans::{NodeState, Outcome, PlanState},
};
use uuid::Uuid;

use super::{
    DemoError,
    fleet::Place,
    number,
    plays::{Play, approve, gate},
};
use crate::{
    commands::{
        documents::apply,
        workplans::{follow::Follow, picture::spoken},
    },
    errors::CliError,
    manifests::{self, Manifest},
    output::{Tone, lines::Line},
};

/// The scenario's name.
pub(super) const NAME: &str = "rollout";
/// Its files.
const FILES: [(&str, &str); 4] = [
    ("fleet.yaml", include_str!("rollouts/fleet.yaml")),
    ("strategy.story", include_str!("rollouts/strategy.yaml")),
    ("web/template.yaml", include_str!("rollouts/web/template.yaml")),
    ("web/web.conf.j2", include_str!("rollouts/web/web.conf.j2")),
];
/// How many hosts there are.
const HOSTS: usize = 12;
/// How long the first version may take to be on all of them.
const SETTLE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
const WEB: &str = "web";

/// Writes the fleet into a directory.
pub(super) fn copy(to: &Path) -> Result<(), DemoError> {
    let setup = |source| DemoError::Setup { doing: "writing the fleet", source };
    fs::create_dir_all(to.join("web")).map_err(setup)?;
    FILES.iter().try_for_each(|(path, text)| fs::write(to.join(path), text).map_err(setup))?;
    let host = |number| {
        let host = json!({"apiVersion": "titan/v1", "kind": "Host",
            "metadata": {"name": format!("web-{number:02}"), "labels": {"role": "web"}}, "spec": {}});
        crate::output::yaml(&host)
    };
    let hosts: Vec<String> = (1..=HOSTS).map(host).collect();
    fs::write(to.join("hosts.yaml"), hosts.join("---\n")).map_err(setup)
}

/// Shows it.
pub(super) async fn show(mut play: Play<'_>) -> Result<(), CliError> {
    let (workspace, web) = (Name::default_workspace(), Name::new(WEB)?);
    let folder = play.directory.join("fleet");
    let mut documents = manifests::read(&folder)?;
    play.act(
        &format!("version 1.0.0 on {}, all at once", number(HOSTS, "host")),
        &format!("titan apply -f {}", folder.display()),
    )?;
    let begin = Instant::now();
    apply::send(play.client, &documents, false, Some("the demo".to_owned())).await?;
    let places = play.fleet.enrol(play.client, super::hosts(&documents)).await?;
    while versions(&places).get("1.0.0").map(BTreeSet::len) != Some(HOSTS)
        || !play.client.deployment_status(&workspace, &web).await?.converged()
    {
        play.fleet.check()?;
        if begin.elapsed() > SETTLE {
            let state = format!("version 1.0.0 is not on every host: {:?}", versions(&places));
            return Err(DemoError::Stuck { state, log: play.fleet.log().display().to_string() }.into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = begin.elapsed().as_secs_f64();
    play.output.line(&format!(
        "{} in {took:.1} s, {}",
        Tone::Good.paint("healthy"),
        shown(&places).render(false).trim()
    ))?;

    let strategy: Value =
        serde_yaml::from_str(FILES[1].1).map_err(|source| DemoError::Story { scenario: NAME.to_owned(), source })?;
    edit(&mut documents, Kind::Deployment, "/spec/strategy", &strategy);
    edit(&mut documents, Kind::Workload, "/spec/version", &json!("2.0.0"));
    play.act("version 2.0.0: one host, a person looks at it, half of them, all", "titan rollout watch web")?;
    good(&mut play, &documents, &places).await?;

    edit(&mut documents, Kind::Workload, "/spec/version", &json!("3.0.0"));
    edit(&mut documents, Kind::Workload, "/spec/values", &json!({ "state": "broken" }));
    play.act("version 3.0.0 does not work", "titan rollout watch web")?;
    bad(&mut play, &documents, &places).await?;
    play.end()
}

/// Applies what was edited and returns the rollout that follows from it.
async fn begin(play: &Play<'_>, documents: &[Manifest]) -> Result<Follow, CliError> {
    let (workspace, web) = (Name::default_workspace(), Name::new(WEB)?);
    let before = rollout(play, &workspace, &web).await?;
    apply::send(play.client, documents, false, Some("the demo".to_owned())).await?;
    let begin = Instant::now();
    loop {
        let now = rollout(play, &workspace, &web).await?;
        if let Some(id) = now.filter(|id| Some(*id) != before) {
            return Ok(Follow::begin(play.client, id, Some((workspace, web))).await?);
        }
        if begin.elapsed() > SETTLE {
            let state = "no rollout began".to_owned();
            return Err(DemoError::Stuck { state, log: play.fleet.log().display().to_string() }.into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn rollout(play: &Play<'_>, workspace: &Name, web: &Name) -> Result<Option<Uuid>, CliError> {
    match play.client.rollout(workspace, web).await {
        Ok(status) => Ok(Some(status.id)),
        Err(error) if error.code() == Some(Code::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A release that works: it waits at the gate with one host, and reaches all once that is open.
async fn good(play: &mut Play<'_>, documents: &[Manifest], places: &[Place]) -> Result<(), CliError> {
    let mut plan = begin(play, documents).await?;
    let mut beside = || Ok(vec![shown(places)]);
    play.follow(&mut plan, &mut beside, |plan| gate(plan).is_some()).await?;
    play.pause(&mut plan, &mut beside).await?;
    let waiting = versions(places);
    let reviewer = play.somebody("reviewer").await?;
    let node = gate(&plan).map(|gate| gate.name.to_string()).unwrap_or_default();
    approve(&reviewer, &plan, "the canary looks good").await?;
    play.act("the reviewer has looked at the canary", &format!("titan rollout approve web {node}"))?;
    play.follow(&mut plan, &mut beside, Follow::is_over).await?;
    let at_the_gate = waiting.get("2.0.0").map_or(0, BTreeSet::len);
    play.expect(at_the_gate == 1, format!("at the gate 2.0.0 was on {} of {HOSTS}", number(at_the_gate, "host")));
    let status = &plan.status;
    play.expect(status.state == PlanState::Succeeded, format!("once it was open {} {}", status.name, status.state));
    let now = versions(places).get("2.0.0").map_or(0, BTreeSet::len);
    play.expect(now == HOSTS, format!("2.0.0 is on {}, by what is on their disks", number(now, "host")));
    Ok(())
}

/// A release that does not work: one host finds out, nobody else ever has it, and that one returns.
async fn bad(play: &mut Play<'_>, documents: &[Manifest], places: &[Place]) -> Result<(), CliError> {
    let mut plan = begin(play, documents).await?;
    let mut ever = BTreeSet::new();
    let mut beside = || {
        ever.extend(versions(places).remove("3.0.0").unwrap_or_default());
        Ok(vec![shown(places)])
    };
    play.follow(&mut plan, &mut beside, Follow::is_over).await?;
    let outcome = |name: &str| plan.nodes.get(name).filter(|node| node.state == NodeState::Final)?.outcome;
    let status = &plan.status;
    let met: Vec<&str> = ever.iter().map(Name::as_str).collect();
    play.expect(ever.len() == 1, format!("3.0.0 was on {} alone", met.join(", ")));
    let stopped = outcome("canary") == Some(Outcome::Failed) && outcome("half") != Some(Outcome::Passed);
    let canary = plan.nodes.get("canary").and_then(|node| node.message.clone()).unwrap_or_default();
    let why = if canary.is_empty() { "nothing was said".to_owned() } else { canary };
    let said = plan.faults.iter().find(|(host, _)| ever.contains(*host));
    let said = said.map_or_else(String::new, |(host, said)| format!("; {host} says: {said}"));
    play.expect(stopped, format!("it stopped there: {why}{said}"));
    let back = status.state == PlanState::RolledBack;
    play.expect(back, format!("{} was {}, because {}", status.name, spoken(status.state), reason(&plan)));
    let now = versions(places).get("2.0.0").map_or(0, BTreeSet::len);
    play.expect(now == HOSTS, format!("2.0.0 is on {} again, by what is on their disks", number(now, "host")));
    Ok(())
}

fn reason(plan: &Follow) -> &str {
    plan.status.reason.as_deref().unwrap_or("of nothing that is known")
}

/// Puts a value into the documents of a kind.
fn edit(documents: &mut [Manifest], kind: Kind, pointer: &str, value: &Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    for document in documents.iter_mut().filter(|document| document.kind() == Some(kind)) {
        if let Some(map) = document.value.pointer_mut(parent).and_then(Value::as_object_mut) {
            map.insert(key.to_owned(), value.clone());
        }
    }
}

/// Returns which hosts have which version on their disks.
fn versions(places: &[Place]) -> BTreeMap<String, BTreeSet<Name>> {
    let mut versions: BTreeMap<String, BTreeSet<Name>> = BTreeMap::new();
    for place in places {
        // While a directory is exchanged it is not there for a moment; the next look finds it.
        let text = fs::read_to_string(place.files.join("default").join(WEB).join("web.conf")).unwrap_or_default();
        let version = text.lines().find_map(|line| line.strip_prefix("version="));
        if let Some(version) = version {
            versions.entry(version.to_owned()).or_default().insert(place.host.clone());
        }
    }
    versions
}

fn shown(places: &[Place]) -> Line {
    let each = versions(places).into_iter().map(|(version, hosts)| format!("{version} on {}", hosts.len()));
    Line::new().add(Tone::Faint, format!("  on the hosts' disks: {}", each.collect::<Vec<_>>().join(", ")))
}
