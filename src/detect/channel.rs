//! What is wrong with a channel: its reader is away, its breaker is open, its system makes us slow down, its certificate is about to
//! expire.
//!
//! One owner for all of them, because the findings of one subject come together: whoever tells some of them takes the others back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::detect::{Detector, Finding, Severity};
use crate::journey::expect::cut_at;
use crate::journey::outcome::{Cause, Outcome};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::seen::{What, find, valid_until};
use crate::time::{Human, between, earlier, later};

/// A certificate that expires within this is told of, unless the channel's `certificate_warning` says otherwise: half of the 30 days
/// before the end in which ACME clients renew are over by then, and two weeks are left to find out why.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * DAY);
/// Somebody has to get up for a certificate that has no more time left than this.
const LAST_DAY: Duration = Duration::from_secs(DAY);
/// A system that makes us slow down so many times within [`WITHIN`] does not do so by chance.
const TIMES: usize = 3;
/// How far apart these are at least: five hundred journeys that meet one moment of it have met it once.
const APART: Duration = Duration::from_secs(30);
/// Within which they count.
const WITHIN: Duration = Duration::from_secs(600);
/// It is over when nobody was made to slow down for so long.
const CALM: Duration = Duration::from_secs(600);
/// An address that was not met for so long, while others were, is not the channel's any more.
const GONE: Duration = Duration::from_secs(6 * HOUR);
/// The addresses of one channel whose certificates are kept: a name may stand for ever new ones.
const PEERS: usize = 16;
/// What a system says is told up to about this many bytes.
const WORDS: usize = 200;
/// What changes at a moment has changed so long after it.
const TICK: Duration = Duration::from_secs(1);
const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;

/// The state of a channel's detectors. Not saved: of what was found before a restart, each finding stands until there is evidence
/// of its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelDetectors {
    /// What its reader says, if it cannot receive.
    away: Option<String>,
    /// What its breaker says, if it has been open for too long.
    broken: Option<String>,
    /// Who has not said anything since a restart.
    silent: Sides,
    throttle: Throttle,
    /// The certificates that it shows, by address.
    certificates: BTreeMap<String, Shown>,
    /// Found before a restart, and not looked at since.
    restored: Vec<Finding>,
}

/// Who can say that a channel is down, and that it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// Its reader, if it has one.
    pub reader: bool,
    /// Its breaker, if it has one that refuses anything.
    pub breaker: bool,
}

