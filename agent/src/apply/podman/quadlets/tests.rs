//! Quadlets without podman: what is refused, what is claimed, and what is written.

use std::path::Path;

use super::*;
use crate::apply::{
    Target,
    podman::tests::{bundle, target},
};

fn read(files: &[(&str, &str)], allowed: &Allowed) -> Result<Quadlets, ApplyError> {
    Quadlets::read(&bundle(files), allowed, false)
}

/// A container with more settings.
fn with(more: &str) -> String {
    format!("[Container]\nImage=quay.io/team/app:1\n{more}\n")
}

fn in_bundle(text: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("web.container", text),
        ("data.volume", "[Volume]\n"),
        ("net.network", "[Network]\n"),
        ("app.pod", "[Pod]\n"),
        ("conf/a", "a"),
    ]
}

#[test]
fn whatever_goes_beyond_what_the_owner_allows_is_refused_with_the_key_that_would_allow_it() {
    let allowed = Allowed {
        registries: vec!["quay.io/team".to_owned()],
        mounts: vec!["/srv".into()],
        names: ["web", "data", "net", "app", "systemd-*"].map(str::to_owned).to_vec(),
        ..Allowed::default()
    };
    for (text, key) in [
        (with("PodmanArgs=--privileged"), "privileged"),
        (with("GlobalArgs=--root=/x"), "privileged"),
        (with("AddDevice=/dev/kmsg"), "privileged"),
        (with("AddCapability=SYS_ADMIN"), "privileged"),
        (with("SecurityLabelDisable=true"), "privileged"),
        (with("UserNS=host"), "privileged"),
        (with("Network=host"), "privileged"),
        (with("Network=ns:/run/netns/x"), "privileged"),
        (with("Network=slirp4netns:allow_host_loopback=true"), "privileged"),
        (with("Network=theirs"), "privileged"),
        (with("Secret=theirs"), "privileged"),
        (with("Rootfs=/"), "privileged"),
        (with("LogOpt=path=/etc/cron.d/x"), "privileged"),
        (with("Annotation=io.podman.annotations.privileged=TRUE"), "privileged"),
        (with("Annotation=\"run.oci.hooks=x\""), "privileged"),
        (with("Label=io.containers.autoupdate=registry"), "privileged"),
        (with("Volume=/srv/x:/x:rshared"), "privileged"),
        (with("Mount=type=glob,source=/etc/*,destination=/x"), "privileged"),
        (with("Mount=type=bind,source=/srv/x,destination=/x,bind-propagation=shared"), "privileged"),
        (with("Mount=type=bind,\"source=/etc\",destination=/x"), "privileged"),
        (with("KeyOfNextYear=1"), "privileged"),
        (with("[Service]\nExecStartPre=/bin/sh -c x"), "privileged"),
        (with("[Service]\nUser=root"), "privileged"),
        (with("[Unit]\nFailureAction=reboot"), "privileged"),
        (with("[Unit]\nConflicts=sshd.service"), "privileged"),
        (with("[Unit]\nRequires=theirs.service"), "privileged"),
        (with("[Unit]\nWants=reboot.target"), "privileged"),
        (with("[Install]\nRequiredBy=sshd.service"), "privileged"),
        (with("[Install]\nWantedBy=sshd.service"), "privileged"),
        (with("Volume=/etc:/x"), "mounts"),
        (with("Volume=../two:/x"), "mounts"),
        (with("Volume=/srv/../etc:/x"), "mounts"),
        (with("Mount=type=bind,source=/etc,destination=/x"), "mounts"),
        (with("Mount=type=bind,src=/etc,destination=/x"), "mounts"),
        (with("EnvironmentFile=/etc/shadow"), "mounts"),
        (with("ContainerName=db"), "names"),
        ("[Container]\nImage=quay.io/others/app\n".to_owned(), "registries"),
        // The one that counts is the last, and none may be there that may not.
        (with("Image=quay.io/others/app\nImage=quay.io/team/app"), "registries"),
        // A longer line is one line.
        (with("Label=a=b \\\nc=d\nPodmanArgs=\\\n--privileged"), "privileged"),
    ] {
        let error = read(&in_bundle(&text), &allowed).expect_err(&text);
        let wanted = format!("appliers.podman.{key}");
        assert!(matches!(&error, ApplyError::Beyond { key, .. } if *key == wanted), "{text}: {error}");
    }
    let other = [("ssh.container", with("")), ("evil.volume", "[Volume]\n".to_owned())];
    for (file, text) in &other {
        let error = read(&[(file, text)], &allowed).expect_err(file);
        assert!(matches!(error, ApplyError::Beyond { key: "appliers.podman.names", .. }), "{file}: {error}");
    }
    for (file, text) in [("data.volume", "[Volume]\nDevice=/etc\n"), ("net.network", "[Network]\nDriver=macvlan\n")] {
        let error = read(&[(file, text)], &allowed).expect_err(file);
        assert!(matches!(error, ApplyError::Beyond { key: "appliers.podman.privileged", .. }), "{file}: {error}");
    }
    for text in [
        with("Volume=/srv/x:/x:ro,Z\nVolume=./conf:/conf\nVolume=data.volume:/d\nVolume=/anonymous"),
        with("Mount=type=bind,source=./conf,destination=/conf,ro\nMount=type=tmpfs,destination=/t"),
        with("Mount=type=volume,source=data.volume,destination=/t"),
        with("Network=net.network:ip=10.0.0.2\nNetwork=none\nPod=app.pod\nUserNS=auto"),
        with("EnvironmentFile=./conf/a\nLabel=a=b\nAnnotation=a=b\nPull=never"),
        with("[Unit]\nAfter=sshd.service\nRequires=net.network data-volume.service\nWants=network-online.target"),
        with("[Service]\nRestart=always\nTimeoutStartSec=900\n[Install]\nWantedBy=multi-user.target default.target"),
        with("[Quadlet]\nDefaultDependencies=false\n[X-Titan]\nStart=no"),
        with("PublishPort=8080:80\nPublishPort=\nEnvironment=A=b \"C=d e\"\nExec=sh -c \"x; y\""),
    ] {
        read(&in_bundle(&text), &allowed).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let privileged = Allowed { privileged: true, ..Allowed::default() };
    read(&in_bundle(&with("PodmanArgs=--privileged\nNetwork=host")), &privileged).expect("allowed");
}

#[test]
fn what_could_not_work_is_refused_with_what_to_do_instead() {
    let allowed = Allowed { privileged: true, ..Allowed::default() };
    for (text, sign) in [
        (with("Pod=none.pod"), "none.pod is not in the bundle"),
        (with("Volume=none.volume:/x"), "none.volume is not in the bundle"),
        (with("Volume=data:/x"), "describe it in a .volume file"),
        (with("Volume=/a:/b:ro:x"), "source:where:options"),
        (with("Volume=%h/x:/x"), "describe it in a .volume file"),
        (with("Volume=./%i:/x"), "without %"),
        (with("EnvironmentFile=-/srv/x"), "the path of one file"),
        (with("Pull=always"), "before the switch"),
        (with("AutoUpdate=registry"), "leave it out"),
        (with("ServiceName=x"), "name the file"),
        (with("ContainerName=%p"), "is not a name"),
        (with("Label=titan.home=default/other"), "the agent's own"),
        (with("Label=a=b \"titan.digest=x\""), "the agent's own"),
        (with("[Install]\nAlias=ssh.service"), "leave it out"),
        (with("[Pod]\nPodmanArgs=x"), "[Pod] is no section"),
        (with("[Socket]\nListenStream=1"), "[Socket] is no section"),
        (with("Label=a\\\\\n"), "cannot be passed on"),
        (with("Label=a\u{7}b"), "cannot be passed on"),
        (with("no key"), "line 3"),
        ("[Container]\nExec=x\n".to_owned(), "names no image"),
        ("[Container]\nImage=app\n".to_owned(), "registry"),
        ("[Container]\nImage=-v./etc:/host\n".to_owned(), "not the name of an image"),
        (with("[X-Titan]\nOnRemove=delete"), "OnRemove= of a volume"),
    ] {
        let error = read(&in_bundle(&text), &allowed).expect_err(sign).to_string();
        assert!(error.contains(sign) && error.contains("web.container"), "{text}: {error}");
    }
    let fine = with("");
    let fine = fine.as_str();
    for (files, sign) in [
        (vec![("web.container", fine), ("pod.yaml", "kind: Pod")], "pod.yaml: kube YAML and quadlets"),
        (vec![("web.container", fine), ("x.kube", "[Kube]\nYaml=x")], "x.kube: is not applied"),
        (vec![("x.build", "[Build]\n")], "x.build: is not applied"),
        (vec![("web.container", fine), ("web.container.d/x.conf", "[Container]\n")], "drop-ins of quadlets"),
        (vec![("web@.container", fine)], "without @"),
        (vec![("web.container", fine), ("a.container", &with("ContainerName=systemd-web"))], "under the same name"),
        (vec![("a-volume.container", fine), ("a.volume", "[Volume]\n")], "under the same name"),
        (vec![("-a.container", fine)], "is not a name"),
    ] {
        let error = read(&files, &allowed).expect_err(sign).to_string();
        assert!(error.contains(sign), "{error}");
    }
    let many: Vec<String> = (0..=QUADLETS).map(|index| format!("v{index}.volume")).collect();
    let many: Vec<_> = many.iter().map(|file| (file.as_str(), "[Volume]\n")).collect();
    assert!(read(&many, &allowed).expect_err("many").to_string().contains("may have 64 quadlets"));
    read(&many[..QUADLETS], &allowed).expect("as many as may be");
    let long = format!("[Volume]\n# {}\n", "x".repeat(UNIT_BYTES));
    assert!(read(&[("v.volume", &long)], &allowed).is_err());
}

#[test]
fn units_are_made_from_their_file_what_it_mounts_and_what_it_needs() {
    let web = with("Volume=./conf:/conf\nVolume=data.volume:/d\nNetwork=net.network");
    let claims = |web: &str, conf: &str, network: &str| {
        let files = [
            ("web.container", web),
            ("side.container", &with("")),
            ("data.volume", "[Volume]\n"),
            ("net.network", network),
            ("conf/a", conf),
            ("other", conf),
        ];
        read(&files, &Allowed::default()).expect("quadlets").claims
    };
    let first = claims(&web, "a", "[Network]\n");
    let names: Vec<_> = first.keys().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "container:systemd-side",
            "container:systemd-web",
            "network:systemd-net",
            "quadlet:data.volume",
            "quadlet:net.network",
            "quadlet:side.container",
            "quadlet:web.container",
            "unit:data-volume.service",
            "unit:net-network.service",
            "unit:side.service",
            "unit:web.service",
            "volume:systemd-data",
        ]
    );
    assert!(own(&first));
    let changed = |next: &Claims| {
        let changed = next.iter().filter(|(claim, digest)| first.get(*claim) != Some(*digest));
        changed.map(|(claim, _)| claim.to_string()).collect::<Vec<_>>()
    };
    let commented = format!("# a comment\n{web}");
    assert_eq!(changed(&claims(&commented, "a", "[Network]\n")), [""; 0], "comments are nothing");
    assert_eq!(changed(&claims(&web, "b", "[Network]\n")), ["container:systemd-web", "unit:web.service"]);
    assert_eq!(
        changed(&claims(&format!("{web}StopTimeout=1\n"), "a", "[Network]\n")),
        ["container:systemd-web", "quadlet:web.container", "unit:web.service"]
    );
    assert_eq!(
        changed(&claims(&web, "a", "[Network]\nInternal=true\n")),
        [
            "container:systemd-web",
            "network:systemd-net",
            "quadlet:net.network",
            "unit:net-network.service",
            "unit:web.service"
        ]
    );
}

