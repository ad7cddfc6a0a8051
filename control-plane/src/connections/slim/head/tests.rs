use proptest::prelude::*;

use super::*;

const SECRET: &str = "authorization: Bearer titan_host_x\r\n";

fn head(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: titan\r\n{headers}\r\n")
}

fn poll(headers: &str) -> String {
    head("GET /v1/hosts/pi/changes?wait=30", &format!("{SECRET}{headers}"))
}

fn report(headers: &str) -> String {
    head("POST /v1/hosts/pi/report", &format!("{SECRET}{headers}"))
}

#[test]
fn poll_as_an_agent_sends_it_is_taken() {
    let text = poll("accept: \r\naccept-encoding: gzip\r\nx-request-id: a-1\r\n");
    let Head::Poll(taken) = read(text.as_bytes()) else { panic!("not taken") };
    assert_eq!((taken.length, taken.last, taken.host, taken.id), (text.len(), false, "pi", Some("a-1")));
    assert_eq!((taken.secret, taken.ask.wait, taken.ask.gzip), (&b"titan_host_x"[..], 30, true));
    let text = poll("Connection: Close\r\n");
    assert!(matches!(read(text.as_bytes()), Head::Poll(Poll { last: true, .. })));
}

#[test]
fn reports_and_bundles_are_taken_with_plain_lengths() {
    let text = report("content-length: 12\r\ncontent-type: application/json\r\n");
    assert_eq!(read(text.as_bytes()), Head::Routed(Routed { length: text.len(), body: 12, last: false }));
    let text = head(&format!("GET /v1/hosts/pi/bundles/{}", "a".repeat(64)), SECRET);
    assert_eq!(read(text.as_bytes()), Head::Routed(Routed { length: text.len(), body: 0, last: false }));
}

#[test]
fn every_beginning_of_a_head_is_waited_for() {
    let text = poll("");
    for end in 0..text.len() {
        assert_eq!(read(&text.as_bytes()[..end]), Head::Partial, "{end}");
    }
}

#[test]
fn body_and_head_have_their_bounds() {
    assert!(matches!(read(report(&format!("content-length: {BODY}\r\n")).as_bytes()), Head::Routed(_)));
    assert_eq!(read(report(&format!("content-length: {}\r\n", BODY + 1)).as_bytes()), Head::Other);
    let long = |length: usize| format!("GET /v1/hosts/pi/changes HTTP/1.1\r\nx: {}", "x".repeat(length));
    assert_eq!(read(long(HEAD / 2).as_bytes()), Head::Partial);
    assert_eq!(read(long(HEAD).as_bytes()), Head::Other);
    let many = "x: y\r\n".repeat(HEADERS - 2);
    assert!(matches!(read(poll(&many).as_bytes()), Head::Poll(_)));
    assert_eq!(read(poll(&format!("{many}x: y\r\n")).as_bytes()), Head::Other);
}

/// What could end in two places, or asks for more than an answer, is not for the narrow server.
#[test]
fn whatever_has_two_meanings_is_for_the_general_server() {
    for headers in [
        "content-length: 1\r\ncontent-length: 1\r\n",
        "content-length: 1\r\nContent-Length: 2\r\n",
        "content-length: +1\r\n",
        "content-length: 1, 1\r\n",
        "content-length: 0x1\r\n",
        "content-length: \r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length: 1\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "transfer-encoding : chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "content-length: 1\r\nexpect: 100-continue\r\n",
        "content-length: 1\r\nupgrade: h2c\r\n",
        "content-length: 1\r\nconnection: upgrade\r\n",
        "content-length: 1\r\nconnection: keep-alive, te\r\n",
        "content-length: 1\r\nte: trailers\r\n",
        "content-length: 1\r\ntrailer: x\r\n",
        "content-length: 1\r\nhttp2-settings: x\r\n",
        "content-length: 1\r\nhost: other\r\n",
        "content-length: 1\r\nx: y\r\n folded\r\n",
        "content-length: 1\nx: y\r\n",
        "content-length: 1\r\nx: y\rz\r\n",
        "content-length: 1\r\nx: y\0\r\n",
        "content-length: 1\r\nauthorization: Bearer other\r\n",
    ] {
        assert_eq!(read(report(headers).as_bytes()), Head::Other, "{headers:?}");
    }
    for headers in [
        "content-length: 0\r\n",
        "content-length: 5\r\n",
        "transfer-encoding: chunked\r\n",
        "authorization: Basic x\r\n",
    ] {
        assert_eq!(read(poll(headers).as_bytes()), Head::Other, "{headers:?}");
    }
    let path = "/v1/hosts/pi/changes";
    for line in [
        format!("HEAD {path}"),
        format!("POST {path}"),
        format!("get {path}"),
        format!("GET http://titan{path}"),
        format!("GET {path}/"),
        format!("GET /{path}"),
        "GET /v1/hosts/%70i/changes".to_owned(),
        "GET /v1/hosts/../changes".to_owned(),
        "GET /v1/hosts/pi/report".to_owned(),
        "POST /v1/hosts/pi/report?x".to_owned(),
        "GET /v1/hosts/pi/bundles/../../x".to_owned(),
        "GET /metrics".to_owned(),
    ] {
        assert_eq!(read(head(&line, SECRET).as_bytes()), Head::Other, "{line}");
    }
    for text in [
        format!("GET {path} HTTP/1.0\r\nhost: titan\r\n{SECRET}\r\n"),
        format!("GET {path} HTTP/1.1\r\n{SECRET}\r\n"),
        format!("GET {path} HTTP/1.1\nhost: titan\n{SECRET}\n"),
        format!("GET  {path} HTTP/1.1\r\nhost: titan\r\n{SECRET}\r\n"),
        format!("GET {path} HTTP/2.0\r\nhost: titan\r\n{SECRET}\r\n"),
    ] {
        assert_eq!(read(text.as_bytes()), Head::Other, "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _head = read(&bytes);
    }

    /// Of what is nearly a request, whatever is taken has the length that the general server would give it too.
    #[test]
    fn what_is_taken_ends_at_its_empty_line(
        lines in prop::collection::vec(
            "(host|content-length|transfer-encoding|authorization|x|Connection)(:|: | : )(titan|1|chunked|Bearer t|close|keep-alive)?(\r\n|\n|\r\n )",
            0..6,
        ),
        post in any::<bool>(),
        rest in "[ -~\r\n]{0,40}",
    ) {
        let line = if post { "POST /v1/hosts/pi/report" } else { "GET /v1/hosts/pi/changes" };
        let text = format!("{line} HTTP/1.1\r\n{}\r\n{rest}", lines.concat());
        let count = |name: &str| lines.iter().filter(|line| line.to_ascii_lowercase().starts_with(name)).count();
        let (length, body) = match read(text.as_bytes()) {
            Head::Poll(poll) => (poll.length, 0),
            Head::Routed(routed) => (routed.length, routed.body),
            Head::Partial | Head::Other => return Ok(()),
        };
        prop_assert_eq!(&text[length - 4..length], "\r\n\r\n");
        prop_assert!(!text[..length - 4].contains("\r\n\r\n"));
        prop_assert_eq!((count("host"), count("transfer-encoding")), (1, 0));
        prop_assert_eq!(count("content-length"), usize::from(post));
        prop_assert_eq!(body, usize::from(post));
    }
}
