//! Receiving: notifications in a session that listens, or the rows of a query that come to be; each arrival stamped before
//! anything else happens to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use sha2::{Digest, Sha256};
use tokio::time::timeout_at;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Error, Notification};

use super::link::{Endpoint, Raw, Session};
use super::refusal;
use super::{PostgresSettings, Source};
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::handing::{Batch, hand_over};
use crate::channel::receiving::{keep_receiving, never_receives};
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::message::Message;
use crate::journey::value::Value;
use crate::time::Now;

/// From the first packet to the proof that we receive.
const SETUP: Duration = Duration::from_secs(10);
/// After this long without a notification the server is asked whether the session still listens.
const IDLE: Duration = Duration::from_secs(10);
/// By then it must have answered.
const ANSWER: Duration = Duration::from_secs(5);
/// A poll may take this long.
const LOOK: Duration = Duration::from_secs(10);
/// A query with more rows than this is not one for messages that have just come.
const MOST_ROWS: usize = 1_000;
/// The column that holds the payload.
const BODY: &str = "body";

type Feed = BoxStream<'static, Result<Batch<()>, String>>;
/// How many rows of each text the last look saw, by the text's SHA-256.
type Rows = HashMap<[u8; 32], usize>;

/// Receives until told to stop; reconnects by itself.
pub(super) async fn listen(settings: &PostgresSettings, endpoint: &Endpoint, listener: Listener) {
    match &settings.source {
        None => {
            let why = "the channel has nothing to receive; give it `listen = \"…\"` or `poll = { query = \"…\" }`";
            never_receives(&listener, why).await;
        }
        Some(Source::Listen(channel)) => {
            let open = || subscribe(endpoint, channel, &listener);
            keep_receiving(&listener, open, |feed| hand_over(&listener, feed, |()| {})).await;
        }
        Some(Source::Poll { query, every }) => {
            // Outlives connections: rows that came while there was none are new to the next.
            let seen = Mutex::new(None);
            let open = || watch(endpoint, query, *every, &seen, &listener);
            let read = |polled: Polled| {
                let seen = &seen;
                let feed = polled.feed().map(move |rows| rows.map(|(at, rows)| (at, new_messages(seen, rows))));
                hand_over(&listener, feed, |()| {})
            };
            keep_receiving(&listener, open, read).await;
        }
    }
}

/// Connects and listens: what is committed from then on is seen.
async fn subscribe(endpoint: &Endpoint, channel: &str, listener: &Listener) -> Result<Feed, String> {
    let limit = Limit::new(listener.clock, SETUP);
    let cannot = |refusal: Refusal| format!("cannot listen on `{channel}`: {}", refusal.detail);
    let name = format!("journeyman receiver {}", listener.channel);
    let raw = endpoint.connect(&name, limit).await.map_err(cannot)?;
    let clock = listener.clock;
    let mut session = Listening { raw, channel: channel.to_owned(), early: VecDeque::new(), clock };
    session.listen(limit).await.map_err(cannot)?;
    Ok(try_unfold(session, |mut session| async move {
        let (at, notification) = session.next().await?;
        let mut message = Message::new(notification.payload());
        message.headers = vec![
            ("channel".to_owned(), notification.channel().to_owned()),
            ("pid".to_owned(), notification.process_id().to_string()),
        ];
        Ok(Some(((at, vec![(message, ())]), session)))
    })
    .boxed())
}

/// A session that listens.
struct Listening {
    raw: Raw,
    channel: String,
    /// Came while the server was asked something.
    early: VecDeque<(Now, Notification)>,
    clock: Clock,
}

impl Listening {
    /// Listens, and has the server say so: a pooler that gives each statement another session would be found out here.
    async fn listen(&mut self, limit: Limit) -> Result<(), Refusal> {
        let statement = format!("listen \"{}\"", self.channel.replace('"', "\"\""));
        let Listening { raw: Raw { client, incoming, peer, .. }, early, clock, .. } = self;
        let listening = going_on(incoming, early, *clock, client.batch_execute(&statement));
        match timeout_at(limit.instant(), listening).await {
            Ok(listening) => listening.map_err(|error| refusal::of(&error, peer))?,
            Err(_) => return Err(Refusal::silence("listening", peer, limit.length())),
        }
        self.prove(limit).await
    }

