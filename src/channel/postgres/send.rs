//! Sending: one statement in a session that nobody else uses meanwhile, and the server's word on it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout_at;
use tokio_postgres::Statement;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use super::Target;
use super::link::{Endpoint, Session, milliseconds};
use super::refusal;
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::channel::seen::note_again;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::time::{Human, Mono, Now};

/// A payload of `NOTIFY` must be shorter than this: <https://www.postgresql.org/docs/current/sql-notify.html>.
const NOTIFY_BYTES: usize = 8_000;
/// Sessions kept open between messages. More are opened on demand, and closed after use.
const KEPT: usize = 4;
/// A session that was not used for longer may have been forgotten by a firewall on the way.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Sends in sessions of its own, one message at a time in each: a statement that waits for a lock holds up no other.
pub(super) struct Sender {
    target: Option<Target>,
    endpoint: Endpoint,
    clock: Clock,
    kept: Mutex<Vec<Kept>>,
}

/// A session that waits for the next message.
struct Kept {
    session: Session,
    /// What was prepared in it last.
    prepared: (Target, Statement),
    since: Mono,
}

/// What is sent.
struct Order<'a> {
    target: Target,
    token: String,
    payload: &'a str,
}

/// A session in which everything is prepared, and how long that took.
struct Ready {
    session: Session,
    statement: Statement,
    phases: Vec<Phase>,
}

impl Sender {
    /// A sender that is not connected yet.
    pub(super) fn new(target: Option<Target>, endpoint: Endpoint, clock: Clock) -> Sender {
        Sender { target, endpoint, clock, kept: Mutex::default() }
    }

    /// Sends and waits for the commit, all within the message's timeout. Nothing is sent twice.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let order = order(outgoing, self.target.as_ref())
            .map_err(|why| unsent(asked, asked, Refusal::new(Cause::Refused, why)))?;
        let Ready { session, statement, mut phases } = self
            .ready(&order, limit, outgoing.connected_since)
            .await
            .map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;
        let parameters = order.parameters(statement.params().len());
        let parameters: Vec<&(dyn ToSql + Sync)> = match &parameters {
            Ok(parameters) => parameters.iter().map(|text| text as &(dyn ToSql + Sync)).collect(),
            Err(why) => return Err(unsent(asked, self.clock.now(), Refusal::new(Cause::Refused, why.clone()))),
        };

        let started = self.clock.now();
        let executing = limited(&session, limit, session.client.execute(&statement, &parameters));
        let answer = timeout_at(limit.instant(), executing).await;
        let finished = self.clock.now();

