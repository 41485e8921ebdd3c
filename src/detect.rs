//! Detectors: from the verdicts of one journey to what is wrong with it, with the arithmetic that says so.
//!
//! Each holds its own hysteresis: it fires from when its evidence is enough until there is enough evidence that it is over. What
//! follows for people is decided in [`crate::alert`] and [`crate::incident`].

pub mod burn;
pub mod channel;
pub mod drift;
pub mod loss;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::detect::drift::{Drift, Measured};
use crate::detect::loss::Loss;
use crate::journey::AlertPolicy;
use crate::journey::outcome::{Cause, Verdict, labelled};
use crate::time::{Human, between, later};

labelled! {
    /// What can be wrong with a journey, a channel, or the daemon itself. In the order in which they name an incident, the worst first.
    Detector {
        /// So many failed runs in a row, or one that was confirmed.
        Down = "down",
        /// A share of the messages is lost: too many failed runs, not in a row.
        Partial = "partial",
        /// A channel cannot be reached, or cannot receive.
        ChannelDown = "channel_down",
        /// The daemon was not running, or its own network was away: nothing is known of that time.
        Blind = "blind",
        /// The store does not take commits, or had to be mended.
        Storage = "storage",
        /// A notifier does not take notices.
        Delivery = "delivery",
        /// The daemon starts again and again.
        CrashLoop = "crash_loop",
        /// Duplicates, wrong order, altered or misrouted messages.
        Integrity = "integrity",
        /// So many slow runs in a row.
        Slow = "slow",
        /// No verdict for two intervals.
        Stale = "stale",
        /// Slower than in the same hours of the days before, within the budget.
        Drift = "drift",
        /// The error budget is used up, or will be within a day at this rate.
        Exhausted = "exhausted",
        /// The error budget is spent too fast.
        Budget = "budget",
        /// A channel's system makes us slow down, or our own limit does.
        Throttled = "throttled",
        /// A certificate that a channel shows is about to expire.
        Certificate = "certificate",
        /// The wall clock steps.
        Clock = "clock",
        /// A changed configuration was not accepted; the one before goes on.
        Reload = "reload",
    }
}

labelled! {
    /// How bad something is.
    Severity {
        /// Look at it today.
        Warning = "warning",
        /// Get up.
        Critical = "critical",
    }
}

impl Detector {
    /// How bad it is when this detector fires, unless it knows better.
    pub fn severity(self) -> Severity {
        match self {
            Detector::Down
            | Detector::Partial
            | Detector::ChannelDown
            | Detector::Storage
            | Detector::Delivery
            | Detector::CrashLoop => Severity::Critical,
            Detector::Blind
            | Detector::Integrity
            | Detector::Slow
            | Detector::Stale
            | Detector::Drift
            | Detector::Exhausted
            | Detector::Budget
            | Detector::Throttled
            | Detector::Certificate
            | Detector::Clock
            | Detector::Reload => Severity::Warning,
        }
    }

    /// The word for people, while it fires.
    pub fn word(self) -> &'static str {
        match self {
            Detector::Down | Detector::ChannelDown => "DOWN",
            Detector::Partial => "LOSING",
            Detector::Blind => "BLIND",
            Detector::Storage | Detector::Delivery => "FAILING",
            Detector::CrashLoop => "CRASHING",
            Detector::Integrity => "WRONG",
            Detector::Slow | Detector::Drift => "SLOW",
            Detector::Stale => "STALE",
            Detector::Exhausted => "BUDGET GONE",
            Detector::Budget => "BURNING",
            Detector::Throttled => "THROTTLED",
            Detector::Certificate => "EXPIRING",
            Detector::Clock => "CLOCK",
            Detector::Reload => "REFUSED",
        }
    }
}

/// What a detector found, while it fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which detector.
    pub detector: Detector,
    /// How bad.
    pub severity: Severity,
    /// The arithmetic, for people: `3 failed runs in a row (down_after = 3)`.
    pub said: String,
}

impl Finding {
    /// A finding as bad as its detector's findings are.
    pub fn new(detector: Detector, said: impl Into<String>) -> Finding {
        Finding { detector, severity: detector.severity(), said: said.into() }
    }

    /// Whether messages may fail of it today. Who fails while a certificate has days left fails of something else.
    pub fn is_felt(&self) -> bool {
        self.detector != Detector::Certificate || self.severity == Severity::Critical
    }
}

/// What one run means to the detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The slot that it ran for.
    pub slot: Timestamp,
    /// What it came to.
    pub verdict: Verdict,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// It was run to confirm the run before: it is no slot of its own.
    pub is_confirmation: bool,
}

