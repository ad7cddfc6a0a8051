//! Health: how a host tells whether what it applied works.
//!
//! After a switch a deployment is on trial. It is healthy once what the applier itself knows (a unit is active, a container
//! is healthy, an object is ready) and every probe have held for `minReadySeconds`. If that does not come about before the
//! `deadline`, the host returns to the bundle before. Later, `failureThreshold` failures in a row make it degraded.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    hooks::{command_fault, place_fault, text_fault},
    limits::{FAILURES, PROBES, SPAN_LEAST, SPAN_MOST},
    problems::Fault,
    spans::Span,
};

/// What has to hold for a deployment to be healthy. In `template.yaml` every text may hold expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// How long after the switch the first probe comes.
    pub initial_delay: Span,
    /// How long after the end of a probe the next one comes.
    pub interval: Span,
    /// How long a probe may take.
    pub timeout: Span,
    /// After how many failures in a row what was healthy is degraded.
    pub failure_threshold: u32,
    /// For how many seconds everything has to hold without a break.
    pub min_ready_seconds: u32,
    /// How long after the switch it has to be healthy.
    pub deadline: Span,
    /// What is asked beside the applier's own knowledge.
    pub probes: Vec<Probe>,
}

/// One question that tells whether a deployment works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Probe {
    /// A URL answers.
    Http(HttpProbe),
    /// A connection can be made.
    Tcp(TcpProbe),
    /// A command ends with 0; the host's owner has to allow it.
    Exec(ExecProbe),
    /// A file is there.
    File(FileProbe),
    /// The control plane answered a poll since the switch: what a change of the network has to hold on to.
    ControlPlane {},
}

/// A URL answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HttpProbe {
    /// The URL, `http` or `https`. Redirects are not followed.
    pub url: String,
    /// The status that it has to have; absent: 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Text that the first 64 KiB of the body have to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// A connection can be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TcpProbe {
    /// `host:port`.
    pub address: String,
}

/// A command ends with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecProbe {
    /// The program, an absolute path or one below the deployment's directory, and its arguments. No shell.
    pub command: Vec<String>,
}

/// A file is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileProbe {
    /// An absolute path, or one below the deployment's directory.
    pub path: String,
    /// Text that its first 64 KiB have to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// How long ago it may have been changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            initial_delay: Span(Duration::ZERO),
            interval: Span(Duration::from_secs(10)),
            timeout: Span(Duration::from_secs(5)),
            failure_threshold: 3,
            min_ready_seconds: 0,
            deadline: Span(Duration::from_mins(5)),
            probes: Vec::new(),
        }
    }
}

impl Health {
    /// Whether nothing was declared.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Health {
    /// Returns what is beyond a limit or can never hold, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        let spans = [
            ("initialDelay", self.initial_delay, Duration::ZERO),
            ("interval", self.interval, SPAN_LEAST),
            ("timeout", self.timeout, SPAN_LEAST),
            ("deadline", self.deadline, SPAN_LEAST),
        ];
        let spans =
            spans.into_iter().filter_map(|(key, span, least)| span.fault(format!("{pointer}/{key}"), least, SPAN_MOST));
        let mut faults: Vec<_> = spans.collect();
        if !(1..=FAILURES).contains(&self.failure_threshold) {
            let detail = format!("{} is not between 1 and {FAILURES}", self.failure_threshold);
            faults.push(Fault::new(format!("{pointer}/failureThreshold"), detail));
        }
        let ready = self.initial_delay.0.saturating_add(Duration::from_secs(self.min_ready_seconds.into()));
        if faults.is_empty() && ready >= self.deadline.0 {
            let detail =
                format!("it can never be healthy by then: initialDelay and minReadySeconds take {}", Span(ready));
            faults.push(Fault::new(format!("{pointer}/deadline"), detail));
        }
        if self.probes.len() > PROBES {
            let detail = format!("{} probes, the limit is {PROBES}", self.probes.len());
            faults.push(Fault::new(format!("{pointer}/probes"), detail));
        }
        let probes = self.probes.iter().enumerate();
        faults.extend(probes.filter_map(|(index, probe)| probe.fault(&format!("{pointer}/probes/{index}"))));
        faults
    }
}

impl Probe {
    fn fault(&self, pointer: &str) -> Option<Fault> {
        let contains = |text: &Option<String>, at: &str| match text {
            Some(text) if text.is_empty() => Some(Fault::new(format!("{at}/contains"), "every text holds nothing")),
            Some(text) => text_fault(text, format!("{at}/contains")),
            None => None,
        };
        match self {
            Self::Http(probe) => {
                let at = format!("{pointer}/http");
                let url = text_fault(&probe.url, format!("{at}/url")).or_else(|| url_fault(&probe.url, &at));
                let status = probe.status.filter(|status| !(100..600).contains(status));
                let status =
                    status.map(|status| Fault::new(format!("{at}/status"), format!("{status} is not a status")));
                url.or(status).or_else(|| contains(&probe.contains, &at))
            }
            Self::Tcp(probe) => {
                let at = format!("{pointer}/tcp/address");
                let detail = format!("{:?} is not an address; write host:port, or [address]:port", probe.address);
                text_fault(&probe.address, at.clone())
                    .or_else(|| (!is_address(&probe.address, true)).then(|| Fault::new(at, detail)))
            }
            Self::Exec(probe) => command_fault(&probe.command, &format!("{pointer}/exec/command")),
            Self::File(probe) => {
                let at = format!("{pointer}/file");
                let age = || probe.max_age?.fault(format!("{at}/maxAge"), SPAN_LEAST, Duration::MAX);
                place_fault(&probe.path, format!("{at}/path")).or_else(|| contains(&probe.contains, &at)).or_else(age)
            }
            Self::ControlPlane {} => None,
        }
    }
}