        phases.push(Phase { name: "confirm".to_owned(), took: finished.mono.since(started.mono) });
        let refusal = match answer {
            Ok(Ok(rows)) => {
                let verdict = verdict(&order.target, rows);
                self.keep(Kept { session, prepared: (order.target, statement), since: finished.mono }).await;
                match verdict {
                    Ok(ack) => return Ok(Reply { started, finished, ack, message: None, phases }),
                    Err(refusal) => refusal,
                }
            }
            // The session goes with its error: what it was left in is not to be the next message's trouble.
            Ok(Err(error)) => refusal::of(&error, &session.peer),
            Err(_) => {
                let waited = Human(finished.mono.since(started.mono));
                let detail = format!("no answer from {} within {waited} to the statement", session.peer);
                Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
            }
        };
        Err(refusal.into_fault(started, finished, phases))
    }

    /// Connects and says who we are, in a session of its own.
    pub(super) async fn prove(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, within);
        let session = Session::open(&self.endpoint, "journeyman check", limit)
            .await
            .map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;
        let told = format!("{} lets us in {}", session.peer, session.place);
        session.close().await;
        Ok(told)
    }

    /// A session with the statement prepared in it: the server knows it and agrees to it, and nothing is done yet. A kept
    /// session that turns out to have ended is replaced, and so is one from before `since`.
    async fn ready(&self, order: &Order<'_>, limit: Limit, since: Option<Mono>) -> Result<Ready, Refusal> {
        loop {
            let began = self.clock.now().mono;
            let kept = self.take(&order.target, since);
            let is_new = kept.is_none();
            let (session, prepared) = match kept {
                Some(Kept { session, prepared, .. }) => {
                    note_again(&session.seen);
                    (session, Some(prepared))
                }
                None => (Session::open(&self.endpoint, "journeyman sender", limit).await?, None),
            };
            let connected = self.clock.now().mono;
            let preparing = async {
                match (prepared, &order.target) {
                    (Some((target, statement)), wanted) if target == *wanted => Ok(statement),
                    (_, Target::Notify(_)) => {
                        session.client.prepare_typed("select pg_notify($1, $2)", &[Type::TEXT, Type::TEXT]).await
                    }
                    (_, Target::Statement(query)) => limited(&session, limit, session.client.prepare(query)).await,
                }
            };
            let refusal = match timeout_at(limit.instant(), preparing).await {
                Ok(Ok(statement)) => {
                    let prepared = self.clock.now().mono;
                    let connect = is_new.then(|| Phase { name: "connect".to_owned(), took: connected.since(began) });
                    let prepare = Phase { name: "prepare".to_owned(), took: prepared.since(connected) };
                    let phases = connect.into_iter().chain([prepare]).collect();
                    return Ok(Ready { session, statement, phases });
                }
                Ok(Err(error)) => refusal::of(&error, &session.peer),
                Err(_) => Refusal::silence("preparing the statement", &session.peer, limit.length()),
            };
            if is_new || !session.client.is_closed() {
                return Err(refusal);
            }
        }
    }

    /// A session that is kept, from after `since`; if there is a choice, one that knows the statement.
    fn take(&self, target: &Target, since: Option<Mono>) -> Option<Kept> {
        let now = self.clock.now().mono;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |kept: &Kept| since.is_none_or(|since| kept.session.since >= since);
        kept.retain(|kept| !kept.session.client.is_closed() && now.since(kept.since) < KEPT_FOR && is_new(kept));
        let last = kept.len().checked_sub(1)?;
        let index = kept.iter().rposition(|kept| kept.prepared.0 == *target).unwrap_or(last);
        Some(kept.remove(index))
    }

    async fn keep(&self, session: Kept) {
        let surplus = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(session);
            (kept.len() > KEPT).then(|| kept.remove(0))
        };
        if let Some(surplus) = surplus {
            surplus.session.close().await;
        }
    }
}

/// What `asking` comes to under a `statement_timeout`. Both go out at once: it costs no round trip of its own, and the server
/// heeds it before it begins.
async fn limited<T>(
    session: &Session,
    limit: Limit,
    asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let timeout = format!("set statement_timeout = {}", milliseconds(limit.left()));
    let (_, answer) = tokio::join!(biased; session.client.batch_execute(&timeout), asking);
    answer
}

/// What to send, and by what: what the step says, else what the channel says.
fn order<'a>(outgoing: &'a Outgoing, channel: Option<&Target>) -> Result<Order<'a>, String> {
    let target = match (outgoing.fields.get("notify"), outgoing.fields.get("query"), channel) {
        (Some(_), Some(_), _) => {
            return Err("the step has both `notify` and `query`; a message is sent once".to_owned());
        }
        (Some(name), None, _) => Target::Notify(name.clone()),
        (None, Some(query), _) => Target::Statement(query.clone()),
        (None, None, Some(target)) => target.clone(),
        (None, None, None) => return Err("neither the channel nor the step has a `notify` or a `query`".to_owned()),
    };
    let payload = std::str::from_utf8(&outgoing.body).ok().filter(|text| !text.contains('\0'));
    let payload = payload.ok_or("the payload is not text: PostgreSQL takes UTF-8 without NUL")?;
    if matches!(target, Target::Notify(_)) && payload.len() >= NOTIFY_BYTES {
        return Err(format!(
            "the payload has {} bytes, and NOTIFY takes fewer than {NOTIFY_BYTES}; put it in a table and notify its key",
            payload.len()
        ));
    }
    Ok(Order { target, token: outgoing.token.to_string(), payload })
}

