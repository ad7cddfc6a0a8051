//! Hosts with a systemd of their own, for tests: containers of systemd-nspawn, each on a layer over one Debian.
//!
//! They share the network of the machine, so that what listens on its loopback can be reached. Needs root, `systemd-nspawn`
//! and, the first time, `debootstrap` and a Debian mirror. Uses the standard library alone, since the agent's own tests
//! include this file.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What a host is made from.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// The name that it is kept under; another one makes it anew.
    name: &'static str,
    /// Debian's release.
    suite: &'static str,
    /// Packages beside Debian's smallest set.
    packages: &'static str,
    /// Files that it has besides.
    files: &'static [(&'static str, &'static str)],
    /// What systemd-nspawn is told besides.
    options: &'static [&'static str],
}

/// A host with systemd, and little else.
pub const PLAIN: Base =
    Base { name: "bookworm-1", suite: "bookworm", packages: "systemd-sysv,dbus,procps", files: &[], options: &[] };

/// A host with systemd and a podman that makes units of quadlets. Inside another container it can have neither layers nor
/// keyrings, and no control groups but those that it is given.
pub const WITH_PODMAN: Base = Base {
    name: "trixie-podman-1",
    suite: "trixie",
    packages: "systemd-sysv,dbus,procps,podman,crun,catatonit",
    files: &[
        (
            "etc/containers/storage.conf",
            "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n",
        ),
        ("etc/containers/containers.conf", "[containers]\nkeyring = false\npids_limit = 0\ndefault_sysctls = []\n"),
        ("etc/containers/registries.conf.d/test.conf", "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n"),
    ],
    options: &["--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN", "--system-call-filter=bpf"],
};

/// How long a host may take to boot.
const BOOT: Duration = Duration::from_secs(180);

/// A host that runs. It is gone with this value, and with this process however that ends.
#[derive(Debug)]
pub struct Machine {
    name: String,
    folder: PathBuf,
    base: Base,
    binds: Vec<String>,
    keeper: Option<Child>,
    leader: u32,
}

/// Returns why hosts cannot be had on this machine, if so.
///
/// # Errors
///
/// Says what is missing.
pub fn possible() -> io::Result<()> {
    for program in ["/usr/bin/systemd-nspawn", "/usr/bin/nsenter", "/usr/bin/mount"] {
        if !Path::new(program).exists() {
            return Err(io::Error::other(format!("{program} is not installed")));
        }
    }
    // Whoever may not look there is not root.
    fs::read_dir("/proc/1/fd").map(drop).map_err(|_| io::Error::other("this needs root"))
}

/// Returns the Debian that all hosts of a kind are layers over, after making it if it is not there yet, which takes a
/// minute.
///
/// # Errors
///
/// If `debootstrap` is missing or fails.
pub fn base(of: &Base) -> io::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache");
    let cache = cache.unwrap_or_else(home).join("titan");
    fs::create_dir_all(&cache)?;
    let base = cache.join(of.name);
    let lock = fs::File::create(cache.join(format!("{}.lock", of.suite)))?;
    lock.lock()?;
    if !base.exists() {
        let building = cache.join(format!("{}-building", of.suite));
        if building.exists() {
            fs::remove_dir_all(&building)?;
        }
        let mut make = Command::new("debootstrap");
        make.args(["--variant=minbase", "--include", of.packages, of.suite]).arg(&building);
        succeed(&mut make)?;
        for (path, text) in of.files {
            let path = building.join(path);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, text)?;
        }
        fs::rename(&building, &base)?;
    }
    Ok(base)
}

/// Runs a command that has to succeed, and returns what it wrote.
fn succeed(command: &mut Command) -> io::Result<String> {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output()?;
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() { Ok(out.into_owned()) } else { Err(io::Error::other(format!("{command:?}: {out}{err}"))) }
}

/// Returns what `look` finds as soon as it finds something.
///
/// # Errors
///
/// If that does not happen within `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> io::Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!("{what}: not within {limit:?}")));
        }
        thread::sleep(Duration::from_millis(30));
    }
}

// Ends the host and takes its folder away once its input is closed, which the system does when the test ends, however.
const KEEPER: &str = r#"
    folder=$1 name=$2 base=$3; shift 3
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" "$folder/root" || exit 1
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet -D "$folder/root" -M "$name" --boot --register=no --keep-unit \
        --console=pipe "$@" >"$folder/console" 2>&1 </dev/null &
    nspawn=$!
    echo $nspawn >"$folder/nspawn.new" && mv "$folder/nspawn.new" "$folder/nspawn"
    cat >/dev/null
    for leader in $(cat "/proc/$nspawn/task/$nspawn/children" 2>/dev/null); do kill -9 "$leader"; done
    wait $nspawn
    umount "$folder/root" || umount -l "$folder/root"
    rm -f "$folder/nspawn"
    [ -e "$folder/keep" ] || rm -rf "$folder"
