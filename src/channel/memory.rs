//! A channel without a system: what is sent comes back as an arrival on the same channel. For tests, and the benchmark's floor.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::channel::{Channel, Listener, Readiness};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::{Arrival, Message};
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::token::Token;
use crate::journey::value::Value;
use crate::time::{Mono, Now};

/// What the channel does with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Delivers it, this many times, this long after it was sent. A step's `delay` and `copies` fields win.
    Deliver {
        /// How long after the send.
        delay: Duration,
        /// How many times.
        copies: usize,
    },
    /// Acknowledges it, and it is never seen again.
    Lose,
    /// Does not take it.
    Refuse {
        /// The fault's cause.
        cause: Cause,
        /// What the fault says.
        detail: String,
    },
    /// Says that it may have taken it.
    Uncertain {
        /// Whether it did.
        is_delivered: bool,
    },
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour::Deliver { delay: Duration::ZERO, copies: 1 }
    }
}

/// A `memory` channel.
pub struct Memory {
    clock: Clock,
    control: Control,
    delayed: mpsc::Sender<Delayed>,
    /// The other end, until somebody listens.
    waiting: Mutex<Option<mpsc::Receiver<Delayed>>>,
}

/// Tells a `memory` channel what to do. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    readiness: watch::Sender<Readiness>,
}

#[derive(Default)]
struct State {
    usual: Behaviour,
    next: VecDeque<Behaviour>,
    reader: Option<Arc<Listener>>,
    /// When each message that is under way was sent.
    delayed: BTreeMap<u64, Mono>,
    serial: u64,
}

impl Control {
    /// From here on, unless [`Control::script`] says otherwise.
    pub fn usually(&self, behaviour: Behaviour) {
        self.state().usual = behaviour;
    }

    /// For the next messages, in order.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.state().next.extend(behaviours);
    }

    /// Whether it is ready to receive; what is sent meanwhile is delivered all the same.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.0.readiness.send_replace(readiness);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// A channel that delivers everything once and at once, and is ready as soon as it listens.
    pub fn open(clock: Clock) -> Memory {
        let (readiness, _) = watch::channel(Readiness::Ready);
        let control = Control(Arc::new(Inner { state: Mutex::default(), readiness }));
        let (delayed, waiting) = mpsc::channel(MAX_DELAYED);
        Memory { clock, control, delayed, waiting: Mutex::new(Some(waiting)) }
    }

    /// The handle that tells it what to do.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    async fn carry(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let plan = plan(&outgoing.fields);
        let started = self.clock.now();
        let fault = |cause, detail: String, uncertain| Fault {
            started,
            finished: self.clock.now(),
            cause,
            detail,
            uncertain,
            phases: Vec::new(),
        };
        let (delay, copies) = plan.map_err(|detail| fault(Cause::Mismatch, detail, false))?;
        let (behaviour, reader) = {
            let mut state = self.control.state();
            (state.next.pop_front().unwrap_or_else(|| state.usual.clone()), state.reader.clone())
        };
        let (usual_delay, usual_copies, answer) = match behaviour {
            Behaviour::Deliver { delay, copies } => (delay, copies, Ok("delivered")),
            Behaviour::Lose => return Ok(acknowledged(started, self.clock.now(), "lost")),
            Behaviour::Refuse { cause, detail } => return Err(fault(cause, detail, false)),
            Behaviour::Uncertain { is_delivered } => {
                (Duration::ZERO, usize::from(is_delivered), Err("it may have been taken"))
            }
        };
        // Without a reader there is nobody to see it, as with a topic that nobody subscribes to.
        if let Some(reader) = reader {
            let delay = delay.unwrap_or(usual_delay);
            for _ in 0..copies.unwrap_or(usual_copies) {
                self.deliver(&reader, delay, Parcel::of(outgoing), started).await;
            }
        }
        match answer {
            Ok(ack) => Ok(acknowledged(started, self.clock.now(), ack)),
            Err(detail) => Err(fault(Cause::Unreachable, detail.to_owned(), true)),
        }
    }

    /// Waits while the other side is full; an error means that it has gone, and with it everybody who could miss the message.
    async fn deliver(&self, reader: &Listener, delay: Duration, parcel: Parcel, sent: Now) {
        if delay.is_zero() {
            let message = parcel.open();
            let arrival = Arrival { channel: reader.channel.clone(), at: reader.clock.now(), message };
            let _ = reader.arrivals.send(arrival).await;
        } else {
            let serial = {
                let mut state = self.control.state();
                state.serial += 1;
                let serial = state.serial;
                state.delayed.insert(serial, sent.mono);
                serial
            };
            let _ = self.delayed.send(Delayed { due: sent.mono + delay, serial, parcel }).await;
        }
    }

    async fn receive(&self, listener: Listener) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else {
            listener.readiness.send_replace(Readiness::Down { why: "somebody else listens already".to_owned() });
            return;
        };
        let listener = Arc::new(listener);
        self.control.state().reader = Some(listener.clone());
        let mut readiness = self.control.0.readiness.subscribe();
        readiness.mark_changed();
        let mut heap: BinaryHeap<Reverse<(Mono, u64, Parcel)>> = BinaryHeap::new();
        loop {
            let next = heap.peek().map(|Reverse((due, ..))| *due);
            tokio::select! {
                () = listener.stop.cancelled() => break,
                Ok(()) = readiness.changed() => {
                    listener.readiness.send_replace(readiness.borrow_and_update().clone());
                }
                Some(Delayed { due, serial, parcel }) = waiting.recv(), if heap.len() < MAX_DELAYED => {
                    heap.push(Reverse((due, serial, parcel)));
                }
                () = listener.clock.sleep_until(next.unwrap_or_default()), if next.is_some() => {
                    if let Some(Reverse((_, serial, parcel))) = heap.pop() {
                        self.control.state().delayed.remove(&serial);
                        let message = parcel.open();
                        let arrival = Arrival { channel: listener.channel.clone(), at: listener.clock.now(), message };
                        tokio::select! {
                            () = listener.stop.cancelled() => break,
                            _ = listener.arrivals.send(arrival) => {}
                        }
                    }
                }
            }
        }
        self.control.state().reader = None;
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting);
    }
}

