//! Amazon SQS, and servers that speak like it: sends with the token as an attribute, receives by long poll on a queue of our own.
//!
//! Signed by hand and sent by our own HTTP client: the vendor's kit would bring a second TLS provider and more code than the rest
//! of Journeyman. Sending and receiving have connections of their own.

mod message;
mod receive;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value as Json, json};
use url::Url;

use crate::channel::aws::Service;
use crate::channel::refusal::Refusal;
use crate::channel::web::Errand;
use crate::channel::{Channel, Listener};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;

pub use crate::channel::aws::Credentials;
pub(super) use message::order;

/// Settings of an `sqs` channel.
#[derive(Clone, Debug)]
pub struct SqsSettings {
    /// The queue's URL: `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`.
    pub queue: Url,
    /// The region that signatures are for.
    pub region: String,
    /// Where calls go; the root of `queue` unless a server elsewhere is meant.
    pub endpoint: Option<Url>,
    /// Who we are.
    pub credentials: Credentials,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// An `sqs` channel.
pub struct Sqs {
    queue: Queue,
    /// The same with connections of its own: a long poll holds one, and must not be what a send waits for.
    reader: Queue,
    clock: Clock,
}

/// Opens the channel. Reads certificates; touches no network.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: SqsSettings, clock: Clock) -> Result<Sqs, String> {
    let queue = || Queue::open(&settings, clock);
    Ok(Sqs { queue: queue()?, reader: queue()?, clock })
}

/// The queue, as calls to it.
struct Queue {
    service: Service,
    url: String,
}

impl Queue {
    fn open(settings: &SqsSettings, clock: Clock) -> Result<Queue, String> {
        let SqsSettings { queue, region, endpoint, credentials, ca_file } = settings;
        let endpoint = endpoint.as_ref().unwrap_or(queue);
        let service = Service::open("sqs", endpoint, region, credentials.clone(), ca_file.clone(), clock)?;
        Ok(Queue { service, url: queue.to_string() })
    }

    /// One call of the JSON protocol; gives the answer and how it came.
    async fn ask(&self, action: &str, asked: &Json, errand: Errand) -> Result<(Json, Reply), Fault> {
        let headers = [
            ("content-type", "application/x-amz-json-1.0".to_owned()),
            ("x-amz-target", format!("AmazonSQS.{action}")),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let reply = self.service.ask(headers, asked.to_string().into_bytes(), errand).await?;
        let body = reply.message.as_ref().map(|message| message.body.as_slice()).unwrap_or_default();
        match serde_json::from_slice(body) {
            Ok(answer @ Json::Object(_)) => Ok((answer, reply)),
            // Deletions and the like are answered with nothing at all by some servers.
            Err(_) if body.is_empty() => Ok((json!({}), reply)),
            _ => Err(self.service.strange(reply)),
        }
    }

    /// How much is in a queue, as the service says it.
    async fn look(&self, queue: &str, errand: Errand) -> Result<(Json, Reply), Fault> {
        let asked = json!({ "QueueUrl": queue, "AttributeNames": ["All"] });
        self.ask("GetQueueAttributes", &asked, errand).await
    }
}

impl Channel for Sqs {
    fn takes(&self) -> bool {
        true
    }

    /// Sends, and waits until SQS says that it has stored the message.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            let unsent = |detail: String| {
                let now = self.clock.now();
                Refusal::new(Cause::Refused, detail).into_fault(now, now, Vec::new())
            };
            let asked = message::outgoing(outgoing, &self.queue.url, fastrand::u64(..)).map_err(unsent)?;
            let (answer, reply) = self.queue.ask("SendMessage", &asked, Errand::of(outgoing)).await?;
            match answer["MessageId"].as_str() {
                Some(id) => Ok(Reply { ack: format!("stored as {id}"), ..reply }),
                None => Err(self.queue.service.strange(reply)),
            }
        })
    }

    /// How many messages wait. The age of the oldest is CloudWatch's to tell, and who consumes is nobody's.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            let queue = outgoing.fields.get("queue").map_or(self.queue.url.as_str(), String::as_str);
            let looked = self.queue.look(queue, Errand::of(outgoing)).await;
            // Nothing was sent, so nothing is uncertain.
            let (answer, reply) = looked.map_err(|fault| Fault { uncertain: false, ..fault })?;
            let message = Some(depth(&answer));
            Ok(Reply { ack: "seen".to_owned(), message, ..reply })
        })
    }

    /// Asks for the queue's attributes: it is there, and takes our signature.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            self.queue.look(&self.queue.url, Errand::own(limit)).await?;
            Ok("the queue is there, and our credentials may look at it".to_owned())
        })
    }

    /// Looks at the queue, receives from it once, and is ready; then polls.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.reader, listener))
    }
}

fn depth(answer: &Json) -> Message {
    let number = |name: &str| answer["Attributes"][name].as_str().and_then(|text| text.parse::<i64>().ok());
    let mut message = Message::new(Vec::new());
    if let Some(depth) = number("ApproximateNumberOfMessages") {
        message.facts.insert("depth", Value::from(depth));
    }
    let others =
        [("not-visible", "ApproximateNumberOfMessagesNotVisible"), ("delayed", "ApproximateNumberOfMessagesDelayed")];
    let others = others.into_iter().filter_map(|(header, name)| Some((header.to_owned(), number(name)?.to_string())));
    message.headers = others.collect();
    message
}
