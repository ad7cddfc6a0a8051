//! A shop of which every step breaks once and hangs once before it works.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::output::{Tone, lines::Line};

/// How much of a request is read at most.
const REQUEST: usize = 64 * 1024;
/// How long a step hangs that does.
const HANGS: Duration = Duration::from_secs(60);

/// The shop.
#[derive(Debug, Default)]
pub(super) struct Shop {
    books: Mutex<Books>,
}

/// What the shop knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    /// How often each step was asked for.
    pub(super) calls: BTreeMap<String, usize>,
    /// How often money was taken.
    pub(super) payments: usize,
    /// How often it was given back.
    pub(super) refunds: usize,
    /// Where the parcel went.
    pub(super) city: Option<String>,
    keys: BTreeSet<String>,
}

impl Books {
    /// Returns how often a step was asked for.
    pub(super) fn asked(&self, step: &str) -> usize {
        self.calls.get(step).copied().unwrap_or_default()
    }
}

impl Shop {
    /// Opens it on a free port and returns its address.
    pub(super) async fn open(self: &Arc<Self>) -> io::Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let shop = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shop = Arc::clone(&shop);
                tokio::spawn(async move {
                    // Whoever hangs up does not wait for an answer any more.
                    let _gone = shop.serve(stream).await;
                });
            }
        });
        Ok(address)
    }

    /// Returns what it knows.
    pub(super) fn told(&self) -> Books {
        self.books().clone()
    }

    /// Returns what it knows, as a line.
    pub(super) fn line(&self) -> Line {
        let books = self.books();
        if books.calls.is_empty() {
            return Line::new().add(Tone::Faint, "  the shop was not asked for anything");
        }
        let each = books.calls.iter().map(|(step, calls)| format!("{step} {calls}"));
        let calls = each.collect::<Vec<_>>().join(", ");
        let text = format!("  the shop was asked for: {calls}; paid {}, refunded {}", books.payments, books.refunds);
        Line::new().add(Tone::Faint, text)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let Some((head, body)) = request(&mut stream).await? else { return Ok(()) };
        let step = head.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        let key = header(&head, "idempotency-key").unwrap_or_default();
        let answer = match self.enter(&step, key, &serde_json::from_slice(&body).unwrap_or_default()) {
            1 => "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            2 => {
                tokio::time::sleep(HANGS).await;
                return Ok(());
            }
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }

    /// Does what a step is about, and returns how often it was asked for. Money is taken before the step breaks: whoever asks
    /// again with the same key does not pay again.
    fn enter(&self, step: &str, key: &str, body: &Value) -> usize {
        let mut books = self.books();
        let calls = books.calls.entry(step.to_owned()).or_default();
        *calls += 1;
        let calls = *calls;
        let first = books.keys.insert(format!("{step} {key}"));
        match step {
            "charge" if first => books.payments += 1,
            "refund" if first => books.refunds += 1,
            "dispatch" => books.city = body.get("city").and_then(Value::as_str).map(str::to_owned),
            _ => {}
        }
        calls
    }
}

/// Reads a request: its head in small letters, and its body. `None` if whoever asked went away or says too much.
async fn request(stream: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_lowercase();
            let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            let body = bytes.get(end + 4..).unwrap_or_default();
            if body.len() >= length {
                return Ok(Some((head, body.to_vec())));
            }
        }
        let read = stream.read(&mut chunk).await?;
        if read == 0 || bytes.len() > REQUEST {
            return Ok(None);
        }
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = head.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_asks_again_does_not_pay_again() {
        let shop = Shop::default();
        let asked: Vec<usize> = (0..3).map(|_| shop.enter("charge", "k", &Value::Null)).collect();
        assert_eq!(asked, [1, 2, 3]);
        shop.enter("charge", "other", &Value::Null);
        shop.enter("dispatch", "k", &json!({ "city": "Ulm" }));
        let told = shop.told();
        assert_eq!((told.payments, told.refunds, told.city.as_deref()), (2, 0, Some("Ulm")));
        assert_eq!(told.asked("charge"), 4);
    }
}
