//! A double of the control plane: it answers polls from a table, keeps reports, and can be told to misbehave.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use titan_api::{Digest, Revision, SetDigest};
use uuid::Uuid;

pub(crate) const TOKEN: &str = "host-credential";

/// What is answered instead of what should be.
#[derive(Debug, Clone)]
pub(crate) enum Misbehaviour {
    /// A status line's end, a media type, and a body.
    Whole(&'static str, &'static str, Vec<u8>),
    /// More than was promised never comes.
    Truncated,
    /// That many bytes of JSON.
    Endless(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) revision: i64,
    pub(crate) bundle: Option<String>,
    pub(crate) on_remove: &'static str,
    pub(crate) depends_on: Vec<&'static str>,
    pub(crate) inline: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) clock: i64,
    pub(crate) rows: BTreeMap<Uuid, Row>,
    pub(crate) reports: Vec<Value>,
    pub(crate) polls: Vec<String>,
    pub(crate) misbehaviour: Option<Misbehaviour>,
    pub(crate) spoil_bundles: bool,
    pub(crate) spoil_digest: bool,
    /// Bytes that come in the place of any bundle.
    pub(crate) endless_bundles: Option<usize>,
    pub(crate) enrolments: Vec<Value>,
    /// Reports with an older number are refused; one with this number was taken before, whatever it says.
    pub(crate) newest_report: Option<u64>,
    pub(crate) refused_reports: usize,
    /// How many refusals it takes until it is believed that nothing changed.
    pub(crate) disbelieved: usize,
}

pub(crate) struct Plane {
    pub(crate) url: String,
    table: Arc<Mutex<Table>>,
}

pub(crate) fn id_of(name: &str) -> Uuid {
    let digest = Digest::of(name.as_bytes());
    Uuid::from_slice(&digest.as_bytes()[..16]).unwrap()
}

/// Returns a bundle; a path that begins with `@` is rooted, one that ends with `*` executable.
pub(crate) fn bundle(files: &[(&str, &str)]) -> String {
    let file = |(path, content): &(&str, &str)| {
        let rooted = path.starts_with('@');
        let mode = if path.ends_with('*') { "0755" } else { "0644" };
        let path = path.trim_start_matches('@').trim_end_matches('*');
        json!({"path": path, "rooted": rooted, "mode": mode, "content": content})
    };
    json!({"applier": "files", "files": files.iter().map(file).collect::<Vec<_>>()}).to_string()
}

impl Plane {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let table = Arc::new(Mutex::new(Table { clock: 1_000_000, ..Table::default() }));
        let shared = table.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url, table }
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    pub(crate) fn deploy(&self, name: &str, files: &[(&str, &str)]) {
        self.deploy_with(name, files, |_| {});
    }

    pub(crate) fn deploy_with(&self, name: &str, files: &[(&str, &str)], change: impl FnOnce(&mut Row)) {
        let mut table = self.table();
        table.clock += 10;
        let (id, revision) = (id_of(name), table.clock);
        let number = table.rows.get(&id).map_or(1, |row| row.number + 1);
        let bundle = Some(bundle(files));
        let name = name.to_owned();
        let mut row = Row { name, number, revision, bundle, on_remove: "delete", depends_on: vec![], inline: true };
        change(&mut row);
        table.rows.insert(id, row);
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut table = self.table();
        table.clock += 10;
        let revision = table.clock;
        let row = table.rows.get_mut(&id_of(name)).unwrap();
        (row.bundle, row.revision) = (None, revision);
    }

    pub(crate) fn misbehave(&self, misbehaviour: Option<Misbehaviour>) {
        self.table().misbehaviour = misbehaviour;
    }

    /// The newest report about a deployment.
    pub(crate) fn reported(&self, name: &str) -> Value {
        let id = id_of(name).to_string();
        let table = self.table();
        let all =
            table.reports.iter().rev().flat_map(|report| report["deployments"].as_array().cloned().unwrap_or_default());
        all.into_iter().find(|report| report["id"] == id.as_str()).unwrap_or(Value::Null)
    }
}

