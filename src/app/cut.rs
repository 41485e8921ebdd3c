//! Whether a daemon is cut off from the store that it shares: decided from what became of each attempt to reach it.

use std::time::Duration;

use crate::time::Mono;

/// A store that has said no for so long is away: by then whoever decides has followed us, if it is we alone who are cut off.
pub(super) const CUT: Duration = Duration::from_secs(10);
/// A store that has answered for so long is back: one that comes and goes is one story.
pub(super) const BACK: Duration = Duration::from_secs(10);
/// People hear that a daemon is cut off again and again this often at most.
const TELL_AGAIN: Duration = Duration::from_secs(3_600);

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is cut off from now on. Whether people are told so depends on when they were told last.
    Off {
        /// Whether they are.
        is_told: bool,
    },
    /// It is not any more.
    Back,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// The store answers.
    #[default]
    With,
    /// It has said no since.
    Failing(Mono),
    /// It is cut off; the store has answered since, if it does.
    Off(Option<Mono>),
}

/// How a daemon stands with its store.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    standing: Standing,
    told: Option<Mono>,
}

impl Cut {
    /// Cut off since before it began, as people were told by the process before.
    pub(super) fn off(now: Mono) -> Cut {
        Cut { standing: Standing::Off(None), told: Some(now) }
    }

    /// Whether the store has to be asked although there is nothing to say.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.standing != Standing::With
    }

    /// The store was asked at `asked`, and it is known at `now` whether it did what it was asked for.
    #[must_use]
    pub(super) fn note(&mut self, is_done: bool, asked: Mono, now: Mono) -> Option<Turn> {
        match (self.standing, is_done) {
            (Standing::With, true) => None,
            (Standing::Failing(_), true) => {
                self.standing = Standing::With;
                None
            }
            (Standing::Off(answers), true) => {
                let since = answers.unwrap_or(now);
                let is_back = now.since(since) >= BACK;
                self.standing = if is_back { Standing::With } else { Standing::Off(Some(since)) };
                is_back.then_some(Turn::Back)
            }
            (Standing::Off(_), false) => {
                self.standing = Standing::Off(None);
                None
            }
            (Standing::With | Standing::Failing(_), false) => {
                let since = match self.standing {
                    Standing::Failing(since) => since,
                    // An answer that took long is a no since it was asked for.
                    Standing::With | Standing::Off(_) => asked,
                };
                if now.since(since) < CUT {
                    self.standing = Standing::Failing(since);
                    return None;
                }
                self.standing = Standing::Off(None);
                let is_told = self.told.is_none_or(|told| now.since(told) >= TELL_AGAIN);
                if is_told {
                    self.told = Some(now);
                }
                Some(Turn::Off { is_told })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    /// Asked and answered at once.
    fn play(cut: &mut Cut, answers: &[(u64, bool)]) -> Vec<(u64, Turn)> {
        answers.iter().filter_map(|(when, is_done)| Some((*when, cut.note(*is_done, at(*when), at(*when))?))).collect()
    }

    const OFF: Turn = Turn::Off { is_told: true };

    #[test]
    fn ten_seconds_of_no_are_an_outage_and_ten_of_yes_its_end() {
        let answers: Vec<_> = (0..40).map(|second| (second, !(5..20).contains(&second))).collect();
        assert_eq!(play(&mut Cut::default(), &answers), [(15, OFF), (30, Turn::Back)]);
    }

    #[test]
    fn an_outage_of_the_process_before_goes_on_and_ends_as_any_other() {
        let mut cut = Cut::off(at(3));
        assert!(cut.is_in_doubt());
        let answers: Vec<_> = (4..60).map(|second| (second, second >= 30)).collect();
        assert_eq!(play(&mut cut, &answers), [(40, Turn::Back)]);
    }

    #[test]
    fn one_long_silence_is_as_long_as_it_took() {
        let mut cut = Cut::default();
        assert_eq!(cut.note(false, at(3), at(12)), None);
        assert_eq!(cut.note(false, at(13), at(19)), Some(OFF));
        let mut cut = Cut::default();
        assert_eq!(cut.note(false, at(3), at(13)), Some(OFF));
    }

    #[test]
    fn a_store_that_comes_and_goes_is_one_story() {
        // Away for five of every seven seconds: never for long enough.
        let short: Vec<_> = (0..700).map(|second| (second, second % 7 < 2)).collect();
        assert_eq!(play(&mut Cut::default(), &short), []);
        // There for two of every seventeen: cut off once, and never back.
        let long: Vec<_> = (0..700).map(|second| (second, second % 17 < 2)).collect();
        assert_eq!(play(&mut Cut::default(), &long), [(12, OFF)]);
        // There and away for twelve each: told once an hour.
        let even: Vec<_> = (0..4_000).map(|second| (second, second % 24 < 12)).collect();
        let turns = play(&mut Cut::default(), &even);
        let told: Vec<_> = turns.iter().filter(|(_, turn)| *turn == OFF).map(|(when, _)| *when).collect();
        assert_eq!(told, [22, 22 + 24 * 150]);
        assert_eq!(turns.iter().filter(|(_, turn)| *turn == Turn::Back).count(), 166);
    }
}
