//! Journeys that are run from several places: what the places see together, and which of them sees nothing but itself.
//!
//! People are told of a journey when so many places agree as its `quorum` says. A place without a verdict, or one that sees all
//! fail that others see well, has no vote; where fewer can vote than the quorum asks for, all of them have to agree: nobody is
//! left untold because places are away.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::detect::Severity;
use crate::journey::outcome::Verdict;

/// A place that sees fewer journeys than these fail is not what they have in common.
const ALL: usize = 2;

/// What a place says of a journey now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether it works.
    pub seen: Seen,
    /// Its last runs that came to the same, good or bad.
    pub streak: Option<Streak>,
}

/// Whether a journey works, as seen from a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// It has had no verdict yet.
    #[default]
    Unseen,
    /// It has had no verdict for too long.
    Nothing,
    /// It works.
    Well,
    /// Something is bad, and not enough of it.
    Unsure,
    /// It does not, so badly.
    Bad(Severity),
}

/// Runs in a row that were good, or were bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    /// Whether they were bad.
    pub is_bad: bool,
    /// The slot of the first.
    pub first: Timestamp,
    /// The slot of the last.
    pub last: Timestamp,
}

impl Streak {
    /// The streak with one run more.
    pub fn with(before: Option<Streak>, is_bad: bool, slot: Timestamp) -> Streak {
        match before {
            Some(streak) if streak.is_bad == is_bad => Streak { last: slot.max(streak.last), ..streak },
            _ => Streak { is_bad, first: slot, last: slot },
        }
    }
}

impl View {
    /// Whether the other place has seen it well while we saw it fail: not before that, and not after.
    fn is_denied_by(&self, other: &View) -> bool {
        match (self.streak, other.streak) {
            (Some(bad), Some(good)) if other.seen == Seen::Well && bad.is_bad && !good.is_bad => {
                bad.first.max(good.first) <= bad.last.min(good.last)
            }
            _ => false,
        }
    }
}

/// What came of asking the places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// Places that have a vote.
    pub able: usize,
    /// How many of them see it fail or slow.
    pub bad: usize,
    /// How many have to.
    pub needed: usize,
    /// How bad it is by as many as have to agree; `None` if they do not.
    pub severity: Option<Severity>,
}

/// Asks the places, of which those of `out` have no vote.
pub fn vote<'p>(places: impl Iterator<Item = (&'p str, Seen)>, quorum: usize, out: &BTreeSet<String>) -> Vote {
    let mut bad: Vec<Severity> = Vec::new();
    let mut able = 0;
    for (_, seen) in
        places.filter(|(place, seen)| !matches!(seen, Seen::Unseen | Seen::Nothing) && !out.contains(*place))
    {
        able += 1;
        if let Seen::Bad(severity) = seen {
            bad.push(severity);
        }
    }
    let needed = quorum.min(able).max(1);
    bad.sort_unstable_by(|one, other| other.cmp(one));
    // As bad as the mildest of the worst that are enough.
    Vote { able, bad: bad.len(), needed, severity: bad.get(needed - 1).copied() }
}

/// Of the places that journeys are run from, those that see all of theirs fail, while others see at least half of these well at the
/// same time: what they see is about themselves. Each journey is given by what its places say of it.
pub fn odd_ones<'p>(journeys: impl Iterator<Item = Vec<(&'p str, View)>>) -> BTreeSet<String> {
    #[derive(Default)]
    struct Tally {
        others: usize,
        bad: usize,
        denied: usize,
    }
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for places in journeys {
        for (place, view) in &places {
            let tally = tallies.entry(place).or_default();
            match view.seen {
                Seen::Unseen | Seen::Nothing => {}
                Seen::Well | Seen::Unsure => tally.others += 1,
                Seen::Bad(_) => {
                    tally.bad += 1;
                    tally.denied += usize::from(places.iter().any(|(_, other)| view.is_denied_by(other)));
                }
            }
        }
    }
    let is_odd = |tally: &Tally| tally.others == 0 && tally.bad >= ALL && tally.denied * 2 >= tally.bad;
    tallies.into_iter().filter(|(_, tally)| is_odd(tally)).map(|(place, _)| place.to_owned()).collect()
}

