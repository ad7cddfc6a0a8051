//! How quadlets do: their files, their units, and what these have made.

use std::time::Duration;

use titan_api::{drift::Drift, limits};

use super::{Keeper, QUADLET, Quadlet, Quadlets, keys::Sort, placed::Found, placed::Placed};
use crate::{
    apply::{
        ApplyError, Condition, Observation, Work,
        podman::{
            images::platform,
            libpod::LibpodError,
            lookups::find_labels,
            marks::{self, Mark},
            sight::{Seen, Sight, observation},
        },
        systemd::{bus::BusError, names::UNIT, states::State, units::Start},
    },
    claims::Claim,
    drifts::{self, Side},
};

/// Codes with which a container ends that somebody else has stopped or removed.
const ENDED: [i32; 2] = [128 + 9, 128 + 15];
/// When it is looked again at what changes by itself.
const AGAIN: Duration = Duration::from_secs(1);

impl Keeper {
    /// Returns how each claim does, and when to look again if nothing happens before.
    pub(in super::super) fn observe(
        &mut self,
        work: &Work<'_>,
        quadlets: &Quadlets,
        image: impl Fn(&str) -> String,
    ) -> Result<(Vec<Observation>, Option<Duration>), ApplyError> {
        let asking = |error: BusError| error.doing("asking how units do");
        let units = quadlets.units();
        let states = self.jobs.bus.states(units.keys().map(String::as_str)).map_err(asking)?;
        let texts = quadlets.texts(work, image);
        let mut all = Vec::new();
        for (file, quadlet) in &quadlets.all {
            let placed = Placed(&self.directory);
            let found = placed.find(file)?;
            let drift = texts.get(file).and_then(|(text, mode)| differs(file, (text, *mode), found, placed.mode(file)));
            all.push(Observation { claim: Claim::new(QUADLET, file), condition: Condition::Well, drift });
            let Some(state) = states.get(&quadlet.unit) else { continue };
            let (condition, stopped) = self.unit(quadlet, state).map_err(asking)?;
            all.push(observation(Claim::new(UNIT, &quadlet.unit), (condition, stopped.then_some("stopped"))));
        }
        let plain = |quadlet: &&Quadlet| {
            let runs = quadlet.model.start == Start::Now && !quadlet.model.ends;
            runs && states.get(&quadlet.unit).is_some_and(State::is_plain)
        };
        let (running, others): (Vec<&Quadlet>, Vec<&Quadlet>) = quadlets.all.values().partition(plain);
        // Of what a unit makes that does not run, the unit tells.
        let things = others.into_iter().filter_map(|quadlet| quadlet.thing.clone());
        all.extend(things.map(|claim| Observation { claim, condition: Condition::Well, drift: None }));
        let mark = Mark::of(work.target);
        let seen = self.ground.io.block_on(async {
            let volumes = running.iter().any(|quadlet| quadlet.sort == Sort::Volume);
            let mut sight = Sight::take(&self.libpod, &mark, volumes).await?;
            let mut seen = Vec::new();
            for quadlet in &running {
                let Some(claim) = &quadlet.thing else { continue };
                seen.push(observation(claim.clone(), thing(&mut sight, quadlet, claim, work).await?));
            }
            Ok((seen, sight.again))
        });
        match seen {
            Ok((seen, again)) => {
                all.extend(seen);
                Ok((all, again))
            }
            // Podman cannot make a list while something in it goes.
            Err(LibpodError::Said(_) | LibpodError::Missing(_)) => {
                let changing = || (Condition::Starting("podman is changing it".to_owned()), None);
                let things = running.iter().filter_map(|quadlet| quadlet.thing.clone());
                all.extend(things.map(|claim| observation(claim, changing())));
                Ok((all, Some(AGAIN)))
            }
            Err(error) => Err(platform("looking at what runs", &error)),
        }
    }

    /// Returns how a unit does, and whether somebody stopped it or its container.
    fn unit(&mut self, quadlet: &Quadlet, state: &State) -> Result<(Condition, bool), BusError> {
        let (condition, stopped) = self.jobs.condition(&quadlet.unit, &quadlet.model, state)?;
        if !matches!(condition, Condition::Failed(_)) || state.active != "failed" || quadlet.sort != Sort::Container {
            return Ok((condition, stopped));
        }
        // Whoever stops a container behind systemd's back makes its unit fail.
        let exit: Option<i32> = self.jobs.bus.property(&quadlet.unit, "Service", "ExecMainStatus")?;
        let result: Option<String> = self.jobs.bus.property(&quadlet.unit, "Service", "Result")?;
        let killed = exit.is_some_and(|code| ENDED.contains(&code)) && result.as_deref() == Some("exit-code");
        Ok((condition, stopped || killed))
    }

