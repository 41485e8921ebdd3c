//! Receiving: a subscription of our own in a session that ends with its connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::MqttSettings;
use super::link::{Incoming, Link};
use super::message::{self, Received};
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::handing::hand_over;
use crate::channel::receiving::{keep_receiving, never_receives};
use crate::channel::refusal::Refusal;
use crate::journey::token::Token;

/// From the first packet to the broker's SUBACK.
const SETUP: Duration = Duration::from_secs(10);
/// So many tokens are remembered as handed over.
const REMEMBERED: usize = 1_024;

/// Receives until told to stop; reconnects by itself.
pub(super) async fn listen(settings: &MqttSettings, tls: Option<&Arc<ClientConfig>>, listener: Listener) {
    let Some(filter) = &settings.subscribe else {
        let why = "the channel has no topic filter to receive on; give it `subscribe = \"…\"`";
        return never_receives(&listener, why).await;
    };
    let seen = Mutex::new(Seen::default());
    let open = || Subscription::open(settings, tls, filter, &listener);
    keep_receiving(&listener, open, |subscription| subscription.read(&listener, &seen)).await;
}

/// A subscription that the broker has granted.
struct Subscription {
    link: Link,
    incoming: mpsc::Receiver<Incoming>,
}

impl Subscription {
    /// Connects, subscribes, and looks at what was granted.
    async fn open(
        settings: &MqttSettings,
        tls: Option<&Arc<ClientConfig>>,
        filter: &str,
        listener: &Listener,
    ) -> Result<Self, String> {
        let limit = Limit::new(listener.clock, SETUP);
        let (link, incoming) =
            Link::open(settings, tls, listener.clock, limit).await.map_err(|refusal| refusal.detail)?;
        timeout_at(limit.instant(), link.subscribe(filter, settings.qos))
            .await
            .unwrap_or_else(|_| Err(Refusal::silence("subscribing", &link.peer, limit.length())))
            .map_err(|refusal| refusal.detail)?;
        Ok(Subscription { link, incoming })
    }

    /// Reads until told to stop (`Ok`), or until the connection ends (`Err`, in words).
    async fn read(mut self, listener: &Listener, seen: &Mutex<Seen>) -> Result<(), String> {
        let Subscription { link, incoming } = &mut self;
        let link = &*link;
        let feed = stream::unfold(incoming, async |incoming| {
            let batch = loop {
                let Some((at, received, receipt)) = incoming.recv().await else { break Err(link.ended().await.detail) };
                if !seen.lock().unwrap_or_else(PoisonError::into_inner).is_memory(&received) {
                    break Ok((at, vec![(message::read(received), receipt)]));
                }
                link.acknowledge(receipt);
            };
            Some((batch, incoming))
        });
        hand_over(listener, feed, |receipt| link.acknowledge(receipt)).await?;
        self.link.close().await;
        Ok(())
    }
}

/// The tokens that were handed over lately. A broker brings the last retained message of a topic whenever we subscribe, so
/// after each reconnect: that is its memory, and not a second copy.
#[derive(Default)]
struct Seen(VecDeque<Token>);

impl Seen {
    /// Whether the message is one that we have had, brought back from the broker's memory. Remembers it if not.
    fn is_memory(&mut self, received: &Received) -> bool {
        let correlation = received.properties.iter().find(|(name, _)| name == "correlation-data");
        let token = correlation
            .and_then(|(_, value)| Token::parse(value))
            .or_else(|| Token::find_all(&received.payload).next());
        let Some(token) = token else { return false };
        if self.0.contains(&token) {
            return received.is_retained;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(token);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(token: u128, is_retained: bool) -> Received {
        let payload = format!("{{\"id\":\"{}\"}}", Token::from_bits(token)).into();
        Received { payload, is_retained, ..Received::default() }
    }

    #[test]
    fn only_a_retained_message_that_we_have_had_is_memory() {
        let mut seen = Seen::default();
        assert!(!seen.is_memory(&message(1, false)));
        assert!(!seen.is_memory(&message(1, false)), "a second copy is a second copy");
        assert!(seen.is_memory(&message(1, true)));
        assert!(!seen.is_memory(&message(2, true)), "it was sent while we were away");
        assert!(seen.is_memory(&message(2, true)));
        let without = Received { payload: "x".into(), is_retained: true, ..Received::default() };
        assert!(!seen.is_memory(&without) && !seen.is_memory(&without));
        for token in 10..10 + REMEMBERED as u128 {
            seen.is_memory(&message(token, false));
        }
        assert_eq!(seen.0.len(), REMEMBERED);
        assert!(!seen.is_memory(&message(1, true)), "long ago");
    }
}
