//! What is checked before quadlets are switched: the host, what is there already, and what podman's own generator says.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use titan_api::Digest;
use uuid::Uuid;

use super::{Keeper, QUADLET, Quadlets, placed, placed::Placed};
use crate::{
    apply::{
        ApplyError, Readiness, Work,
        appliers::Ground,
        podman::{
            images::platform,
            libpod::Ask,
            lookups::find_labels,
            marks::{Mark, Whose},
        },
        switch::SwitchError,
        systemd::{
            bus::BusError,
            checks::{clear, installed},
            names::UNIT,
        },
    },
    background::{Background, Stands},
    commands::{How, Order},
    disk,
    state::StateDir,
};

/// How long the generator may take.
const DRY_RUN: Duration = Duration::from_secs(30);
/// Where the generator is.
const GENERATORS: [&str; 2] =
    ["/usr/lib/systemd/system-generators/podman-system-generator", "/usr/libexec/podman/quadlet"];

/// Trial runs of the generator.
#[derive(Debug)]
pub(super) struct Checking {
    state: StateDir,
    running: Background<(Uuid, Digest), Result<(), String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

impl Checking {
    pub(super) fn new(ground: &Ground) -> Self {
        Self { state: ground.state.clone(), running: Background::new(ground.io.clone(), ground.wake.clone()) }
    }

    /// Has the generator say what it thinks of quadlets, on copies.
    fn dry_run(
        &mut self,
        work: &Work<'_>,
        program: &Path,
        texts: &BTreeMap<String, (String, u32)>,
    ) -> Result<Readiness, ApplyError> {
        let key = (work.target.id, work.target.digest);
        match self.running.look(&key) {
            Stands::Ended(Ok(())) | Stands::Lost => return Ok(Readiness::Ready),
            Stands::Ended(Err(message)) => {
                return Err(ApplyError::Malformed { path: "quadlets of the bundle".to_owned(), message });
            }
            Stands::Running => return Ok(Readiness::Underway("checking the quadlets".to_owned())),
            Stands::Unknown => {}
        }
        self.running.retain(|(id, _)| *id != work.target.id);
        disk::private_dir(&self.state.file("quadlets")).map_err(SwitchError::from)?;
        let directory = self.state.file("quadlets").join(format!("check-{}", work.target.id));
        let stage = || -> io::Result<()> {
            clear(&directory)?;
            fs::create_dir(&directory)?;
            texts.iter().try_for_each(|(name, (text, _))| fs::write(directory.join(name), text))
        };
        stage().map_err(|error| ApplyError::Platform {
            what: format!("copying quadlets to {}", directory.display()),
            message: error.to_string(),
        })?;
        let environment = vec![("QUADLET_UNIT_DIRS", directory.display().to_string()), ("LANG", "C.UTF-8".to_owned())];
        let order =
            Order::of_the_agent(program.into(), vec!["-dryrun".to_owned()], directory.clone(), environment, DRY_RUN);
        self.running.start(key, async move {
            let ended = order.run().await;
            let _next_check_clears_it = clear(&directory);
            match ended.how {
                How::Exited(0) | How::TimedOut(_) | How::NotRun(_) | How::Signal(_) => Ok(()),
                How::Exited(_) => Err(told(&ended.output)),
            }
        });
        Ok(Readiness::Underway("checking the quadlets".to_owned()))
    }
}

/// Returns what is wrong in what the generator said.
fn told(output: &str) -> String {
    let said = |line: &str| Some(line.strip_prefix("quadlet-generator[")?.split_once("]: ")?.1.to_owned());
    let noise = |line: &String| line.starts_with("Loading source") || line.starts_with("Warning");
    let lines: Vec<String> = output.lines().filter_map(said).filter(|line| !noise(line)).collect();
    let lines = if lines.is_empty() { "it does not say why".to_owned() } else { lines.join("; ") };
    format!("podman's generator does not take them: {}", lines.chars().take(2000).collect::<String>())
}

/// Returns the first two numbers of a version.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn generator() -> Option<PathBuf> {
    GENERATORS.iter().map(PathBuf::from).find(|path| path.exists()).or_else(|| installed("podman-system-generator"))
}

