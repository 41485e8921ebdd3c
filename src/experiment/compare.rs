//! Two reports of one experiment, held against each other: what was fixed, what is worse, what is the same.

use serde::{Deserialize, Serialize};

use crate::experiment::account::Tally;
use crate::experiment::bounds::Standing;
use crate::experiment::report::Report;
use crate::journey::outcome::labelled;
use crate::time::Human;

labelled! {
    /// How a claim stands against the report before.
    Change {
        /// It held not, and does.
        Fixed = "fixed",
        /// It held, and does not.
        Worse = "worse",
        /// As before.
        Same = "same",
        /// It was not claimed before.
        New = "new",
        /// It is not claimed any more.
        Gone = "gone",
    }
}

/// One claim in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The claim, or the number.
    pub what: String,
    /// What was found then.
    pub before: Option<String>,
    /// What was found now.
    pub now: Option<String>,
    /// How it stands.
    pub change: Change,
}

/// Every claim of both, in the order of the new one.
pub fn claims(before: &Report, now: &Report) -> Vec<Compared> {
    let old = |bound: &str| before.hypothesis.iter().find(|judged| judged.bound == bound);
    let mut all: Vec<_> = now
        .hypothesis
        .iter()
        .map(|judged| {
            let then = old(&judged.bound);
            let change = match then {
                None => Change::New,
                Some(then) => match rank(judged.standing).cmp(&rank(then.standing)) {
                    std::cmp::Ordering::Greater => Change::Fixed,
                    std::cmp::Ordering::Less => Change::Worse,
                    std::cmp::Ordering::Equal => Change::Same,
                },
            };
            let (before, now) = (then.map(|then| then.found.clone()), Some(judged.found.clone()));
            Compared { what: judged.bound.clone(), before, now, change }
        })
        .collect();
    let is_gone = |bound: &str| now.hypothesis.iter().all(|judged| judged.bound != bound);
    all.extend(before.hypothesis.iter().filter(|judged| is_gone(&judged.bound)).map(|judged| Compared {
        what: judged.bound.clone(),
        before: Some(judged.found.clone()),
        now: None,
        change: Change::Gone,
    }));
    all
}

/// Numbers of both, whether or not something is claimed of them: name, then, now.
pub fn numbers(before: &Report, now: &Report) -> Vec<(&'static str, String, String)> {
    let rows = |tally: &Tally| {
        let latency = |of: Option<std::time::Duration>| of.map_or("-".to_owned(), |of| Human(of).to_string());
        [
            ("sent", tally.sent().to_string()),
            ("delivered", tally.delivered().to_string()),
            ("late", tally.late.to_string()),
            ("lost", tally.lost.to_string()),
            ("duplicate", tally.duplicate.to_string()),
            ("reordered", tally.reordered.to_string()),
            ("refused", tally.refused.to_string()),
            ("p50", latency(tally.latency.map(|of| of.p50))),
            ("p99", latency(tally.latency.map(|of| of.p99))),
            ("max", latency(tally.latency.map(|of| of.max))),
        ]
    };
    let pairs = rows(&before.tally).into_iter().zip(rows(&now.tally));
    pairs.map(|((name, then), (_, now))| (name, then, now)).collect()
}

fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::Broken => 0,
        Standing::Unclear => 1,
        Standing::Held => 2,
    }
}
