//! Units with unusual names, and units of templates of others.

use std::fs;

use super::*;

#[test]
fn names_with_escapes_are_units_like_any_other() {
    on_site("eight", false, |mut site| {
        let name = r"eight-a\x2db@c\x2dd.service";
        let template = r"eight-a\x2db@.service";
        let mount = r"srv-eight\x2dmount.mount";
        let text = "[Service]\nExecStart=/bin/sleep 5000\n[Install]\nWantedBy=multi-user.target\n[X-Titan]\nInstances=c\\x2dd\n";
        let what = "[Mount]\nWhat=tmpfs\nWhere=/srv/eight-mount\nType=tmpfs\n[Install]\nWantedBy=local-fs.target\n";
        let more = (r"eight-a\x2db@c\x2dd.service.d/x.conf", "[Service]\nNice=4\n");
        site.bring(&[(template, text), (mount, what), more]).expect("install");
        site.proves_well();
        assert_eq!(site.say(&["systemctl", "is-active", name, mount]), "active\nactive");
        assert_eq!(site.say(&["systemctl", "is-enabled", name, mount]), "enabled\nenabled");
        assert_eq!(site.say(&["systemctl", "show", "--value", "-p", "Nice", name]), "4");
        let _earlier = site.wake.take();
        site.say(&["systemctl", "stop", name]);
        eventually("the agent is woken", PATIENCE, || site.wake.take().contains(&Kind::Systemd).then_some(()))
            .expect("wake");
        assert_eq!(site.enforce(), [format!("{name} stopped")]);
        site.proves_well();
        site.remove();
        assert_eq!(site.say(&["systemctl", "is-active", name, mount]), "inactive\ninactive");
    });
}

#[test]
fn instances_of_a_template_of_others_run_with_the_drop_ins_of_the_bundle() {
    on_site("nine", false, |mut site| {
        let template = "[Service]\nExecStart=/bin/sleep 6000\n";
        let place = r"/run/systemd/system/theirs\x2dx@.service";
        site.machine.write(place, template).expect("theirs");
        site.say(&["systemctl", "daemon-reload"]);
        let units = ["a", "b"].map(|instance| format!(r"theirs\x2dx@{instance}.service"));
        site.say(&["systemctl", "start", &units[0], &units[1]]);
        let state = |site: &Site<'_>| {
            let nice = |unit: &String| site.say(&["systemctl", "show", "--value", "-p", "Nice", unit]);
            (units.each_ref().map(|unit| site.pid(unit)), units.each_ref().map(nice))
        };
        let runs_anew = |site: &Site<'_>, was: &[String; 2], which: [bool; 2]| {
            let restarted = || {
                let (pids, _) = state(site);
                (0..2).all(|n| pids[n] != "0" && (pids[n] != was[n]) == which[n]).then_some(())
            };
            eventually("they are restarted", PATIENCE, restarted).expect("restart");
        };
        let (was, _) = state(&site);
        let one = (r"theirs\x2dx@a.service.d/one.conf", "[Service]\nNice=3\n");
        site.bring(&[one]).expect("a drop-in of one");
        runs_anew(&site, &was, [true, false]);
        let (was, nice) = state(&site);
        assert_eq!(nice, ["3", "0"]);
        let all = (r"theirs\x2dx@.service.d/all.conf", "[Service]\nNice=5\n");
        site.bring(&[all]).expect("a drop-in of all");
        runs_anew(&site, &was, [true, true]);
        let (was, nice) = state(&site);
        assert_eq!(nice, ["5", "5"]);
        site.say(&["systemctl", "stop", &units[1]]);
        site.remove();
        let restarted = || {
            let (pids, nice) = state(&site);
            (pids[0] != "0" && pids[0] != was[0] && nice[0] == "0").then_some(())
        };
        eventually("it runs without", PATIENCE, restarted).expect("restart");
        assert_eq!(site.say(&["systemctl", "is-active", &units[1]]), "inactive", "what was stopped stays so");
        site.say(&["systemctl", "stop", &units[0]]);
        fs::remove_file(site.machine.path(place)).expect("clear");
    });
}
