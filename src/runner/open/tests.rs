//! What an open channel makes of many who call it, on paused time.

use futures_util::future::{BoxFuture, join_all};

use super::*;
use crate::breaker::{Guarded, Settings};
use crate::channel::Listener;
use crate::journey::message::Message;
use crate::journey::token::Token;
use crate::metrics::Metrics;
use crate::runner::gate::Users;

const SECOND: Duration = Duration::from_secs(1);

/// Answers as told, and remembers when it was asked.
struct Scripted {
    clock: Clock,
    asked: Mutex<Vec<Mono>>,
    answer: fn(Now) -> Result<Reply, Fault>,
}

impl Channel for Scripted {
    fn send<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        let now = self.clock.now();
        self.asked.lock().unwrap().push(now.mono);
        Box::pin(std::future::ready((self.answer)(now)))
    }

    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        self.send(outgoing)
    }

    fn prove<'a>(&'a self, _: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(std::future::ready(Ok(String::new())))
    }

    fn listen<'a>(&'a self, _: Listener) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn open(rate: Option<f64>, answer: fn(Now) -> Result<Reply, Fault>) -> (OpenChannel, Arc<Scripted>, Clock) {
    let clock = Clock::derived("2026-11-21T12:00:00Z".parse().unwrap());
    let channel = Arc::new(Scripted { clock, asked: Mutex::default(), answer });
    let (metrics, name) = (Arc::new(Metrics::new(&[], None)), Name::from("web"));
    let what = metrics.breaker(&Guarded::Channel(name.clone()));
    let (lever, users) = (watch::channel(None).1, Users::default());
    let gate = Gate::new(name.clone(), Settings::CHANNEL, users, lever, clock, what);
    let (policy, ready) = (ChannelPolicy { rate, ..Default::default() }, watch::channel(Readiness::Ready).1);
    let handles = metrics.channel(&name, false);
    let open = OpenChannel::new(name, channel.clone(), policy, ready, clock, Arc::default(), handles);
    (open.with_gate(Some(gate)), channel, clock)
}

async fn call(open: &OpenChannel) -> Result<Reply, Fault> {
    let caller = Caller { journey: "one".into(), run: Token::from_bits(7) };
    open.perform(&Outgoing::empty(SECOND * 10), Act::Send, &caller).await
}

fn refused(now: Now) -> Result<Reply, Fault> {
    let (detail, phases) = ("connection refused".into(), Vec::new());
    Err(Fault { started: now, finished: now, cause: Cause::Unreachable, detail, uncertain: false, phases })
}

fn told_to_wait<const SECONDS: u64>(now: Now) -> Result<Reply, Fault> {
    let mut message = Message::new("");
    message.status = Some(429);
    message.headers.push(("retry-after".into(), SECONDS.to_string()));
    let ack = "429 Too Many Requests".into();
    Ok(Reply { started: now, finished: now, ack, message: Some(message), phases: Vec::new() })
}

fn works(now: Now) -> Result<Reply, Fault> {
    Ok(Reply { started: now, finished: now, ack: "204".into(), message: None, phases: Vec::new() })
}

#[tokio::test(start_paused = true)]
async fn a_dead_system_is_called_twenty_times_a_second_at_the_most() {
    let (open, channel, _) = open(None, refused);
    for _ in 0..400 {
        let fault = call(&open).await.unwrap_err();
        assert_eq!(fault.cause, Cause::Unreachable);
        assert!(fault.detail.starts_with("connection refused"), "{}", fault.detail);
        tokio::time::advance(Duration::from_millis(5)).await;
    }
    let asked = channel.asked.lock().unwrap().len();
    assert!((38..=41).contains(&asked), "{asked} in two seconds");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_time_that_we_were_told_to_wait() {
    let (open, channel, clock) = open(None, told_to_wait::<3>);
    for _ in 0..3 {
        call(&open).await.unwrap();
    }
    let asked = channel.asked.lock().unwrap().clone();
    assert!(asked.windows(2).all(|pair| pair[1].since(pair[0]) >= SECOND * 3), "{asked:?}");
    assert_eq!(open.slowness().0, SECOND * 3);

    let (open, channel, _) = self::open(None, told_to_wait::<60>);
    call(&open).await.unwrap();
    let began = clock.now().mono;
    let fault = call(&open).await.unwrap_err();
    assert_eq!((fault.cause, channel.asked.lock().unwrap().len()), (Cause::Throttled, 1));
    let said = "held back, because the system wants fewer calls: 429 Too Many Requests and `Retry-After: 60`; nothing was sent";
    assert_eq!(fault.detail, said);
    assert_eq!(clock.now().mono.since(began), Duration::ZERO, "who would wait in vain does not wait");
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_never_exceeded_and_who_gets_no_turn_is_told_so() {
    let (open, channel, _) = open(Some(5.0), works);
    let results = join_all((0..100).map(|_| call(&open))).await;
    let asked = channel.asked.lock().unwrap().clone();
    assert!(asked.windows(2).all(|pair| pair[1].since(pair[0]) >= SECOND / 5), "{asked:?}");
    assert_eq!(asked.len(), 26, "five seconds are waited");
    let throttled = results.iter().filter(|result| matches!(result, Err(fault) if fault.cause == Cause::Throttled));
    assert_eq!(throttled.count(), 74);
}
