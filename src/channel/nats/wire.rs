//! The NATS client protocol: lines to and from a server. Pure.
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;

/// Longer lines are not NATS. A server's INFO names every other server of its cluster.
const LONGEST_LINE: usize = 256 * 1024;
/// The most that a server can be told to let through (`max_payload`), and headers beside it.
const LARGEST_MESSAGE: usize = 65 * 1024 * 1024;
/// What every block of headers begins with.
const HEADER_VERSION: &str = "NATS/1.0";

/// What a server says of itself. Only what we use.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Info {
    /// Its version.
    pub(super) version: String,
    /// What tells it from every other, drawn anew at each start.
    pub(super) server_id: String,
    /// Its name, if it was given one; else the same.
    pub(super) server_name: String,
    /// The cluster that it belongs to.
    pub(super) cluster: String,
    /// Whether it knows headers.
    pub(super) headers: bool,
    /// The largest message that it takes, headers included.
    pub(super) max_payload: usize,
    /// Whether it speaks only TLS from here on.
    pub(super) tls_required: bool,
    /// Whether it can speak TLS from here on.
    pub(super) tls_available: bool,
    /// What a client with a key of its own signs.
    pub(super) nonce: Option<String>,
}

/// A message as it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The subject that it was published to.
    pub(super) subject: String,
    /// The subscription that it is for.
    pub(super) sid: u64,
    /// Where an answer would go.
    pub(super) reply: Option<String>,
    /// The server's own status, where it speaks for itself.
    pub(super) status: Option<u16>,
    /// What it says beside that.
    pub(super) description: String,
    /// Header fields in the order received.
    pub(super) headers: Vec<(String, String)>,
    /// The payload.
    pub(super) payload: Bytes,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// About itself.
    Info(Box<Info>),
    /// A message.
    Message(Box<Delivery>),
    /// It asks whether we are there.
    Ping,
    /// It has done everything that we said before our PING.
    Pong,
    /// It has done what we said; only said when asked to be verbose.
    Ok,
    /// It will not do something, or has had enough of us.
    Error(String),
}

/// Takes what a server says off the front of what has come in; `None` if there is more to come.
///
/// # Errors
/// It is not NATS, in words.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Said>, String> {
    let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") else {
        return if buffer.len() > LONGEST_LINE { Err("it does not speak NATS".to_owned()) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| "it does not speak NATS".to_owned())?;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let said = match verb.to_ascii_uppercase().as_str() {
        "MSG" => return message(buffer, end, false),
        "HMSG" => return message(buffer, end, true),
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Ok,
        "-ERR" => Said::Error(rest.trim().trim_matches('\'').to_owned()),
        "INFO" => Said::Info(Box::new(
            serde_json::from_str(rest.trim()).map_err(|error| format!("its INFO cannot be read: {error}"))?,
        )),
        _ => return Err("it does not speak NATS".to_owned()),
    };
    buffer.advance(end + 2);
    Ok(Some(said))
}

/// `MSG subject sid [reply] bytes`, or `HMSG subject sid [reply] header-bytes bytes`, and so many bytes after it.
fn message(buffer: &mut BytesMut, end: usize, has_headers: bool) -> Result<Option<Said>, String> {
    let wrong = || "it sent a message that is not one".to_owned();
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| wrong())?;
    let words: Vec<_> = line.split_ascii_whitespace().skip(1).collect();
    let numbers = if has_headers { 2 } else { 1 };
    let (names, sizes) = words.split_at_checked(words.len().saturating_sub(numbers)).ok_or_else(wrong)?;
    let (subject, sid, reply) = match names {
        [subject, sid] => (*subject, *sid, None),
        [subject, sid, reply] => (*subject, *sid, Some((*reply).to_owned())),
        _ => return Err(wrong()),
    };
    let number = |text: &&str| text.parse::<usize>().ok().filter(|size| *size <= LARGEST_MESSAGE).ok_or_else(wrong);
    let total = sizes.last().ok_or_else(wrong).and_then(number)?;
    let head = if has_headers { sizes.first().ok_or_else(wrong).and_then(number)? } else { 0 };
    if head > total {
        return Err(wrong());
    }
    let mut delivery =
        Delivery { subject: subject.to_owned(), sid: sid.parse().map_err(|_| wrong())?, reply, ..Delivery::default() };
    let whole = end + 2 + total + 2;
    if buffer.len() < whole {
        // Asked for at once, so that a large message is not copied again and again as it grows.
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    buffer.advance(end + 2);
    let head = buffer.split_to(head);
    delivery.payload = buffer.split_to(total - head.len()).freeze();
    buffer.advance(2);
    if has_headers {
        headers(&String::from_utf8_lossy(&head), &mut delivery)?;
    }
    Ok(Some(Said::Message(Box::new(delivery))))
}

