//! Keys of quadlets: what each asks for, and those that only an owner who allows `privileged` lets through.
//!
//! A quadlet becomes a unit, and a unit can run anything as root. So a key that is not known to be harmless needs
//! `privileged`, whatever a newer podman may mean by it.

/// What a file is, by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Sort {
    Container,
    Image,
    Network,
    Pod,
    Volume,
}

/// What a key's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing that has to be looked at.
    Free,
    /// Something that needs `privileged`.
    Privileged,
    /// An image, or an `.image` file of the bundle.
    Image,
    /// `source:where:options`.
    Volume,
    /// `type=...,source=...,...`.
    Mount,
    /// A file of the host whose lines are settings.
    File,
    /// A network.
    Network,
    /// A `.pod` file of the bundle.
    Pod,
    /// The name of what is made.
    Name,
    /// Labels.
    Labels,
    /// Annotations.
    Annotations,
    /// Whose users the container's are.
    Users,
    /// When the image is pulled.
    Pull,
    /// Units that are started or stopped with this one.
    Units,
    /// Who wants the unit.
    Wanted,
    /// Nothing that can be had, and what to do instead.
    Never(&'static str),
}

const SORTS: [(&str, Sort); 5] = [
    ("container", Sort::Container),
    ("image", Sort::Image),
    ("network", Sort::Network),
    ("pod", Sort::Pod),
    ("volume", Sort::Volume),
];
/// Endings of quadlets that are refused, and what to do instead.
const OTHERS: [(&str, &str); 2] = [
    ("build", "build the image beforehand, and name it by its digest"),
    ("kube", "leave it out: kube YAML is applied as it is, in a deployment of its own"),
];

/// Keys of containers that ask for nothing that a container has not anyway.
const CONTAINER: [&str; 53] = [
    "AddHost",
    "DNS",
    "DNSOption",
    "DNSSearch",
    "DropCapability",
    "Entrypoint",
    "Environment",
    "Exec",
    "ExposeHostPort",
    "Group",
    "GroupAdd",
    "HealthCmd",
    "HealthInterval",
    "HealthMaxLogCount",
    "HealthMaxLogSize",
    "HealthOnFailure",
    "HealthRetries",
    "HealthStartPeriod",
    "HealthStartupCmd",
    "HealthStartupInterval",
    "HealthStartupRetries",
    "HealthStartupSuccess",
    "HealthStartupTimeout",
    "HealthTimeout",
    "HostName",
    "HttpProxy",
    "IP",
    "IP6",
    "LogDriver",
    "Mask",
    "Memory",
    "NetworkAlias",
    "NoNewPrivileges",
    "Notify",
    "PidsLimit",
    "PublishPort",
    "ReadOnly",
    "ReadOnlyTmpfs",
    "ReloadCmd",
    "ReloadSignal",
    "Retry",
    "RetryDelay",
    "RunInit",
    "ShmSize",
    "StartWithPod",
    "StopSignal",
    "StopTimeout",
    "Timezone",
    "Tmpfs",
    "Ulimit",
    "User",
    "VolatileTmp",
    "WorkingDir",
];
const POD: [&str; 12] = [
    "AddHost",
    "DNS",
    "DNSOption",
    "DNSSearch",
    "ExitPolicy",
    "HostName",
    "IP",
    "IP6",
    "NetworkAlias",
    "PublishPort",
    "ShmSize",
    "StopTimeout",
];
const NETWORK: [&str; 8] =
    ["DNS", "DisableDNS", "Gateway", "IPRange", "IPv6", "Internal", "NetworkDeleteOnStop", "Subnet"];
const VOLUME: [&str; 3] = ["Copy", "Group", "User"];
const IMAGE: [&str; 6] = ["AllTags", "Arch", "OS", "Retry", "RetryDelay", "Variant"];
/// Keys of `[Unit]`; those that begin with `Condition` or `Assert` are harmless as well.
const UNIT: [&str; 10] = [
    "After",
    "Before",
    "CollectMode",
    "Description",
    "Documentation",
    "JobTimeoutSec",
    "RequiresMountsFor",
    "StartLimitBurst",
    "StartLimitIntervalSec",
    "StopWhenUnneeded",
];
const UNITS: [&str; 8] = ["BindsTo", "OnFailure", "OnSuccess", "PartOf", "Requires", "Requisite", "Upholds", "Wants"];
const SERVICE: [&str; 23] = [
    "CPUQuota",
    "CPUWeight",
    "IOWeight",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMax",
    "MemorySwapMax",
    "RemainAfterExit",
    "Restart",
    "RestartForceExitStatus",
    "RestartMaxDelaySec",
    "RestartPreventExitStatus",
    "RestartSec",
    "RestartSteps",
    "RuntimeMaxSec",
    "SuccessExitStatus",
    "SyslogIdentifier",
    "TasksMax",
    "TimeoutSec",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "Type",
    "Nice",
];

