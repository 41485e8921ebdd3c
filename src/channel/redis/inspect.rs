//! Looking at a stream and a consumer group of it. Nothing is read from the group, claimed or acknowledged.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::timeout_at;

use super::link::{Endpoint, Wire};
use super::message::{Id, entries, member, text};
use super::{Place, RedisSettings};
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value;

/// Asks the server about the stream that the step names, or the channel's own, and about a group of it.
pub(super) async fn check(
    settings: &RedisSettings,
    endpoint: &Endpoint,
    clock: Clock,
    outgoing: &Outgoing,
) -> Result<Reply, Fault> {
    let started = clock.now();
    let limit = Limit::new(clock, outgoing.timeout);
    let seen = match stream_of(settings, outgoing) {
        Some(stream) => {
            let group = outgoing.fields.get("group").map(String::as_str);
            let looking = look(endpoint, stream, group, limit);
            let silence = |_| Err(Refusal::silence("looking at the stream", "the server", limit.length()));
            timeout_at(limit.instant(), looking).await.unwrap_or_else(silence)
        }
        None => Err(Refusal::new(Cause::Refused, "neither the step nor the channel names a `stream` to look at")),
    };
    let finished = clock.now();
    let phases = vec![Phase { name: "look".to_owned(), took: finished.mono.since(started.mono) }];
    match seen {
        Ok(message) => Ok(Reply { started, finished, ack: "seen".to_owned(), message: Some(message), phases }),
        Err(refusal) => Err(refusal.before_sending().into_fault(started, finished, phases)),
    }
}

fn stream_of<'a>(settings: &'a RedisSettings, outgoing: &'a Outgoing) -> Option<&'a str> {
    let own = settings.receive.as_ref().map(|receive| &receive.place).into_iter().chain(&settings.target);
    let mut own = own.filter_map(|place| match place {
        Place::Stream(key) => Some(key.as_str()),
        Place::Topic(_) => None,
    });
    outgoing.fields.get("stream").map(String::as_str).or_else(|| own.next())
}

async fn look(endpoint: &Endpoint, stream: &str, group: Option<&str>, limit: Limit) -> Result<Message, Refusal> {
    let mut wire = Wire::open(endpoint, "journeyman-check", limit).await?;
    let depth = number(&wire.call(cmd("XLEN").arg(stream)).await?);
    let mut message = Message::new(Vec::new());
    message.facts.extend(depth.map(|depth| ("depth", value::Value::from(depth))));
    let Some(group) = group else { return Ok(message) };

    let groups = match wire.call(cmd("XINFO").arg("GROUPS").arg(stream)).await? {
        Value::Array(groups) => groups,
        _ => Vec::new(),
    };
    let of_name = |listed: &Value| match listed {
        Value::Array(listed) => {
            (member(listed, "name").and_then(text).as_deref() == Some(group)).then(|| listed.clone())
        }
        _ => None,
    };
    let Some(found) = groups.iter().find_map(of_name) else {
        return Err(Refusal::new(Cause::Refused, format!("stream `{stream}` has no consumer group `{group}`")));
    };
    let fact = |name: &str| member(&found, name).as_ref().and_then(number);
    message.facts.extend(fact("consumers").map(|consumers| ("consumers", value::Value::from(consumers))));
    // Missing before Redis 7.0, and nil where deletions have made it unknowable.
    message.facts.extend(fact("lag").map(|lag| ("lag", value::Value::from(lag))));
    message.headers.extend(fact("pending").map(|pending| ("pending".to_owned(), pending.to_string())));

    let oldest_pending = match wire.call(cmd("XPENDING").arg(stream).arg(group)).await? {
        Value::Array(summary) => summary.get(1).cloned().and_then(text).and_then(|id| Id::parse(&id)),
        _ => None,
    };
    let delivered = member(&found, "last-delivered-id").and_then(text).unwrap_or_else(|| "0-0".to_owned());
    let range = wire.call(cmd("XRANGE").arg(stream).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(1)).await?;
    let first_undelivered = entries(range).and_then(|entries| entries.first().map(|entry| entry.id));
    let now = wire.call(&cmd("TIME")).await?;
    let oldest = oldest_pending.into_iter().chain(first_undelivered).min();
    // By the server's clock, which the ids are of.
    let age = oldest.map_or(0, |oldest| millis(now).saturating_sub(oldest.millis));
    message.facts.insert("oldest_age", value::Value::Duration(Duration::from_millis(age)));
    Ok(message)
}

/// The reply to `TIME`: seconds and microseconds.
fn millis(time: Value) -> u64 {
    let Value::Array(parts) = time else { return 0 };
    let mut parts = parts.into_iter().map(|part| text(part).and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0));
    let (seconds, micros) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    seconds * 1_000 + micros / 1_000
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}