/// `NATS/1.0[ status[ description]]`, and a line for each field.
fn headers(text: &str, delivery: &mut Delivery) -> Result<(), String> {
    let mut lines = text.split("\r\n");
    let first = lines.next().and_then(|line| line.strip_prefix(HEADER_VERSION));
    let status = first.ok_or("it sent headers that are none")?.trim();
    if !status.is_empty() {
        let (code, description) = status.split_once(' ').unwrap_or((status, ""));
        delivery.status = code.parse().ok();
        delivery.description = description.trim().to_owned();
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    delivery.headers = fields.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    Ok(())
}

/// A message to publish: `PUB`, or `HPUB` if it has headers.
pub(super) fn publication(subject: &str, reply: Option<&str>, headers: &[(String, String)], payload: &[u8]) -> Vec<u8> {
    let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
    let mut out = Vec::with_capacity(payload.len() + 256);
    if headers.is_empty() {
        out.extend_from_slice(format!("PUB {subject} {reply}{}\r\n", payload.len()).as_bytes());
    } else {
        let head = header_block(headers);
        let total = head.len() + payload.len();
        out.extend_from_slice(format!("HPUB {subject} {reply}{} {total}\r\n", head.len()).as_bytes());
        out.extend_from_slice(head.as_bytes());
    }
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
    out
}

/// The headers as they are on the wire.
pub(super) fn header_block(headers: &[(String, String)]) -> String {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{HEADER_VERSION}\r\n{fields}\r\n")
}

/// A subscription.
pub(super) fn subscription(subject: &str, sid: u64) -> Vec<u8> {
    format!("SUB {subject} {sid}\r\n").into_bytes()
}

/// What keeps `subject` from being published to, or subscribed to if it `may_have_wildcards`, in words.
/// <https://docs.nats.io/nats-concepts/subjects>
pub(crate) fn wrong_subject(subject: &str, may_have_wildcards: bool) -> Option<&'static str> {
    if subject.is_empty() {
        return Some("a subject has at least one character");
    }
    if subject.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("a subject has no spaces in it");
    }
    let tokens: Vec<_> = subject.split('.').collect();
    if tokens.iter().any(|token| token.is_empty()) {
        return Some("no part of a subject between its dots is empty");
    }
    if !may_have_wildcards && tokens.iter().any(|token| matches!(*token, "*" | ">")) {
        return Some("a subject to publish to has no wildcards (`*`, `>`)");
    }
    let open = tokens.iter().position(|token| *token == ">");
    open.is_some_and(|at| at + 1 != tokens.len()).then_some("`>` stands alone in the last part")
}

