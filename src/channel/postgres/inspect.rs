//! Looking: the first row of a query, read in a read-only transaction.

use std::time::Duration;

use super::link::{Endpoint, Session};
use super::refusal;
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;

/// How full the queue of notifications is, from 0 to 1: a session that listens and does not read fills it for all.
const DEFAULT: &str = "select pg_notification_queue_usage() as value";
/// Columns that are facts by their own names.
const FACTS: [&str; 4] = ["depth", "lag", "oldest_age", "consumers"];

/// Runs the step's query, or asks how full the queue of notifications is.
pub(super) async fn check(endpoint: &Endpoint, clock: Clock, outgoing: &Outgoing) -> Result<Reply, Fault> {
    let started = clock.now();
    let limit = Limit::new(clock, outgoing.timeout);
    let query = outgoing.fields.get("query").map_or(DEFAULT, String::as_str);
    let seen = look(endpoint, query, limit).await;
    let finished = clock.now();
    let phases = vec![Phase { name: "look".to_owned(), took: finished.mono.since(started.mono) }];
    match seen {
        Ok(message) => Ok(Reply { started, finished, ack: "seen".to_owned(), message: Some(message), phases }),
        Err(refusal) => Err(refusal.before_sending().into_fault(started, finished, phases)),
    }
}

async fn look(endpoint: &Endpoint, query: &str, limit: Limit) -> Result<Message, Refusal> {
    let session = Session::open(endpoint, "journeyman check", limit).await?;
    let rows = session.look(&wrapped(query), limit).await;
    let seen = rows.and_then(|rows| match rows.first() {
        Some(row) => {
            let unread = |error: tokio_postgres::Error| refusal::of(&error, &session.peer);
            let text: String = row.try_get(0).map_err(unread)?;
            let first: String = row.try_get(1).map_err(unread)?;
            read(text, &first).map_err(|why| Refusal::new(Cause::Refused, why))
        }
        None => Ok(Message::new(Vec::new())),
    });
    session.close().await;
    seen
}

/// The query that gives the first row of `query` as JSON, and the name of its first column: what stands in a query can be
/// nothing else than one that reads.
fn wrapped(query: &str) -> String {
    let query = query.trim().trim_end_matches(';');
    format!(
        "select row_to_json(seen)::text, (select name from json_object_keys(row_to_json(seen)) as name limit 1) \
         from (\n{query}\n) as seen limit 1"
    )
}

/// The row as a message: as JSON its payload, and as facts what facts are named after.
fn read(row: String, first: &str) -> Result<Message, String> {
    let mut message = Message::new(row);
    let Some(serde_json::Value::Object(columns)) = message.json().cloned() else {
        return Err("the row cannot be read as JSON".to_owned());
    };
    let value = |name: &str| columns.get(name).map(Value::from_json);
    message.facts.extend(value(first).map(|value| ("value", value)));
    for name in FACTS {
        let fact = match (name, value(name)) {
            ("oldest_age", Some(Value::Null)) => Value::Duration(Duration::ZERO),
            ("oldest_age", Some(seconds)) => Value::Duration(age(&seconds)?),
            (_, Some(value)) => value,
            (_, None) => continue,
        };
        message.facts.insert(name, fact);
    }
    Ok(message)
}

/// A number of seconds. Below zero, the row is younger than the clock that was asked.
fn age(seconds: &Value) -> Result<Duration, String> {
    let number = match seconds {
        Value::Number(number) => number.to_string().parse::<f64>().ok(),
        _ => None,
    };
    number.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()).ok_or_else(|| {
        "`oldest_age` is not a number of seconds; write `extract(epoch from now() - min(created)) as oldest_age`"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_column_is_the_value_and_known_names_are_facts() {
        let row = r#"{"total":12345678901234567890,"depth":3,"lag":7,"oldest_age":1.5,"consumers":2,"other":"x"}"#;
        let message = read(row.to_owned(), "total").unwrap();
        assert_eq!(message.facts["value"].to_text(), "12345678901234567890");
        assert_eq!(message.facts["depth"], Value::from(3));
        assert_eq!(message.facts["lag"], Value::from(7));
        assert_eq!(message.facts["consumers"], Value::from(2));
        assert_eq!(message.facts["oldest_age"], Value::Duration(Duration::from_millis(1_500)));
        assert_eq!(message.facts.len(), 5);
        assert_eq!(message.text(), row);
    }

    #[test]
    fn the_age_of_the_oldest_of_none_is_nothing_and_an_age_is_in_seconds() {
        let age =
            |text: &str| read(format!("{{\"oldest_age\":{text}}}"), "x").map(|seen| seen.facts["oldest_age"].clone());
        assert_eq!(age("null"), Ok(Value::Duration(Duration::ZERO)));
        assert_eq!(age("-0.25"), Ok(Value::Duration(Duration::ZERO)));
        assert!(age("\"00:01:00\"").unwrap_err().contains("extract(epoch from"));
    }
}