#[test]
fn what_is_written_is_what_was_looked_at_with_marks_paths_and_images() {
    let text = "; c\n[Container]\nImage=quay.io/team/app:1\nExec=a \\\n# no\n  b\nVolume=./conf:/conf:ro\n\
                Mount=type=bind,source=./conf,dst=/c,ro\nLabel=x=y\n";
    let files = [("web.container", text), ("data.volume", "[X-Titan]\nOnRemove=delete\n"), ("app.pod", "[Pod]\n")];
    let bundle = bundle(&files);
    let quadlets = Quadlets::read(&bundle, &Allowed::default(), false).expect("quadlets");
    let (target, none) = (target("one", ""), Claims::new());
    let home = Path::new("/home/of");
    let work = Work { target: &target, home, bundle: Some(&bundle), before: &none, after: &quadlets.claims };
    let texts = quadlets.texts(&work, |reference| format!("id of {reference}"));
    let digest = quadlets.claims[&Claim::new("container", "systemd-web")].to_string();
    assert_eq!(
        texts["web.container"].0,
        format!(
            "# Kept by titan-agent for default/one\n[Container]\nImage=id of quay.io/team/app:1\nExec=a  b\n\
             Volume=/home/of/conf:/conf:ro\nMount=type=bind,source=/home/of/conf,dst=/c,ro\nLabel=x=y\n[Container]\n\
             Label=titan.digest={}\nLabel=titan.home=default/one\n",
            &digest[..32]
        )
    );
    assert!(texts["data.volume"].0.contains("[Volume]\nLabel=titan.digest="));
    assert!(texts["data.volume"].0.contains("Label=titan.on-remove=delete\n"));
    assert!(texts["app.pod"].0.ends_with("PodmanArgs=--label=titan.home=default/one\n"));
    assert_eq!(texts["app.pod"].1, 0o644);
    // Another id of the same deployment changes nothing.
    let again = Target { id: uuid::Uuid::from_u128(8), ..target.clone() };
    let work = Work { target: &again, ..work };
    assert_eq!(quadlets.texts(&work, |reference| format!("id of {reference}")), texts);
}
