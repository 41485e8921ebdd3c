//! What only the management API tells of a queue: how old its first message is, and how fast it fills and drains.
//!
//! <https://www.rabbitmq.com/docs/management#http-api>

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use super::AmqpSettings;
use super::link;
use crate::channel::Channel;
use crate::channel::http::{Http, HttpSettings};
use crate::channel::refusal::Refusal;
use crate::channel::seen::{Notes, note};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::seen::What;
use crate::journey::value::Value;
use crate::secret::Secret;
use crate::time::{Now, between};

/// The management API of the broker.
pub(super) struct Management {
    /// Where it is; user and password in it, or those of the broker's own URL.
    url: Secret,
    broker: Secret,
    ca_file: Option<PathBuf>,
    clock: Clock,
    /// The client for the addresses that it was made of: a file with a new password makes a new one.
    client: Mutex<Option<(Zeroizing<String>, Arc<Http>)>>,
}

/// What it says of a queue.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    /// What a journey can read as JSON.
    pub(super) document: serde_json::Map<String, serde_json::Value>,
    /// How old the first message is; `None` if nobody knows, as when publishers set no timestamp.
    pub(super) oldest_age: Option<Duration>,
}

impl Management {
    /// The API that these settings name, if they name one.
    pub(super) fn new(settings: &AmqpSettings, clock: Clock) -> Option<Management> {
        let (broker, ca_file) = (settings.url.clone(), settings.ca_file.clone());
        Some(Management { url: settings.management.clone()?, broker, ca_file, clock, client: Mutex::default() })
    }

    /// Asks for a queue. `None` if the API knows no such queue, which happens for some seconds after it was declared.
    pub(super) async fn queue(&self, queue: &str, timeout: Duration) -> Result<Option<Seen>, Refusal> {
        let vhost = link::parse(&self.broker.reveal())?.vhost;
        let path = format!("/api/queues/{}/{}", encoded(&vhost), encoded(queue));
        let outgoing = Outgoing { method: Some("GET".to_owned()), path: Some(path), ..Outgoing::empty(timeout) };
        let told = |what: &str| format!("the management API: {what}");
        let client = self.client()?;
        // Notes of its own: the broker is whom the step is with.
        let answer = Notes::default().over(client.request(&outgoing)).await;
        let reply = answer.map_err(|fault| Refusal::new(fault.cause, told(&fault.detail)))?;
        let message = reply.message.unwrap_or_default();
        let node = message.json().and_then(|json| json.get("node")?.as_str());
        note(What::Node, node.unwrap_or_default());
        let refusal = match message.status {
            Some(200) => match message.json().and_then(|json| read(json, reply.finished)) {
                Some(seen) => return Ok(Some(seen)),
                None => Refusal::new(Cause::Mismatch, told("its answer is none to our question")),
            },
            Some(404) => return Ok(None),
            Some(401 | 403) => {
                let why =
                    "it does not take our credentials; the user needs the tag `monitoring`, and access to the vhost";
                Refusal::new(Cause::Auth, told(why))
            }
            status => {
                let status = status.unwrap_or_default();
                let cause = Cause::of_status(status).unwrap_or(Cause::Mismatch);
                Refusal::new(cause, told(&format!("it answered {status}")))
            }
        };
        Err(refusal)
    }

    fn client(&self) -> Result<Arc<Http>, Refusal> {
        let (url, broker) = (self.url.reveal(), self.broker.reveal());
        let both = Zeroizing::new(format!("{}\n{}", url.as_str(), broker.as_str()));
        let mut held = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*held
            && *of == both
        {
            return Ok(client.clone());
        }
        let base = base(&url, &broker)?;
        let settings = HttpSettings { url: Some(base), ca_file: self.ca_file.clone(), ..HttpSettings::default() };
        let client = Http::open(settings, self.clock).map_err(|why| Refusal::new(Cause::Tls, why))?;
        let client = Arc::new(client);
        *held = Some((both, client.clone()));
        Ok(client)
    }
}

/// The address with a user: its own, or the broker's.
fn base(url: &str, broker: &str) -> Result<Url, Refusal> {
    // Nothing of it is repeated: it holds a password.
    let wrong = || Refusal::new(Cause::Unreachable, "the channel's `management` is not an HTTP URL".to_owned());
    let mut base = Url::parse(url).map_err(|_| wrong())?;
    if base.username().is_empty() {
        let user = link::parse(broker)?.authority.userinfo;
        base.set_username(&user.username).map_err(|()| wrong())?;
        base.set_password(Some(&user.password)).map_err(|()| wrong())?;
    }
    Ok(base)
}