impl Table {
    fn is_stale(&mut self, report: &[u8]) -> bool {
        let seq = serde_json::from_slice::<Value>(report).unwrap()["seq"].as_u64();
        let stale = self.newest_report.is_some() && seq < self.newest_report;
        if !stale && self.newest_report.is_some() {
            self.newest_report = seq;
        }
        stale
    }

    /// Whether a report has the number of one that was taken already. It is not looked at: the answer may have been lost.
    fn is_known(&self, report: &[u8]) -> bool {
        let seq = serde_json::from_slice::<Value>(report).unwrap()["seq"].as_u64();
        self.newest_report.is_some() && seq == self.newest_report
    }

    fn is_missed(&self, report: &[u8]) -> bool {
        let unchanged = serde_json::from_slice::<Value>(report).unwrap()["unchanged"] == Value::Bool(true);
        unchanged && self.refused_reports < self.disbelieved
    }

    fn answer(&self, since: Option<i64>) -> Option<Value> {
        let shown = |row: &&Row| since.is_none_or(|since| row.revision >= since);
        let moved = self.rows.values().filter(shown).count();
        if since.is_some() && moved == 0 {
            return None;
        }
        let at = |micros: i64| Revision::from_micros(micros).to_string();
        let (mut deployments, mut tombstones) = (Vec::new(), Vec::new());
        for (id, row) in self.rows.iter().filter(|(_, row)| shown(row)) {
            let (name, on_remove, revision) = (&row.name, row.on_remove, at(row.revision));
            match &row.bundle {
                Some(text) => {
                    let digest = Digest::of(text.as_bytes());
                    let text = if self.spoil_bundles { text.replace("\"files\"", " \"files\"") } else { text.clone() };
                    let mut deployment = json!({"id": id, "name": name, "workspace": "default", "digest": digest,
                        "release": format!("{name}#{}", row.number), "revision": revision,
                        "dependsOn": row.depends_on, "onRemove": on_remove});
                    if row.inline {
                        deployment["bundle"] = Value::String(format!("RAW{text}RAW"));
                    }
                    deployments.push(deployment);
                }
                None => tombstones.push(json!({"id": id, "name": name, "workspace": "default", "revision": revision,
                    "deletedAt": revision, "reason": "deploymentDeleted", "onRemove": on_remove})),
            }
        }
        let present = self.rows.iter().filter(|(_, row)| row.bundle.is_some());
        let mut digest = SetDigest::of(present.map(|(id, row)| (*id, Revision::from_micros(row.revision))));
        if self.spoil_digest {
            digest = digest.with(Uuid::nil(), Revision::ZERO);
        }
        Some(json!({"cursor": at(self.clock + 1), "full": since.is_none(), "digest": digest,
            "deployments": deployments, "tombstones": tombstones, "pollAfterSeconds": 1}))
    }
}

