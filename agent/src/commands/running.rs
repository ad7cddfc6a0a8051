//! A command that runs: its group of processes, its output, its end.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};
use tokio::{
    io::unix::AsyncFd,
    net::unix::pipe::Receiver,
    time::{Instant, sleep, sleep_until},
};

use super::{Ended, How, Order, tail::Tail};
use crate::descriptors::awaitable;

/// How long a command that was asked to end has before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How much is read at a time.
const CHUNK: usize = 4096;
/// A command that has written this much is read at [`SLOW`] from then on: it has to wait, and everybody else need not.
const PLENTY: usize = 1024 * 1024;
/// The pause after each chunk of a command that writes too much.
const SLOW: Duration = Duration::from_millis(1);
/// How much is read of what is left in the pipe after the end: all that a pipe holds.
const LEFT: usize = 1024 * 1024;
/// How often a program that is still being written is tried again.
const BUSY_TRIES: u32 = 50;
/// For how many milliseconds the end of a killed command is waited for when the agent itself ends.
const PATIENCE: u32 = 500;
/// How often to look for the end where the kernel cannot tell (before Linux 5.3).
const LOOK: Duration = Duration::from_millis(50);

/// A command's process and all that it started, unless they left its group.
#[derive(Debug)]
struct Group {
    child: Option<Child>,
    pid: Pid,
    handle: Option<AsyncFd<OwnedFd>>,
    asked: bool,
}

/// Runs a command; `hear` gets what it writes, piece by piece, as it comes.
pub(super) async fn run(order: Order, hear: &mut (dyn FnMut(&[u8]) + Send)) -> Ended {
    let (mut group, output) = match begin(&order).await {
        Ok(begun) => begun,
        Err(error) => return Ended { how: How::NotRun(explain(&order.program, &error)), output: String::new() },
    };
    let mut tail = Tail::default();
    let mut chunk = vec![0; CHUNK];
    let (mut open, mut total) = (true, 0);
    let (mut timed_out, mut killed) = (false, false);
    let mut until = Instant::now() + order.timeout;
    loop {
        // The output comes last: a command that never stops writing starves nobody.
        tokio::select! {
            biased;
            () = group.exited() => break,
            () = sleep_until(until) => {
                if killed {
                    // Not even that ended it: it hangs in the kernel. Whoever waits is told, the rest goes on behind.
                    break;
                }
                group.signal(if timed_out { Signal::KILL } else { Signal::TERM });
                killed = timed_out;
                timed_out = true;
                until = Instant::now() + GRACE;
            }
            ready = output.readable(), if open => {
                match ready.and_then(|()| output.try_read(&mut chunk)) {
                    Ok(0) => open = false,
                    Ok(count) => {
                        tail.push(&chunk[..count]);
                        hear(&chunk[..count]);
                        total += count;
                        if total > PLENTY {
                            sleep(SLOW).await;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => open = false,
                }
            }
        }
    }
    // What it left in the pipe. Somebody who left the group may hold the pipe and go on writing: that is not waited for.
    let mut left = LEFT;
    while let Ok(count @ 1..) = output.try_read(&mut chunk) {
        tail.push(&chunk[..count]);
        hear(&chunk[..count]);
        left = left.saturating_sub(count);
        if left == 0 {
            break;
        }
    }
    let how = match group.reap() {
        _ if timed_out => How::TimedOut(order.timeout),
        Some(status) => status.code().map_or_else(|| How::Signal(status.signal().unwrap_or_default()), How::Exited),
        None => How::NotRun("its end was not seen".to_owned()),
    };
    Ended { how, output: tail.into_text() }
}

async fn begin(order: &Order) -> io::Result<(Group, Receiver)> {
    let (reader, writer) = io::pipe()?;
    let output = Receiver::from_owned_fd(reader.into())?;
    let mut command = Command::new(&order.program);
    command
        .args(&order.arguments)
        .current_dir(if order.home.is_dir() { &order.home } else { Path::new("/") })
        .env_clear()
        .envs(order.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut tries = 0;
    let child = loop {
        match command.spawn() {
            // Somebody who is just being started still has the file open for writing that was put in place.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                sleep(Duration::from_millis(10)).await;
            }
            spawned => break spawned?,
        }
    };
    Ok((Group::new(child), output))
}

/// Returns why a program cannot be run, and what mends it.
fn explain(program: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; a file of the bundle needs mode \"0755\" and a file system that may execute"
        }
        io::ErrorKind::NotFound if program.exists() => "; the interpreter that its first line names is missing",
        io::ErrorKind::NotFound => "; files of a bundle are there from the switch on, which comes after preApply",
        _ => "",
    };
    format!("{} cannot be run: {error}{hint}", program.display())
}

impl Group {
    fn new(child: Child) -> Self {
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok();
        let handle = handle.and_then(|fd| awaitable(fd).ok());
        Self { child: Some(child), pid, handle, asked: false }
    }

    /// Waits until the command has ended, without taking its end away: until then its group's number is nobody else's.
    async fn exited(&self) {
        if let Some(handle) = &self.handle
            && handle.readable().await.is_ok()
        {
            return;
        }
        while !self.is_over() {
            sleep(LOOK).await;
        }
    }

    fn is_over(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        let _nobody_left = kill_process_group(self.pid, signal);
    }

    /// Kills whatever is left of the group, and returns how the command ended if it has.
    fn reap(&mut self) -> Option<ExitStatus> {
        if !self.is_over() {
            return None;
        }
        self.signal(Signal::KILL);
        self.child.take()?.wait().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.child.is_none() || self.reap().is_some() {
            return;
        }
        let going = Self { child: self.child.take(), pid: self.pid, handle: self.handle.take(), asked: true };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !self.asked => drop(runtime.spawn(going.see_off())),
            // Even whoever was to see it off is gone: the agent ends.
            _ => going.kill(),
        }
    }
}

impl Group {
    /// Asks the command to end, kills it if it does not, and takes its end away.
    async fn see_off(mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(GRACE, self.exited()).await.is_err() {
            self.signal(Signal::KILL);
            self.exited().await;
        }
        self.reap();
    }

    /// Kills the command and takes its end away, unless it hangs in the kernel.
    fn kill(mut self) {
        self.signal(Signal::KILL);
        for _ in 0..PATIENCE {
            if self.reap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Whatever the agent leaves is the init process's to take away.
        drop(self.child.take());
    }
}
