//! References on loopback that answer or do not, and time that moves by itself.

use std::net::TcpListener;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::*;
use crate::journey::token::Token;

/// Two references: one that nobody listens at, and one that a listener may be put at.
struct Net {
    address: std::net::SocketAddr,
    observer: Arc<Observer>,
    offline: watch::Receiver<bool>,
    clock: Clock,
    _tasks: JoinSet<()>,
}

fn free() -> std::net::SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

impl Net {
    fn new() -> Net {
        crate::tls::init();
        let (address, nobody) = (free(), free());
        let clock = Clock::derived(Timestamp::UNIX_EPOCH);
        let references = vec![
            Reference::Http(format!("http://{nobody}/key").parse().unwrap()),
            Reference::Tcp { host: address.ip().to_string(), port: address.port() },
        ];
        let (observer, lookout, offline) = open(references, clock).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(lookout.run(CancellationToken::new()));
        Net { address, observer, offline, clock, _tasks: tasks }
    }

    fn up(&self) -> TcpListener {
        TcpListener::bind(self.address).unwrap()
    }

    /// What a run of this journey comes to that failed like this.
    async fn judged(&self, journey: &str, outcome: Outcome) -> Report {
        let now = self.clock.now();
        let mut report = Report {
            journey: journey.into(),
            token: Token::from_bits(1),
            slot: now.wall,
            started: now.wall,
            outcome,
            latency: Duration::ZERO,
            lateness: Duration::ZERO,
            steps: Vec::new(),
            beneath: None,
            note: None,
            configuration: String::new(),
            version: String::new(),
        };
        self.observer.judge(&mut report).await;
        report
    }
}

fn failed(cause: Cause) -> Outcome {
    Outcome::Failed { step: "out".into(), cause }
}

const OBSERVER: Outcome = Outcome::Unknown { why: UnknownWhy::Observer };

#[tokio::test(start_paused = true)]
async fn what_fails_while_no_reference_answers_is_ours_and_else_the_targets() {
    let net = Net::new();
    let report = net.judged("sms", failed(Cause::Unreachable)).await;
    assert_eq!(report.outcome, OBSERVER);
    let note = report.note.unwrap();
    assert!(note.contains("it was: failed (unreachable)") && !note.contains("key"), "{note}");
    assert!(*net.offline.borrow());
    for doubtful in
        [failed(Cause::NotReceived), failed(Cause::Uncertain), Outcome::Unknown { why: UnknownWhy::NotReady }]
    {
        assert_eq!(net.judged("sms", doubtful).await.outcome, OBSERVER);
    }
    for sure in [failed(Cause::Refused), failed(Cause::Mismatch), Outcome::Good { latency: Duration::ZERO }] {
        assert_eq!(net.judged("sms", sure.clone()).await.outcome, sure, "somebody answered");
    }
    let _up = net.up();
    let mut offline = net.offline.clone();
    offline.wait_for(|offline| !offline).await.unwrap();
    assert_eq!(net.judged("sms", failed(Cause::Unreachable)).await.outcome, failed(Cause::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn one_reference_that_answers_is_enough_and_a_first_failure_is_not_judged_by_an_older_look() {
    let net = Net::new();
    let up = net.up();
    assert_eq!(net.judged("old", failed(Cause::Unreachable)).await.outcome, failed(Cause::Unreachable));
    let began = net.clock.now().mono;
    drop(up);
    // It failed before the network died, and is asked about too soon to know better.
    assert_eq!(net.judged("old", failed(Cause::Unreachable)).await.outcome, failed(Cause::Unreachable));
    assert!(net.clock.now().mono.since(began) < APART / 2, "it did not wait");
    assert_eq!(net.judged("new", failed(Cause::Unreachable)).await.outcome, OBSERVER);
    assert!(net.clock.now().mono.since(began) >= APART, "never more often");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_runs_share_one_look_and_nobody_looks_while_all_is_well() {
    let net = Net::new();
    let listener = net.up();
    listener.set_nonblocking(true).unwrap();
    let looks = || std::iter::from_fn(|| listener.accept().ok()).count();
    net.clock.sleep_until(net.clock.now().mono + APART * 10).await;
    assert_eq!(looks(), 0, "nothing has failed");
    let names: Vec<_> = (0..100).map(|n| format!("journey-{n}")).collect();
    let judged = names.iter().map(|name| net.judged(name, failed(Cause::Unreachable)));
    let judged = futures_util::future::join_all(judged).await;
    assert!(judged.iter().all(|report| report.outcome == failed(Cause::Unreachable)));
    assert_eq!(looks(), 1);
    net.clock.sleep_until(net.clock.now().mono + APART * 10).await;
    assert_eq!(looks(), 0, "nobody asks any more");
}
