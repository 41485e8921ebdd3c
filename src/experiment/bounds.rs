//! What is claimed of an experiment, and whether it held. What cannot be known does not hold and is not broken: it is unclear.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::experiment::account::{Lately, Quantiles, Tally};
use crate::journey::outcome::labelled;
use crate::time::Human;

/// Of what was due, at least this share must have been sent: what a smaller load shows says nothing of the one that was asked for.
pub const LEAST_SENT: f64 = 0.9;

labelled! {
    /// What can be claimed.
    Quantity {
        /// Came as it should, in time or late. As a share: of what the system took.
        Delivered = "delivered",
        /// Was taken and never came.
        Lost = "lost",
        /// Copies too many.
        Duplicate = "duplicate",
        /// Was overtaken.
        Reordered = "reordered",
        /// Came after the journey's deadline.
        Late = "late",
        /// Came, and was not what the journey expects.
        Wrong = "wrong",
        /// Was not taken, and never came. As a share: of what was sent.
        Refused = "refused",
        /// Had no clear answer, and never came. As a share: of what was sent.
        Uncertain = "uncertain",
        /// Should have been here by now; only while the experiment goes on.
        Overdue = "overdue",
        /// The share of sends that were refused or had no clear answer.
        ErrorRate = "error_rate",
        /// Half of the latencies are at most this.
        P50 = "p50",
        /// Nine of ten.
        P90 = "p90",
        /// Ninety-nine of a hundred.
        P99 = "p99",
        /// All.
        Max = "max",
    }
}

impl Quantity {
    /// Whether it is a length of time.
    pub fn is_time(self) -> bool {
        matches!(self, Quantity::P50 | Quantity::P90 | Quantity::P99 | Quantity::Max)
    }
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many.
    Count(u64),
    /// Such a share.
    Share(f64),
    /// So long.
    Time(Duration),
    /// What a query says.
    Number(f64),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Share(share) => {
                let percent = format!("{:.3}", share * 100.0);
                write!(f, "{}%", percent.trim_end_matches('0').trim_end_matches('.'))
            }
            Amount::Time(time) => Human(*time).fmt(f),
            Amount::Number(number) => write!(f, "{number}"),
        }
    }
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// No more.
    AtMost,
    /// No less.
    AtLeast,
    /// Exactly.
    Equals,
}

impl Comparison {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Comparison::AtMost => "at most",
            Comparison::AtLeast => "at least",
            Comparison::Equals => "exactly",
        }
    }

    /// Whether a number keeps it, that may be anything from `low` to `high`.
    fn judge(self, low: f64, high: f64, wanted: f64) -> Standing {
        let (is_surely, is_perhaps) = match self {
            Comparison::AtMost => (high <= wanted, low <= wanted),
            Comparison::AtLeast => (low >= wanted, high >= wanted),
            Comparison::Equals => (low == wanted && high == wanted, low <= wanted && wanted <= high),
        };
        match (is_surely, is_perhaps) {
            (true, _) => Standing::Held,
            (false, true) => Standing::Unclear,
            (false, false) => Standing::Broken,
        }
    }
}

/// One claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Of what.
    pub quantity: Quantity,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub amount: Amount,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.quantity, self.comparison.words(), self.amount)
    }
}

/// A claim about what Prometheus says.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Where it is.
    pub url: String,
    /// What is asked: its answer is one number.
    pub query: String,
    /// How that is compared.
    pub comparison: Comparison,
    /// With what.
    pub amount: f64,
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.query, self.comparison.words(), self.amount)
    }
}

impl Query {
    /// What an answer means; `Err` says why there is none, and then nothing is known.
    pub fn judge(&self, answer: Result<f64, String>) -> Judged {
        let (found, standing) = match answer {
            Ok(number) if number.is_nan() => ("NaN".to_owned(), Standing::Unclear),
            Ok(number) => (number.to_string(), self.comparison.judge(number, number, self.amount)),
            Err(why) => (why, Standing::Unclear),
        };
        Judged { bound: self.to_string(), found, standing }
    }
}

