//! Git's smart protocol (version 0), as far as fetching one branch and pushing one needs it.
//!
//! libgit2 is built without networking, and plugging one in would need code that the workspace forbids; the protocol
//! itself is small. HTTP and ssh bring the bytes, this says which.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use git2::{Oid, Repository};

use super::remote::{self, Remote, RemoteError};

/// Bytes of a packet line at most.
const PACKET: usize = 65_520;
/// Bytes of the list of references, and of a push's report, at most.
const LIST: usize = 64 * 1024 * 1024;
const AGENT: &str = concat!("agent=titan-agent/", env!("CARGO_PKG_VERSION"));
const ZERO: &str = "0000000000000000000000000000000000000000";

/// Why an exchange with a remote failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The connection.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The other side does not speak the protocol as we do.
    #[error("the other side does not speak Git's protocol: {0}")]
    Protocol(String),
    /// The other side said why not.
    #[error("the other side says: {0}")]
    Said(String),
}

/// What is asked of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// To get commits.
    Upload,
    /// To take commits.
    Receive,
}

impl Service {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Upload => "git-upload-pack",
            Self::Receive => "git-receive-pack",
        }
    }
}

/// What is sent: some lines, and a pack after them.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: Vec<u8>,
    pub(crate) pack: Option<(File, u64)>,
}

/// What brings the bytes.
pub(crate) trait Carrier {
    /// Connects to a service and returns what it says first.
    fn open(&mut self, service: Service) -> Result<Box<dyn Read + '_>, WireError>;

    /// Sends a request to the service that was opened last and returns the answer.
    fn exchange(&mut self, service: Service, request: Request) -> Result<Box<dyn Read + '_>, WireError>;

    /// Ends a connection that is not used further.
    fn close(&mut self) -> Result<(), WireError>;
}

/// A remote at the other end of a carrier.
#[derive(Debug)]
pub(crate) struct WireRemote<C> {
    carrier: C,
    spool: PathBuf,
}

/// What a service says first.
#[derive(Debug, Default)]
struct Advertisement {
    references: BTreeMap<String, Oid>,
    capabilities: Vec<String>,
}

impl<C: Carrier> WireRemote<C> {
    pub(crate) fn new(carrier: C, spool: &Path) -> Self {
        Self { carrier, spool: spool.to_owned() }
    }

    fn greet(&mut self, service: Service) -> Result<Advertisement, WireError> {
        let mut said = self.carrier.open(service)?;
        Advertisement::read(&mut said)
    }
}

impl<C: Carrier> Remote for WireRemote<C> {
    fn tip(&mut self, branch: &str) -> Result<Option<Oid>, RemoteError> {
        let greeting = self.greet(Service::Upload)?;
        self.carrier.close()?;
        Ok(greeting.references.get(branch).copied())
    }

    fn fetch(&mut self, repo: &Repository, tip: Oid, have: &[Oid]) -> Result<(), RemoteError> {
        let greeting = self.greet(Service::Upload)?;
        if !greeting.has("side-band-64k") {
            return Err(WireError::Protocol("it does not offer side-band-64k".to_owned()).into());
        }
        let offered = greeting.only(&["side-band-64k", "ofs-delta", "no-progress"]);
        let mut head = Vec::new();
        packet(&mut head, &format!("want {tip} {} {AGENT}\n", offered.join(" ")));
        head.extend_from_slice(b"0000");
        // The newest of ours that the other side may know; with none of them it sends everything.
        let mut walk = repo.revwalk().map_err(RemoteError::Git)?;
        for id in have {
            walk.push(*id)?;
        }
        for id in walk.take(256) {
            packet(&mut head, &format!("have {}\n", id?));
        }
        packet(&mut head, "done\n");
        let mut answer = self.carrier.exchange(Service::Upload, Request { head, pack: None })?;
        let odb = repo.odb()?;
        let mut writer = odb.packwriter()?;
        let mut put = |bytes: &[u8]| writer.write_all(bytes).map_err(WireError::from);
        side_band(&mut answer, &mut put)?;
        writer.commit()?;
        drop(answer);
        self.carrier.close()?;
        Ok(())
    }