fn url_fault(url: &str, at: &str) -> Option<Fault> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let detail = match rest {
        None => format!("{url:?} is not a URL that begins with http:// or https://"),
        Some(_) if url.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            format!("{url:?} holds a space or a control character")
        }
        Some(rest) => match rest.split(['/', '?', '#']).next().unwrap_or_default() {
            // It would stand in every report.
            host if host.contains('@') => "a URL of a probe holds no name and password".to_owned(),
            host if !is_address(host, false) => format!("{url:?} has no host, or no port behind its colon"),
            _ => return None,
        },
    };
    Some(Fault::new(format!("{at}/url"), detail))
}

/// Whether `text` is `host:port` or `[address]:port`, or, unless `needs_port`, one without the port.
fn is_address(text: &str, needs_port: bool) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return false;
            }
            (address, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let plain = |c: char| c.is_ascii_graphic() && !"/?#@[]\\\"<>^`{|}".contains(c);
    let port =
        port.map(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0));
    !host.is_empty() && host.chars().all(plain) && port.unwrap_or(!needs_port)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pointers(health: Value) -> Vec<String> {
        let health: Health = serde_json::from_value(health).expect("health");
        health.faults("/health").into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn spans_and_counts_have_limits() {
        assert_eq!(pointers(json!({})), [""; 0]);
        for (key, good, bad) in [
            ("initialDelay", vec!["0s", "4m"], vec!["25h"]),
            ("interval", vec!["100ms", "24h"], vec!["99ms", "25h"]),
            ("timeout", vec!["100ms", "24h"], vec!["0ms", "25h"]),
            ("deadline", vec!["100ms", "24h"], vec!["99ms", "25h"]),
        ] {
            for span in good {
                assert_eq!(pointers(json!({ key: span })), [""; 0], "{key}: {span}");
            }
            for span in bad {
                assert_eq!(pointers(json!({ key: span })), [format!("/health/{key}")], "{key}: {span}");
            }
        }
        assert_eq!(pointers(json!({"failureThreshold": FAILURES})), [""; 0]);
        for bad in [0, FAILURES + 1] {
            assert_eq!(pointers(json!({"failureThreshold": bad})), ["/health/failureThreshold"]);
        }
        let probes = |count: usize| json!({"probes": vec![json!({"controlPlane": {}}); count]});
        assert_eq!(pointers(probes(PROBES)), [""; 0]);
        assert_eq!(pointers(probes(PROBES + 1)), ["/health/probes"]);
    }

    #[test]
    fn deadline_that_nothing_can_meet_is_refused() {
        let of = |delay: &str, ready: u32| json!({"deadline": "1m", "initialDelay": delay, "minReadySeconds": ready});
        assert_eq!(pointers(of("10s", 49)), [""; 0]);
        assert_eq!(pointers(of("10s", 50)), ["/health/deadline"]);
        assert_eq!(pointers(of("0s", u32::MAX)), ["/health/deadline"]);
    }

    #[test]
    fn urls_addresses_and_paths_are_checked() {
        let url = |url: &str| pointers(json!({"probes": [{"http": {"url": url}}]}));
        for good in ["http://127.0.0.1:80/x?y", "https://a.b", "http://[::1]:8080/", "http://[::1]"] {
            assert_eq!(url(good), [""; 0], "{good}");
        }
        for bad in [
            "",
            "ftp://a",
            "http://",
            "http:///x",
            "http://a:0",
            "http://a:",
            "http://a:x",
            "http://a b",
            "HTTP//a",
            "http://u:p@a",
            "http://[::1",
            "http://a:65536",
            "http://a\n",
        ] {
            assert_eq!(url(bad), ["/health/probes/0/http/url"], "{bad}");
        }
        assert_eq!(url(&format!("http://a/{}", "x".repeat(4096))), ["/health/probes/0/http/url"]);
        let address = |address: &str| pointers(json!({"probes": [{"tcp": {"address": address}}]}));
        for good in ["a:1", "[::1]:65535", "127.0.0.1:22"] {
            assert_eq!(address(good), [""; 0], "{good}");
        }
        for bad in ["", "a", ":1", "a:", "::1:22", "a:+1", "[a]:1", "[::1]x:1"] {
            assert_eq!(address(bad), ["/health/probes/0/tcp/address"], "{bad}");
        }
        let one = |probe: Value| pointers(json!({"probes": [probe]}));
        assert_eq!(one(json!({"http": {"url": "http://a", "status": 600}})), ["/health/probes/0/http/status"]);
        assert_eq!(one(json!({"http": {"url": "http://a", "contains": ""}})), ["/health/probes/0/http/contains"]);
        assert_eq!(one(json!({"file": {"path": "../x"}})), ["/health/probes/0/file/path"]);
        assert_eq!(
            one(json!({"file": {"path": "/run/x", "contains": "", "maxAge": "1s"}})),
            ["/health/probes/0/file/contains"]
        );
        assert_eq!(one(json!({"file": {"path": "x", "maxAge": "0s"}})), ["/health/probes/0/file/maxAge"]);
        assert_eq!(one(json!({"file": {"path": "x", "maxAge": "720h"}})), [""; 0]);
        assert_eq!(one(json!({"exec": {"command": []}})), ["/health/probes/0/exec/command"]);
    }
}