impl Order<'_> {
    /// The parameters, as many as the statement has.
    fn parameters(&self, count: usize) -> Result<Vec<Text<'_>>, String> {
        match (&self.target, count) {
            (Target::Notify(name), _) => Ok(vec![Text(name), Text(self.payload)]),
            (Target::Statement(_), 0..=2) => {
                Ok([Text(&self.token), Text(self.payload)].into_iter().take(count).collect())
            }
            (Target::Statement(_), _) => Err(format!(
                "the statement has {count} parameters; there are two: $1 is the token, and $2 is the payload"
            )),
        }
    }
}

/// A text for a parameter of any type: the server reads it as it reads a literal.
#[derive(Debug)]
struct Text<'a>(&'a str);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// What a commit says of the message.
fn verdict(target: &Target, rows: u64) -> Result<String, Refusal> {
    match (target, rows) {
        (Target::Notify(_), _) => Ok("committed".to_owned()),
        (Target::Statement(_), 0) => Err(Refusal::new(
            Cause::Rejected,
            "the statement was committed and changed no row: nothing is there to arrive",
        )),
        (Target::Statement(_), 1) => Ok("1 row".to_owned()),
        (Target::Statement(_), rows) => Ok(format!("{rows} rows")),
    }
}

/// A fault of a message that never left.
fn unsent(asked: Now, now: Now, refusal: Refusal) -> Fault {
    let took = now.mono.since(asked.mono);
    let phases = if took.is_zero() { Vec::new() } else { vec![Phase { name: "connect".to_owned(), took }] };
    refusal.before_sending().into_fault(asked, now, phases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(fields: &[(&str, &str)], body: &[u8]) -> Outgoing {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Outgoing { fields, body: body.to_vec(), ..Outgoing::empty(Duration::from_secs(5)) }
    }

    #[test]
    fn the_step_decides_how_a_message_is_sent_before_the_channel_does() {
        let channel = Target::Notify("orders".to_owned());
        let of = |fields: &[(&str, &str)], channel| order(&outgoing(fields, b"x"), channel).map(|order| order.target);
        assert_eq!(of(&[], Some(&channel)), Ok(channel.clone()));
        assert_eq!(of(&[("query", "q")], Some(&channel)), Ok(Target::Statement("q".to_owned())));
        assert_eq!(of(&[("notify", "n")], None), Ok(Target::Notify("n".to_owned())));
        assert!(of(&[], None).is_err());
        assert!(of(&[("query", "q"), ("notify", "n")], None).is_err());
    }

    #[test]
    fn a_payload_that_postgres_cannot_carry_is_refused_in_words() {
        let notify = Target::Notify("orders".to_owned());
        let why = |body: &[u8]| order(&outgoing(&[], body), Some(&notify)).map(|_| ()).unwrap_err();
        assert!(why(&[b'x'; 8_000]).contains("8000 bytes, and NOTIFY takes fewer than 8000"));
        assert!(order(&outgoing(&[], &[b'x'; 7_999]), Some(&notify)).is_ok());
        assert!(order(&outgoing(&[("query", "q")], &[b'x'; 8_000]), None).is_ok());
        assert!(why(b"a\0b").contains("without NUL"));
        assert!(why(&[0xff]).contains("UTF-8"));
    }

    #[test]
    fn a_statement_gets_as_many_parameters_as_it_has() {
        let outgoing = outgoing(&[("query", "q")], b"body");
        let order = order(&outgoing, None).unwrap();
        let texts =
            |count| order.parameters(count).map(|all| all.iter().map(|text| text.0.to_owned()).collect::<Vec<_>>());
        let token = outgoing.token.to_string();
        assert_eq!(texts(0), Ok(vec![]));
        assert_eq!(texts(1), Ok(vec![token.clone()]));
        assert_eq!(texts(2), Ok(vec![token, "body".to_owned()]));
        assert!(texts(3).unwrap_err().contains("$1 is the token"));
    }

    #[test]
    fn a_commit_that_changed_nothing_is_no_delivery() {
        let statement = Target::Statement(String::new());
        assert_eq!(verdict(&statement, 1), Ok("1 row".to_owned()));
        assert_eq!(verdict(&statement, 2), Ok("2 rows".to_owned()));
        assert_eq!(verdict(&statement, 0).unwrap_err().cause, Cause::Rejected);
        assert_eq!(verdict(&Target::Notify(String::new()), 1), Ok("committed".to_owned()));
    }
}
