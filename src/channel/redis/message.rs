//! Messages to and from Redis: a command out, a [`Message`] in. Pure.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use redis::{Cmd, Value, cmd};

use super::Place;
use crate::journey::Outgoing;
use crate::journey::message::{Hop, Message};
use crate::time::Now;

/// The field of an entry that holds the payload.
const BODY: &str = "body";
/// The field that holds the token.
pub(super) const TOKEN: &str = "token";
const TRACEPARENT: &str = "traceparent";

/// An entry's id: the server's clock when it was added, and a number within the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Id {
    /// Milliseconds since the epoch.
    pub(super) millis: u64,
    /// Within the millisecond.
    pub(super) number: u64,
}

impl Id {
    /// The id in this text, as in `1719843600123-0`.
    pub(super) fn parse(text: &str) -> Option<Id> {
        let (millis, number) = text.split_once('-')?;
        Some(Id { millis: millis.parse().ok()?, number: number.parse().ok()? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Stream(key) => write!(f, "stream `{key}`"),
            Place::Topic(name) => write!(f, "topic `{name}`"),
        }
    }
}

/// Where `outgoing` goes: what its step says, else what the channel says.
pub(super) fn place(outgoing: &Outgoing, channel: Option<&Place>) -> Result<Place, String> {
    match (outgoing.fields.get("stream"), outgoing.fields.get("topic"), channel) {
        (Some(_), Some(_), _) => Err("the step has both `stream` and `topic`; a message goes to one".to_owned()),
        (Some(key), None, _) => Ok(Place::Stream(key.clone())),
        (None, Some(name), _) => Ok(Place::Topic(name.clone())),
        (None, None, Some(place)) => Ok(place.clone()),
        (None, None, None) => Err("neither the channel nor the step has a `stream` or a `topic` to send to".to_owned()),
    }
}

/// The command that sends `outgoing`.
pub(super) fn command(outgoing: &Outgoing, place: &Place, max_length: Option<u64>) -> Result<Cmd, String> {
    let key = match place {
        Place::Stream(key) => key,
        Place::Topic(_) if !outgoing.headers.is_empty() => {
            return Err(format!("{place} carries a payload alone; `headers` need a stream"));
        }
        Place::Topic(name) => {
            let mut command = cmd("PUBLISH");
            command.arg(name).arg(&outgoing.body);
            return Ok(command);
        }
    };
    let mut command = cmd("XADD");
    command.arg(key);
    if let Some(most) = max_length {
        command.arg("MAXLEN").arg("~").arg(most);
    }
    command.arg("*").arg(TOKEN).arg(outgoing.token.to_string());
    let is_given = |name: &str| outgoing.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    if !is_given(TRACEPARENT) {
        command.arg(TRACEPARENT).arg(outgoing.token.traceparent());
    }
    for (name, value) in outgoing.headers.iter().filter(|(name, _)| name != TOKEN && name != BODY) {
        command.arg(name).arg(value);
    }
    // Consumers that want fields and no payload get what they know.
    if !outgoing.body.is_empty() {
        command.arg(BODY).arg(&outgoing.body);
    }
    Ok(command)
}

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its id.
    pub(super) id: Id,
    /// Its fields, in order.
    pub(super) fields: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// Its `token` field, if it has one.
    pub(super) fn token(&self) -> Option<&[u8]> {
        self.fields.iter().find(|(name, _)| name == TOKEN).map(|(_, value)| value.as_slice())
    }

