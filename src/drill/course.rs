//! The course of one drill: what it does next, and what it comes to. A machine without a clock; what happened is told to it.

use std::time::Duration;

use crate::drill::{Stage, Verdict};
use crate::journey::outcome;
use crate::time::{Human, Mono};

/// From the end of a run of the shadow to the next, where nothing asks for longer.
const PAUSE: Duration = Duration::from_millis(500);
/// What is known of a notice that was seen too late.
const LATE: &str = "it was seen too late";

/// What a drill does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Runs the shadow, not before then.
    Run {
        /// With the fault.
        is_faulty: bool,
        /// To confirm the failed run before.
        is_confirmation: bool,
        /// Not before.
        at: Mono,
    },
    /// Waits for what has been told to be seen, no longer than until then.
    Wait {
        /// Until then.
        until: Mono,
    },
    /// It has a verdict.
    End,
}

/// A run of the shadow that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ran<'a> {
    /// What it came to.
    pub verdict: outcome::Verdict,
    /// The same in words.
    pub said: &'a str,
    /// How often the fault was put in.
    pub injected: u64,
    /// When it ended.
    pub at: Mono,
}

/// One drill under way.
#[derive(Clone, Debug)]
pub struct Course {
    within: Duration,
    confirm: Vec<Duration>,
    stage: Stage,
    /// When the fault was put in.
    faulted: Mono,
    /// When it was taken away.
    healed: Mono,
    /// When the last run ended.
    ran: Option<Mono>,
    /// Which confirmation is next; `None` while nothing is to be confirmed.
    confirming: Option<usize>,
    runs: u32,
    bad: u32,
    injected: u64,
    last: String,
    detected: Option<Duration>,
    told: Option<Duration>,
    resolved: Option<Duration>,
    end: Option<(Verdict, String)>,
}

impl Course {
    /// A drill that begins. A failed run is confirmed so long after it each, as its journey's policy has it.
    pub fn new(within: Duration, confirm: Vec<Duration>) -> Course {
        Course {
            within,
            confirm,
            stage: Stage::Proving,
            faulted: Mono::default(),
            healed: Mono::default(),
            ran: None,
            confirming: None,
            runs: 0,
            bad: 0,
            injected: 0,
            last: String::new(),
            detected: None,
            told: None,
            resolved: None,
            end: None,
        }
    }

    /// What it does next. Time alone changes that only in [`Course::expire`].
    pub fn next(&self) -> Next {
        let is_faulty = match self.stage {
            Stage::Ended => return Next::End,
            Stage::Telling => return Next::Wait { until: self.faulted + self.within },
            Stage::Closing => return Next::Wait { until: self.healed + self.within },
            Stage::Proving | Stage::Healing => false,
            Stage::Faulty => true,
        };
        let wait = self.confirming.and_then(|nth| self.confirm.get(nth).copied());
        let at = self.ran.map_or(Mono::default(), |ran| ran + wait.unwrap_or(PAUSE));
        Next::Run { is_faulty, is_confirmation: wait.is_some(), at }
    }

    /// When it is over, if nothing happens before.
    pub fn deadline(&self) -> Option<Mono> {
        match self.stage {
            Stage::Proving | Stage::Ended => None,
            Stage::Faulty | Stage::Telling => Some(self.faulted + self.within),
            Stage::Healing | Stage::Closing => Some(self.healed + self.within),
        }
    }

    /// A run of the shadow has ended.
    pub fn ran(&mut self, ran: Ran<'_>) {
        let Ran { verdict, said, injected, at } = ran;
        self.runs += 1;
        self.injected += injected;
        self.ran = Some(at);
        said.clone_into(&mut self.last);
        match self.stage {
            Stage::Proving if verdict == outcome::Verdict::Good => {
                (self.stage, self.faulted) = (Stage::Faulty, at);
            }
            Stage::Proving => {
                self.finish(Verdict::NotTested, format!("without a fault a run is not good either: {said}"));
            }
            Stage::Faulty => self.ran_faulty(verdict, injected),
            Stage::Telling | Stage::Healing | Stage::Closing | Stage::Ended => {}
        }
    }

