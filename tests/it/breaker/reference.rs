//! What a breaker is to do, written down without any thrift: every call and every result is kept, and all is counted anew each time.

use std::time::Duration;

use journeyman::breaker::{EVERYBODY, Force, LONGEST_ORDER, Need, Settings, State, Verdict};
use journeyman::time::Mono;

/// A part of the window, of which there are twelve.
const PARTS: u128 = 12;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Closed,
    Open,
    Half,
}

/// One call that was let through.
#[derive(Debug)]
struct Call {
    round: u64,
    who: u64,
}

/// One result that was counted.
#[derive(Debug)]
struct Counted {
    at: Mono,
    round: u64,
    has_failed: bool,
    who: u64,
}

/// The reference.
#[derive(Debug)]
pub(super) struct Reference {
    settings: Settings,
    now: Mono,
    mode: Mode,
    /// Until when it is, or would have been, open.
    until: Mono,
    left: Option<Mono>,
    successes: u32,
    trial: Option<(usize, Mono)>,
    failed_trials: u32,
    order: Option<(Force, Mono)>,
    /// Which stretch between two changes this is; a half-open one belongs to the open one before.
    round: u64,
    calls: Vec<Call>,
    results: Vec<Counted>,
    pub(super) changes: u64,
}

impl Reference {
    pub(super) fn new(settings: Settings) -> Reference {
        Reference {
            settings,
            now: Mono::default(),
            mode: Mode::Closed,
            until: Mono::default(),
            left: None,
            successes: 0,
            trial: None,
            failed_trials: 0,
            order: None,
            round: 0,
            calls: Vec::new(),
            results: Vec::new(),
            changes: 0,
        }
    }

    fn force(&self) -> Option<Force> {
        match self.order {
            Some((force, _)) => Some(force),
            None if self.settings.observes => Some(Force::Observe),
            None => None,
        }
    }

    fn is_ordered(&self) -> bool {
        self.force() == Some(Force::Open) || self.force() == Some(Force::Closed)
    }

    pub(super) fn state(&self) -> State {
        match (self.force(), self.mode) {
            (Some(Force::Open), _) => State::ForcedOpen,
            (Some(Force::Closed), _) => State::ForcedClosed,
            (Some(Force::Observe), _) => State::ObserveOnly,
            (None, Mode::Closed) => State::Closed,
            (None, Mode::Open) => State::Open,
            (None, Mode::Half) => State::HalfOpen,
        }
    }

    pub(super) fn open_until(&self) -> Option<Mono> {
        match self.order {
            Some((Force::Open, until)) => Some(until),
            Some((Force::Closed, _)) => None,
            _ if self.mode == Mode::Closed => None,
            _ => Some(self.until),
        }
    }

    pub(super) fn left_closed(&self) -> Option<Mono> {
        self.left
    }

    /// When the trial under way must be over.
    pub(super) fn trial_deadline(&self) -> Option<Mono> {
        self.trial.filter(|_| self.mode == Mode::Half).map(|(_, deadline)| deadline)
    }

    fn change(&mut self, mode: Mode) {
        self.changes += 1;
        self.mode = mode;
        if mode != Mode::Half {
            self.round += 1;
            self.trial = None;
            self.successes = 0;
        }
        if mode == Mode::Closed && self.force() != Some(Force::Open) {
            self.left = None;
        }
    }

    pub(super) fn pass_time(&mut self, now: Mono, chance: f64) {
        self.now = self.now.max(now);
        if let Some((force, until)) = self.order
            && until <= self.now
        {
            self.end_order(force);
        }
        if self.mode == Mode::Half && self.trial.is_some_and(|(_, deadline)| deadline <= self.now) {
            self.trial_failed(Duration::ZERO, chance);
        }
    }

    fn end_order(&mut self, force: Force) {
        self.order = None;
        // What was ordered open or closed begins anew; what was observed goes on.
        if force == Force::Observe { self.change(self.mode) } else { self.change(Mode::Closed) }
    }

    pub(super) fn obey(&mut self, order: Option<(Force, Mono)>, now: Mono) {
        self.pass_time(now, 0.5);
        match (order, self.order) {
            (Some((force, until)), _) => {
                let was_ordered = self.is_ordered();
                self.order = Some((force, until.min(self.now + LONGEST_ORDER)));
                if force == Force::Open && self.left.is_none() {
                    self.left = Some(self.now);
                }
                let goes_on = force == Force::Observe && !was_ordered;
                self.change(if goes_on { self.mode } else { Mode::Closed });
            }
            (None, Some((force, _))) => self.end_order(force),
            (None, None) => {}
        }
    }

