//! What happened, in order, as a store tells it.

use std::iter::Peekable;
use std::time::Duration;
use std::vec::IntoIter;

use jiff::Timestamp;

use crate::journey::Name;
use crate::journey::outcome::{Cause, Verdict};
use crate::slo::Span;
use crate::store::codes::{WHYS, duration, time};
use crate::time::later;

/// A run, or a slot that none ran for.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Whose.
    pub journey: Name,
    /// Its slot.
    pub slot: Timestamp,
    /// When the run ended, by its slot and its latency; the slot itself if there was none.
    pub ended: Timestamp,
    /// How long the run took.
    pub latency: Duration,
    /// What it counts as.
    pub verdict: Verdict,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// The channel at which it failed.
    pub channel: Option<Name>,
    /// How it happened.
    pub how: How,
}

/// Whether there was a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// There was.
    Ran,
    /// There was none, while others ran.
    Skipped,
    /// Nothing ran.
    Missed,
}

/// A run's row: its journey, slot, verdict, reason, end in milliseconds and latency in microseconds.
pub(super) struct Ran {
    pub(super) journey: Name,
    pub(super) slot: i64,
    pub(super) verdict: Verdict,
    pub(super) why: i64,
    pub(super) ended: i64,
    pub(super) latency: i64,
}

/// The slots without a run among the runs, in order.
pub(super) struct Weave(Peekable<IntoIter<Past>>);

impl Weave {
    pub(super) fn new(mut without: Vec<Past>) -> Weave {
        without.sort_by_key(|past| past.slot);
        Weave(without.into_iter().peekable())
    }

    /// The next run to end, after the slots that none ran for until then. `channel` is where it failed.
    pub(super) fn run(&mut self, ran: Ran, channel: Option<Name>, take: &mut dyn FnMut(Past)) {
        let (slot, ended) = (time(ran.slot), time(ran.ended));
        while let Some(past) = self.0.next_if(|past| past.slot <= ended) {
            // The next run to end began before: something ran at that time.
            let how = if slot <= past.slot { How::Skipped } else { How::Missed };
            take(Past { how, ..past });
        }
        take(Past {
            journey: ran.journey,
            slot,
            ended,
            latency: duration(ran.latency),
            verdict: ran.verdict,
            cause: usize::try_from(ran.why).ok().and_then(|why| WHYS.get(why)?.parse().ok()),
            channel,
            how: How::Ran,
        });
    }

    /// What is left when no run ends any more.
    pub(super) fn end(self, take: &mut dyn FnMut(Past)) {
        self.0.for_each(take);
    }
}

/// Whether the evidence of a run is looked at for where it failed.
pub(super) fn has_failed(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Failed | Verdict::Late | Verdict::Slow)
}

/// The slots of a span after `from`.
pub(super) fn slots(span: &Span, from: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
    let (start, step) = (time(span.start), Duration::from_millis(span.step.unsigned_abs()));
    (0..span.count).map(move |nth| later(start, step * nth)).filter(move |slot| *slot > from)
}

/// A slot that nothing ran for, as far as is known.
pub(super) fn without_run(journey: &Name, slot: Timestamp, verdict: Verdict) -> Past {
    Past {
        journey: journey.clone(),
        slot,
        ended: slot,
        latency: Duration::ZERO,
        verdict,
        cause: None,
        channel: None,
        how: How::Missed,
    }
}