    fn ran_faulty(&mut self, verdict: outcome::Verdict, injected: u64) {
        if injected == 0 {
            let why = "the fault found nothing to act on: the journey receives or asks for nothing that it could touch";
            return self.finish(Verdict::NotTested, why.to_owned());
        }
        match verdict {
            outcome::Verdict::Good => {
                let why = "the run was good all the same: the journey does not see this fault";
                self.finish(Verdict::NotTested, why.to_owned());
            }
            outcome::Verdict::Failed | outcome::Verdict::Late => {
                self.bad += 1;
                // When all have been made, the next slot begins anew.
                let next = self.confirming.map_or(0, |nth| nth + 1);
                self.confirming = (next < self.confirm.len()).then_some(next);
            }
            outcome::Verdict::Slow => {
                self.bad += 1;
                self.confirming = None;
            }
            outcome::Verdict::Unknown | outcome::Verdict::Excluded => {}
        }
    }

    /// It was decided that people are to be told that it fails.
    pub fn alerted(&mut self, at: Mono) {
        if self.stage == Stage::Faulty {
            self.detected = Some(at.since(self.faulted));
            self.stage = Stage::Telling;
        }
    }

    /// The alert has been seen where it is read back.
    pub fn saw_alert(&mut self, at: Mono) {
        self.expire(at, LATE);
        if self.stage == Stage::Telling {
            self.told = Some(at.since(self.faulted));
            (self.stage, self.healed, self.confirming, self.ran) = (Stage::Healing, at, None, None);
        }
    }

    /// It was decided that people are to be told that it is over.
    pub fn cleared(&mut self) {
        if self.stage == Stage::Healing {
            self.stage = Stage::Closing;
        }
    }

    /// That it is over has been seen where it is read back.
    pub fn saw_end(&mut self, at: Mono) {
        self.expire(at, LATE);
        if self.stage == Stage::Closing {
            self.resolved = Some(at.since(self.healed));
            let told = |took: Option<Duration>| Human(took.unwrap_or_default()).to_string();
            let why = format!(
                "detected after {}, seen to be told after {}, and seen to be over {} after the fault was",
                told(self.detected),
                told(self.told),
                told(self.resolved)
            );
            self.finish(Verdict::Passed, why);
        }
    }

    /// Its time may be over. `trace` is what is known of the notice that was not seen.
    pub fn expire(&mut self, now: Mono, trace: &str) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let within = Human(self.within);
        let why = match self.stage {
            Stage::Faulty => format!(
                "nobody was to be told within {within}: {} of {} runs under the fault were bad, the last: {}",
                self.bad,
                self.runs.saturating_sub(1),
                self.last
            ),
            Stage::Telling => format!("the alert was not seen within {within} of the fault: {trace}"),
            Stage::Healing => {
                format!("without the fault it was not well again within {within}, the last run: {}", self.last)
            }
            Stage::Closing => format!("that it is over was not seen within {within}: {trace}"),
            Stage::Proving | Stage::Ended => return,
        };
        self.finish(Verdict::Failed, why);
    }

    /// It ends with this, unless it has ended.
    pub fn finish(&mut self, verdict: Verdict, why: String) {
        if self.stage != Stage::Ended {
            (self.stage, self.end) = (Stage::Ended, Some((verdict, why)));
        }
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Runs of the shadow, and how often the fault was put in.
    pub fn counted(&self) -> (u32, u64) {
        (self.runs, self.injected)
    }

    /// From the fault to the decision that people are to be told.
    pub fn detected(&self) -> Option<Duration> {
        self.detected
    }

    /// From the fault until the alert was seen.
    pub fn told(&self) -> Option<Duration> {
        self.told
    }

    /// From the end of the fault until it was seen that it is over.
    pub fn resolved(&self) -> Option<Duration> {
        self.resolved
    }

    /// What it came to, and why.
    pub fn end(&self) -> Option<(Verdict, &str)> {
        self.end.as_ref().map(|(verdict, why)| (*verdict, why.as_str()))
    }
}

#[cfg(test)]
mod tests;
