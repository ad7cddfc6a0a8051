//! Files that others changed under units that run.

use std::{fs, os::unix::fs::MetadataExt as _, time::SystemTime};

use super::*;

impl Site<'_> {
    /// Puts files right that others changed, as the layers around the applier do it. Returns what runs as it was made.
    fn mend(&mut self, paths: &[&str]) -> Claims {
        let stray = |path: &&str| {
            let inside = self.machine.path(&self.home().join(path).display().to_string());
            let about = inside.ancestors().find_map(|path| fs::symlink_metadata(path).ok()).expect("about");
            let since =
                Duration::new(about.ctime().cast_unsigned(), about.ctime_nsec().try_into().expect("nanoseconds"));
            (self.target.home() + "/" + path, SystemTime::UNIX_EPOCH + since)
        };
        let strays: Strays = paths.iter().map(stray).collect();
        let claims = self.claims.clone();
        let before = self.with(&claims, &claims, |applier, work| applier.untouched(work, &strays)).expect("strays");
        self.put_files();
        self.apply(&before).expect("mend");
        before
    }

    /// Writes what a person would write to a file of the deployment.
    fn edit(&self, path: &str, text: &str) {
        self.machine.write(&self.home().join(path).display().to_string(), text).expect("edit");
    }
}

#[test]
fn a_unit_is_restarted_for_a_changed_file_only_if_it_runs_from_it() {
    on_site("seven", false, |mut site| {
        let a = "[Service]\nExecStart=/bin/sleep 1001\nEnvironmentFile=/srv/titan/default/seven/env\n";
        let files = [
            ("seven-a.service", a),
            ("seven-b.service", SLEEPS),
            ("env", "A=1\n"),
            ("systemd-logind.service.d/70-seven.conf", "[Service]\nNice=2\n"),
        ];
        site.say(&["systemctl", "start", "systemd-logind.service"]);
        site.bring(&files).expect("install");
        site.proves_well();
        let nice =
            |site: &Site<'_>| site.say(&["systemctl", "show", "--value", "-p", "Nice", "systemd-logind.service"]);
        let eventually_nice = || (nice(&site) == "2").then_some(());
        eventually("the unit of others has its drop-in", PATIENCE, eventually_nice).expect("drop-in");
        let pids = |site: &Site<'_>| {
            ["seven-a.service", "seven-b.service", "systemd-logind.service"].map(|unit| site.pid(unit))
        };
        let command =
            |site: &Site<'_>, unit: &str| site.say(&["systemctl", "show", "--value", "-p", "ExecStart", unit]);
        let runs = |site: &Site<'_>, unit: &str| {
            site.say(&["sh", "-c", &format!("tr '\\0' ' ' < /proc/{}/cmdline", site.pid(unit))])
        };

        // systemd has not read it: the unit runs as it was made.
        let (before, reloads) = (pids(&site), site.reloads());
        site.edit("seven-b.service", QUICK);
        site.mend(&["seven-b.service"]);
        assert_eq!((pids(&site), site.reloads()), (before.clone(), reloads + 1), "read again, and no more");

        // systemd has read it, and the unit runs as it was made all the same.
        site.edit("seven-b.service", QUICK);
        site.edit("systemd-logind.service.d/70-seven.conf", "[Service]\nNice=9\n");
        site.say(&["systemctl", "daemon-reload"]);
        assert!(command(&site, "seven-b.service").contains("sleep 2000"));
        site.mend(&["seven-b.service", "systemd-logind.service.d/70-seven.conf"]);
        assert_eq!(pids(&site), before, "none restarted");
        assert!(command(&site, "seven-b.service").contains("sleep 1000"));

        // It began from what was written, and so did the one of others; each alone is restarted.
        site.edit("seven-b.service", QUICK);
        site.edit("systemd-logind.service.d/70-seven.conf", "[Service]\nNice=9\n");
        site.say(&["systemctl", "daemon-reload"]);
        site.say(&["systemctl", "restart", "seven-b.service", "systemd-logind.service"]);
        assert!(runs(&site, "seven-b.service").contains("sleep 2000"));
        let strayed = pids(&site);
        site.mend(&["seven-b.service", "systemd-logind.service.d/70-seven.conf"]);
        site.proves_well();
        let changed = || (site.pid("systemd-logind.service") != strayed[2] && nice(&site) == "2").then_some(());
        eventually("the unit of others is restarted", PATIENCE, changed).expect("restart");
        assert!(runs(&site, "seven-b.service").contains("sleep 1000"));
        assert_eq!(site.pid("seven-a.service"), before[0], "it has nothing to do with it");

        // A plain file: it counts if the service that names it began later.
        let (before, reloads) = (pids(&site), site.reloads());
        site.edit("env", "A=2\n");
        assert_eq!(site.mend(&["env"]), site.claims, "nobody has read it");
        assert_eq!((pids(&site), site.reloads()), (before.clone(), reloads));
        fs::remove_file(site.machine.path("/srv/titan/default/seven/env")).expect("remove");
        site.mend(&["env"]);
        assert_eq!(pids(&site), before);
        site.edit("env", "A=3\n");
        site.say(&["systemctl", "restart", "seven-a.service"]);
        let strayed = site.pid("seven-a.service");
        site.mend(&["env"]);
        site.proves_well();
        assert_ne!(site.pid("seven-a.service"), strayed);
        assert_eq!(site.pid("seven-b.service"), before[1]);
        site.remove();
    });
}