/// What a server says is the same, however it is cut into pieces on its way.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let said = |pieces: &[&[u8]]| {
        let (mut buffer, mut said) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match take(&mut buffer) {
                    Ok(Some(next)) => said.push(next),
                    Ok(None) => break,
                    Err(why) => return (said, Some(why)),
                }
            }
        }
        (said, None)
    };
    let (first, second) = data.split_at(data.len() / 2);
    assert_eq!(said(&[data]), said(&[first, second]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Said>, String> {
        let mut buffer = BytesMut::from(text);
        let mut found = Vec::new();
        while let Some(said) = take(&mut buffer)? {
            found.push(said);
        }
        Ok(found)
    }

    #[test]
    fn what_a_server_says_is_taken_apart() {
        let said = all(
            b"INFO {\"version\":\"2.9.10\",\"headers\":true,\"max_payload\":1048576,\"nonce\":\"x\",\"other\":[1]}\r\n\
            PING\r\nPONG\r\n+OK\r\n-ERR 'Permissions Violation for Publish to \"a\"'\r\n\
            MSG a.b 7 3\r\n\r\n\xff\r\nMSG a 1 _INBOX.x 0\r\n\r\n\
            HMSG a 2 reply 30 32\r\nNATS/1.0\r\nX-A: 1\r\nx-b:  2 \r\n\r\n{}\r\n\
            HMSG _INBOX.y 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        )
        .unwrap();
        let info = Info {
            version: "2.9.10".into(),
            headers: true,
            max_payload: 1_048_576,
            nonce: Some("x".into()),
            ..Info::default()
        };
        let message = |delivery| Said::Message(Box::new(delivery));
        let headers = vec![("X-A".to_owned(), "1".to_owned()), ("x-b".to_owned(), "2".to_owned())];
        let expected = [
            Said::Info(Box::new(info)),
            Said::Ping,
            Said::Pong,
            Said::Ok,
            Said::Error("Permissions Violation for Publish to \"a\"".to_owned()),
            message(Delivery {
                subject: "a.b".into(),
                sid: 7,
                payload: Bytes::from_static(b"\r\n\xff"),
                ..Delivery::default()
            }),
            message(Delivery { subject: "a".into(), sid: 1, reply: Some("_INBOX.x".into()), ..Delivery::default() }),
            message(Delivery {
                subject: "a".into(),
                sid: 2,
                reply: Some("reply".into()),
                headers,
                payload: Bytes::from_static(b"{}"),
                ..Delivery::default()
            }),
            message(Delivery { subject: "_INBOX.y".into(), sid: 1, status: Some(503), ..Delivery::default() }),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_goes_out_can_be_read() {
        let headers = vec![("Nats-Msg-Id".to_owned(), "jm0".to_owned())];
        let out = publication("a.b", Some("_INBOX.1"), &headers, b"{}");
        assert_eq!(out, b"HPUB a.b _INBOX.1 30 32\r\nNATS/1.0\r\nNats-Msg-Id: jm0\r\n\r\n{}\r\n");
        assert_eq!(publication("a", None, &[], b"\xff\r\n"), b"PUB a 3\r\n\xff\r\n\r\n");
        let heard = [b"HMSG a.b 7 _INBOX.1 30 32", &out[out.iter().position(|b| *b == b'\r').unwrap()..]].concat();
        let [Said::Message(delivery)] = &all(&heard).unwrap()[..] else { panic!() };
        assert_eq!((&delivery.headers, &delivery.payload[..]), (&headers, &b"{}"[..]));
        assert_eq!(subscription("a.>", 3), b"SUB a.> 3\r\n");
    }

    #[test]
    fn what_is_not_nats_is_told_and_what_is_cut_short_is_waited_for() {
        for wrong in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"INFO {\r\n",
            b"MSG a\r\n",
            b"MSG a 1 x y 3\r\n",
            b"MSG a 1 99999999999\r\n",
            b"MSG a b 3\r\nabc\r\n",
            b"HMSG a 1 5 3\r\n",
            b"HMSG a 1 3 3\r\nabc\r\n",
            &[b'x'; LONGEST_LINE + 1],
        ] {
            assert!(all(wrong).is_err(), "{:?}", String::from_utf8_lossy(&wrong[..wrong.len().min(40)]));
        }
        let whole = b"HMSG a 2 reply 30 32\r\nNATS/1.0\r\nX-A: 1\r\nx-b:  2 \r\n\r\n{}\r\n";
        for length in 0..whole.len() {
            assert_eq!(all(&whole[..length]), Ok(Vec::new()), "cut at {length}");
        }
    }

    #[test]
    fn subjects_are_checked() {
        for subject in ["orders", "orders.created", "$SYS.x", "ü"] {
            assert_eq!(wrong_subject(subject, false), None, "{subject}");
        }
        for subject in ["orders.*", "orders.>", ">", "*.b"] {
            assert_eq!(wrong_subject(subject, true), None, "{subject}");
            assert!(wrong_subject(subject, false).is_some(), "{subject}");
        }
        for subject in ["", "a b", "a..b", ".a", "a.", "a.>.b", "a\r\nPUB b 0"] {
            assert!(wrong_subject(subject, true).is_some(), "{subject}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&text);
            let _ = all(&[b"HMSG a 1 ", text.as_slice(), b"\r\n"].concat());
            let _ = all(&[b"HMSG a 1 20 20\r\nNATS/1.0 ", text.as_slice(), b"\r\n\r\n\r\n"].concat());
        }
    }
}