    /// As a journey reads it: `body` is the payload and the other fields are headers. Without a `body`, the payload is all
    /// fields as JSON.
    pub(super) fn into_message(self, stream: &str, at: Now) -> Message {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let payload = match self.fields.iter().find(|(name, _)| name == BODY) {
            Some((_, body)) => body.clone(),
            None => {
                let fields = self.fields.iter().map(|(name, value)| (name.clone(), text(value).into()));
                serde_json::Value::Object(fields.collect()).to_string().into_bytes()
            }
        };
        let mut message = Message::new(payload);
        message.headers = vec![("stream".to_owned(), stream.to_owned()), ("entry-id".to_owned(), self.id.to_string())];
        let others = self.fields.iter().filter(|(name, _)| name != BODY);
        message.headers.extend(others.map(|(name, value)| (name.clone(), text(value))));
        let now = u64::try_from(at.wall.as_millisecond()).unwrap_or(0);
        // A clock ahead of ours would make time run backwards; it counts as none.
        let took = Duration::from_millis(now.saturating_sub(self.id.millis));
        message.hops = vec![Hop { name: "redis".to_owned(), took }];
        message.stored = i64::try_from(self.id.millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
        message
    }
}

/// The entries of one stream in a reply to `XREAD`; none if nothing came in time. `None` if it is no such reply.
pub(super) fn read(reply: Value) -> Option<Vec<Entry>> {
    let mut streams = match reply {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    let Some(Value::Array(mut stream)) = streams.pop() else { return None };
    entries(stream.pop()?)
}

/// The entries in a reply to `XRANGE`.
pub(super) fn entries(reply: Value) -> Option<Vec<Entry>> {
    let Value::Array(entries) = reply else { return None };
    entries.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let [id, fields] = <[Value; 2]>::try_from(parts).ok()?;
    let id = Id::parse(&text(id)?)?;
    let values = match fields {
        Value::Array(values) => values,
        // Deleted, and still among the pending ones of a group.
        Value::Nil => Vec::new(),
        _ => return None,
    };
    let mut fields = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.push((text(name)?, bytes(value)?));
    }
    Some(Entry { id, fields })
}

/// What a subscription brought: the payload of a message, or the confirmation of something asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// A message.
    Message(Vec<u8>),
    /// `subscribe` or `pong`.
    Confirmed(String),
}

/// What came on a connection that is subscribed.
pub(super) fn push(value: Value) -> Option<Push> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let kind = text(parts.next()?)?;
    match kind.as_str() {
        "message" => Some(Push::Message(bytes(parts.nth(1)?)?)),
        _ => Some(Push::Confirmed(kind)),
    }
}

/// The value of that name in a reply that lists names and values, as `XINFO` does.
pub(super) fn member(listed: &[Value], name: &str) -> Option<Value> {
    let mut pairs = listed.chunks_exact(2);
    pairs.find(|pair| text(pair[0].clone()).is_some_and(|found| found == name)).map(|pair| pair[1].clone())
}