    /// Asks the server whether this session listens.
    async fn prove(&mut self, limit: Limit) -> Result<(), Refusal> {
        const QUERY: &str = "select 1 from pg_listening_channels() as channel where channel = $1";
        let Listening { raw: Raw { client, incoming, peer, .. }, channel, early, clock } = self;
        let parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[(channel, Type::TEXT)];
        let asking = going_on(incoming, early, *clock, client.query_typed(QUERY, parameters));
        match timeout_at(limit.instant(), asking).await {
            Ok(Ok(rows)) if rows.is_empty() => {
                let why = "the session does not listen any more; LISTEN needs a session of its own, and not a pooler's";
                Err(Refusal::lost(peer, why))
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refusal::of(&error, peer)),
            Err(_) => Err(Refusal::silence("asking whether it is still there", peer, limit.length())),
        }
    }

    async fn next(&mut self) -> Result<(Now, Notification), String> {
        loop {
            if let Some(notification) = self.early.pop_front() {
                return Ok(notification);
            }
            let until = Limit::new(self.clock, IDLE).instant();
            match timeout_at(until, self.raw.incoming.next()).await {
                Ok(Some(Ok(AsyncMessage::Notification(notification)))) => return Ok((self.clock.now(), notification)),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(refusal::of(&error, &self.raw.peer).detail),
                Ok(None) => return Err(Refusal::lost(&self.raw.peer, "the server closed it").detail),
                // A session that is quiet and one whose connection is gone look the same.
                Err(_) => {
                    self.prove(Limit::new(self.clock, ANSWER)).await.map_err(|refusal| refusal.detail)?;
                }
            }
        }
    }
}

/// The answer to `asking`, with the connection going on meanwhile.
async fn going_on<T>(
    incoming: &mut super::link::Incoming,
    early: &mut VecDeque<(Now, Notification)>,
    clock: Clock,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut asking = std::pin::pin!(asking);
    loop {
        tokio::select! {
            biased;
            answer = &mut asking => return answer,
            message = incoming.next() => match message {
                Some(Ok(AsyncMessage::Notification(notification))) => early.push_back((clock.now(), notification)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                // The question ends by itself: there is nobody left to answer it.
                None => return asking.await,
            },
        }
    }
}

/// Connects and looks for the first time: rows that are there then are nobody's arrivals.
async fn watch(
    endpoint: &Endpoint,
    query: &str,
    every: Duration,
    seen: &Mutex<Option<Rows>>,
    listener: &Listener,
) -> Result<Polled, String> {
    let limit = Limit::new(listener.clock, SETUP);
    let name = format!("journeyman receiver {}", listener.channel);
    let session = Session::open(endpoint, &name, limit).await.map_err(|refusal| refusal.detail)?;
    let mut polled = Polled { session, query: wrapped(query), every, clock: listener.clock, first: None };
    let first = polled.look().await?;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match *seen {
        None if listener.since.is_none() => *seen = Some(counted(&first.1)),
        // What somebody waits for may be among those that are there.
        None => {
            *seen = Some(Rows::new());
            polled.first = Some(first);
        }
        // It was there before, and knows what is new.
        Some(_) => polled.first = Some(first),
    }
    drop(seen);
    Ok(polled)
}

/// A query being polled.
struct Polled {
    session: Session,
    query: String,
    every: Duration,
    clock: Clock,
    /// The rows of the first look, if they are to be compared too.
    first: Option<(Now, Vec<String>)>,
}

impl Polled {
    async fn look(&self) -> Result<(Now, Vec<String>), String> {
        let rows = self.session.look(&self.query, Limit::new(self.clock, LOOK)).await;
        let at = self.clock.now();
        let rows = rows.map_err(|refusal| format!("cannot poll: {}", refusal.detail))?;
        if rows.len() > MOST_ROWS {
            return Err(format!(
                "the query of `poll` gives more than {MOST_ROWS} rows; let it select what has come lately"
            ));
        }
        let text = |row: &tokio_postgres::Row| row.try_get::<_, String>(0).map_err(|error| error.to_string());
        Ok((at, rows.iter().map(text).collect::<Result<_, _>>()?))
    }

    fn feed(self) -> BoxStream<'static, Result<(Now, Vec<String>), String>> {
        try_unfold(self, |mut polled| async move {
            if let Some(first) = polled.first.take() {
                return Ok(Some((first, polled)));
            }
            polled.clock.sleep_until(polled.clock.now().mono + polled.every).await;
            let rows = polled.look().await?;
            Ok(Some((rows, polled)))
        })
        .boxed()
    }
}

