//! Drills: an outage that is rehearsed. A shadow of a journey is run with a fault in our own side of its channels, and people must be seen
//! to be told, and told that it is over. What a drill does next, and what it comes to, is decided here from what happened and nothing else.

pub mod course;
pub mod fault;
pub mod notice;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::drill::course::{Course, Next, Ran};
pub use crate::drill::fault::Fault;
use crate::journey::Name;
use crate::journey::outcome::labelled;
use crate::journey::schedule::Calendar;
use crate::notice::Notification;

/// How long until people must have been told, and as long again until it must be over, unless somebody says otherwise.
pub const WITHIN: Duration = Duration::from_secs(120);
/// No drill is given longer.
pub const LONGEST: Duration = Duration::from_secs(3_600);

labelled! {
    /// What a drill came to.
    Verdict {
        /// People were told within the bound, and told that it is over.
        Passed = "passed",
        /// They were not.
        Failed = "failed",
        /// The fault left no trace, so nothing is known. Never as good as passed.
        NotTested = "not_tested",
        /// Something real had precedence, or somebody stopped it.
        Aborted = "aborted",
    }
}

impl Verdict {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::NotTested => "not tested",
            Verdict::Aborted => "aborted",
        }
    }
}

labelled! {
    /// How far a drill is.
    Stage {
        /// The shadow is run without a fault: it must be well.
        Proving = "proving",
        /// It is run with the fault, until somebody is to be told.
        Faulty = "faulty",
        /// The alert is on its way, and has not been seen.
        Telling = "telling",
        /// The fault is gone, and the shadow is run until it is well.
        Healing = "healing",
        /// That it is over is on its way, and has not been seen.
        Closing = "closing",
        /// It has a verdict.
        Ended = "ended",
    }
}

/// A drill as it is kept and shown. Plain data; field names are a promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Stable; made when it began.
    pub id: String,
    /// Of which journey.
    pub journey: Name,
    /// The fault, as it is written: `delay=10s`.
    pub fault: String,
    /// Who asked for it; `schedule` if nobody did.
    pub by: String,
    /// When it began.
    pub started: Timestamp,
    /// When it had a verdict.
    pub ended: Option<Timestamp>,
    /// How far it is.
    pub stage: Stage,
    /// What it came to.
    pub verdict: Option<Verdict>,
    /// Why, for people.
    pub why: String,
    /// Until when people had to be told after the fault was put in, in seconds.
    pub within_seconds: f64,
    /// Where the alert was to be seen.
    pub read_back: Name,
    /// Who was told.
    pub notifiers: Vec<Name>,
    /// Runs of the shadow.
    pub runs: u32,
    /// How often the fault was put in.
    pub injected: u64,
    /// From the fault to the decision that people are to be told.
    pub detect_seconds: Option<f64>,
    /// From the fault until the alert was seen.
    pub tell_seconds: Option<f64>,
    /// From the end of the fault until it was seen that it is over.
    pub resolve_seconds: Option<f64>,
    /// What people were told last and were not told the end of: whoever comes after a crash tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Box<Notification>>,
}

impl Record {
    /// One that begins.
    pub fn new(id: String, order: &Order, read_back: Name, now: Timestamp) -> Record {
        Record {
            id,
            journey: order.journey.clone(),
            fault: order.fault.to_string(),
            by: order.by.clone(),
            started: now,
            ended: None,
            stage: Stage::Proving,
            verdict: None,
            why: String::new(),
            within_seconds: order.within.as_secs_f64(),
            read_back,
            notifiers: Vec::new(),
            runs: 0,
            injected: 0,
            detect_seconds: None,
            tell_seconds: None,
            resolve_seconds: None,
            open: None,
        }
    }

    /// The same as it is after this.
    pub fn follow(&mut self, course: &Course) {
        self.stage = course.stage();
        (self.runs, self.injected) = course.counted();
        let seconds = |took: Option<Duration>| took.map(|took| took.as_secs_f64());
        (self.detect_seconds, self.tell_seconds, self.resolve_seconds) =
            (seconds(course.detected()), seconds(course.told()), seconds(course.resolved()));
    }

    /// It has a verdict.
    pub fn end(&mut self, verdict: Verdict, why: String, now: Timestamp) {
        (self.stage, self.verdict, self.why, self.ended) = (Stage::Ended, Some(verdict), why, Some(now));
    }
}

/// Settings of `[drill]`.
#[derive(Clone, Debug)]
pub struct DrillSettings {
    /// The channel that sees what people are told.
    pub read_back: Name,
    /// Until when people must have been told, unless somebody says otherwise.
    pub within: Duration,
    /// Who is told instead of those that journeys and routes name.
    pub notify: Vec<Name>,
    /// When drills are made without anybody asking.
    pub schedule: Option<Box<Calendar>>,
    /// Of which journeys then.
    pub journeys: Vec<Name>,
    /// With which faults then.
    pub faults: Vec<Fault>,
}

/// A drill that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Of which journey.
    pub journey: Name,
    /// What is put in.
    pub fault: Fault,
    /// Until when people must have been told, and as long again until it must be over.
    pub within: Duration,
    /// Who asks.
    pub by: String,
}

/// What the name of a shadow ends with. No journey's does: names have no spaces.
const SHADOW: &str = " (drill)";

/// The name under which the shadow of a journey runs.
pub fn shadow_name(journey: &Name) -> Name {
    format!("{journey}{SHADOW}").into()
}

/// Whether it is the name of a shadow.
pub fn is_shadow(journey: &str) -> bool {
    journey.ends_with(SHADOW)
}