/// What the detectors must know of their journey.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The policy.
    pub policy: AlertPolicy,
    /// No verdict for this long is *stale*.
    pub stale_after: Duration,
    /// The share of runs that may fail, `1 − objective`; zero without an objective.
    pub allowed: f64,
}

/// The state of a journey's detectors: counters, no history. Plain data, saved with every change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detectors {
    /// Failed runs in a row.
    pub failed: u32,
    /// Of these, how many were confirmations.
    pub confirmed: u32,
    /// Slow runs in a row.
    pub slow: u32,
    /// Delivered runs in a row, slow or not.
    pub delivered: u32,
    /// Good runs in a row.
    pub good: u32,
    /// Runs whose message was doubled, altered, out of order or at the wrong place, since the last calm.
    pub wrong: u32,
    /// What the last of them was.
    pub wrong_cause: Option<Cause>,
    /// The evidence of partial loss.
    pub loss: Loss,
    /// What is known of slow drift.
    pub drift: Drift,
    /// The first bad slot of the present trouble.
    pub bad_since: Option<Timestamp>,
    /// Which fire.
    pub firing: BTreeSet<Detector>,
    /// When there last was a verdict, or when we began to wait for one. Not saved: a restart begins to wait anew.
    #[serde(skip)]
    pub heard: Option<Timestamp>,
}

impl Detectors {
    /// Waits for verdicts from `now` on: after a start, silence while we were not running is not the journey's.
    pub fn resume(&mut self, now: Timestamp) {
        self.heard = Some(now);
        self.drift.resume(now);
    }

    /// Takes a run; a verdict of ours (`unknown`) and a slot that does not count leave everything as it is.
    pub fn take(&mut self, sample: Sample, rules: &Rules, now: Timestamp) {
        // Beyond what recovery needs there is nothing to count, and a healthy journey's state stays the same.
        let enough = |runs: u32| runs.saturating_add(1).min(rules.policy.recover_after);
        match sample.verdict {
            Verdict::Good => {
                self.good = enough(self.good);
                self.delivered = enough(self.delivered);
                (self.failed, self.confirmed, self.slow) = (0, 0, 0);
            }
            Verdict::Slow => {
                self.slow = self.slow.saturating_add(1);
                self.delivered = enough(self.delivered);
                (self.failed, self.confirmed, self.good) = (0, 0, 0);
            }
            Verdict::Failed | Verdict::Late => {
                self.failed = self.failed.saturating_add(1);
                self.confirmed += u32::from(sample.is_confirmation);
                (self.good, self.delivered) = (0, 0);
                if let Some(cause) = sample.cause.filter(|cause| is_wrong(*cause)) {
                    self.wrong = self.wrong.saturating_add(1);
                    self.wrong_cause = Some(cause);
                }
            }
            Verdict::Unknown | Verdict::Excluded => return,
        }
        self.heard = Some(now);
        if !sample.is_confirmation {
            // A confirmation is asked for after a failure: no random sample, and no evidence of a share.
            self.loss.take(sample.slot, matches!(sample.verdict, Verdict::Failed | Verdict::Late), rules.allowed);
        }
        if sample.verdict != Verdict::Good {
            self.bad_since.get_or_insert(sample.slot);
        }
    }

    /// Takes how the last runs compare with those of the days before.
    pub fn measured(&mut self, measured: Measured, now: Timestamp) {
        self.drift.take(measured, now);
    }

