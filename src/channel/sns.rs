//! Amazon SNS: publishes to a topic, with the token as an attribute. Topics deliver elsewhere: to a queue, a webhook, a mailbox.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use url::Url;

use crate::channel::aws::{self, Credentials, Service, element};
use crate::channel::receiving::never_receives;
use crate::channel::refusal::Refusal;
use crate::channel::sqs::order;
use crate::channel::web::Errand;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};

/// Settings of an `sns` channel.
#[derive(Clone, Debug)]
pub struct SnsSettings {
    /// The topic's ARN.
    pub topic: String,
    /// The region that signatures are for.
    pub region: String,
    /// Where calls go.
    pub endpoint: Url,
    /// Who we are.
    pub credentials: Credentials,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// An `sns` channel.
pub struct Sns {
    service: Service,
    topic: String,
    clock: Clock,
}

/// Opens the channel. Reads certificates; touches no network.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: SnsSettings, clock: Clock) -> Result<Sns, String> {
    let SnsSettings { topic, region, endpoint, credentials, ca_file } = settings;
    let service = Service::open("sns", &endpoint, &region, credentials, ca_file, clock)?;
    Ok(Sns { service, topic, clock })
}

impl Sns {
    /// One call of the query protocol: a form out, XML back.
    async fn ask(&self, form: &[(String, String)], errand: Errand) -> Result<Reply, Fault> {
        let body = encoded(form);
        let headers = vec![("content-type".to_owned(), "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
        self.service.ask(headers, body, errand).await
    }
}

impl Channel for Sns {
    /// Publishes, and waits until SNS says that it has stored the message. Whether anyone is subscribed it does not say.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            let unsent = |detail: String| {
                let now = self.clock.now();
                Refusal::new(Cause::Refused, detail).into_fault(now, now, Vec::new())
            };
            let form = publish(outgoing, &self.topic, fastrand::u64(..)).map_err(unsent)?;
            let reply = self.ask(&form, Errand::of(outgoing)).await?;
            let id = reply.message.as_ref().and_then(|message| element(&message.text(), "MessageId"));
            match id {
                Some(id) => Ok(Reply { ack: format!("published as {id}"), ..reply }),
                None => Err(self.service.strange(reply)),
            }
        })
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "a topic holds nothing that could be checked"))))
    }

    /// Asks for the topic's attributes: it is there, and takes our signature.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let form = [("Action", "GetTopicAttributes"), ("TopicArn", self.topic.as_str())];
            self.ask(&form.map(|(name, value)| (name.to_owned(), value.to_owned())), Errand::own(limit)).await?;
            Ok("the topic is there, and our credentials may look at it".to_owned())
        })
    }

    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { never_receives(&listener, "a topic is not received on; subscribe a queue to it").await })
    }
}

fn encoded(form: &[(String, String)]) -> Vec<u8> {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.append_pair("Version", "2010-03-31").extend_pairs(form);
    body.finish().into_bytes()
}

/// What `Publish` is asked for.
fn publish(outgoing: &Outgoing, topic: &str, chance: u64) -> Result<Vec<(String, String)>, String> {
    let mut form = vec![
        ("Action".to_owned(), "Publish".to_owned()),
        ("TopicArn".to_owned(), topic.to_owned()),
        ("Message".to_owned(), aws::text(&outgoing.body)?.to_owned()),
    ];
    let mut add = |name: &str, value: Option<String>| form.extend(value.map(|value| (name.to_owned(), value)));
    let order = order(outgoing, topic, chance);
    add("Subject", outgoing.fields.get("subject").filter(|subject| !subject.is_empty()).cloned());
    add("MessageGroupId", order.group);
    add("MessageDeduplicationId", order.deduplication);
    for (at, (name, value)) in aws::attributes(outgoing.token, &outgoing.headers)?.into_iter().enumerate() {
        let entry = format!("MessageAttributes.entry.{}", at + 1);
        form.push((format!("{entry}.Name"), name));
        form.push((format!("{entry}.Value.DataType"), "String".to_owned()));
        form.push((format!("{entry}.Value.StringValue"), value));
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::token::Token;

    #[test]
    fn a_publish_has_the_message_its_attributes_and_its_order() {
        let outgoing = Outgoing {
            token: Token::from_bits(7),
            headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
            body: b"hello".to_vec(),
            fields: [("subject".to_owned(), "an order".to_owned())].into(),
            ..Outgoing::empty(Duration::from_secs(1))
        };
        let form = publish(&outgoing, "arn:aws:sns:eu-west-1:1:t.fifo", 1).unwrap();
        let value = |name: &str| form.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(value("Message"), Some("hello"));
        assert_eq!(value("Subject"), Some("an order"));
        assert_eq!(value("MessageGroupId"), Some("journeyman"));
        assert!(value("MessageDeduplicationId").is_some());
        assert_eq!(value("MessageAttributes.entry.1.Name"), Some("journeyman-token"));
        assert_eq!(value("MessageAttributes.entry.2.Name"), Some("traceparent"));
        assert_eq!(value("MessageAttributes.entry.3.Value.StringValue"), Some("journeyman"));
        assert_eq!(value("MessageAttributes.entry.3.Value.DataType"), Some("String"));
        let plain = publish(&outgoing, "arn:aws:sns:eu-west-1:1:t", 1).unwrap();
        assert!(!plain.iter().any(|(name, _)| name.starts_with("MessageGroup") || name.starts_with("MessageDedup")));
    }
}
