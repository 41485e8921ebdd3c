//! Receiving: long polls without end on a queue of our own; what is ours is deleted, what is not goes back.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value as Json, json};

use super::Queue;
use super::message::{self, Received};
use crate::channel::Listener;
use crate::channel::own::is_ours;
use crate::channel::receiving::keep_receiving;
use crate::channel::web::Errand;
use crate::journey::message::{Arrival, Message};
use crate::journey::outcome::Cause;
use crate::journey::run::Fault;
use crate::time::Now;

/// A call that is answered at once may take this long.
const SETUP: Duration = Duration::from_secs(10);
/// The longest poll that SQS knows.
const POLL: Duration = Duration::from_secs(20);
/// As many messages as one poll may bring.
const BATCH: u32 = 10;
/// What is neither deleted nor given back is visible again after this long, also when we died over it, or when it was lost on
/// its way to us: long enough to hand over and delete, short enough for a journey's deadline.
const HIDDEN: Duration = Duration::from_secs(10);
/// No poll begins while so many wait to be handed over.
const PREFETCH: usize = 50;
/// Deletions under way at once; nothing more is handed over meanwhile.
const TIDYING: usize = 50;
/// So many ids of strangers' messages are remembered.
const STRANGERS: usize = 10_000;
/// What is under way when we stop may take this long.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Polls until told to stop; begins again by itself.
pub(super) async fn listen(queue: &Queue, listener: Listener) {
    let strangers = Strangers::default();
    let open = || Subscription::open(queue, &listener, &strangers);
    keep_receiving(&listener, open, |subscription| subscription.read(&listener)).await;
}

/// A queue that we have received from.
struct Subscription<'a> {
    queue: &'a Queue,
    strangers: &'a Strangers,
    /// Stamped, and not handed over yet.
    waiting: VecDeque<(Now, Received)>,
}

/// What one poll brought, and when.
type Batch = (Now, Vec<Received>);

impl<'a> Subscription<'a> {
    /// Ready is who may look at the queue and receive from it. What comes from then on stays in the queue until a poll takes it.
    async fn open(queue: &'a Queue, listener: &Listener, strangers: &'a Strangers) -> Result<Self, String> {
        queue.look(&queue.url, Errand::own(SETUP)).await.map_err(|fault| fault.detail)?;
        let batch = poll(queue, Duration::ZERO, listener).await?;
        let mut subscription = Subscription { queue, strangers, waiting: VecDeque::new() };
        subscription.keep(batch);
        Ok(subscription)
    }

    fn keep(&mut self, (at, batch): Batch) {
        self.waiting.extend(batch.into_iter().map(|received| (at, received)));
    }