    fn push(&mut self, repo: &Repository, branch: &str, old: Option<Oid>, new: Oid) -> Result<(), RemoteError> {
        let greeting = self.greet(Service::Receive)?;
        if greeting.references.get(branch).copied() != old {
            self.carrier.close()?;
            return Err(RemoteError::Rejected("somebody else moved the branch".to_owned()));
        }
        if !greeting.has("report-status") {
            return Err(WireError::Protocol("it does not report whether it took the commits".to_owned()).into());
        }
        let known: Vec<_> = greeting.references.values().copied().collect();
        let pack = remote::pack(repo, new, &known, &self.spool)?;
        let old = old.map_or_else(|| ZERO.to_owned(), |old| old.to_string());
        let offered = greeting.only(&["report-status", "side-band-64k"]);
        let mut head = Vec::new();
        packet(&mut head, &format!("{old} {new} {branch}\0{} {AGENT}\n", offered.join(" ")));
        head.extend_from_slice(b"0000");
        let mut answer = self.carrier.exchange(Service::Receive, Request { head, pack: Some(pack) })?;
        let (mut report, mut remarks) = (Vec::new(), String::new());
        if greeting.has("side-band-64k") {
            remarks = side_band(&mut answer, &mut |bytes| {
                if report.len() + bytes.len() > LIST {
                    return Err(WireError::Protocol("its report does not end".to_owned()));
                }
                report.extend_from_slice(bytes);
                Ok(())
            })?;
        } else {
            (&mut answer).take(LIST as u64).read_to_end(&mut report).map_err(WireError::from)?;
        }
        drop(answer);
        let verdict = verdict(&report, branch);
        self.carrier.close()?;
        match verdict? {
            None => Ok(()),
            Some(reason) if remarks.trim().is_empty() => Err(RemoteError::Rejected(reason)),
            Some(reason) => Err(RemoteError::Rejected(format!("{reason} ({})", remarks.trim()))),
        }
    }
}

impl Advertisement {
    fn read(from: &mut dyn Read) -> Result<Self, WireError> {
        let (mut found, mut first, mut size) = (Self::default(), true, 0);
        while let Some(line) = read_packet(from)? {
            size += line.len();
            if size > LIST {
                return Err(WireError::Protocol("its list of references does not end".to_owned()));
            }
            if line.starts_with(b"ERR ") {
                return Err(said(&line));
            }
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            if text == "version 1" || text.starts_with("shallow ") {
                continue;
            }
            let (reference, capabilities) = text.split_once('\0').unwrap_or((&text, ""));
            if std::mem::take(&mut first) {
                found.capabilities = capabilities.split_whitespace().map(str::to_owned).collect();
                if let Some(format) = found.value("object-format").filter(|format| *format != "sha1") {
                    return Err(WireError::Protocol(format!("its objects are named by {format}, ours by sha1")));
                }
            }
            let malformed = || WireError::Protocol(format!("{reference:?} is not a reference"));
            let (id, name) = reference.split_once(' ').ok_or_else(malformed)?;
            let id: Oid = id.parse().map_err(|_| malformed())?;
            if name != "capabilities^{}" {
                found.references.insert(name.to_owned(), id);
            }
        }
        Ok(found)
    }

    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    fn value(&self, capability: &str) -> Option<&str> {
        self.capabilities.iter().find_map(|known| known.strip_prefix(capability)?.strip_prefix('='))
    }

    fn only<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        wanted.iter().copied().filter(|wanted| self.has(wanted)).collect()
    }
}

fn packet(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(format!("{:04x}", text.len() + 4).as_bytes());
    to.extend_from_slice(text.as_bytes());
}

/// Reads one packet line; `None` is the end of a section.
pub(crate) fn read_packet(from: &mut (impl Read + ?Sized)) -> Result<Option<Vec<u8>>, WireError> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let malformed = || WireError::Protocol(format!("{:?} is not a length", String::from_utf8_lossy(&length)));
    let text = std::str::from_utf8(&length).map_err(|_| malformed())?;
    let count = usize::from_str_radix(text, 16).map_err(|_| malformed())?;
    match count {
        0 => Ok(None),
        4..=PACKET => {
            let mut line = vec![0; count - 4];
            from.read_exact(&mut line)?;
            Ok(Some(line))
        }
        _ => Err(malformed()),
    }
}