"#;

impl Machine {
    /// Makes a host with systemd and begins to boot it; see [`Machine::start_on`].
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(name: &str, binds: &[String]) -> io::Result<Self> {
        Self::start_on(PLAIN, name, binds)
    }

    /// Makes a host and begins to boot it; see [`Machine::booted`]. `binds`: files of this machine that it sees, each as
    /// `here:there`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_on(base: Base, name: &str, binds: &[String]) -> io::Result<Self> {
        let parent = if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        // Tests beside each other may want hosts of the same name.
        let name = format!("{name}-{}-{}", std::process::id(), HOSTS.fetch_add(1, Ordering::Relaxed));
        let folder = parent.join(format!("titan-host-{name}"));
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::create_dir_all(folder.join("upper/etc"))?;
        fs::write(folder.join("upper/etc/hostname"), format!("{name}\n"))?;
        let mut machine = Self { name, folder, base, binds: binds.to_vec(), keeper: None, leader: 0 };
        machine.power_on()?;
        Ok(machine)
    }

    /// Switches the host on.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn power_on(&mut self) -> io::Result<()> {
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&self.folder).arg(&self.name).arg(base(&self.base)?);
        keeper.args(self.base.options);
        keeper.args(self.binds.iter().map(|bind| format!("--bind-ro={bind}")));
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // It outlives a signal to the whole group of the test, to tidy up behind it.
        keeper.process_group(0);
        self.keeper = Some(keeper.spawn()?);
        let read =
            |path: &Path| -> Option<u32> { fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok() };
        let leader = eventually("the host starts", BOOT, || {
            let nspawn = read(&self.folder.join("nspawn"))?;
            read(Path::new(&format!("/proc/{nspawn}/task/{nspawn}/children")))
        });
        self.leader = leader.map_err(|error| io::Error::other(format!("{error}: {}", self.console())))?;
        Ok(())
    }

    /// Returns the process that is the host's first, which others come before while it is set up.
    fn find_leader(&self) -> Option<u32> {
        let nspawn = fs::read_to_string(self.folder.join("nspawn")).ok()?;
        let nspawn = nspawn.trim();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
        let is_first = |child: &&str| {
            let about = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let ids = about.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            about.starts_with("Name:\tsystemd\n") && ids.split_whitespace().next_back() == Some("1")
        };
        children.split_whitespace().find(is_first)?.parse().ok()
    }

    /// Waits until the host has booted.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn booted(&mut self) -> io::Result<()> {
        let up = || {
            // What was its first process a moment ago may have been one that prepares it.
            self.leader = self.find_leader().unwrap_or(self.leader);
            let said = self.run(&["timeout", "2", "systemctl", "is-system-running"]).ok()?;
            let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            ["running", "degraded"].contains(&said.as_str()).then_some(())
        };
        let booted = eventually("the host boots", BOOT, up);
        booted.map_err(|error| io::Error::other(format!("{error}: {}", self.console())))
    }

    /// Cuts the host's power.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn power_off(&mut self) -> io::Result<()> {
        fs::write(self.folder.join("keep"), "")?;
        self.end()?;
        fs::remove_file(self.folder.join("keep"))
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            keeper.wait()?;
        }
        Ok(())
    }

    /// Returns where a path of the host is on this machine.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    /// Returns the address of the host's bus.
    #[must_use]
    pub fn bus(&self) -> String {
        format!("unix:path={}", self.path("/run/dbus/system_bus_socket").display())
    }

    /// Runs a command inside.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn run(&self, command: &[&str]) -> io::Result<Output> {
        let leader = self.leader.to_string();
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &leader, "-m", "-u", "-i", "-n", "-p", "--"]).args(command);
        inside.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output()
    }

    /// Runs a command inside and returns what it wrote to its output, whether it succeeded or not.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn say(&self, command: &[&str]) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.run(command)?.stdout).trim().to_owned())
    }

    /// Writes a file of the host.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, inside: &str, text: &str) -> io::Result<()> {
        let path = self.path(inside);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text)
    }

    /// Returns what the host wrote to its console.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read_to_string(self.folder.join("console")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ended_or_the_keeper_does_it = self.end();
    }
}