/// A reply that is text.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK".to_owned()),
        other => bytes(other).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::token::Token;
    use crate::time::Mono;

    fn outgoing() -> Outgoing {
        Outgoing {
            token: Token::from_bits(7),
            headers: vec![("kind".to_owned(), "created".to_owned())],
            body: b"{}".to_vec(),
            ..Outgoing::empty(Duration::from_secs(5))
        }
    }

    fn words(command: &Cmd) -> Vec<String> {
        command
            .args_iter()
            .map(|arg| match arg {
                redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => "?".to_owned(),
            })
            .collect()
    }

    fn parsed(resp: &str) -> Value {
        redis::parse_redis_value(resp.as_bytes()).unwrap()
    }

    #[test]
    fn a_message_becomes_an_entry_and_a_stream_is_trimmed_only_if_that_is_asked_for() {
        let stream = Place::Stream("orders".to_owned());
        let token = Token::from_bits(7);
        let (id, trace) = (token.to_string(), token.traceparent());
        let entry = words(&command(&outgoing(), &stream, None).unwrap());
        let fields = ["token", &id, "traceparent", &trace, "kind", "created", "body", "{}"];
        assert_eq!(entry, [&["XADD", "orders", "*"][..], &fields].concat());
        let trimmed = words(&command(&outgoing(), &stream, Some(1_000)).unwrap());
        assert_eq!(trimmed[..6], ["XADD", "orders", "MAXLEN", "~", "1000", "*"]);
        assert_eq!(trimmed[6..], fields);
    }

    #[test]
    fn a_step_may_give_its_own_trace_and_neither_token_nor_body() {
        let mut outgoing = outgoing();
        outgoing.headers = ["traceparent", "token", "body"].map(|name| (name.to_owned(), "mine".to_owned())).to_vec();
        outgoing.body.clear();
        let entry = words(&command(&outgoing, &Place::Stream("s".to_owned()), None).unwrap());
        assert_eq!(entry[3..], ["token", &Token::from_bits(7).to_string(), "traceparent", "mine"]);
    }

    #[test]
    fn a_topic_takes_a_payload_and_no_headers() {
        let topic = Place::Topic("orders".to_owned());
        assert!(command(&outgoing(), &topic, None).unwrap_err().contains("`headers` need a stream"));
        let bare = Outgoing { headers: Vec::new(), ..outgoing() };
        assert_eq!(words(&command(&bare, &topic, Some(5)).unwrap()), ["PUBLISH", "orders", "{}"]);
    }

    #[test]
    fn the_step_decides_where_a_message_goes_before_the_channel_does() {
        let channel = Place::Stream("orders".to_owned());
        let step = |fields: &[(&str, &str)]| {
            let mut outgoing = outgoing();
            outgoing.fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            outgoing
        };
        assert_eq!(place(&step(&[]), Some(&channel)), Ok(channel.clone()));
        assert_eq!(place(&step(&[("topic", "t")]), Some(&channel)), Ok(Place::Topic("t".to_owned())));
        assert_eq!(place(&step(&[("stream", "s")]), None), Ok(Place::Stream("s".to_owned())));
        assert!(place(&step(&[]), None).is_err());
        assert!(place(&step(&[("stream", "s"), ("topic", "t")]), None).is_err());
    }

    #[test]
    fn entries_are_read_with_or_without_a_body() {
        let reply = "*1\r\n*2\r\n$6\r\norders\r\n*2\r\n\
                     *2\r\n$6\r\n1500-3\r\n*4\r\n$4\r\nkind\r\n$1\r\nx\r\n$4\r\nbody\r\n$2\r\nhi\r\n\
                     *2\r\n$6\r\n1501-0\r\n*2\r\n$2\r\nid\r\n$1\r\n7\r\n";
        let mut entries = read(parsed(reply)).unwrap().into_iter();
        let (first, second) = (entries.next().unwrap(), entries.next().unwrap());
        assert_eq!((first.id, second.id), (Id { millis: 1_500, number: 3 }, Id { millis: 1_501, number: 0 }));
        let at = Now { mono: Mono(Duration::ZERO), wall: jiff::Timestamp::from_millisecond(1_750).unwrap() };
        let message = first.into_message("orders", at);
        assert_eq!(message.text(), "hi");
        assert_eq!((message.header("kind"), message.header("body")), (Some("x"), None));
        assert_eq!((message.header("stream"), message.header("entry-id")), (Some("orders"), Some("1500-3")));
        assert_eq!(message.hops, [Hop { name: "redis".to_owned(), took: Duration::from_millis(250) }]);
        assert_eq!(second.into_message("orders", at).text(), r#"{"id":"7"}"#);
        assert_eq!(read(Value::Nil), Some(Vec::new()));
        for odd in ["+OK\r\n", "*1\r\n+x\r\n", "*1\r\n*2\r\n+s\r\n*1\r\n*2\r\n+no-id\r\n*0\r\n"] {
            assert_eq!(read(parsed(odd)), None, "{odd}");
        }
    }

    #[test]
    fn a_clock_ahead_of_ours_makes_no_negative_hop() {
        let at = Now { mono: Mono(Duration::ZERO), wall: jiff::Timestamp::UNIX_EPOCH };
        let entry = Entry { id: Id { millis: 5, number: 0 }, fields: Vec::new() };
        assert_eq!(entry.into_message("s", at).hops[0].took, Duration::ZERO);
    }

    #[test]
    fn what_a_subscription_brings_is_told_apart() {
        let message = parsed("*3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$2\r\nhi\r\n");
        assert_eq!(push(message), Some(Push::Message(b"hi".to_vec())));
        let confirmed = parsed("*3\r\n$9\r\nsubscribe\r\n$1\r\nt\r\n:1\r\n");
        assert_eq!(push(confirmed), Some(Push::Confirmed("subscribe".to_owned())));
        assert_eq!(push(parsed("+PONG\r\n")), None);
    }
}
