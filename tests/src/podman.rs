//! A throwaway podman: a service with its own storage, an image that needs no registry, and a registry on loopback.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The image that is there from the start: busybox, and nothing else.
pub const IMAGE: &str = "localhost/titan/box:1";

/// A podman of one's own. What runs in it ends with this value, or with this process, whichever is first.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
    keeper: Child,
    alone: bool,
}

/// Returns a podman, or `None` on a machine that cannot have one.
///
/// # Panics
///
/// With `CI=true` in the environment a machine that cannot have one is a failure.
#[must_use]
pub fn podman() -> Option<Podman> {
    started(Podman::start(false))
}

/// Returns a podman with a network namespace of its own, in which it may make bridges. A registry on loopback is not to
/// be reached from there.
///
/// # Panics
///
/// As [`podman`].
#[must_use]
pub fn podman_alone() -> Option<Podman> {
    started(Podman::start(true))
}

fn started(podman: Result<Podman, String>) -> Option<Podman> {
    match podman {
        Ok(podman) => Some(podman),
        Err(why) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("podman is needed here: {why}"),
        Err(why) => {
            tell(&why);
            None
        }
    }
}

/// Whoever runs the tests is to know what they did not show.
fn tell(why: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "left out: tests with podman ({why})");
}

impl Podman {
    fn start(alone: bool) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it is run as root here, and this is not".to_owned());
        }
        for needed in ["podman", "runc", "busybox"] {
            let found = Command::new("which").arg(needed).stdout(Stdio::null()).status();
            if !found.is_ok_and(|status| status.success()) {
                return Err(format!("{needed} is not installed"));
            }
        }
        let text = |error: std::io::Error| error.to_string();
        let folder = TempDir::with_prefix("titan-podman-").map_err(text)?;
        let path = folder.path();
        fs::write(
            path.join("containers.conf"),
            "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\npids_limit = 0\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
        )
        .map_err(text)?;
        fs::write(path.join("registries.conf"), "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n")
            .map_err(text)?;
        // The shell takes everything down once its input is closed, which the system does when this process ends.
        let script = r#"
            dir=$1; pm() { podman --root "$dir/storage" --runroot "$dir/run" --tmpdir "$dir/tmp" "$@"; }
            $2 podman --root "$dir/storage" --runroot "$dir/run" --tmpdir "$dir/tmp" system service -t 0 "unix://$dir/podman.sock" >"$dir/service.log" 2>&1 & service=$!
            cat >/dev/null; pm pod stop -a -t 0 >/dev/null 2>&1; pm stop -a -t 0 >/dev/null 2>&1
            pm pod rm -fa >/dev/null 2>&1; pm rm -fa -t 0 >/dev/null 2>&1
            kill $service 2>/dev/null; wait $service
            umount -l "$dir/storage/overlay" 2>/dev/null; rm -rf "$dir""#;
        let keeper = Command::new("/bin/sh")
            .args(["-c", script, "sh"])
            .arg(path)
            .arg(if alone { "unshare -n" } else { "" })
            .envs(environment(path))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(text)?;
        let podman = Self { folder, keeper, alone };
        let answers = || {
            let mut stream = std::os::unix::net::UnixStream::connect(podman.socket()).ok()?;
            stream.write_all(b"GET /v4.0.0/libpod/_ping HTTP/1.0\r\nhost: podman\r\n\r\n").ok()?;
            let mut said = String::new();
            stream.read_to_string(&mut said).ok()?;
            said.contains("200 OK").then_some(())
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while answers().is_none() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(podman.path().join("service.log")).unwrap_or_default();
                return Err(format!("its service does not answer: {log}"));
            }
            sleep(Duration::from_millis(20));
        }
        podman.import(IMAGE, "one").map_err(|why| format!("no image can be made: {why}"))?;
        Ok(podman)
    }

    /// Returns its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the socket of its service.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path().join("podman.sock")
    }

    /// Returns what makes `podman` without arguments speak to its service, as a tool that runs `podman` needs it.
    #[must_use]
    pub fn environment(&self) -> (&'static str, String) {
        ("CONTAINER_HOST", format!("unix://{}", self.socket().display()))
    }

    /// Runs `podman` with these arguments and returns what it printed.
    ///
    /// # Errors
    ///
    /// With what it said, if it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("podman");
        if self.alone && arguments.first() != Some(&"import") {
            // What has to do with its network is done where that is.
            command.arg("--url").arg(format!("unix://{}", self.socket().display()));
        } else {
            for (flag, below) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
                command.arg(flag).arg(self.path().join(below));
            }
        }
        command.args(arguments).envs(environment(self.path())).stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&stderr).into_owned())
        }
    }

    /// Makes an image of busybox and a file `/version` that says `version`.
    ///
    /// # Errors
    ///
    /// If podman does not take it.
    pub fn import(&self, name: &str, version: &str) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let tree = TempDir::with_prefix_in("image-", self.path()).map_err(text)?;
        let bin = tree.path().join("bin");
        fs::create_dir(&bin).map_err(text)?;
        fs::copy("/bin/busybox", bin.join("busybox")).map_err(text)?;
        for applet in ["sh", "sleep", "cat", "true", "false", "test", "touch", "echo", "rm"] {
            symlink("busybox", bin.join(applet)).map_err(text)?;
        }
        fs::write(tree.path().join("version"), version).map_err(text)?;
        let tar = tree.path().join("image.tar");
        let packed =
            Command::new("tar").arg("-C").arg(tree.path()).arg("-cf").arg(&tar).args(["bin", "version"]).status();
        if !packed.map_err(text)?.success() {
            return Err("tar failed".to_owned());
        }
        let command = r#"CMD ["/bin/sleep","600"]"#;
        self.run(&["import", "-q", "-c", "ENV PATH=/bin", "-c", command, &tar.to_string_lossy(), name]).map(drop)
    }

    /// Starts a registry on loopback; `None` if there is none to be had here.
    ///
    /// # Panics
    ///
    /// With `CI=true` in the environment if there is none.
    #[must_use]
    pub fn registry(&self) -> Option<Registry> {
        match Registry::start(self.path()) {
            Ok(registry) => Some(registry),
            Err(why) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("docker-registry: {why}"),
            Err(why) => {
                tell(&format!("docker-registry: {why}"));
                None
            }
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _gone = self.keeper.wait();
    }
}

fn environment(path: &Path) -> Vec<(&'static str, String)> {
    let below = |name: &str| path.join(name).display().to_string();
    vec![("CONTAINERS_CONF", below("containers.conf")), ("CONTAINERS_REGISTRIES_CONF", below("registries.conf"))]
}

/// A registry on loopback, which ends with this value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// Its address, as it stands in front of an image's name.
    pub address: String,
}

impl Registry {
    fn start(folder: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
        let address = listener.local_addr().map_err(text)?.to_string();
        drop(listener);
        let config = folder.join("registry.yml");
        let root = folder.join("registry");
        let yaml = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: \"{address}\" }}\n",
            root.display()
        );
        fs::write(&config, yaml).map_err(text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(text)?;
        let registry = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).is_err() {
            if Instant::now() > deadline {
                return Err("it does not answer".to_owned());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _gone = self.child.wait();
    }
}
