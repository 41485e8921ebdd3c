//! What is told of an experiment: the count, the claims, and how it went second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::experiment::account::{Account, Entry, Fate, Quantiles, Tally};
use crate::experiment::bounds::{Judged, Standing, judge_load};
use crate::experiment::phases::Finished;
use crate::journey::outcome::labelled;
use crate::journey::token::Token;
use crate::time::{Mono, Now};

/// Of the messages that something is wrong with, so many are named.
const NAMED: usize = 1_000;

labelled! {
    /// What an experiment came to.
    Ending {
        /// Everything was done that was to be done, and the hypothesis held.
        Held = "held",
        /// It did not hold.
        Failed = "failed",
        /// It was ended before its time.
        Aborted = "aborted",
        /// Nobody knows: the fault took no effect, the load was not what was asked for, or the receiver was away.
        NotTested = "not_tested",
        /// Something could not be undone.
        Stuck = "undo_failed",
    }
}

impl Ending {
    /// The exit code of `journeyman experiment`.
    pub fn exit_code(self) -> u8 {
        match self {
            Ending::Held => 0,
            Ending::Failed => 1,
            Ending::Aborted => 2,
            Ending::NotTested => 3,
            Ending::Stuck => 4,
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Ending::Held => "the hypothesis held",
            Ending::Failed => "the hypothesis failed",
            Ending::Aborted => "aborted",
            Ending::NotTested => "not tested",
            Ending::Stuck => "not undone",
        }
    }
}

/// An experiment, told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Against what.
    pub target: String,
    /// Who allowed that.
    pub permission: Option<String>,
    /// The journey that the messages went.
    pub journey: String,
    /// That journey's deadline: what comes after it is late.
    #[serde(with = "crate::time::micros")]
    pub deadline: Duration,
    /// When it began.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Timestamp,
    /// What it came to.
    pub ending: Ending,
    /// Why it came to nothing, if it did.
    pub why: Option<String>,
    /// The count.
    pub tally: Tally,
    /// The hypothesis, claim by claim.
    pub hypothesis: Vec<Judged>,
    /// Its parts, in order.
    pub phases: Vec<Part>,
    /// Second by second, from the beginning.
    pub seconds: Vec<Second>,
    /// What was done, in order.
    pub acts: Vec<Act>,
    /// Messages that something is wrong with, the first thousand.
    pub messages: Vec<Named>,
    /// The version of the program.
    pub version: String,
}

/// A part of an experiment: the messages that were due in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// `steady`, `drain`, or a phase's name.
    pub name: String,
    /// From the beginning of the experiment.
    #[serde(with = "crate::time::micros")]
    pub from: Duration,
    /// The same.
    #[serde(with = "crate::time::micros")]
    pub to: Duration,
    /// What became of them.
    pub tally: Tally,
}

/// One second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Messages that were sent in it.
    pub sent: u32,
    /// Messages that were whole in it.
    pub arrived: u32,
    /// Those of these that were late.
    pub late: u32,
    /// Of those that were sent in it: lost, or gone unseen.
    pub lost: u32,
    /// Of those that were sent in it: refused, or without an answer.
    pub refused: u32,
    /// Latencies of those that were sent in it.
    pub latency: Option<Quantiles>,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// From the beginning of the experiment.
    #[serde(with = "crate::time::micros")]
    pub at: Duration,
    /// How long it took.
    #[serde(with = "crate::time::micros")]
    pub took: Duration,
    /// Of which phase.
    pub phase: String,
    /// What: a command, or a proxy's faults.
    pub what: String,
    /// What it came to, if that is worth a word.
    pub result: Option<String>,
    /// Whether it went as it should.
    pub is_ok: bool,
}

/// A message that something is wrong with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its number, in the order of sending.
    pub number: usize,
    /// Its token.
    pub token: Token,
    /// When it was sent.
    pub sent: Timestamp,
    /// What became of it.
    pub fate: Fate,
    /// Copies too many.
    pub copies: u32,
    /// Why.
    pub why: Option<String>,
}