/// Hands the first band to `put` until the section ends. Returns what was said to people on the way.
fn side_band(from: &mut dyn Read, put: &mut dyn FnMut(&[u8]) -> Result<(), WireError>) -> Result<String, WireError> {
    let mut remarks = String::new();
    while let Some(line) = read_packet(from)? {
        match line.split_first() {
            Some((1, bytes)) => put(bytes)?,
            // Which commits both sides have comes before the bands do.
            Some((b'A' | b'N', _)) if line.starts_with(b"ACK ") || line.starts_with(b"NAK") => {}
            Some((b'E', _)) if line.starts_with(b"ERR ") => return Err(said(&line)),
            Some((2, text)) if remarks.len() < 4096 => remarks.push_str(&String::from_utf8_lossy(text)),
            Some((2, _)) | None => {}
            Some((3, text)) => return Err(said(text)),
            Some((band, _)) => return Err(WireError::Protocol(format!("there is no band {band}"))),
        }
    }
    Ok(remarks)
}

fn said(line: &[u8]) -> WireError {
    let text = String::from_utf8_lossy(line);
    WireError::Said(text.trim().trim_start_matches("ERR ").chars().take(1000).collect())
}

/// Returns why a push was refused, or `None` if it was not.
fn verdict(mut report: &[u8], branch: &str) -> Result<Option<String>, WireError> {
    let mut taken = false;
    while !report.is_empty() {
        let Some(line) = read_packet(&mut report)? else { break };
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if let Some(result) = line.strip_prefix("unpack ") {
            if result != "ok" {
                return Ok(Some(format!("the pack was not unpacked: {result}")));
            }
        } else if let Some(rest) = line.strip_prefix("ng ") {
            let (_, reason) = rest.split_once(' ').unwrap_or((rest, "no reason given"));
            return Ok(Some(reason.to_owned()));
        } else if line.strip_prefix("ok ") == Some(branch) {
            taken = true;
        }
    }
    if taken { Ok(None) } else { Err(WireError::Protocol("its report does not speak of the branch".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in texts {
            packet(&mut bytes, text);
        }
        bytes.extend_from_slice(b"0000");
        bytes
    }

    #[test]
    fn an_advertisement_has_references_and_capabilities() {
        let id = "1".repeat(40);
        let bytes =
            lines(&[&format!("{id} HEAD\0side-band-64k object-format=sha1\n"), &format!("{id} refs/heads/main\n")]);
        let found = Advertisement::read(&mut bytes.as_slice()).expect("read");
        assert!(found.has("side-band-64k") && found.references.contains_key("refs/heads/main"));
        let empty = lines(&[&format!("{ZERO} capabilities^{{}}\0report-status\n")]);
        assert!(Advertisement::read(&mut empty.as_slice()).expect("empty").references.is_empty());
        let other = lines(&[&format!("{id} HEAD\0object-format=sha256\n")]);
        assert!(Advertisement::read(&mut other.as_slice()).is_err());
    }

    #[test]
    fn a_refused_reference_is_an_error_even_if_the_pack_was_taken() {
        let report = lines(&["unpack ok\n", "ng refs/heads/main hook declined\n"]);
        assert_eq!(verdict(&report, "refs/heads/main").expect("verdict"), Some("hook declined".to_owned()));
        let report = lines(&["unpack ok\n", "ok refs/heads/main\n"]);
        assert_eq!(verdict(&report, "refs/heads/main").expect("verdict"), None);
        assert!(verdict(&lines(&["unpack ok\n"]), "refs/heads/main").is_err(), "silence is no success");
        assert!(verdict(b"", "refs/heads/main").is_err());
    }

    #[test]
    fn garbage_is_no_protocol() {
        for bytes in [&b"<html>"[..], b"0003", b"ffff", b"zzzz", b"00", b"0008ab"] {
            assert!(read_packet(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