    /// Reads until told to stop (`Ok`), or until a poll or a deletion fails (`Err`, in words).
    async fn read(mut self, listener: &Listener) -> Result<(), String> {
        let mut polling: Option<BoxFuture<'_, Result<Batch, String>>> = None;
        let mut tidying: FuturesUnordered<BoxFuture<'a, Result<(), String>>> = FuturesUnordered::new();
        loop {
            if polling.is_none() && self.waiting.len() < PREFETCH {
                polling = Some(Box::pin(poll(self.queue, POLL, listener)));
            }
            tokio::select! {
                biased;
                () = listener.stop.cancelled() => break,
                batch = async { polling.as_mut().expect("it is under way").await }, if polling.is_some() => {
                    polling = None;
                    self.keep(batch?);
                }
                Some(tidied) = tidying.next(), if !tidying.is_empty() => tidied?,
                place = listener.arrivals.reserve(), if !self.waiting.is_empty() && tidying.len() < TIDYING => {
                    let (Ok(place), Some((at, received))) = (place, self.waiting.pop_front()) else { break };
                    let message = message::read(&received);
                    let fate = self.strangers.fate(&received.message_id, &message, listener);
                    if fate.is_handed_over() {
                        place.send(Arrival { channel: listener.channel.clone(), at, message });
                    }
                    match fate {
                        Fate::Delete => tidying.push(Box::pin(delete(self.queue, received.receipt_handle))),
                        Fate::GiveBack => tidying.push(Box::pin(give_back(self.queue, received.receipt_handle))),
                        Fate::Leave => {}
                    }
                }
            }
        }
        drop(polling);
        // Nobody has seen these: they are for whoever comes next, at once.
        let rest = self.waiting.drain(..).map(|(_, received)| give_back(self.queue, received.receipt_handle));
        tidying.extend(rest.map(|last| Box::pin(last) as BoxFuture<'a, _>));
        let _ = tokio::time::timeout(LAST_CALLS, async { while tidying.next().await.is_some() {} }).await;
        Ok(())
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is ours: told, and deleted.
    Delete,
    /// A stranger's: told, and visible to others again at once.
    GiveBack,
    /// A stranger's that was told already. Giving it back at once would bring it back at once, for ever.
    Leave,
}

impl Fate {
    fn is_handed_over(self) -> bool {
        self != Fate::Leave
    }
}

/// The ids of messages that are not ours, as far as they are remembered.
#[derive(Default)]
struct Strangers(Mutex<(HashSet<String>, VecDeque<String>)>);

impl Strangers {
    fn fate(&self, id: &str, message: &Message, listener: &Listener) -> Fate {
        if is_ours(message, &listener.mint) {
            return Fate::Delete;
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *seen;
        if known.contains(id) {
            return Fate::Leave;
        }
        if known.is_empty() {
            let advice = "messages of others are in the queue: they are left there; give Journeyman a queue of its own";
            tracing::warn!(channel = %listener.channel, message = id, "{advice}");
        }
        if order.len() >= STRANGERS
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        known.insert(id.to_owned());
        order.push_back(id.to_owned());
        Fate::GiveBack
    }
}

/// Waits this long for messages, and stamps what came.
async fn poll(queue: &Queue, wait: Duration, listener: &Listener) -> Result<Batch, String> {
    let asked = json!({
        "QueueUrl": queue.url,
        "MaxNumberOfMessages": BATCH,
        "WaitTimeSeconds": wait.as_secs(),
        "VisibilityTimeout": HIDDEN.as_secs(),
        "MessageAttributeNames": ["All"],
        // The first is the old name of the second, and the only one that some servers know.
        "AttributeNames": ["All"],
        "MessageSystemAttributeNames": ["All"],
    });
    let answer = queue.ask("ReceiveMessage", &asked, Errand::own(wait + SETUP)).await;
    let at = listener.clock.now();
    let (mut answer, _) = answer.map_err(|fault| fault.detail)?;
    match answer["Messages"].take() {
        Json::Null => Ok((at, Vec::new())),
        messages => match serde_json::from_value(messages) {
            Ok(messages) => Ok((at, messages)),
            Err(error) => Err(format!("what the queue gave are no messages: {error}")),
        },
    }
}

async fn delete(queue: &Queue, handle: String) -> Result<(), String> {
    let asked = json!({ "QueueUrl": queue.url, "ReceiptHandle": handle });
    match queue.ask("DeleteMessage", &asked, Errand::own(SETUP)).await {
        Ok(_) => Ok(()),
        // What we may not delete comes again and again, as copies that nobody sent.
        Err(Fault { cause: Cause::Auth, detail, .. }) => {
            Err(format!("a message of ours cannot be deleted; grant sqs:DeleteMessage: {detail}"))
        }
        Err(fault) => {
            tracing::warn!(why = fault.detail, "a message of ours was not deleted; it will come again");
            Ok(())
        }
    }
}

async fn give_back(queue: &Queue, handle: String) -> Result<(), String> {
    let asked = json!({ "QueueUrl": queue.url, "ReceiptHandle": handle, "VisibilityTimeout": 0 });
    if let Err(fault) = queue.ask("ChangeMessageVisibility", &asked, Errand::own(SETUP)).await {
        // It becomes visible by itself, only later.
        tracing::debug!(why = fault.detail, "a message of somebody else's was not given back at once");
    }
    Ok(())
}