/// What the edge knows beside the account.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Against what.
    pub target: String,
    /// Who allowed that.
    pub permission: Option<String>,
    /// The journey.
    pub journey: String,
    /// Its deadline.
    pub deadline: Duration,
    /// When it began.
    pub began: Now,
    /// When it was over.
    pub ended: Now,
    /// How the machine ended.
    pub finished: Finished,
    /// The claims, judged.
    pub hypothesis: Vec<Judged>,
    /// When each part began.
    pub marks: Vec<(String, Mono)>,
    /// What was done.
    pub acts: Vec<Act>,
}

/// The report of an account that is closed.
pub fn report(account: &Account, told: Told) -> Report {
    let tally = account.tally(told.ended.mono);
    let (ending, why) = verdict(&told.finished, &tally, &told.hypothesis);
    let offset = |at: Mono| at.since(told.began.mono);
    let mut phases = Vec::new();
    for (at, (name, from)) in told.marks.iter().enumerate() {
        let to = told.marks.get(at + 1).map_or(told.ended.mono, |(_, next)| *next);
        // What was due before the first mark belongs to it: there is no part before it.
        let is_in = |entry: &&Entry| (at == 0 || entry.due >= *from) && (entry.due < to || at + 1 == told.marks.len());
        let tally = account.tally_of(account.entries().iter().filter(is_in), told.ended.mono);
        phases.push(Part { name: name.clone(), from: offset(*from), to: offset(to), tally });
    }
    Report {
        name: told.name,
        description: told.description,
        target: told.target,
        permission: told.permission,
        journey: told.journey,
        deadline: told.deadline,
        started: told.began.wall,
        ended: told.ended.wall,
        ending,
        why,
        tally,
        hypothesis: told.hypothesis,
        phases,
        seconds: seconds(account, told.began.mono, told.ended.mono),
        acts: told.acts,
        messages: named(account, told.began),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// What it came to: what went wrong on the way comes first, then the claims, and what is unclear never counts as held.
fn verdict(finished: &Finished, tally: &Tally, hypothesis: &[Judged]) -> (Ending, Option<String>) {
    if finished.ending != Ending::Held {
        return (finished.ending, finished.why.clone());
    }
    let said = |judged: &Judged| format!("{}: {}", judged.bound, judged.found);
    let first = |standing| hypothesis.iter().find(|judged| judged.standing == standing);
    match (first(Standing::Broken), judge_load(tally), first(Standing::Unclear)) {
        (Some(broken), ..) => (Ending::Failed, Some(said(broken))),
        (None, Some(why), _) => (Ending::NotTested, Some(why)),
        (None, None, Some(unclear)) => (Ending::NotTested, Some(said(unclear))),
        (None, None, None) => (Ending::Held, None),
    }
}

fn seconds(account: &Account, began: Mono, ended: Mono) -> Vec<Second> {
    let count = ended.since(began).as_secs() as usize + 1;
    let mut seconds = vec![Second::default(); count];
    let mut latencies: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    let place = |at: Mono| (at.since(began).as_secs() as usize).min(count - 1);
    for entry in account.entries() {
        let fate = account.fate(entry);
        if fate == Fate::Unsent {
            continue;
        }
        let sent = place(entry.started.unwrap_or(entry.due));
        let second = &mut seconds[sent];
        second.sent += 1;
        second.lost += u32::from(matches!(fate, Fate::Lost | Fate::Unseen));
        second.refused += u32::from(matches!(fate, Fate::Refused | Fate::Uncertain));
        if let Some(here) = entry.here() {
            latencies.entry(sent).or_default().extend(entry.latency());
            let second = &mut seconds[place(here)];
            second.arrived += 1;
            second.late += u32::from(fate == Fate::Late);
        }
    }
    for (at, latencies) in latencies {
        seconds[at].latency = Quantiles::of(latencies);
    }
    seconds
}

fn named(account: &Account, began: Now) -> Vec<Named> {
    let mut named = Vec::new();
    for (number, entry) in account.entries().iter().enumerate() {
        let fate = account.fate(entry);
        let is_well = matches!(fate, Fate::OnTime | Fate::Late) && entry.extra() == 0;
        if is_well || named.len() == NAMED {
            continue;
        }
        named.push(Named {
            number,
            token: entry.token,
            sent: began.wall_at(entry.started.unwrap_or(entry.due)),
            fate,
            copies: entry.extra(),
            why: entry.why().map(str::to_owned),
        });
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::account::{Answer, Stream};

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(millis))
    }

    fn now(millis: u64) -> Now {
        Now { wall: Timestamp::UNIX_EPOCH, mono: at(millis) }
    }

    #[test]
    fn parts_and_seconds_come_to_the_whole() {
        let mut account = Account::new(vec![Stream { channel: "in".into(), wanted: 1 }], Duration::from_secs(1));
        for number in 0..40u64 {
            let token = Token::from_bits(u128::from(number));
            let sent = 1_000 + number * 100;
            let entry = account.begin(token, at(sent));
            account.sending(entry, at(sent));
            account.answered(entry, Answer::Accepted, at(sent + 1));
            match number % 10 {
                0 => {}
                1 => account.arrived("in", token, None, 0, at(sent + 1_500)),
                _ => account.arrived("in", token, None, 0, at(sent + 200)),
            }
        }
        account.close(at(9_000), true);
        let marks =
            vec![("steady".to_owned(), at(1_000)), ("cut".to_owned(), at(3_000)), ("drain".to_owned(), at(5_000))];
        let told = Told {
            name: "n".to_owned(),
            description: None,
            target: "staging".to_owned(),
            permission: None,
            journey: "order".to_owned(),
            deadline: Duration::from_secs(1),
            began: now(1_000),
            ended: now(9_000),
            finished: Finished { ending: Ending::Held, why: None, is_drained: true },
            hypothesis: Vec::new(),
            marks,
            acts: Vec::new(),
        };
        let report = report(&account, told);
        assert_eq!(report.ending, Ending::Held);
        assert_eq!((report.tally.lost, report.tally.late, report.tally.on_time), (4, 4, 32));
        assert_eq!(report.phases.iter().map(|part| part.tally.due).collect::<Vec<_>>(), [20, 20, 0]);
        let sum = |of: fn(&Second) -> u32| report.seconds.iter().map(of).sum::<u32>();
        assert_eq!((sum(|s| s.sent), sum(|s| s.arrived), sum(|s| s.lost), sum(|s| s.late)), (40, 36, 4, 4));
        assert_eq!(report.messages.iter().map(|named| named.number).collect::<Vec<_>>(), [0, 10, 20, 30]);
        let read: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(read, report);
    }

    #[test]
    fn what_is_unclear_is_never_green() {
        let judged = |standing| Judged { bound: "lost at most 0".to_owned(), found: "?".to_owned(), standing };
        let tally = Tally { due: 1, on_time: 1, ..Tally::default() };
        let held = Finished { ending: Ending::Held, why: None, is_drained: true };
        let ending = |finished: &Finished, all: &[Standing], tally: &Tally| {
            verdict(finished, tally, &all.iter().map(|one| judged(*one)).collect::<Vec<_>>()).0
        };
        use Standing::*;
        assert_eq!(ending(&held, &[Standing::Held], &tally), Ending::Held);
        assert_eq!(ending(&held, &[Standing::Held, Unclear], &tally), Ending::NotTested);
        assert_eq!(ending(&held, &[Unclear, Broken], &tally), Ending::Failed);
        assert_eq!(ending(&held, &[Standing::Held], &Tally::default()), Ending::NotTested);
        let aborted = Finished { ending: Ending::Aborted, ..held };
        assert_eq!(ending(&aborted, &[Broken], &tally), Ending::Aborted);
    }
}
