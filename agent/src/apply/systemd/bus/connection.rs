//! A connection to a bus: one socket, calls with their answers, and word of signals.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    BusError, bus_call,
    values::Value,
    wire::{Argument, Call, FIXED, Kind, Message, WireError},
};

/// Bytes of a line with which a bus answers before messages begin.
const LINE_BYTES: usize = 1024;

/// Who waits for which answer; absent once nothing comes any more.
type Waiting = Arc<Mutex<Option<BTreeMap<u32, oneshot::Sender<Message>>>>>;

/// The connection. It ends with this value.
#[derive(Debug)]
pub(super) struct Connection {
    writer: OwnedWriteHalf,
    serial: u32,
    waiting: Waiting,
    signals: watch::Receiver<()>,
    reader: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Connection {
    /// Connects to the bus at an address as D-Bus writes it, and says who this is.
    pub(super) async fn open(address: &str) -> Result<Self, BusError> {
        let mut stream = UnixStream::connect(place(address).map_err(BusError::Away)?).await.map_err(lost)?;
        // The kernel tells the other side who this is; said is only as whom it wants to be known.
        let user: String =
            rustix::process::geteuid().as_raw().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes()).await.map_err(lost)?;
        let line = line(&mut stream).await.map_err(lost)?;
        if !line.starts_with("OK ") {
            return Err(BusError::Away(format!("it does not know this user: {line:?}")));
        }
        stream.write_all(b"BEGIN\r\n").await.map_err(lost)?;
        let (stream, writer) = stream.into_split();
        let waiting: Waiting = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let (heard, signals) = watch::channel(());
        let reader = tokio::spawn(read(stream, waiting.clone(), heard));
        let mut connection = Self { writer, serial: 0, waiting, signals, reader };
        connection.call(bus_call("Hello"), &[]).await?;
        Ok(connection)
    }

    /// Whether nothing comes any more.
    pub(super) fn is_closed(&self) -> bool {
        self.reader.is_finished() || self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Returns what changes with signals from now on, and ends with the connection.
    pub(super) fn signals(&self) -> watch::Receiver<()> {
        let mut signals = self.signals.clone();
        signals.mark_unchanged();
        signals
    }

    /// Makes a call and waits for what it returns. Dropped before its end it leaves a connection that is good for nothing.
    pub(super) async fn call(&mut self, call: Call<'_>, arguments: &[Argument<'_>]) -> Result<Vec<Value>, BusError> {
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let bytes = call.encode(self.serial, arguments)?;
        let (sender, answer) = oneshot::channel();
        let gone = || BusError::Away("the connection has ended".to_owned());
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => drop(waiting.insert(self.serial, sender)),
            None => return Err(gone()),
        }
        self.writer.write_all(&bytes).await.map_err(lost)?;
        let answer = answer.await.map_err(|_| gone())?;
        let values = answer.values();
        match answer.kind {
            Kind::Error(name) => {
                // An error tells of itself in its first text, if at all.
                let said = values.unwrap_or_default().into_iter().next().and_then(|said| said.try_into().ok());
                Err(BusError::said(name, said))
            }
            _ => Ok(values?),
        }
    }
}

impl From<WireError> for BusError {
    fn from(error: WireError) -> Self {
        Self::Away(error.to_string())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn lost(error: io::Error) -> BusError {
    BusError::Away(error.to_string())
}

/// Returns the path of the first socket that an address names; of one without a file the name after a NUL character.
fn place(address: &str) -> Result<String, String> {
    let refused = || format!("{address:?} is not the address of a bus such as unix:path=/run/dbus/system_bus_socket");
    let sockets = address.split(';').filter_map(|one| one.strip_prefix("unix:"));
    for pair in sockets.flat_map(|pairs| pairs.split(',')) {
        match pair.split_once('=') {
            Some(("path", path)) => return unescape(path).ok_or_else(refused),
            Some(("abstract", name)) => return Ok(format!("\0{}", unescape(name).ok_or_else(refused)?)),
            _ => {}
        }
    }
    Err(refused())
}

fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(byte, 16).ok()?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Reads a line and nothing after it.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_BYTES {
            return Err(io::Error::other("its first line does not end"));
        }
        line.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Hands out answers and tells of signals until the connection ends.
async fn read(mut stream: impl AsyncRead + Unpin, waiting: Waiting, heard: watch::Sender<()>) {
    loop {
        let message = match message(&mut stream).await {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!("the connection to the bus has ended: {error}");
                break;
            }
        };
        match (&message.kind, message.answers) {
            (Kind::Signal, _) => heard.send_replace(()),
            (Kind::Return | Kind::Error(_), Some(serial)) => {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&serial)) {
                    let _gone = sender.send(message);
                }
            }
            _ => {}
        }
    }
    // Whoever waits is told by the end of their sender.
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

async fn message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).await?;
    let mut bytes = vec![0; Message::length(fixed).map_err(io::Error::other)?];
    bytes[..FIXED].copy_from_slice(&fixed);
    stream.read_exact(&mut bytes[FIXED..]).await?;
    Message::decode(&bytes).map_err(io::Error::other)
}