impl Sort {
    /// Returns what a file at the top of a bundle is, if it is a quadlet; the error says what to do instead of one that is
    /// not taken.
    pub(in super::super) fn of(path: &str) -> Option<Result<Self, &'static str>> {
        let (stem, ending) = path.rsplit_once('.').filter(|(stem, _)| !stem.is_empty() && !path.contains('/'))?;
        let _named_like_one = stem;
        let taken = SORTS.iter().find(|(known, _)| *known == ending).map(|(_, sort)| Ok(*sort));
        taken.or_else(|| OTHERS.iter().find(|(known, _)| *known == ending).map(|(_, instead)| Err(*instead)))
    }

    /// Returns the section that is its own.
    pub(super) const fn section(self) -> &'static str {
        match self {
            Self::Container => "Container",
            Self::Image => "Image",
            Self::Network => "Network",
            Self::Pod => "Pod",
            Self::Volume => "Volume",
        }
    }

    /// Returns the kind of the claim on what it makes, the key that names that, and how it is named otherwise.
    pub(super) const fn thing(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Container => Some(("container", "ContainerName")),
            Self::Network => Some(("network", "NetworkName")),
            Self::Pod => Some(("pod", "PodName")),
            Self::Volume => Some(("volume", "VolumeName")),
            Self::Image => None,
        }
    }

    /// Returns what comes behind the file's name in that of its unit.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Container => ".service",
            Self::Image => "-image.service",
            Self::Network => "-network.service",
            Self::Pod => "-pod.service",
            Self::Volume => "-volume.service",
        }
    }

    /// Returns the first version of podman that makes a unit of it.
    pub(super) const fn since(self) -> (u64, u64) {
        match self {
            Self::Container | Self::Network | Self::Volume => (4, 4),
            Self::Image => (4, 8),
            Self::Pod => (5, 0),
        }
    }

    /// Returns what a key in a section is, or `None` if the section has no business here.
    pub(super) fn rule(self, section: &str, key: &str) -> Option<Rule> {
        let known = |keys: &[&str]| if keys.contains(&key) { Rule::Free } else { Rule::Privileged };
        Some(match section {
            "Unit" if UNITS.contains(&key) => Rule::Units,
            "Unit" if key.starts_with("Condition") || key.starts_with("Assert") => Rule::Free,
            "Unit" => known(&UNIT),
            "Service" => known(&SERVICE),
            "Install" => match key {
                "WantedBy" => Rule::Wanted,
                "RequiredBy" | "UpheldBy" => Rule::Units,
                _ => Rule::Never("leave it out: WantedBy=, RequiredBy= and UpheldBy= are what can be said there"),
            },
            "Quadlet" => known(&["DefaultDependencies"]),
            "X-Titan" => match (self, key) {
                (_, "Start") | (Self::Volume, "OnRemove") => Rule::Free,
                _ => Rule::Never("what can be said there is Start=, and OnRemove= of a volume"),
            },
            own if own == self.section() => self.own_rule(key),
            _ => return None,
        })
    }

    fn own_rule(self, key: &str) -> Rule {
        let known = |keys: &[&str]| if keys.contains(&key) { Rule::Free } else { Rule::Privileged };
        match (self, key) {
            (_, "ServiceName") => Rule::Never("leave it out, and name the file as the unit is to be named"),
            (_, key) if self.thing().is_some_and(|(_, named)| named == key) => Rule::Name,
            (Self::Container | Self::Image, "Image") => Rule::Image,
            (Self::Container, "AutoUpdate") => Rule::Never("leave it out: the bundle says which image runs"),
            (Self::Container, "Pull") => Rule::Pull,
            (Self::Container, "Mount") => Rule::Mount,
            (Self::Container, "EnvironmentFile") => Rule::File,
            (Self::Container, "Pod") => Rule::Pod,
            (Self::Container, "Annotation") => Rule::Annotations,
            (Self::Container | Self::Pod, "UserNS") => Rule::Users,
            (Self::Container | Self::Pod, "Volume") => Rule::Volume,
            (Self::Container | Self::Pod, "Network") => Rule::Network,
            (Self::Container | Self::Pod | Self::Network | Self::Volume, "Label") => Rule::Labels,
            (Self::Container, _) => known(&CONTAINER),
            (Self::Pod, _) => known(&POD),
            (Self::Network, _) => known(&NETWORK),
            (Self::Volume, _) => known(&VOLUME),
            (Self::Image, _) => known(&IMAGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_needs_privileged() {
        for (sort, section, key, expected) in [
            (Sort::Container, "Container", "Exec", Some(Rule::Free)),
            (Sort::Container, "Container", "PodmanArgs", Some(Rule::Privileged)),
            (Sort::Container, "Container", "AddDevice", Some(Rule::Privileged)),
            (Sort::Container, "Container", "LogOpt", Some(Rule::Privileged)),
            (Sort::Container, "Container", "InventedNextYear", Some(Rule::Privileged)),
            (Sort::Container, "Service", "Restart", Some(Rule::Free)),
            (Sort::Container, "Service", "ExecStartPre", Some(Rule::Privileged)),
            (Sort::Container, "Unit", "ConditionPathExists", Some(Rule::Free)),
            (Sort::Container, "Unit", "FailureAction", Some(Rule::Privileged)),
            (Sort::Container, "Unit", "Conflicts", Some(Rule::Privileged)),
            (Sort::Container, "Pod", "PodmanArgs", None),
            (Sort::Container, "Kube", "Yaml", None),
            (Sort::Volume, "Volume", "Device", Some(Rule::Privileged)),
            (Sort::Volume, "Volume", "VolumeName", Some(Rule::Name)),
            (Sort::Network, "Network", "Driver", Some(Rule::Privileged)),
        ] {
            assert_eq!(sort.rule(section, key), expected, "[{section}] {key}=");
        }
        assert!(matches!(Sort::Pod.rule("Pod", "ServiceName"), Some(Rule::Never(_))));
        assert_eq!(Sort::of("a.pod"), Some(Ok(Sort::Pod)));
        assert!(
            matches!(Sort::of("a.build"), Some(Err(_))) && Sort::of("x/a.pod").is_none() && Sort::of(".pod").is_none()
        );
    }
}
