use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
};

use super::*;

/// Answers every call with nothing, and keeps what was called.
fn serve(stream: UnixStream, calls: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut stream, mut line) = (stream, String::new());
    reader.read_line(&mut line)?;
    stream.write_all(b"OK 0123\r\n")?;
    reader.read_line(&mut line)?;
    loop {
        let mut fixed = [0; wire::FIXED];
        reader.read_exact(&mut fixed)?;
        let length = wire::Message::length(fixed).map_err(std::io::Error::other)?;
        let mut rest = vec![0; length - wire::FIXED];
        reader.read_exact(&mut rest)?;
        calls.lock().expect("calls").push(String::from_utf8_lossy(&rest).into_owned());
        let mut answer = *b"l\x02\0\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01u\0\0\0\0\0";
        answer[20..].copy_from_slice(&fixed[8..12]);
        stream.write_all(&answer)?;
    }
}

#[test]
fn units_that_left_are_listened_to_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bus");
    let listener = UnixListener::bind(&path).expect("a socket");
    let calls = Arc::new(Mutex::new(Vec::new()));
    let kept = calls.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ended = serve(stream, &kept);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let io = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let address = format!("unix:path={}", path.display());
    let mut bus = Bus::new(io, Wake::default(), Kind::Systemd, Some(address));
    bus.watch();
    // More than are listened to one by one, but never at the same time.
    for number in 0..600 {
        let unit = format!("app{number}.service");
        bus.watch_units(&[&unit]).expect("listen");
        bus.leave(&unit).expect("leave");
    }
    bus.watch_units(&["app.service"]).expect("listen");
    bus.leave("other.service").expect("one that nobody listened to");
    let calls = calls.lock().expect("calls");
    let count = |sign: &str| calls.iter().filter(|call| call.contains(sign)).count();
    assert_eq!(bus.watched, ["app.service".to_owned()].into());
    assert_eq!(count("path_namespace"), 0, "all units of the host are not listened to");
    assert_eq!((count("RemoveMatch"), count("member='PropertiesChanged'")), (600, 1201));
    let of =
        |unit: &str| calls.iter().filter(|call| call.contains(&names::bus_path(unit))).cloned().collect::<Vec<_>>();
    let rules = of("app7.service");
    let rule = |call: &String| call[call.find("type='signal'").expect("a rule")..].to_owned();
    let rules: Vec<_> = rules.iter().filter(|call| call.contains("Match")).map(rule).collect();
    assert!(rules.len() == 2 && rules[0] == rules[1], "the rule that was made is the one that goes: {rules:?}");
}