impl Keeper {
    /// Checks that this host can have these quadlets.
    pub(in super::super) fn check_host(&mut self, quadlets: &Quadlets) -> Result<(), ApplyError> {
        let refused = |message: String| {
            Err(ApplyError::Platform { what: "looking whether this host can have quadlets".to_owned(), message })
        };
        if self.here && !Path::new("/run/systemd/system").is_dir() {
            return refused("it does not run systemd, which they need; describe pods as kube YAML".to_owned());
        }
        if self.version.is_none() {
            let told: Version = self
                .libpod
                .read_now(Ask::get("/version"))
                .map_err(|error| platform("asking podman for its version", &error))?;
            self.version = version(&told.version);
        }
        let (major, minor) = self.version.unwrap_or_default();
        for (file, quadlet) in &quadlets.all {
            let (wants, least) = quadlet.sort.since();
            if (major, minor) < (wants, least) {
                return refused(format!(
                    "{file} needs podman {wants}.{least}, and this is {major}.{minor}; describe pods as kube YAML"
                ));
            }
        }
        if self.here && generator().is_none() {
            return refused(format!("podman's generator is not installed: there is no {}", GENERATORS[0]));
        }
        Ok(())
    }

    /// Refuses what is there already and not the agent's.
    pub(in super::super) fn check_foreign(&mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        if self.adopt {
            return Ok(());
        }
        let mark = Mark::of(work.target);
        let directory = self.directory.clone();
        for claim in work.after.keys().filter(|claim| !work.before.contains_key(*claim)) {
            let foreign = match claim.kind.as_str() {
                QUADLET => matches!(Placed(&directory).find(&claim.name)?, placed::Found::Other(_)),
                UNIT => {
                    let failed = |error: BusError| error.doing(&format!("looking for {}", claim.name));
                    let file = self.jobs.bus.file_of(&claim.name).map_err(failed)?;
                    file.is_some() && self.source(&claim.name).map_err(failed)?.is_none()
                }
                _ => {
                    let labels = self.ground.io.block_on(find_labels(&self.libpod, claim));
                    let labels = labels.map_err(|error| platform(format!("looking for {claim}"), &error))?;
                    // Another deployment's may be on its way out; if it is not, that is told by the ledger.
                    labels.is_some_and(|labels| mark.whose(&labels) == Whose::Nobody)
                }
            };
            if foreign {
                return Err(ApplyError::Foreign(claim.clone()));
            }
        }
        Ok(())
    }

    /// Returns the file of ours in the generator's directory that a unit is made from.
    pub(super) fn source(&mut self, unit: &str) -> Result<Option<String>, BusError> {
        let source: Option<String> = self.jobs.bus.property(unit, "Unit", "SourcePath")?;
        let Some(source) = source else { return Ok(None) };
        let path = Path::new(&source);
        // The bus may be that of a system whose files are seen below another directory.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let inside = !self.here || path.parent() == Some(&self.directory);
        let ours = inside && matches!(Placed(&self.directory).find(name), Ok(placed::Found::Ours(..)));
        Ok(ours.then(|| name.to_owned()))
    }

    /// Asks the generator about quadlets before they are switched.
    pub(in super::super) fn dry_run(
        &mut self,
        work: &Work<'_>,
        quadlets: &Quadlets,
        image: impl Fn(&str) -> String,
    ) -> Result<Readiness, ApplyError> {
        match generator() {
            Some(program) => self.checking.dry_run(work, &program, &quadlets.texts(work, image)),
            None => Ok(Readiness::Ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_is_told_of_what_the_generator_says() {
        let said = "quadlet-generator[7]: Loading source unit file /s/web.container\n\
                    quadlet-generator[7]: converting \"web.container\": unsupported key 'Foo'\n---web.service---\n";
        let told = told(said);
        assert!(told.ends_with("converting \"web.container\": unsupported key 'Foo'"), "{told}");
    }

    #[test]
    fn versions_are_told_by_their_first_two_numbers() {
        assert_eq!(version("5.4.2"), Some((5, 4)));
        assert_eq!(version("4.10.0-dev"), Some((4, 10)));
        assert_eq!(version("five"), None);
    }
}