    /// The number of the call, or until when it is refused.
    pub(super) fn admit(
        &mut self,
        need: Need,
        who: u64,
        limit: Duration,
        now: Mono,
        chance: f64,
    ) -> Result<usize, Mono> {
        self.pass_time(now, chance);
        let number = self.calls.len();
        if let Some((Force::Open, until)) = self.order {
            return Err(until);
        }
        let may_try = self.mode == Mode::Half && self.trial.is_none()
            || self.mode == Mode::Open && (self.now >= self.until || need == Need::Owed);
        if may_try {
            if self.mode == Mode::Open {
                self.change(Mode::Half);
            }
            self.trial = Some((number, self.now + limit));
        } else if self.mode != Mode::Closed && need == Need::Usual && self.force().is_none() {
            return Err(self.until);
        }
        self.calls.push(Call { round: self.round, who });
        Ok(number)
    }

    pub(super) fn end(&mut self, number: usize, verdict: Verdict, now: Mono, chance: f64) {
        self.pass_time(now, chance);
        let Call { round, who } = self.calls[number];
        if round != self.round {
            return;
        }
        if self.mode == Mode::Closed {
            self.count(verdict, who, chance);
        } else if self.mode == Mode::Half && self.trial.is_some_and(|(trial, _)| trial == number) {
            self.trial = None;
            match verdict {
                Verdict::Ignored => {}
                Verdict::Failed { after } => self.trial_failed(after.unwrap_or_default(), chance),
                Verdict::Worked => {
                    self.successes += 1;
                    if self.successes == self.settings.successes {
                        self.change(Mode::Closed);
                    }
                }
            }
        }
    }

    pub(super) fn cancel(&mut self, number: usize, now: Mono, chance: f64) {
        let is_trial = self.mode == Mode::Half && self.trial.is_some_and(|(trial, _)| trial == number);
        let verdict = if is_trial { Verdict::Failed { after: None } } else { Verdict::Ignored };
        self.end(number, verdict, now, chance);
    }

    pub(super) fn witness(&mut self, verdict: Verdict, now: Mono, chance: f64) {
        self.pass_time(now, chance);
        match self.mode {
            Mode::Closed if !self.is_ordered() => self.count(verdict, EVERYBODY, chance),
            Mode::Open if verdict == Verdict::Worked && self.until > self.now => self.until = self.now,
            Mode::Closed | Mode::Open | Mode::Half => {}
        }
    }

    fn trial_failed(&mut self, after: Duration, chance: f64) {
        if self.now < self.until {
            self.until = self.until.max(self.now + after);
        } else {
            self.failed_trials += 1;
            self.until = self.now + self.length(chance).max(after);
        }
        self.change(Mode::Open);
    }

    /// 15, 45, 135, 405, 600, 600, … seconds, spread.
    fn length(&self, chance: f64) -> Duration {
        let mut length = self.settings.open;
        for _ in 0..self.failed_trials.min(20) {
            length = (length * self.settings.factor).min(self.settings.longest);
        }
        length.mul_f64(1.0 + self.settings.jitter * (2.0 * chance - 1.0))
    }

    fn count(&mut self, verdict: Verdict, who: u64, chance: f64) {
        let has_failed = matches!(verdict, Verdict::Failed { .. });
        if verdict == Verdict::Ignored {
            return;
        }
        self.results.push(Counted { at: self.now, round: self.round, has_failed, who });
        let Verdict::Failed { after } = verdict else { return };
        let of_round: Vec<&Counted> = self.results.iter().filter(|result| result.round == self.round).collect();
        let streak: Vec<&Counted> = of_round.iter().rev().take_while(|result| result.has_failed).copied().collect();
        let is_streak = streak.len() >= self.settings.failures as usize
            && streak.last().is_some_and(|first| self.now.since(first.at) >= self.settings.over)
            && self.are_enough(&streak);
        let part = |at: Mono| at.0.as_nanos() / (self.settings.within.as_nanos() / PARTS);
        let lately: Vec<&Counted> =
            of_round.iter().filter(|result| part(result.at) + PARTS > part(self.now)).copied().collect();
        let failed: Vec<&Counted> = lately.iter().filter(|result| result.has_failed).copied().collect();
        let is_share = lately.len() >= self.settings.calls as usize
            && failed.first().is_some_and(|first| self.now.since(first.at) >= self.settings.over)
            && failed.len() as f64 >= self.settings.share * lately.len() as f64
            && self.are_enough(&failed);
        if is_streak || is_share {
            self.failed_trials = 0;
            self.left = Some(self.now);
            self.until = self.now + self.length(chance).max(after.unwrap_or_default());
            self.change(Mode::Open);
        }
    }

    fn are_enough(&self, failed: &[&Counted]) -> bool {
        let first = failed.first().map(|result| result.who);
        !self.settings.needs_many || failed.iter().any(|result| result.who == EVERYBODY || Some(result.who) != first)
    }
}