impl Channel for Memory {
    /// The messages that are under way with a delay.
    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        let now = self.clock.now();
        let (waiting, oldest, consumers) = {
            let state = self.control.state();
            (state.delayed.len(), state.delayed.values().min().copied(), i64::from(state.reader.is_some()))
        };
        let mut message = Message::new(Vec::new());
        message.facts.insert("depth", Value::from(waiting as i64));
        message.facts.insert("lag", Value::from(waiting as i64));
        message.facts.insert("oldest_age", Value::Duration(oldest.map_or(Duration::ZERO, |sent| now.mono.since(sent))));
        message.facts.insert("consumers", Value::from(consumers));
        let reply = Reply { message: Some(message), ..acknowledged(now, self.clock.now(), "seen") };
        Box::pin(std::future::ready(Ok(reply)))
    }

    fn prove<'a>(&'a self, _limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async { Ok("it is in this very process".to_owned()) })
    }

    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.carry(outgoing))
    }

    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(self.receive(listener))
    }
}

struct Delayed {
    due: Mono,
    serial: u64,
    parcel: Parcel,
}

/// What it takes to make the message when it is due; many may be under way. The heap is ordered by due time and then by the order
/// of sending alone.
struct Parcel {
    token: Token,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Parcel {
    fn of(outgoing: &Outgoing) -> Parcel {
        Parcel { token: outgoing.token, headers: outgoing.headers.clone(), body: outgoing.body.clone() }
    }

    fn open(self) -> Message {
        let mut message = Message::new(self.body);
        message.headers = self.headers;
        message.headers.push(("traceparent".to_owned(), self.token.traceparent()));
        message
    }
}

impl PartialEq for Parcel {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Parcel {}

impl PartialOrd for Parcel {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Parcel {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// What a step's own fields ask for.
fn plan(fields: &BTreeMap<String, String>) -> Result<(Option<Duration>, Option<usize>), String> {
    let delay = fields.get("delay").map(|text| {
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|delay| Duration::try_from(delay).ok());
        parsed.ok_or_else(|| format!("`delay` is {text:?}, which is not a duration like \"50ms\""))
    });
    let copies = fields
        .get("copies")
        .map(|text| text.parse().map_err(|_| format!("`copies` is {text:?}, which is not a whole number")));
    Ok((delay.transpose()?, copies.transpose()?))
}

fn acknowledged(started: Now, finished: Now, ack: &str) -> Reply {
    Reply { started, finished, ack: ack.to_owned(), message: None, phases: Vec::new() }
}

/// Delayed messages at once, in the queue and again in the heap; a sender waits beyond that.
const MAX_DELAYED: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::journey::token::Mint;

    struct Bench {
        memory: Arc<Memory>,
        arrivals: mpsc::Receiver<Arrival>,
        readiness: watch::Receiver<Readiness>,
        stop: CancellationToken,
        clock: Clock,
    }

    /// Runs `test` beside a channel that listens.
    async fn with_reader<T>(capacity: usize, test: impl AsyncFnOnce(&mut Bench) -> T) -> T {
        let clock = Clock::derived("2026-11-21T07:00:00Z".parse().unwrap());
        let memory = Arc::new(Memory::open(clock));
        let (sender, arrivals) = mpsc::channel(capacity);
        let (ready, readiness) = watch::channel(Readiness::Starting);
        let stop = CancellationToken::new();
        let listener = Listener {
            channel: "loop".into(),
            clock,
            arrivals: sender,
            journal: Default::default(),
            since: None,
            readiness: ready,
            mint: Arc::new(Mint::new([1; 32], 0)),
            nudge: Default::default(),
            awaited: Default::default(),
            stop: stop.clone(),
        };
        let mut bench = Bench { memory: memory.clone(), arrivals, readiness, stop: stop.clone(), clock };
        let (result, ()) = tokio::join!(
            async {
                bench.readiness.wait_for(|now| *now == Readiness::Ready).await.expect("the reader lives");
                let result = test(&mut bench).await;
                bench.stop.cancel();
                result
            },
            memory.listen(listener),
        );
        result
    }