fn serve(mut stream: TcpStream, table: &Mutex<Table>) {
    let Some((line, head, body)) = read_request(&mut stream) else { return };
    let mut parts = line.split(' ');
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut table = table.lock().unwrap();
    let poll = path.ends_with("/changes");
    if poll {
        table.polls.push(query.to_owned());
    }
    if let Some(misbehaviour) = table.misbehaviour.clone().filter(|_| poll) {
        drop(table);
        return misbehave(&mut stream, misbehaviour);
    }
    let known = head.to_lowercase().contains(&format!("authorization: bearer {TOKEN}"));
    let (status, media, body) = match (method, path) {
        ("POST", "/v1/enrol") => {
            let request: Value = serde_json::from_slice(&body).unwrap();
            let answer = json!({"host": request["host"], "hostId": id_of("host"), "credential": TOKEN});
            table.enrolments.push(request);
            ("200 OK", "application/json", answer.to_string().into_bytes())
        }
        _ if !known => {
            let problem = titan_api::Problem::new(titan_api::Code::Unauthorized, "the credential is not known");
            ("401 Unauthorized", "application/problem+json", serde_json::to_vec(&problem).unwrap())
        }
        ("GET", path) if path.contains("/bundles/") => {
            if let Some(size) = table.endless_bundles {
                drop(table);
                return misbehave(&mut stream, Misbehaviour::Endless(size));
            }
            let wanted = path.rsplit('/').next().unwrap_or_default();
            let found = table.rows.values().filter_map(|row| row.bundle.clone());
            let found = found.into_iter().find(|text| Digest::of(text.as_bytes()).to_string() == wanted);
            match found {
                Some(text) if !table.spoil_bundles => ("200 OK", "application/json", text.into_bytes()),
                Some(_) => ("200 OK", "application/json", b"{}".to_vec()),
                None => {
                    let problem = titan_api::Problem::not_found("bundle", wanted);
                    ("404 Not Found", "application/problem+json", serde_json::to_vec(&problem).unwrap())
                }
            }
        }
        ("GET", _) if poll => {
            let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
            let since = since.map(|text| text.replace("%3A", ":").parse::<Revision>().unwrap().micros());
            match table.answer(since) {
                Some(answer) => {
                    // Bundles travel byte for byte.
                    let text = answer.to_string();
                    let mut raw = String::new();
                    for (index, part) in text.split("RAW").enumerate() {
                        if index % 2 == 1 {
                            let quoted = format!("\"{part}\"");
                            raw.push_str(&serde_json::from_str::<String>(&quoted).unwrap());
                        } else {
                            raw.push_str(part);
                        }
                    }
                    let raw =
                        raw.replace("\"bundle\":\"{", "\"bundle\":{").replace("}\",\"dependsOn\"", "},\"dependsOn\"");
                    ("200 OK", "application/json", raw.into_bytes())
                }
                None => {
                    let cursor = Revision::from_micros(table.clock + 1);
                    let head = format!(
                        "HTTP/1.1 204 No Content\r\ntitan-cursor: {cursor}\r\ntitan-poll-after: 1\r\nconnection: close\r\n\r\n"
                    );
                    let _gone = stream.write_all(head.as_bytes());
                    return;
                }
            }
        }
        ("POST", path) if path.ends_with("/report") && table.is_known(&body) => {
            let _gone = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            return;
        }
        ("POST", path) if path.ends_with("/report") && table.is_stale(&body) => {
            table.refused_reports += 1;
            let newest = table.newest_report.unwrap_or_default().to_string();
            let problem = titan_api::Problem::new(titan_api::Code::Stale, "older than another").at("/seq", newest);
            ("412 Precondition Failed", "application/problem+json", serde_json::to_vec(&problem).unwrap())
        }
        ("POST", path) if path.ends_with("/report") && table.is_missed(&body) => {
            table.refused_reports += 1;
            let problem = titan_api::Problem::new(titan_api::Code::Stale, "one is missing").at("/unchanged", "not so");
            ("412 Precondition Failed", "application/problem+json", serde_json::to_vec(&problem).unwrap())
        }
        ("POST", path) if path.ends_with("/report") => {
            table.reports.push(serde_json::from_slice(&body).unwrap());
            let _gone = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            return;
        }
        _ => ("404 Not Found", "text/plain", b"no".to_vec()),
    };
    drop(table);
    send(&mut stream, status, media, &body);
}

fn misbehave(stream: &mut TcpStream, misbehaviour: Misbehaviour) {
    match misbehaviour {
        Misbehaviour::Whole(status, media, body) => send(stream, status, media, &body),
        Misbehaviour::Truncated => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{\"cursor\":";
            let _gone = stream.write_all(head.as_bytes());
        }
        Misbehaviour::Endless(size) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n");
            let _gone = stream.write_all(head.as_bytes());
            let chunk = vec![b' '; 1 << 20];
            for _ in 0..size >> 20 {
                if stream.write_all(&chunk).is_err() {
                    return;
                }
            }
        }
    }
}

pub(crate) fn send(stream: &mut TcpStream, status: &str, media: &str, body: &[u8]) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Reads one request: its line, its headers, its body.
pub(crate) fn read_request(stream: &mut TcpStream) -> Option<(String, String, Vec<u8>)> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 65536]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length.unwrap_or(0) {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => body.extend_from_slice(&chunk[..count]),
        }
    }
    let line = head.lines().next()?.to_owned();
    Some((line, head, body))
}