labelled! {
    /// Whether a claim held.
    Standing {
        /// It did.
        Held = "held",
        /// It did not.
        Broken = "broken",
        /// Nobody can say.
        Unclear = "unclear",
    }
}

/// A claim and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The claim.
    pub bound: String,
    /// What was found.
    pub found: String,
    /// Whether it held.
    pub standing: Standing,
}

impl Bound {
    /// Whether it held, by the whole count. What went unseen may have been anything.
    pub fn judge(&self, tally: &Tally) -> Judged {
        let unseen = tally.unseen as f64;
        let counted = |count: u64| (count as f64, count as f64);
        let perhaps = |count: u64| (count as f64, count as f64 + unseen);
        let (low, high) = match self.quantity {
            Quantity::Delivered => perhaps(tally.delivered()),
            Quantity::Lost => perhaps(tally.lost),
            Quantity::Duplicate => perhaps(tally.duplicate),
            Quantity::Reordered => perhaps(tally.reordered),
            Quantity::Late => perhaps(tally.late),
            Quantity::Wrong => perhaps(tally.wrong),
            Quantity::Refused => counted(tally.refused),
            Quantity::Uncertain => counted(tally.uncertain),
            Quantity::Overdue => counted(tally.overdue),
            Quantity::ErrorRate => counted(tally.errors),
            Quantity::P50 | Quantity::P90 | Quantity::P99 | Quantity::Max => {
                return self.judge_latency(tally.latency, tally.unseen == 0);
            }
        };
        let whole = match self.quantity {
            Quantity::Refused | Quantity::Uncertain | Quantity::Overdue | Quantity::ErrorRate => tally.sent(),
            _ => tally.taken(),
        };
        self.judge_count((low, high), whole)
    }

    /// Whether it is kept just now, by what happened lately: for what ends an experiment before its time.
    pub fn judge_now(&self, tally: &Tally, lately: &Lately) -> Judged {
        match self.quantity {
            Quantity::P50 | Quantity::P90 | Quantity::P99 | Quantity::Max => self.judge_latency(lately.latency, true),
            Quantity::ErrorRate => self.judge_count((lately.errors as f64, lately.errors as f64), lately.answered),
            _ => self.judge(tally),
        }
    }

    fn judge_count(&self, (low, high): (f64, f64), whole: u64) -> Judged {
        let said = |number: &dyn fmt::Display, low: f64, high: f64| {
            if low == high { number.to_string() } else { format!("{number}, perhaps more: {} went unseen", high - low) }
        };
        let (found, standing) = match self.amount {
            Amount::Share(_) if whole == 0 => ("nothing to take a share of".to_owned(), Standing::Unclear),
            Amount::Share(wanted) => {
                // Rounding must not make a share of one out of all but one.
                let (shown, standing) =
                    (Amount::Share(low / whole as f64), self.comparison.judge(low, high, wanted * whole as f64));
                (format!("{} ({low} of {whole})", said(&shown, low, high)), standing)
            }
            Amount::Count(wanted) => (said(&low, low, high), self.comparison.judge(low, high, wanted as f64)),
            Amount::Time(_) | Amount::Number(_) => ("no such thing".to_owned(), Standing::Unclear),
        };
        Judged { bound: self.to_string(), found, standing }
    }

    fn judge_latency(&self, latency: Option<Quantiles>, is_all: bool) -> Judged {
        let found = latency.map(|latency| match self.quantity {
            Quantity::P50 => latency.p50,
            Quantity::P90 => latency.p90,
            Quantity::P99 => latency.p99,
            _ => latency.max,
        });
        let (found, standing) = match (found, self.amount) {
            (Some(found), Amount::Time(wanted)) => {
                let low = found.as_secs_f64();
                let high = if is_all { low } else { f64::INFINITY };
                (Human(found).to_string(), self.comparison.judge(low, high, wanted.as_secs_f64()))
            }
            _ => ("nothing arrived".to_owned(), Standing::Unclear),
        };
        Judged { bound: self.to_string(), found, standing }
    }
}