    fn outgoing(body: &str, fields: &[(&str, &str)]) -> Outgoing {
        Outgoing {
            token: Token::from_bits(3),
            url: None,
            method: None,
            path: None,
            query: Vec::new(),
            headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
            body: body.into(),
            content_type: None,
            fields: fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            command: Vec::new(),
            timeout: Duration::from_secs(1),
            connected_since: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_or_reordered_however_slow_the_reader() {
        with_reader(1, async |bench| {
            let memory = bench.memory.clone();
            let sending = async {
                for n in 0..10_000 {
                    memory.send(&outgoing(&n.to_string(), &[])).await.expect("delivered");
                }
            };
            let receiving = async {
                for n in 0..10_000 {
                    let arrival = bench.arrivals.recv().await.expect("a message for each");
                    assert_eq!(arrival.message.text(), n.to_string());
                    assert_eq!(arrival.message.header("x-synthetic"), Some("journeyman"));
                    assert!(arrival.message.header("traceparent").is_some());
                }
            };
            tokio::join!(sending, receiving);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_says_when_and_how_often_it_comes_back() {
        with_reader(16, async |bench| {
            let send = |body, fields: &'static [_]| {
                let memory = bench.memory.clone();
                async move { memory.send(&outgoing(body, fields)).await }
            };
            let reply = send("late", &[("delay", "50ms"), ("copies", "2")]).await.expect("taken");
            send("later", &[("delay", "1m")]).await.expect("taken");
            send("now", &[]).await.expect("taken");
            let mut seen = Vec::new();
            for _ in 0..4 {
                let arrival = bench.arrivals.recv().await.expect("a message");
                let took = arrival.at.mono.since(reply.started.mono);
                seen.push((arrival.message.text().into_owned(), took.as_millis() / 10 * 10));
            }
            let expected = [("now", 0), ("late", 50), ("late", 50), ("later", 60_000)];
            assert_eq!(seen, expected.map(|(text, took)| (text.to_owned(), took)));
            let fault = send("x", &[("delay", "soon")]).await.expect_err("not a duration");
            assert!(fault.detail.contains("\"soon\"") && !fault.uncertain);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_as_told_for_the_next_messages_and_then_as_usual() {
        with_reader(16, async |bench| {
            let control = bench.memory.control();
            control.script([
                Behaviour::Lose,
                Behaviour::Refuse { cause: Cause::Throttled, detail: "slow down".to_owned() },
                Behaviour::Uncertain { is_delivered: false },
                Behaviour::Uncertain { is_delivered: true },
                Behaviour::Deliver { delay: Duration::from_secs(3), copies: 1 },
            ]);
            control.usually(Behaviour::Deliver { delay: Duration::ZERO, copies: 3 });
            let send = async |body| bench.memory.send(&outgoing(body, &[])).await;
            assert_eq!(send("lost").await.expect("taken").ack, "lost");
            let refused = send("refused").await.expect_err("refused");
            assert_eq!((refused.cause, refused.uncertain), (Cause::Throttled, false));
            assert!(send("gone").await.expect_err("uncertain").uncertain);
            assert!(send("there").await.expect_err("uncertain").uncertain);
            send("delayed").await.expect("taken");
            send("thrice").await.expect("taken");
            let mut seen = Vec::new();
            for _ in 0..5 {
                seen.push(bench.arrivals.recv().await.expect("a message").message.text().into_owned());
            }
            assert_eq!(seen, ["there", "thrice", "thrice", "thrice", "delayed"]);
            assert!(bench.arrivals.try_recv().is_err());
            assert!(bench.clock.now().mono >= Mono(Duration::from_secs(3)));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_is_held_and_given_back() {
        with_reader(1, async |bench| {
            let control = bench.memory.control();
            let down = Readiness::Down { why: "held".to_owned() };
            control.set_readiness(down.clone());
            bench.readiness.wait_for(|now| *now == down).await.expect("the reader lives");
            control.set_readiness(Readiness::Ready);
            bench.readiness.wait_for(|now| *now == Readiness::Ready).await.expect("the reader lives");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_reader_a_message_is_taken_and_seen_by_nobody() {
        let memory = Memory::open(Clock::derived("2026-11-21T07:00:00Z".parse().unwrap()));
        assert_eq!(memory.send(&outgoing("x", &[])).await.expect("taken").ack, "delivered");
    }
}