/// As one segment of a path.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Reads the answer. Members that this version of the broker does not have are null.
fn read(json: &serde_json::Value, now: Now) -> Option<Seen> {
    json.get("name")?.as_str()?;
    let number = |key: &str| json.get(key).filter(|value| value.is_number()).cloned();
    let text = |key: &str| json.get(key).filter(|value| value.is_string()).cloned();
    let rate = |kind: &str| {
        let stats = json.get("message_stats")?;
        stats.get(format!("{kind}_details"))?.get("rate").filter(|rate| rate.is_number()).cloned()
    };
    // Before 3.8.10 it was called utilisation, of which `""` stands for none.
    let capacity = number("consumer_capacity").or_else(|| number("consumer_utilisation"));
    let head = json.get("head_message_timestamp").and_then(serde_json::Value::as_i64);
    let head = head.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let members = [
        ("type", text("type")),
        ("state", text("state")),
        ("ready", number("messages_ready")),
        ("unacknowledged", number("messages_unacknowledged")),
        ("publish_rate", rate("publish")),
        ("deliver_rate", rate("deliver_get")),
        ("ack_rate", rate("ack")),
        ("redeliver_rate", rate("redeliver")),
        ("consumer_capacity", capacity),
        ("memory", number("memory")),
        ("oldest", head.map(|at| json!(at.to_string()))),
    ];
    let document = members.into_iter().map(|(key, value)| (key.to_owned(), value.unwrap_or_default())).collect();
    Some(Seen { document, oldest_age: head.map(|at| between(at, now.wall)) })
}

/// Puts what was seen beside what the broker itself said of the queue.
pub(super) fn add(
    message: &mut Message,
    document: &mut serde_json::Map<String, serde_json::Value>,
    seen: Option<Seen>,
) {
    let Some(Seen { document: more, oldest_age }) = seen else {
        document.insert("management".to_owned(), "not available".into());
        return;
    };
    document.extend(more);
    let is_empty = message.facts.get("depth") == Some(&Value::from(0));
    // Nothing waits in an empty queue, and so for no time.
    let oldest_age = if is_empty { Some(Duration::ZERO) } else { oldest_age };
    message.facts.extend(oldest_age.map(|age| ("oldest_age", Value::Duration(age))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mono;

    fn now() -> Now {
        Now { wall: "2026-01-02T03:04:05Z".parse().unwrap(), mono: Mono::default() }
    }

    #[test]
    fn names_are_one_segment_each_and_the_user_is_its_own_or_the_brokers() {
        assert_eq!((encoded("/"), encoded("a.b/ü")), ("%2F".to_owned(), "a.b%2F%C3%BC".to_owned()));
        let broker = "amqp://probe:p%40ss@mq/%2f";
        assert_eq!(base("http://mq:15672/rabbit", broker).unwrap().as_str(), "http://probe:p%40ss@mq:15672/rabbit");
        assert_eq!(base("http://watch:x@mq:15672", broker).unwrap().as_str(), "http://watch:x@mq:15672/");
        assert!(!base("s3cr3t", broker).unwrap_err().detail.contains("s3cr3t"));
    }

    #[test]
    fn what_a_version_does_not_have_is_null_and_an_age_is_counted_from_the_first_message() {
        let full = json!({
            "name": "orders", "type": "classic", "state": "running", "messages_ready": 7, "messages_unacknowledged": 2,
            "message_stats": {"publish": 10, "publish_details": {"rate": 1.5}, "ack_details": {"rate": 0.0}},
            "consumer_utilisation": 0.25, "memory": 4096, "head_message_timestamp": 1_767_322_985,
        });
        let seen = read(&full, now()).unwrap();
        assert_eq!(seen.oldest_age, Some(Duration::from_secs(60)));
        let wanted = json!({
            "type": "classic", "state": "running", "ready": 7, "unacknowledged": 2, "publish_rate": 1.5, "deliver_rate": null,
            "ack_rate": 0.0, "redeliver_rate": null, "consumer_capacity": 0.25, "memory": 4096, "oldest": "2026-01-02T03:03:05Z",
        });
        assert_eq!(serde_json::Value::from(seen.document), wanted);
        let bare = json!({"name": "orders", "consumer_utilisation": "", "head_message_timestamp": ""});
        let seen = read(&bare, now()).unwrap();
        assert!(seen.document.values().all(serde_json::Value::is_null) && seen.oldest_age.is_none());
        assert_eq!(read(&json!({"error": "Object Not Found"}), now()), None);
    }

    #[test]
    fn an_empty_queue_has_no_old_message_and_an_unknown_age_is_missing() {
        let age = |depth: i64, seen: Option<Seen>| {
            let mut message = Message::new("");
            message.facts.insert("depth", Value::from(depth));
            let mut document = serde_json::Map::new();
            add(&mut message, &mut document, seen);
            (message.facts.get("oldest_age").cloned(), document.contains_key("management"))
        };
        let seen = |oldest_age| Some(Seen { document: serde_json::Map::new(), oldest_age });
        let hour = Duration::from_secs(3_600);
        assert_eq!(age(3, seen(Some(hour))), (Some(Value::Duration(hour)), false));
        assert_eq!(age(3, seen(None)), (None, false));
        assert_eq!(age(0, seen(None)), (Some(Value::Duration(Duration::ZERO)), false));
        assert_eq!(age(3, None), (None, true));
    }
}