/// That enough was sent: a claim that every hypothesis makes.
pub fn judge_load(tally: &Tally) -> Option<String> {
    let is_enough = tally.due > 0 && tally.sent() as f64 >= tally.due as f64 * LEAST_SENT;
    (!is_enough).then(|| {
        format!(
            "only {} of {} messages that were due could be sent; that is not the load that was asked for",
            tally.sent(),
            tally.due
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(quantity: Quantity, comparison: Comparison, amount: Amount) -> Bound {
        Bound { quantity, comparison, amount }
    }

    #[test]
    fn what_went_unseen_makes_claims_unclear_and_breaks_none() {
        let all = Amount::Share(1.0);
        let table = [
            // on time, lost, unseen; delivered ≥ 100 %, lost ≤ 0, lost = 2
            ((10, 0, 0), [Standing::Held, Standing::Held, Standing::Broken]),
            ((10, 2, 0), [Standing::Broken, Standing::Broken, Standing::Held]),
            ((10, 0, 3), [Standing::Unclear, Standing::Unclear, Standing::Unclear]),
            ((10, 1, 3), [Standing::Broken, Standing::Broken, Standing::Unclear]),
            ((0, 0, 0), [Standing::Unclear, Standing::Held, Standing::Broken]),
        ];
        for ((on_time, lost, unseen), expected) in table {
            let tally = Tally { due: on_time + lost + unseen, on_time, lost, unseen, ..Tally::default() };
            let judged = [
                bound(Quantity::Delivered, Comparison::AtLeast, all),
                bound(Quantity::Lost, Comparison::AtMost, Amount::Count(0)),
                bound(Quantity::Lost, Comparison::Equals, Amount::Count(2)),
            ]
            .map(|bound| bound.judge(&tally).standing);
            assert_eq!(judged, expected, "{tally:?}");
        }
    }

    #[test]
    fn a_share_is_of_what_was_taken_and_is_not_rounded() {
        let tally = Tally { due: 100_001, on_time: 100_000, lost: 1, ..Tally::default() };
        let judged = bound(Quantity::Delivered, Comparison::AtLeast, Amount::Share(1.0)).judge(&tally);
        assert_eq!((judged.standing, &*judged.found), (Standing::Broken, "99.999% (100000 of 100001)"));
        let tally = Tally { due: 10, refused: 5, on_time: 5, ..Tally::default() };
        let judged = bound(Quantity::Delivered, Comparison::AtLeast, Amount::Share(1.0)).judge(&tally);
        assert_eq!(judged.standing, Standing::Held, "what was refused was never promised");
        let judged = bound(Quantity::Refused, Comparison::AtMost, Amount::Share(0.1)).judge(&tally);
        assert_eq!((judged.standing, &*judged.found), (Standing::Broken, "50% (5 of 10)"));
    }

    #[test]
    fn latency_is_of_what_came_and_nothing_is_claimed_of_nothing() {
        let second = Duration::from_secs(1);
        let of = |p99| Some(Quantiles { p50: p99, p90: p99, p99, max: p99 });
        let claim = bound(Quantity::P99, Comparison::AtMost, Amount::Time(second));
        let judge = |latency, unseen| claim.judge(&Tally { latency, unseen, ..Tally::default() }).standing;
        assert_eq!(judge(of(second), 0), Standing::Held);
        assert_eq!(judge(of(second * 2), 0), Standing::Broken);
        assert_eq!(judge(of(second), 1), Standing::Unclear);
        assert_eq!(judge(None, 0), Standing::Unclear);
    }

    #[test]
    fn a_load_that_could_not_be_sent_is_no_test() {
        assert!(judge_load(&Tally { due: 100, unsent: 10, ..Tally::default() }).is_none());
        assert!(judge_load(&Tally { due: 100, unsent: 11, ..Tally::default() }).is_some());
        assert!(judge_load(&Tally::default()).is_some());
    }
}
