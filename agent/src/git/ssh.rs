//! Git over the system's `ssh`: its configuration, keys, agents and known hosts are the host's own business.

use std::{
    io::{self, Read, Write as _},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::wire::{Carrier, Request, Service, WireError};
use crate::config::{GitSettings, SshSettings};

/// The carrier.
#[derive(Debug)]
pub(crate) struct Ssh {
    host: String,
    port: Option<u16>,
    path: String,
    settings: SshSettings,
    timeout: Duration,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    child: Child,
    output: ChildStdout,
    errors: Option<JoinHandle<String>>,
    watch: Arc<Watch>,
    watcher: Option<JoinHandle<()>>,
}

/// Ends a process that is silent for too long.
#[derive(Debug)]
struct Watch {
    state: Mutex<(Instant, bool)>,
    changed: Condvar,
}

impl Ssh {
    /// Returns a carrier to the repository at `path` on `host`, which may be `user@host`.
    pub(crate) fn new(host: String, port: Option<u16>, path: String, settings: &GitSettings) -> Self {
        Self { host, port, path, settings: settings.ssh.clone(), timeout: settings.timeout, session: None }
    }

    /// Returns the arguments of `ssh`. The host comes after `--`, so nothing in it is an option.
    fn arguments(&self, service: Service) -> Vec<String> {
        let option = |text: String| ["-o".to_owned(), text];
        let mut arguments = Vec::new();
        arguments.extend(option("BatchMode=yes".to_owned()));
        for text in &self.settings.options {
            arguments.extend(option(text.clone()));
        }
        if let Some(file) = &self.settings.known_hosts_file {
            arguments.extend(option(format!("UserKnownHostsFile={}", file.display())));
        }
        if let Some(file) = &self.settings.key_file {
            arguments.extend(option("IdentitiesOnly=yes".to_owned()));
            arguments.extend(["-i".to_owned(), file.display().to_string()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        // The other side's shell takes it apart again: in quotes, and quotes inside escaped.
        let quoted = self.path.replace('\'', "'\\''");
        let command = format!("{} '{quoted}'", service.name());
        arguments.extend(["--".to_owned(), self.host.clone(), command]);
        arguments
    }

    fn session(&mut self) -> Result<&mut Session, WireError> {
        self.session.as_mut().ok_or_else(|| WireError::Io(io::Error::from(io::ErrorKind::NotConnected)))
    }
}

impl Carrier for Ssh {
    fn open(&mut self, service: Service) -> Result<Box<dyn Read + '_>, WireError> {
        let arguments = self.arguments(service);
        let mut child = Command::new("ssh")
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("ssh cannot be run: {error}")))?;
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let output = child.stdout.take().ok_or_else(broken)?;
        let errors = child.stderr.take().map(|errors| std::thread::spawn(move || complaints(errors)));
        let watch = Arc::new(Watch { state: Mutex::new((Instant::now(), false)), changed: Condvar::new() });
        let (watching, pid, timeout) = (watch.clone(), child.id(), self.timeout);
        let watcher = Some(std::thread::spawn(move || watching.keep(pid, timeout)));
        let session = self.session.insert(Session { child, output, errors, watch, watcher });
        Ok(Box::new(session))
    }

    fn exchange(&mut self, _: Service, request: Request) -> Result<Box<dyn Read + '_>, WireError> {
        let session = self.session()?;
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut input = session.child.stdin.take().ok_or_else(broken)?;
        input.write_all(&request.head)?;
        if let Some((mut pack, _)) = request.pack {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                session.watch.touch();
                match pack.read(&mut buffer)? {
                    0 => break,
                    count => input.write_all(&buffer[..count])?,
                }
            }
        }
        input.flush()?;
        drop(input);
        Ok(Box::new(session))
    }

    fn close(&mut self) -> Result<(), WireError> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        if let Some(mut input) = session.child.stdin.take() {
            // The end of an exchange that asks for nothing.
            let _gone = input.write_all(b"0000");
        }
        Ok(())
    }
}

impl Read for &mut Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buffer)?;
        self.watch.touch();
        if count == 0 && !buffer.is_empty() {
            // The end comes where more was expected, or all is said; if `ssh` complained, that is why.
            let complaints = self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
            let status = self.child.wait()?;
            self.watch.end();
            if !status.success() {
                return Err(io::Error::other(format!("ssh ended with {status}: {}", complaints.trim())));
            }
        }
        Ok(count)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself once its input has ended; if not, the watch sees to that.
        let mut rest = [0; 4096];
        while matches!(self.output.read(&mut rest), Ok(count) if count > 0) {}
        let _status = self.child.wait();
        self.watch.end();
        if let Some(watcher) = self.watcher.take() {
            let _joined = watcher.join();
        }
    }
}

impl Watch {
    fn touch(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
    }

    fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    fn keep(&self, pid: u32, timeout: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.1 {
            let left = timeout.saturating_sub(state.0.elapsed());
            if left.is_zero() {
                // The session ends this watch as soon as the process has been waited for, so the id is its own.
                if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Returns the end of what a process complained about.
fn complaints(mut from: ChildStderr) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 8192 {
            kept.drain(..kept.len() - 4096);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_address_becomes_an_option_or_a_command() {
        let mut settings = GitSettings::new("/x");
        settings.ssh.key_file = Some("/k".into());
        settings.ssh.options = vec!["ConnectTimeout=3".into()];
        let ssh = Ssh::new("git@forge".into(), Some(2222), "/a'; id; '".into(), &settings);
        let arguments = ssh.arguments(Service::Receive);
        let end = arguments.iter().position(|argument| argument == "--").expect("end of options");
        assert_eq!(arguments[end + 1..], ["git@forge", "git-receive-pack '/a'\\''; id; '\\'''"]);
        assert!(arguments[..end].contains(&"IdentitiesOnly=yes".to_owned()));
    }
}