    /// Looks what fires now. Nothing here depends on how often it is asked.
    pub fn look(&mut self, rules: &Rules, now: Timestamp) -> Vec<Finding> {
        let policy = &rules.policy;
        let is_silent = self.is_silent(rules, now);
        if is_silent {
            (self.good, self.delivered) = (0, 0);
        }
        let fires = |detector| self.firing.contains(&detector);
        let is_confirmed = !policy.confirm.is_empty() && self.confirmed as usize >= policy.confirm.len();
        let is_well = self.good >= policy.recover_after;
        // A blip that repeats once is no outage: all confirmations count, or none.
        let down = self.failed.saturating_sub(self.confirmed) >= policy.down_after
            || is_confirmed
            || (fires(Detector::Down) && self.delivered < policy.recover_after)
            // Delivered again, yet slow: whether that is well is for the slow detector to say.
            || (fires(Detector::Down) && self.slow > 0 && self.slow < policy.slow_after);
        if fires(Detector::Down) && !down && self.loss.is_outage() {
            // What a total outage left behind says nothing about the time after it. Of a share that is lost it does: two good
            // runs end a row of failures, and no loss of a third.
            self.loss.forget();
        }
        let partial =
            policy.partial && if fires(Detector::Partial) { !self.loss.is_over() } else { self.loss.is_proven() };
        if fires(Detector::Partial) && !partial {
            self.loss.forget();
        }
        let integrity = self.wrong > 0 && !(is_well && fires(Detector::Integrity));
        if !integrity {
            (self.wrong, self.wrong_cause) = (0, None);
        }
        let slow = self.slow >= policy.slow_after || (fires(Detector::Slow) && !is_well);
        let stale = is_silent || (fires(Detector::Stale) && self.delivered < policy.recover_after && self.failed == 0);
        if down || partial || slow {
            self.drift.trouble(now);
        }
        self.drift.expire(now);
        if !policy.drift {
            self.drift = Drift::default();
        }
        let mut findings = Vec::new();
        let mut say = |fires: bool, detector, said: &dyn Fn() -> String| {
            if fires {
                findings.push(Finding::new(detector, said()));
            }
        };
        say(down, Detector::Down, &|| self.down_said(policy));
        say(partial && !down, Detector::Partial, &|| self.loss.said());
        say(integrity, Detector::Integrity, &|| self.wrong_said());
        say(slow, Detector::Slow, &|| match self.slow {
            slow if slow >= policy.slow_after => {
                format!("{slow} slow runs in a row (slow_after = {})", policy.slow_after)
            }
            _ => format!("{} or more slow runs in a row (slow_after = {0})", policy.slow_after),
        });
        say(stale, Detector::Stale, &|| {
            format!("no verdict for {} (two intervals and a deadline)", Human(rules.stale_after))
        });
        // Beside what says more of the same runs it says nothing.
        if let Some(found) = self.drift.found.filter(|_| !down && !slow && !stale) {
            say(true, Detector::Drift, &|| found.measured.said());
        }
        self.firing = findings.iter().map(|finding| finding.detector).collect();
        if partial && down {
            self.firing.insert(Detector::Partial);
        }
        if is_only_drift(&findings) && self.good > 0 {
            self.bad_since = None;
        }
        findings
    }

    /// When time alone changes what [`Detectors::look`] finds.
    pub fn deadline(&self, rules: &Rules) -> Option<Timestamp> {
        let is_stale = self.firing.contains(&Detector::Stale);
        let stale = self.heard.filter(|_| !is_stale).map(|heard| later(heard, rules.stale_after));
        stale.into_iter().chain(self.drift.deadline()).min()
    }

    /// The first bad slot of what is bad now.
    pub fn since(&self) -> Option<Timestamp> {
        let is_loss = self.firing.contains(&Detector::Partial);
        let drift = self.drift.found.filter(|_| self.firing.contains(&Detector::Drift)).map(|found| found.since);
        self.loss.since.filter(|_| is_loss).or(self.bad_since).or(drift).or(self.heard)
    }

    /// Whether something is bad that is not yet enough for any detector.
    pub fn is_suspicious(&self) -> bool {
        self.failed > 0 || self.slow > 0
    }

    /// Whether something fires, or is bad and not yet enough to.
    pub fn has_trouble(&self) -> bool {
        self.is_suspicious() || !self.firing.is_empty()
    }

    fn is_silent(&self, rules: &Rules, now: Timestamp) -> bool {
        self.heard.is_some_and(|heard| between(heard, now) >= rules.stale_after)
    }

    fn down_said(&self, policy: &AlertPolicy) -> String {
        match self.confirmed {
            0 if self.failed >= policy.down_after => {
                format!("{} failed runs in a row (down_after = {})", self.failed, policy.down_after)
            }
            0 => format!("{0} or more failed runs in a row (down_after = {0})", policy.down_after),
            confirmed => {
                let scheduled = self.failed - confirmed.min(self.failed);
                format!(
                    "{scheduled} failed {} and {confirmed} failed confirmations after it",
                    if scheduled == 1 { "run" } else { "runs" }
                )
            }
        }
    }

    fn wrong_said(&self) -> String {
        let what = self.wrong_cause.map_or("wrong", Cause::as_str);
        match self.wrong {
            1 => format!("a message was {what}"),
            wrong => format!("{wrong} messages were wrong, the last {what}"),
        }
    }
}

/// Whether nothing was found but drift, which good runs show as well as any.
pub fn is_only_drift(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.detector == Detector::Drift)
}

/// Whether a message came, and was not as it was sent.
fn is_wrong(cause: Cause) -> bool {
    matches!(cause, Cause::Duplicate | Cause::Reordered | Cause::Altered | Cause::Misrouted)
}

#[cfg(test)]
mod tests;
