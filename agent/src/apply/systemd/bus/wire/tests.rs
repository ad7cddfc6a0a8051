use proptest::prelude::*;

use super::*;

/// Returns a message of this type with these fields and this body, as another program would write it.
fn message(kind: u8, fields: &[(u8, &str, &str)], serial: Option<u32>, body: &[u8]) -> Vec<u8> {
    let mut message = Writer(vec![b'l', kind, 0, 1]);
    message.number(u32::try_from(body.len()).expect("short"));
    message.number(7);
    let at = message.begin_array();
    for (code, kind, text) in fields {
        message.field(*code, kind, text).expect("a field");
    }
    if let Some(serial) = serial {
        message.pad(8);
        message.0.extend([5, 1, b'u', 0]);
        message.number(serial);
    }
    message.end_array(at, FIXED).expect("short");
    message.pad(8);
    message.0.extend(body);
    message.0
}

fn read(signature: &str, body: &[u8]) -> Result<Vec<Value>, WireError> {
    Message::decode(&message(2, &[(8, "g", signature)], Some(1), body))?.values()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn a_call_is_written_as_the_specification_says() {
    let call = Call { destination: "a.b", path: "/c", interface: "d.e", method: "F" };
    let bytes = call.encode(3, &[Argument::Text("x"), Argument::Texts(&["y", "zz"])]).expect("encoded");
    let mut expected = b"l\x01\x00\x01".to_vec();
    // The body: one text, then the array with its length in bytes.
    let body = b"\x01\x00\x00\x00x\x00\x00\x00\x0f\x00\x00\x00\x01\x00\x00\x00y\x00\x00\x00\x02\x00\x00\x00zz\x00";
    expected.extend([u8::try_from(body.len()).expect("short"), 0, 0, 0, 3, 0, 0, 0]);
    let fields = b"\x01\x01o\x00\x02\x00\x00\x00/c\x00\0\0\0\0\0\x02\x01s\x00\x03\x00\x00\x00d.e\x00\0\0\0\0\
        \x03\x01s\x00\x01\x00\x00\x00F\x00\0\0\0\0\0\0\x06\x01s\x00\x03\x00\x00\x00a.b\x00\0\0\0\0\
        \x08\x01g\x00\x03sas\x00";
    expected.extend([u8::try_from(fields.len()).expect("short"), 0, 0, 0]);
    expected.extend(fields);
    expected.resize(expected.len().next_multiple_of(8), 0);
    expected.extend(body);
    assert_eq!(bytes, expected);
    assert_eq!(Message::length(*bytes.first_chunk().expect("a head")), Ok(bytes.len()));
    let message = Message::decode(&bytes).expect("decoded");
    assert_eq!(message.kind, Kind::Other);
    let values = [text("x"), Value::List(vec![text("y"), text("zz")])];
    assert_eq!(message.values().expect("values"), values);
    assert!(call.encode(1, &[Argument::Text("a\0b")]).is_err());
    let long = "x".repeat(MESSAGE_BYTES);
    assert!(matches!(call.encode(1, &[Argument::Text(&long)]), Err(WireError::Long(_))));
}

#[test]
fn values_of_every_type_are_read() {
    assert_eq!(read("y", &[200]), Ok(vec![Value::Number(200)]));
    assert_eq!(read("b", &[1, 0, 0, 0]), Ok(vec![Value::Flag(true)]));
    assert!(read("b", &[2, 0, 0, 0]).is_err());
    assert_eq!(read("n", &[0xfe, 0xff]), Ok(vec![Value::Signed(-2)]));
    assert_eq!(read("yi", &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Ok(vec![Value::Number(1), Value::Signed(-1)]));
    assert_eq!(read("t", &u64::MAX.to_le_bytes()), Ok(vec![Value::Number(u64::MAX)]));
    assert_eq!(read("d", &1.5f64.to_le_bytes()), Ok(vec![Value::Real(1.5)]));
    assert_eq!(read("v", b"\x01s\0\0\x02\0\0\0ok\0"), Ok(vec![text("ok")]));
    assert_eq!(read("g", b"\x02as\0"), Ok(vec![text("as")]));
    // The elements of an array of structures begin at multiples of eight, and so does each of them.
    let rows = [b"\x15\0\0\0\0\0\0\0".as_slice(), b"\x01\0\0\0a\0\0\0\x07\0\0\0\0\0\0\0", b"\x00\0\0\0\0"].concat();
    assert!(matches!(read("a(su)", &rows), Err(WireError::Short)), "the second element has no number");
    let rows =
        [b"\x1c\0\0\0\0\0\0\0".as_slice(), b"\x01\0\0\0a\0\0\0\x07\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\0\x08\0\0\0"];
    let row = |name: &str, number: u64| Value::Row(vec![text(name), Value::Number(number)]);
    assert_eq!(read("a(su)", &rows.concat()), Ok(vec![Value::List(vec![row("a", 7), row("", 8)])]));
}

#[test]
fn answers_errors_and_signals_are_told_apart() {
    let answer = Message::decode(&message(2, &[], Some(9), b"")).expect("an answer");
    assert_eq!((answer.kind, answer.answers), (Kind::Return, Some(9)));
    let error =
        Message::decode(&message(3, &[(4, "s", "a.B"), (8, "g", "s")], Some(2), b"\x02\0\0\0no\0")).expect("one");
    assert_eq!(error.values(), Ok(vec![text("no")]));
    assert_eq!((error.kind, error.answers), (Kind::Error("a.B".to_owned()), Some(2)));
    assert!(Message::decode(&message(3, &[], Some(2), b"")).is_err());
    assert_eq!(Message::decode(&message(4, &[(3, "s", "X")], None, b"")).expect("one").kind, Kind::Signal);
}

#[test]
fn the_other_order_of_bytes_is_read_too() {
    let mut bytes = vec![b'B', 2, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 15];
    bytes.extend([5, 1, b'u', 0, 0, 0, 0, 3, 8, 1, b'g', 0, 1, b'u', 0, 0, 0, 0, 1, 2]);
    // The array of fields has fifteen bytes; its padding is not among them.
    let message = Message::decode(&bytes).expect("a message");
    assert_eq!((message.answers, message.values()), (Some(3), Ok(vec![Value::Number(258)])));
}

#[test]
fn nothing_is_larger_deeper_or_more_than_the_limits() {
    let head = |body: u32, fields: u32| {
        let mut head = [0; FIXED];
        head[..4].copy_from_slice(&[b'l', 2, 0, 1]);
        head[4..8].copy_from_slice(&body.to_le_bytes());
        head[12..].copy_from_slice(&fields.to_le_bytes());
        Message::length(head)
    };
    let most = u32::try_from(MESSAGE_BYTES - FIXED).expect("a number");
    assert_eq!(head(most, 0), Ok(MESSAGE_BYTES));
    assert!(matches!(head(most + 1, 0), Err(WireError::Long(_))));
    assert!(matches!(head(u32::MAX, u32::MAX), Err(WireError::Long(_))));
    let count = u32::try_from(VALUES).expect("a number");
    let bytes = |count: u32| [count.to_le_bytes().as_slice(), &vec![0; count as usize]].concat();
    assert!(read("ay", &bytes(count - 1)).is_ok());
    assert_eq!(read("ay", &bytes(count)), Err(WireError::Many));
    let variants = |count: usize| [b"\x01v\0".repeat(count), b"\x01y\0\x01".to_vec()].concat();
    assert_eq!(read("v", &variants(DEPTH - 1)), Ok(vec![Value::Number(1)]));
    assert!(read("v", &variants(DEPTH + 1)).is_err());
    let arrays = |count: usize| format!("{}y", "a".repeat(count));
    assert!(read(&arrays(DEPTH), &[0; 64]).is_ok());
    assert!(read(&arrays(DEPTH + 1), &[0; 64]).is_err());
    for malformed in ["()", "(", "a", "z", "a{", "(s", ")"] {
        assert!(read(malformed, &[0; 64]).is_err(), "{malformed}");
    }
    assert!(read("s", b"\x01\0\0\0ab").is_err() && read("s", b"\x01\0\0\0\xff\0").is_err());
    assert!(read("ai", b"\x03\0\0\0\0\0\0\0").is_err(), "an array that ends inside of an element");
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(kind in 0u8..6, signature in "[ybnqiuxtdhsogva(){}]{0,12}", body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::decode(&message(kind, &[(8, "g", &signature), (4, "s", "a.b")], Some(1), &body)) {
            let _either = message.values();
        }
        let _either = Message::decode(&body);
    }
}