    /// Returns what files of the bundle would have to say for what is written there to be right.
    pub(in super::super) fn adopt(
        &self,
        work: &Work<'_>,
        quadlets: &Quadlets,
        image: impl Fn(&str) -> String,
    ) -> Result<Vec<(String, String)>, ApplyError> {
        let mut files = Vec::new();
        for (file, (text, mode)) in quadlets.texts(work, image) {
            let placed = Placed(&self.directory);
            let (Found::Ours(_, found) | Found::Other(Some(found))) = placed.find(&file)? else { continue };
            let shown = found.len() <= limits::DRIFT_BYTES && drifts::is_shown(mode & placed.mode(&file));
            if found != text && shown {
                files.push((file, without_marks(&found)));
            }
        }
        Ok(files)
    }
}

/// Returns how what a unit made does.
async fn thing(sight: &mut Sight<'_>, quadlet: &Quadlet, claim: &Claim, work: &Work<'_>) -> Result<Seen, LibpodError> {
    let missing = || (Condition::Ill(format!("there is no {} {}", claim.kind, claim.name)), Some("missing"));
    match quadlet.sort {
        Sort::Container => {
            let Some(there) = sight.containers.iter().find(|there| there.names.contains(&claim.name)).cloned() else {
                return Ok(missing());
            };
            let made = work.after.get(claim);
            if made.is_some_and(|made| !marks::fits(&there.labels, made)) {
                let why = "the container is made from something else".to_owned();
                return Ok((Condition::Ill(why), Some("replaced")));
            }
            sight.container(&claim.name, &there, true, false).await
        }
        Sort::Volume => Ok(sight.volume(&claim.name, false)),
        _ => Ok(match find_labels(sight.libpod, claim).await? {
            Some(_) => (Condition::Well, None),
            None => missing(),
        }),
    }
}

/// Returns how a file differs from what was written.
fn differs(file: &str, (text, mode): (&str, u32), found: Found, there: u32) -> Option<Drift> {
    let (how, found) = match found {
        Found::Missing => ("missing", String::new()),
        Found::Ours(_, found) if found == text => return None,
        Found::Ours(_, found) => ("", found),
        Found::Other(found) => ("replaced", found.unwrap_or_default()),
    };
    let applied = Side { mode, content: Some(text.as_bytes()).filter(|text| text.len() <= drifts::COMPARED) };
    let now = Side { mode: there, content: Some(found.as_bytes()).filter(|found| found.len() <= drifts::COMPARED) };
    let mut drift = drifts::of_content(file, applied, now);
    // It has marks in it that no bundle has: what can be adopted is told without them.
    drift.found = None;
    if !how.is_empty() {
        how.clone_into(&mut drift.how);
    }
    Some(drift)
}

/// Returns a text without what the agent added to it.
fn without_marks(text: &str) -> String {
    let marked = |line: &str| {
        let value = line.trim_start_matches("Label=").trim_start_matches("PodmanArgs=--label=");
        line.len() != value.len() && value.starts_with("titan.")
    };
    let lines = text.lines().filter(|line| !line.starts_with("# Kept by titan-agent for ") && !marked(line));
    let mut text: String = lines.map(|line| format!("{line}\n")).collect();
    // The section that held nothing but marks.
    for section in ["[Container]\n", "[Network]\n", "[Pod]\n", "[Volume]\n"] {
        if let Some(rest) = text.strip_suffix(section).filter(|rest| rest.contains(section)) {
            text.truncate(rest.len());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_adopted_is_what_a_person_wrote() {
        let text = "# Kept by titan-agent for default/web\n[Container]\nImage=quay.io/x/y\nLabel=a=b\n[Container]\n\
                    Label=titan.digest=1\nLabel=titan.home=default/web\n";
        assert_eq!(without_marks(text), "[Container]\nImage=quay.io/x/y\nLabel=a=b\n");
    }
}