/// What a journey's slot comes to by what it came to in each of its places; `None` in a place is none yet, and after `is_over`
/// none will come. `None` if it is too early to say.
pub fn round(places: &[Option<Verdict>], quorum: usize, is_over: bool) -> Option<Verdict> {
    let count = |is: &dyn Fn(Verdict) -> bool| places.iter().flatten().filter(|verdict| is(**verdict)).count();
    let failed = count(&|verdict| matches!(verdict, Verdict::Failed | Verdict::Late));
    let slow = count(&|verdict| verdict == Verdict::Slow);
    let good = count(&|verdict| verdict == Verdict::Good);
    if failed >= quorum {
        return Some(Verdict::Failed);
    }
    // So many see it well that those who have not said cannot be enough.
    if good + quorum > places.len() {
        return Some(Verdict::Good);
    }
    if !is_over && places.iter().any(Option::is_none) {
        return None;
    }
    let able = failed + slow + good;
    let needed = quorum.min(able);
    Some(match () {
        () if able == 0 && count(&|verdict| verdict == Verdict::Excluded) > 0 => Verdict::Excluded,
        () if able == 0 => Verdict::Unknown,
        () if failed >= needed => Verdict::Failed,
        () if failed + slow >= needed => Verdict::Slow,
        () => Verdict::Good,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BAD: Seen = Seen::Bad(Severity::Critical);
    const MILD: Seen = Seen::Bad(Severity::Warning);

    fn of(seen: &[Seen], quorum: usize, out: &[&str]) -> Vote {
        let out = out.iter().map(|place| (*place).to_owned()).collect();
        vote(["a", "b", "c", "d"].into_iter().zip(seen.iter().copied()), quorum, &out)
    }

    #[test]
    fn as_many_have_to_agree_as_the_quorum_says() {
        use Seen::{Nothing, Well};
        for (seen, quorum, out, severity) in [
            (&[BAD, Well, Well][..], 2, &[][..], None),
            (&[BAD, BAD, Well], 2, &[], Some(Severity::Critical)),
            // Two see it fail, one of them only slow: so far they agree.
            (&[BAD, MILD, Well], 2, &[], Some(Severity::Warning)),
            (&[BAD, MILD, BAD], 2, &[], Some(Severity::Critical)),
            (&[BAD, Well, Well], 1, &[], Some(Severity::Critical)),
            // Who is away or odd has no vote, and is not waited for.
            (&[BAD, Nothing, Nothing], 2, &[], Some(Severity::Critical)),
            (&[BAD, BAD, Well], 2, &["a"], None),
            (&[BAD, BAD, Nothing], 2, &["a"], Some(Severity::Critical)),
            (&[BAD, Well, Nothing], 2, &[], None),
            (&[Nothing, Nothing, Nothing], 2, &[], None),
            (&[BAD, BAD], 2, &["a", "b"], None),
        ] {
            assert_eq!(of(seen, quorum, out).severity, severity, "{seen:?} of {quorum} without {out:?}");
        }
        assert_eq!(
            of(&[BAD, BAD, Nothing], 3, &[]),
            Vote { able: 2, bad: 2, needed: 2, severity: Some(Severity::Critical) }
        );
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    /// What is seen so since then, until then.
    fn view(seen: Seen, (first, last): (i64, i64)) -> View {
        let streak = Some(Streak { is_bad: matches!(seen, Seen::Bad(_)), first: at(first), last: at(last) });
        View { seen, streak: streak.filter(|_| matches!(seen, Seen::Bad(_) | Seen::Well)) }
    }

    fn odd(journeys: &[&[View]]) -> Vec<String> {
        let named = journeys.iter().map(|views| ["a", "b", "c"].into_iter().zip(views.iter().copied()).collect());
        odd_ones(named).into_iter().collect()
    }

    #[test]
    fn a_place_that_alone_sees_all_fail_is_odd() {
        let (bad, well) = (view(BAD, (100, 160)), view(Seen::Well, (0, 155)));
        let (unsure, nothing) = (view(Seen::Unsure, (0, 0)), View::default());
        // One alone says nothing: it may be that journey.
        assert!(odd(&[&[bad, well, well]]).is_empty());
        assert_eq!(odd(&[&[bad, well, well], &[bad, well, well]]), ["a"]);
        assert!(odd(&[&[bad, well, well], &[well, well, well], &[bad, well, well]]).is_empty());
        assert!(odd(&[&[bad, well, well], &[unsure, well, well], &[bad, well, well]]).is_empty());
        // All fail everywhere: no place is to blame.
        assert!(odd(&[&[bad, bad, bad], &[bad, bad, bad]]).is_empty());
        // Some of them fail everywhere.
        assert_eq!(odd(&[&[bad, bad, bad], &[bad, well, well]]), ["a"]);
        assert!(odd(&[&[bad, bad, bad], &[bad, well, well], &[bad, bad, nothing]]).is_empty());
        // Whom nobody else can speak for is believed.
        assert!(odd(&[&[bad, nothing, unsure], &[bad, nothing, unsure]]).is_empty());
        assert_eq!(odd(&[&[bad, bad, well], &[bad, bad, well]]), ["a", "b"]);
    }

    #[test]
    fn who_hears_of_an_outage_first_or_of_its_end_last_is_not_odd() {
        let two = |views: [View; 3]| odd(&[&views, &views]);
        let bad = view(BAD, (100, 160));
        // The others have not looked since.
        assert!(two([bad, view(Seen::Well, (0, 95)), view(Seen::Well, (0, 99))]).is_empty());
        assert_eq!(two([bad, view(Seen::Well, (0, 95)), view(Seen::Well, (0, 130))]), ["a"]);
        // The others have seen the end of it, and we have not looked since.
        assert!(two([bad, view(Seen::Well, (161, 190)), view(Seen::Well, (170, 170))]).is_empty());
        assert_eq!(two([view(BAD, (100, 175)), view(Seen::Well, (161, 190)), View::default()]), ["a"]);
    }

    #[test]
    fn a_streak_ends_with_what_is_not_the_same() {
        let first = Streak::with(None, true, at(1));
        let second = Streak::with(Some(first), true, at(2));
        assert_eq!((second.first, second.last), (at(1), at(2)));
        assert_eq!(Streak::with(Some(second), true, at(1)).last, at(2), "a late word takes nothing back");
        assert_eq!(Streak::with(Some(second), false, at(3)), Streak { is_bad: false, first: at(3), last: at(3) });
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        use Verdict::{Excluded, Failed, Good, Late, Slow, Unknown};
        prop_oneof![4 => Just(Good), 2 => Just(Failed), 1 => Just(Late), 1 => Just(Slow), 1 => Just(Unknown), 1 => Just(Excluded)]
    }

    proptest! {
        /// Whatever is said early stands when all have spoken, whatever the others say.
        #[test]
        fn what_a_round_comes_to_does_not_change_when_more_is_known(
            all in proptest::collection::vec(verdict(), 1..6),
            order in any::<prop::sample::Index>(),
            quorum in 1usize..6,
        ) {
            let quorum = quorum.min(all.len());
            let last = round(&all.iter().copied().map(Some).collect::<Vec<_>>(), quorum, false).unwrap();
            let mut known = vec![None; all.len()];
            let first = order.index(all.len());
            for nth in 0..all.len() {
                let at = (first + nth) % all.len();
                known[at] = Some(all[at]);
                if let Some(early) = round(&known, quorum, false) {
                    prop_assert_eq!(early, last, "{:?}", known);
                }
            }
            let bad = all.iter().filter(|verdict| matches!(verdict, Verdict::Failed | Verdict::Late)).count();
            let able = all.iter().filter(|verdict| !matches!(verdict, Verdict::Unknown | Verdict::Excluded)).count();
            prop_assert_eq!(last == Verdict::Failed, able > 0 && bad >= quorum.min(able));
            prop_assert!(round(&vec![None; all.len()], quorum, true) == Some(Verdict::Unknown));
        }
    }
}
