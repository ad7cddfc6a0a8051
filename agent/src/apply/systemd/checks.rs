//! Programs of systemd that are asked where they are installed: `systemd-analyze verify` before a switch, `journalctl` about
//! a unit that does not do well.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use titan_api::{Digest, limits};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::names;
use crate::{
    apply::{ApplyError, Readiness, Work, systemd::units::Units},
    background::{Background, Stands},
    bundles::Bundle,
    commands::{How, Order},
    disk,
    excerpts::excerpt,
    state::StateDir,
    wake::Wake,
};

/// How long a check may take.
const VERIFY_PATIENCE: Duration = Duration::from_secs(30);
/// How long the journal may take to answer; whoever asks waits for it.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(1);
/// Lines of the journal that are shown.
const LINES: &str = "400";
/// What `systemd-analyze` says of a unit that systemd would not load. Everything else that it says are warnings, and many
/// of them are wrong before the switch: programs that the bundle brings are not in place yet.
const FATAL: [&str; 4] = ["bad unit file setting", "Refusing.", "fatal error", "Unit configuration has unsatisfiable"];

/// What was checked, and what came of it: `Ok`, or what is wrong.
#[derive(Debug)]
pub(super) struct Checks {
    state: StateDir,
    running: Background<(Uuid, Digest), Result<(), String>>,
}

impl Checks {
    pub(super) fn new(io: Handle, wake: Wake, state: StateDir) -> Self {
        Self { state, running: Background::new(io, wake) }
    }

    /// Asks `systemd-analyze verify` about the units of a bundle, on copies. Nothing to wait for where it is not installed.
    pub(super) fn verify(&mut self, work: &Work<'_>, bundle: &Bundle, units: &Units) -> Result<Readiness, ApplyError> {
        let Some(program) = installed("systemd-analyze") else { return Ok(Readiness::Ready) };
        let key = (work.target.id, work.target.digest);
        match self.running.look(&key) {
            Stands::Ended(Ok(())) | Stands::Lost => return Ok(Readiness::Ready),
            Stands::Ended(Err(message)) => {
                return Err(ApplyError::Malformed { path: "units of the bundle".to_owned(), message });
            }
            Stands::Running => return Ok(Readiness::Underway("checking the units".to_owned())),
            Stands::Unknown => {}
        }
        self.running.retain(|(id, _)| *id != work.target.id);
        let directory = self.state.file("systemd").join(format!("verify-{}", work.target.id));
        let stage = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            clear(&directory)?;
            for file in bundle.files.iter().filter(|file| !file.rooted) {
                let is_unit = names::suffix_of_file(&file.path).is_some();
                if !is_unit && names::drop_in(&file.path).is_none() {
                    continue;
                }
                let path = directory.join(&file.path);
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                io::copy(&mut file.reader(), &mut fs::File::create(&path)?)?;
                if is_unit {
                    names.push(file.path.clone());
                }
            }
            Ok(names)
        };
        disk::private_dir(&self.state.file("systemd")).map_err(crate::apply::switch::SwitchError::from)?;
        let failed = |error: io::Error| ApplyError::Platform {
            what: format!("copying units to {}", directory.display()),
            message: error.to_string(),
        };
        let names = stage().map_err(failed)?;
        if names.is_empty() || units.own.is_empty() {
            clear(&directory).map_err(failed)?;
            return Ok(Readiness::Ready);
        }
        let mut arguments: Vec<String> = vec!["verify".into(), "--man=no".into(), "--".into()];
        arguments.extend(names);
        let environment = vec![("SYSTEMD_UNIT_PATH", format!("{}:", directory.display())), ("LANG", "C.UTF-8".into())];
        let order = Order::of_the_agent(program, arguments, directory.clone(), environment, VERIFY_PATIENCE);
        self.running.start(key, async move {
            let ended = order.run().await;
            let _next_check_clears_it = clear(&directory);
            match ended.how {
                How::Exited(code) if code != 0 => told(&ended.output, &directory),
                _ => Ok(()),
            }
        });
        Ok(Readiness::Underway("checking the units".to_owned()))
    }
}

/// Returns what is fatal in what was said.
fn told(output: &str, directory: &Path) -> Result<(), String> {
    let prefix = format!("{}/", directory.display());
    let fatal = |line: &str| FATAL.iter().any(|sign| line.contains(sign));
    if !output.lines().any(fatal) {
        return Ok(());
    }
    let text = output.replace(&prefix, "");
    Err(format!("systemd would not load them: {}", excerpt(text.trim_end(), limits::MESSAGE_BYTES / 2)))
}

pub(in crate::apply) fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(in crate::apply) fn installed(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin"].iter().map(|directory| Path::new(directory).join(program)).find(|path| path.exists())
}

/// Returns the last lines that a unit wrote, or nothing where they cannot be had at once.
pub(super) fn last_lines(io: &Handle, unit: &str) -> String {
    let Some(program) = installed("journalctl") else { return String::new() };
    let arguments = ["--no-pager", "--quiet", "--output=cat", "-n", LINES, "-u", unit].map(str::to_owned);
    let environment = vec![("LANG", "C.UTF-8".to_owned())];
    let order = Order::of_the_agent(program, arguments.to_vec(), "/".into(), environment, JOURNAL_PATIENCE);
    let ended = io.block_on(order.run());
    if ended.how == How::Exited(0) { ended.output.trim_end().to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_systemd_would_not_load_is_refused() {
        let at = Path::new("/s/verify-1");
        let warnings = "/s/verify-1/a.service:3: Unknown key 'Foo' in section [Unit], ignoring.\n\
                        a.service: Command /srv/none/run.sh is not executable: No such file or directory\n";
        assert_eq!(told(warnings, at), Ok(()));
        let fatal = format!("{warnings}b.service: Service has no ExecStart=. Refusing.\n");
        let message = told(&fatal, at).expect_err("fatal");
        assert!(message.contains("Refusing") && !message.contains("/s/verify-1"), "{message}");
        assert!(told(&fatal.repeat(1000), at).expect_err("long").len() <= limits::MESSAGE_BYTES);
    }
}