impl Sides {
    fn are_any(self) -> bool {
        self.reader || self.breaker
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Throttle {
    /// When it was met, [`APART`], the last [`TIMES`].
    met: VecDeque<Timestamp>,
    last: Option<Timestamp>,
    words: String,
    is_firing: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Shown {
    until: Timestamp,
    told: Arc<str>,
    /// When it was last seen.
    at: Timestamp,
}

impl ChannelDetectors {
    /// Takes up what was found before a restart. What only a reader or a breaker could say is over, if there is none.
    pub fn resume(&mut self, findings: &[Finding], sides: Sides, now: Timestamp) {
        let stands = |finding: &&Finding| finding.detector != Detector::ChannelDown || sides.are_any();
        self.silent = sides;
        self.restored = findings.iter().filter(stands).cloned().collect();
        if self.restored.iter().any(|finding| finding.detector == Detector::Throttled) {
            // Nobody could be made to slow down while nothing ran: calm counts from now.
            self.throttle.last = Some(now);
        }
    }

    /// Takes what its reader says: that it can receive, or why it could not for too long.
    pub fn read(&mut self, trouble: Option<String>) {
        self.silent.reader = false;
        self.away = trouble;
        self.heard();
    }

    /// Takes what its breaker says: that it is closed, or why it has been open for too long.
    pub fn broke(&mut self, trouble: Option<String>) {
        self.silent.breaker = false;
        self.broken = trouble;
        self.heard();
    }

    /// Nobody else speaks for it from now on: what another said would be taken back by nobody.
    pub fn hear_only(&mut self, sides: Sides) {
        if !sides.reader {
            (self.away, self.silent.reader) = (None, false);
        }
        if !sides.breaker {
            (self.broken, self.silent.breaker) = (None, false);
        }
        self.heard();
    }

    /// What was found before a restart stands until each who may have found it has spoken.
    fn heard(&mut self) {
        if !self.silent.are_any() {
            self.forget(Detector::ChannelDown);
        }
    }

    /// Takes what a step through it met; whether anything is to be looked at anew.
    pub fn take(&mut self, report: &Report, step: &StepReport, now: Timestamp) -> bool {
        let is_throttled = made_slow(report, step).is_some_and(|words| self.throttle.take(words, now));
        self.meet(step, now) || is_throttled
    }

    /// The end of the certificate that expires first.
    pub fn certificate_until(&self) -> Option<Timestamp> {
        self.first_to_expire().map(|(_, shown)| shown.until)
    }

    /// What is wrong. `warning` is how long before its end a certificate is told of, if at all.
    pub fn look(&mut self, warning: Option<Duration>, now: Timestamp) -> Vec<Finding> {
        if self.throttle.last.is_some_and(|last| between(last, now) >= CALM) {
            self.throttle = Throttle::default();
            self.forget(Detector::Throttled);
        }
        if warning.is_none() {
            self.forget(Detector::Certificate);
        }
        let down: Vec<_> = self.away.iter().chain(&self.broken).map(String::as_str).collect();
        let away = (!down.is_empty()).then(|| Finding::new(Detector::ChannelDown, down.join("; ")));
        let throttled = self.throttle.is_firing.then(|| self.throttle.finding());
        let expiring = self.first_to_expire().zip(warning).and_then(|((peer, shown), warning)| {
            let left = between(now, shown.until);
            let severity = if left < LAST_DAY { Severity::Critical } else { Severity::Warning };
            let said = || said_of_certificate(peer, shown, left);
            (left < warning).then(|| Finding { severity, ..Finding::new(Detector::Certificate, said()) })
        });
        let mut findings: Vec<_> = away.into_iter().chain(throttled).chain(expiring).collect();
        let is_known = |finding: &&Finding| findings.iter().all(|other| other.detector != finding.detector);
        let before: Vec<_> = self.restored.iter().filter(is_known).cloned().collect();
        findings.extend(before);
        findings
    }

    /// When time alone changes what is found, or its words.
    pub fn deadline(&self, warning: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
        let calm = self.throttle.last.map(|last| later(last, CALM));
        let expiring = self.first_to_expire().zip(warning).and_then(|((_, shown), warning)| {
            let left = between(now, shown.until);
            let told_until = if left < warning { count(left).0 } else { warning };
            (!left.is_zero()).then(|| later(earlier(shown.until, told_until), TICK))
        });
        calm.into_iter().chain(expiring).min()
    }

    fn forget(&mut self, detector: Detector) {
        self.restored.retain(|finding| finding.detector != detector);
    }

    fn first_to_expire(&self) -> Option<(&String, &Shown)> {
        self.certificates.iter().min_by_key(|(_, shown)| shown.until)
    }

    /// Takes which certificate was met, or that there is none; whether that changes anything.
    fn meet(&mut self, step: &StepReport, now: Timestamp) -> bool {
        let met = find(&step.seen, What::Peer);
        let peer = met.unwrap_or_default();
        let shown = step.seen.iter().find(|seen| seen.what == What::Certificate);
        let Some((told, until)) = shown.and_then(|shown| Some((&shown.is, valid_until(&shown.is)?))) else {
            // A handshake that failed early shows none either; a step that passed needed none.
            let is_plain = met.is_some() && matches!(step.status, StepStatus::Passed | StepStatus::Slow);
            let is_new = is_plain && self.restored.iter().any(|finding| finding.detector == Detector::Certificate);
            if is_plain {
                self.forget(Detector::Certificate);
            }
            return is_plain && self.certificates.remove(peer).is_some() || is_new;
        };
        self.forget(Detector::Certificate);
        let is_new = match self.certificates.get_mut(peer) {
            Some(known) if known.told == *told => {
                known.at = now;
                false
            }
            // A connection that is older than the renewal goes on to show what it began with.
            Some(known) if until < known.until && between(known.at, now) < GONE => false,
            _ => {
                self.certificates.insert(peer.to_owned(), Shown { until, told: told.clone(), at: now });
                true
            }
        };
        let before = self.certificates.len();
        self.certificates.retain(|_, shown| between(shown.at, now) < GONE);
        if self.certificates.len() > PEERS {
            let oldest = self.certificates.iter().min_by_key(|(_, shown)| shown.at).map(|(peer, _)| peer.clone());
            oldest.map(|peer| self.certificates.remove(&peer));
        }
        is_new || self.certificates.len() < before
    }
}

impl Throttle {
    /// Takes that it was met; whether anything is to be looked at anew.
    fn take(&mut self, words: String, now: Timestamp) -> bool {
        self.last = Some(now);
        if self.met.back().is_some_and(|last| between(*last, now) < APART) {
            return false;
        }
        self.met.push_back(now);
        if self.met.len() > TIMES {
            self.met.pop_front();
        }
        self.words = words;
        let is_often = self.met.len() == TIMES && self.met.front().is_some_and(|first| between(*first, now) < WITHIN);
        self.is_firing |= is_often;
        self.is_firing
    }

    fn finding(&self) -> Finding {
        let (apart, within) = (Human(APART), Human(WITHIN));
        let words = cut_at(&self.words, WORDS);
        let said =
            format!("we were made to slow down {TIMES} times and more, {apart} apart, within {within}; last: {words}");
        Finding::new(Detector::Throttled, said)
    }
}

/// In which words the step was made to slow down, if it was. A run that does not count tells nothing of it.
fn made_slow(report: &Report, step: &StepReport) -> Option<String> {
    match &report.outcome {
        Outcome::Excluded { .. } => None,
        Outcome::Failed { step: failed, cause: Cause::Throttled } if *failed == step.name => Some(step.summary()),
        _ => find(&step.seen, What::Throttled).map(str::to_owned),
    }
}

/// What is left, in the whole units in which people count it, and in words.
fn count(left: Duration) -> (Duration, String) {
    let (size, unit) = if left <= LAST_DAY * 2 { (HOUR, "hour") } else { (DAY, "day") };
    let count = left.as_secs() / size;
    let words = match count {
        0 => format!("within the {unit}"),
        1 => format!("in 1 {unit}"),
        _ => format!("in {count} {unit}s"),
    };
    (Duration::from_secs(count * size), words)
}

fn said_of_certificate(peer: &str, shown: &Shown, left: Duration) -> String {
    let whose = if peer.is_empty() { "its certificate".to_owned() } else { format!("the certificate of {peer}") };
    let when = if left.is_zero() { "has expired".to_owned() } else { format!("expires {}", count(left).1) };
    let until = shown.until.strftime("%Y-%m-%d %H:%M UTC");
    let which = shown.told.split_once(", ").map_or("", |(_, which)| which);
    format!("{whose} {when} ({until}): {which}")
}

#[cfg(test)]
mod tests;
