//! A careful start: after a crash loop a part of the permits is held back until the daemon has lived for a while. Whatever killed it
//! by its load finds less of it, and critical journeys keep their share.

use tokio::sync::OwnedSemaphorePermit;

use super::{Observation, Permits, Scheduler};
use crate::alert::Subject;
use crate::boots::CAREFUL;
use crate::detect::{Detector, Finding};
use crate::time::{Human, Mono};

/// What a careful start leaves of the permits, and at least so many.
const SHARE: usize = 4;
const LEAST: usize = 4;

/// Permits that nobody may have yet.
pub(super) struct Careful {
    until: Mono,
    _held: [Option<OwnedSemaphorePermit>; 2],
}

impl Permits {
    /// Holds all but a part back.
    fn hold_back(&self) -> [Option<OwnedSemaphorePermit>; 2] {
        [&self.all, &self.ordinary].map(|permits| {
            let all = permits.available_permits();
            let held = all - (all / SHARE).max(LEAST).min(all);
            permits.clone().try_acquire_many_owned(u32::try_from(held).unwrap_or(u32::MAX)).ok()
        })
    }
}

impl Scheduler {
    /// Begins carefully, after so many crashes in a row; in order after fewer than make a loop.
    pub fn after_crashes(mut self, crashes: usize) -> Scheduler {
        let is_loop = crashes >= crate::boots::CRASHES;
        if is_loop {
            let until = self.clock.now().mono + CAREFUL;
            self.careful = Some(Careful { until, _held: self.hands.permits.hold_back() });
        }
        self.hands.metrics.safe_mode.set(f64::from(u8::from(is_loop)));
        self.untold.push_back(condition(is_loop.then(|| said(crashes))));
        self
    }

    /// Goes on with everything, once it has lived for long enough.
    pub(super) fn end_careful(&mut self, now: Mono) {
        if self.careful.as_ref().is_some_and(|careful| now >= careful.until) {
            self.careful = None;
            self.hands.metrics.safe_mode.set(0.0);
            tracing::info!("the daemon has lived for {}; it runs as many journeys at once as it may", Human(CAREFUL));
            self.untold.push_back(condition(None));
        }
    }
}

fn said(crashes: usize) -> String {
    format!("{crashes} starts in a row crashed; in safe mode: for {} a quarter of the runs at once", Human(CAREFUL))
}

fn condition(said: Option<String>) -> Observation {
    let findings = said.into_iter().map(|said| Finding::new(Detector::CrashLoop, said)).collect();
    Observation::Condition { subject: Subject::Daemon("crash loop".into()), findings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_left_and_what_is_held_comes_back() {
        let permits = Permits::new(512);
        let held = permits.hold_back();
        assert_eq!((permits.all.available_permits(), permits.ordinary.available_permits()), (128, 96));
        drop(held);
        assert_eq!((permits.all.available_permits(), permits.ordinary.available_permits()), (512, 384));
        let few = Permits::new(4);
        let _held = few.hold_back();
        assert_eq!((few.all.available_permits(), few.ordinary.available_permits()), (4, 3), "never fewer than these");
    }
}
