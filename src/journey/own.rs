//! The monitor's own journey: out to our own door, in again, matched, judged, written down, and told to nobody.
//!
//! It goes the way of every journey, so its age says whether that way works: the scheduler, the network, the listener, the
//! switchboard, the evaluator, the store, the outbox and a delivery worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::journey::expect::{Comparison, Expectation, Expected, Predicate, Query};
use crate::journey::schedule::Schedule;
use crate::journey::template::Template;
use crate::journey::value::Value;
use crate::journey::{AlertPolicy, Draft, Journey, JsonTemplate, Name, Payload, Receive, Step, Verb};

/// The name of the journey, of the channel that it comes in by, and of the notifier that tells nobody. No configuration may use it.
pub const NAME: &str = "journeyman";
/// The channel that it goes out by, where that is another one.
pub const CALL: &str = "journeyman-call";

/// Not here by then is failed. A request to ourselves that takes longer has found no way.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Told again this often while it fails: what somebody has to get up for.
const REMIND: Duration = Duration::from_secs(4 * 3_600);
/// Verdicts that may be missing before something is wrong: one slow run, one lost one, and one in hand.
const MISSING: u32 = 4;

/// Whether the name is one of the monitor's own.
pub fn is_own(name: &str) -> bool {
    name == NAME || name == CALL
}

/// Older than this, the last round trip says that something is stuck: two minutes and a deadline at a run every 30 s.
pub fn limit(every: Duration) -> Duration {
    every * MISSING + DEADLINE
}

/// The journey: through `call` and back on [`NAME`]. `notify` is told when it fails.
pub fn journey(every: Duration, call: Call, notify: Vec<Name>) -> Journey {
    let token = Template::parse("{{ token }}", &BTreeSet::new()).expect("it is a template");
    let draft = Draft {
        channel: call.channel.into(),
        payload: Payload::Json(JsonTemplate::Object(vec![("token".to_owned(), JsonTemplate::Text(token))])),
        ..Draft::default()
    };
    let answered = Expectation {
        query: Query::Status,
        predicate: Predicate::Compare(Comparison::Equals, Expected::Fixed(Value::from(200))),
        message: Some("our own listener has answered".to_owned()),
        soft: false,
    };
    let receive = Receive { channel: NAME.into(), since: 0, filter: Vec::new(), key: None };
    let out = Step {
        expect: if call.is_answered { vec![answered] } else { Vec::new() },
        ..step("out", Verb::Send(Box::new(draft)))
    };
    Journey {
        name: NAME.into(),
        schedule: Schedule::every(every, NAME),
        budget: None,
        deadline: DEADLINE,
        late: DEADLINE * 6,
        objective: None,
        alert: AlertPolicy {
            down_after: 3,
            confirm: Vec::new(),
            partial: false,
            drift: false,
            flapping: true,
            slow_after: 3,
            recover_after: 2,
            remind: Some(REMIND),
        },
        notify,
        owner: None,
        runbook: None,
        labels: BTreeMap::new(),
        depends_on: Vec::new(),
        muted: false,
        // When permits are short, what says so must have one.
        critical: true,
        steps: vec![out, step("in", Verb::Receive(receive))],
        maintenance: Vec::new(),
        unavailable: None,
        vantage: None,
        defined_at: "the monitor itself".to_owned(),
        fingerprint: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// How it goes out.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Through which channel.
    pub channel: &'static str,
    /// Whether what it calls answers with a status.
    pub is_answered: bool,
}

fn step(name: &str, verb: Verb) -> Step {
    Step {
        name: name.into(),
        verb,
        budget: None,
        timeout: None,
        always: false,
        soft: false,
        when: None,
        expect: Vec::new(),
        capture: Vec::new(),
        poll: None,
    }
}