/// The query that gives each row of `query` as JSON: types need no telling apart, numbers keep their digits, and what stands in
/// a query can be nothing else than one that reads.
fn wrapped(query: &str) -> String {
    let query = query.trim().trim_end_matches(';');
    format!("select row_to_json(seen)::text from (\n{query}\n) as seen limit {}", MOST_ROWS + 1)
}

/// The rows that the last look did not see, as messages.
fn new_messages(seen: &Mutex<Option<Rows>>, rows: Vec<String>) -> Vec<(Message, ())> {
    let now = counted(&rows);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let before = seen.replace(now).unwrap_or_default();
    added(before, rows).into_iter().map(|row| (message(row), ())).collect()
}

/// A row as a journey reads it: its column `body` is the payload, and the others are headers. Without a `body`, the payload is
/// the row as JSON.
fn message(row: String) -> Message {
    let Ok(serde_json::Value::Object(columns)) = Value::parse_json(row.as_bytes()) else { return Message::new(row) };
    let mut message = match columns.get(BODY) {
        Some(serde_json::Value::String(text)) => Message::new(text.as_str()),
        Some(other) => Message::new(Value::from_json(other).to_text()),
        None => Message::new(row),
    };
    let headers = columns.iter().filter(|(name, value)| *name != BODY && !value.is_null());
    message.headers = headers.map(|(name, value)| (name.clone(), Value::from_json(value).to_text())).collect();
    message
}

/// Each row that is there more often than before, as often as it is new.
fn added(mut before: Rows, rows: Vec<String>) -> Vec<String> {
    let is_new = |row: &String| match before.get_mut(&digest(row)) {
        Some(count @ 1..) => {
            *count -= 1;
            false
        }
        Some(0) | None => true,
    };
    rows.into_iter().filter(is_new).collect()
}

fn counted(rows: &[String]) -> Rows {
    let mut counts = Rows::new();
    for row in rows {
        *counts.entry(digest(row)).or_default() += 1;
    }
    counts
}

fn digest(row: &str) -> [u8; 32] {
    Sha256::digest(row.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_row_is_new_once_and_a_second_one_like_it_is_a_second_arrival() {
        let seen = Mutex::new(Some(counted(&rows(&["a", "b"]))));
        let look = |texts: &[&str]| {
            let messages = new_messages(&seen, rows(texts));
            messages.iter().map(|(message, ())| message.text().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(look(&["a", "b"]), [""; 0]);
        assert_eq!(look(&["b", "c"]), ["c"]);
        assert_eq!(look(&["b", "c", "c"]), ["c"]);
        assert_eq!(look(&["c", "c", "b"]), [""; 0], "their order does not matter");
        assert_eq!(look(&["a"]), ["a"], "it was away, and is there again");
    }

    #[test]
    fn a_row_is_a_payload_with_headers_or_all_payload() {
        let seen = message(r#"{"id":12345678901234567890,"body":"grüße","state":"done","note":null}"#.to_owned());
        assert_eq!(seen.text(), "grüße");
        assert_eq!((seen.header("id"), seen.header("state")), (Some("12345678901234567890"), Some("done")));
        assert_eq!(seen.headers.len(), 2);
        let nested = message(r#"{"body":{"n":1}}"#.to_owned());
        assert_eq!(nested.json().unwrap()["n"], 1);
        let whole = message(r#"{"id":7}"#.to_owned());
        assert_eq!((whole.text().as_ref(), whole.header("id")), (r#"{"id":7}"#, Some("7")));
    }

    #[test]
    fn a_query_is_wrapped_whatever_its_end() {
        let expected = "select row_to_json(seen)::text from (\nselect 1 -- one\n) as seen limit 1001";
        assert_eq!(wrapped(" select 1 -- one\n"), expected);
        assert_eq!(wrapped("select 1;"), expected.replace(" -- one", ""));
    }
}
