//! T24: what people hear of a storm that comes and goes, what it takes to keep that, and what its end brings about.

use std::collections::BTreeMap;

use super::life::Told;
use super::profile::{BEGIN, Profile, STORM_ENDS, storm_fails};

/// The systems of such a world: so many causes a storm has, all at once.
const CAUSES: usize = 3;
/// Calls for people to look: everything but an edit of what they were told, and the end.
const PAGES: [&str; 3] = ["first", "worse", "repeat"];
const OUTBOX: usize = 64 * 1024 * 1024;

/// What came of a storm.
pub(crate) struct Storm {
    journeys: usize,
    told: Told,
    /// Messages by what they are for.
    by_reason: BTreeMap<String, usize>,
    /// Messages that call for people, in the worst of the times from one failure to the next.
    pages: usize,
    /// Messages of any kind in the busiest minute.
    minute: usize,
    /// Messages that the systems were given in the busiest second, and in that of any minute in which nothing changed.
    busiest: u32,
    usual: u32,
}

impl Storm {
    /// What is to be said of this one.
    pub(crate) fn of(profile: &Profile, told: Told) -> Storm {
        let second = |at: jiff::Timestamp| at.as_second() - BEGIN;
        let (mut by_reason, mut minutes): (BTreeMap<_, usize>, BTreeMap<i64, usize>) = Default::default();
        for taken in &told.taken {
            *by_reason.entry(taken.reason.clone()).or_default() += 1;
            *minutes.entry(second(taken.at) / 60).or_default() += 1;
        }
        let begins: Vec<i64> = storm_fails().map(|(from, _)| from as i64).collect();
        let ends = begins.iter().skip(1).copied().chain([i64::MAX]);
        let pages = |from: i64, until: i64| {
            let is_one = |at: i64, reason: &str| (from..until).contains(&at) && PAGES.contains(&reason);
            told.taken.iter().filter(|taken| is_one(second(taken.at), &taken.reason)).count()
        };
        let pages = begins.iter().zip(ends).map(|(from, until)| pages(*from, until)).max().unwrap_or(0);
        let most = |from: u64, until: u64| {
            told.sends.range(from as i64..until as i64).map(|(_, count)| *count).max().unwrap_or(0)
        };
        let (busiest, usual) = (most(0, STORM_ENDS + 600), most(60, begins[0] as u64));
        let minute = minutes.into_values().max().unwrap_or(0);
        Storm { journeys: profile.journeys, told, by_reason, pages, minute, busiest, usual }
    }

    /// In a sentence.
    pub(crate) fn say(&self) -> String {
        let reasons: Vec<_> = self.by_reason.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        format!(
            "messages: {}; at most {} in a minute, and {} that call for people each time; notices in the outbox {:.2} MiB; \
             runs in the busiest second {}, before the storm {}",
            reasons.join(", "),
            self.minute,
            self.pages,
            self.outbox_mib(),
            self.busiest,
            self.usual
        )
    }

    fn outbox_mib(&self) -> f64 {
        self.told.outbox as f64 / 1_048_576.0
    }

    /// The promises that were broken.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = self.told.broken.clone();
        let mut hold = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        hold(self.pages > 0, "nobody was told of a storm".to_owned());
        let calls = self.told.taken.iter().filter(|taken| PAGES.contains(&&*taken.reason));
        let calls: Vec<_> = calls.map(|taken| format!("{} {} {}", taken.at, taken.reason, taken.title)).collect();
        hold(self.pages <= CAUSES, format!("I12: {} calls for people for {CAUSES} causes: {calls:#?}", self.pages));
        hold(self.minute <= 5 * CAUSES, format!("I12: {} messages in a minute", self.minute));
        hold(self.told.outbox <= OUTBOX, format!("the outbox holds {:.1} MiB", self.outbox_mib()));
        let herd = format!("a herd: {} runs in a second, where {} are usual", self.busiest, self.usual);
        hold(self.busiest <= 2 * self.usual.max(self.journeys as u32 / 60), herd);
        broken
    }
}
