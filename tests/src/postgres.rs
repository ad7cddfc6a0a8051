//! A throwaway PostgreSQL server for one test binary, and hot standbys of it.

mod standby;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

pub use standby::{Standby, at};

/// A running server; it ends with this process, because it watches a pipe that only this process holds.
#[derive(Debug)]
struct Server {
    port: u16,
    _keeper: Child,
}

static SERVER: OnceLock<Option<Server>> = OnceLock::new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// Returns the address of a new, empty database, or `None` on a machine without PostgreSQL.
///
/// # Panics
///
/// With `CI=true` in the environment a machine without PostgreSQL is a failure.
#[must_use]
pub fn database() -> Option<String> {
    made("")
}

/// Returns the address of a new, empty database in which texts stand in the order of a dictionary and not of their bytes,
/// as most servers outside of containers have it.
///
/// # Panics
///
/// As [`database`].
#[must_use]
pub fn linguistic() -> Option<String> {
    made("TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'")
}

fn made(options: &str) -> Option<String> {
    let server = SERVER.get_or_init(|| match start() {
        Ok(server) => Some(server),
        Err(error) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("PostgreSQL is needed here: {error:#}")
        }
        Err(error) => {
            tell(&error);
            None
        }
    });
    let server = server.as_ref()?;
    let name = format!("titan_{}", DATABASES.fetch_add(1, Ordering::SeqCst));
    let created = psql(server.port, &format!("CREATE DATABASE {name} {options}"));
    created.unwrap_or_else(|error| panic!("a database cannot be made: {error:#}"));
    Some(format!("postgres://postgres@127.0.0.1:{}/{name}", server.port))
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
fn tell(error: &anyhow::Error) {
    eprintln!("left out: tests on PostgreSQL ({error:#})");
}

/// Returns the folder of the newest installed server's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .context("no server is installed under /usr/lib/postgresql")?
        .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin")))
        .filter(|path| path.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().context("no initdb is installed")
}

/// Returns a command that runs as a user that PostgreSQL accepts: not root.
fn unprivileged(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn start() -> anyhow::Result<Server> {
    let programs = programs()?;
    let folder = folder()?;
    succeed(
        unprivileged(&programs.join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-N", "-D"])
            .arg(folder.join("data")),
    )?;
    let (port, keeper) = run(&programs, &folder, &[])?;
    Ok(Server { port, _keeper: keeper })
}

/// Returns a new folder, made by the server's own user, who can then remove it.
fn folder() -> anyhow::Result<PathBuf> {
    let made = succeed(unprivileged(Path::new("mktemp")).args(["-d", "-t", "titan-postgres-XXXXXXXX"]))?;
    Ok(PathBuf::from(made.trim_end()))
}

/// Runs a command to its end and returns what it printed.
fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let done = command.current_dir("/").output().with_context(|| format!("{command:?} cannot be run"))?;
    if !done.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8(done.stdout)?)
}

/// Runs a server over `folder/data` on a port of its own, and waits until it answers.
fn run(programs: &Path, folder: &Path, settings: &[&str]) -> anyhow::Result<(u16, Child)> {
    let port = free_port()?;
    // The shell ends the server and removes its folder once its input is closed, which the system does when this process
    // ends, however it ends.
    let script = r#"folder=$1 port=$2; shift 2; "$0" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c max_connections=200 -c shared_buffers=64MB -c fsync=off -c full_page_writes=off \
        "$@" >"$folder/log" 2>&1 & server=$!
        cat >/dev/null; kill -INT $server; wait $server; rm -rf "$folder""#;
    let keeper = unprivileged(Path::new("/bin/sh"))
        .arg("-c")
        .arg(script)
        .arg(programs.join("postgres"))
        .arg(folder)
        .arg(port.to_string())
        .args(settings.iter().flat_map(|&setting| ["-c", setting]))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("the server cannot be started")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = psql(port, "SELECT 1") {
        if Instant::now() > deadline {
            bail!("the server did not come up: {error:#}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((port, keeper))
}

/// Returns a port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn psql(port: u16, sql: &str) -> anyhow::Result<()> {
    let mut child = Command::new("psql")
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-p",
            &port.to_string(),
            "-c",
            sql,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("psql cannot be run")?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            said.push_str(&line?);
        }
    }
    if child.wait()?.success() { Ok(()) } else { bail!("psql: {said}") }
}
