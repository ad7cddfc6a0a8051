use std::time::Duration;

use tokio::net::UnixListener;

use super::*;

/// What a bus does that is no bus.
async fn bus(listener: UnixListener, greeting: &'static [u8], then: &'static [u8]) {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let said = line(&mut stream).await.expect("a line");
    assert!(said.starts_with("\0AUTH EXTERNAL "), "{said:?}");
    stream.write_all(greeting).await.expect("written");
    if !greeting.starts_with(b"OK") {
        return;
    }
    assert_eq!(line(&mut stream).await.expect("a line"), "BEGIN");
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).await.expect("a call");
    let mut rest = vec![0; Message::length(fixed).expect("a length") - FIXED];
    stream.read_exact(&mut rest).await.expect("a call");
    stream.write_all(then).await.expect("written");
    // It goes on listening: what ends the connection is what it said.
    let _ended = stream.read_u8().await;
}

async fn open(greeting: &'static [u8], then: &'static [u8]) -> Result<Connection, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bus");
    let listener = UnixListener::bind(&path).expect("a socket");
    let address = format!("unix:path={}", path.display());
    let served = tokio::spawn(bus(listener, greeting, then));
    let opened = tokio::time::timeout(Duration::from_secs(10), Connection::open(&address)).await;
    served.abort();
    opened.expect("in time").map_err(|error| error.to_string())
}

/// An answer to the first call, without anything in it.
const ANSWER: &[u8] = b"l\x02\0\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01u\0\x01\0\0\0";

#[tokio::test]
async fn who_is_known_can_call() {
    let connection = open(b"OK 0123\r\n", ANSWER).await.expect("open");
    assert!(connection.serial == 1);
    let refused = open(b"REJECTED EXTERNAL\r\n", b"").await.expect_err("refused");
    assert!(refused.contains("does not know this user"), "{refused}");
}

#[tokio::test]
async fn a_bus_that_talks_nonsense_is_away() {
    for nonsense in [&[0; 64], b"l\x02\0\x01\xff\xff\xff\x7f\x01\0\0\0\0\0\0\0".as_slice(), b"HTTP/1.1 400 Bad Request"]
    {
        let said = open(b"OK 0123\r\n", nonsense).await.expect_err("no bus");
        assert!(said.contains("ended"), "{said}");
    }
    let endless: &'static [u8] = Box::leak(vec![b'x'; 2 * LINE_BYTES].into_boxed_slice());
    let said = open(endless, b"").await.expect_err("no bus");
    assert!(said.contains("does not end"), "{said}");
}

#[tokio::test]
async fn an_error_tells_who_is_gone_and_who_refuses() {
    let said = |name: &str| BusError::said(name.to_owned(), Some("it said so".to_owned()));
    assert!(matches!(said("org.freedesktop.DBus.Error.ServiceUnknown"), BusError::Away(_)));
    assert!(matches!(said("org.freedesktop.DBus.Error.Spawn.ChildExited"), BusError::Away(_)));
    assert!(matches!(said("org.freedesktop.systemd1.NoSuchUnit"), BusError::Refused { .. }));
    assert!(matches!(said("org.freedesktop.DBus.Error.AccessDenied"), BusError::Refused { .. }));
}

#[test]
fn addresses_name_a_socket_of_this_machine() {
    let at = |address: &str| place(address).ok();
    assert_eq!(at("unix:path=/run/dbus/system_bus_socket").as_deref(), Some("/run/dbus/system_bus_socket"));
    assert_eq!(at("tcp:host=a,port=1;unix:guid=1,path=/a%20b").as_deref(), Some("/a b"));
    assert_eq!(at("unix:abstract=x").as_deref(), Some("\0x"));
    for bad in ["", "/run/bus", "unix:", "unix:path=/%2", "unix:path=/%ff", "unix:path=/%zz", "tcp:host=a,port=1"] {
        assert_eq!(at(bad), None, "{bad}");
    }
}
