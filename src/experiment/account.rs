//! The account: every message of an experiment by its token, from when it was due to the last copy of it. What became of it is
//! decided here and nowhere else, and each message is one thing only.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::experiment::order::{Passage, reordered};
use crate::journey::Name;
use crate::journey::message::Part;
use crate::journey::outcome::labelled;
use crate::journey::token::Token;
use crate::time::Mono;

/// A send that begins later than this after it was due is a late one: by then the load is no longer what was asked for.
pub const LATE_SEND: Duration = Duration::from_millis(100);

labelled! {
    /// What became of a message. Each is exactly one of these.
    Fate {
        /// Never sent, through a fault of ours: a receiver was not ready, or the experiment ended before.
        Unsent = "unsent",
        /// The system did not take it, and said so; it never came.
        Refused = "refused",
        /// The send ended without a clear answer, and it never came: nobody had promised it.
        Uncertain = "uncertain",
        /// On its way, and the experiment goes on.
        Waiting = "waiting",
        /// All of it came, as it should be, within the journey's deadline.
        OnTime = "on_time",
        /// All of it came, as it should be, after that.
        Late = "late",
        /// It came, and is not what the journey expects.
        Wrong = "wrong",
        /// Taken, acknowledged, and not here when everything that was still to come had had its time.
        Lost = "lost",
        /// The same, but the receiver was away meanwhile: nobody can say whether it came.
        Unseen = "unseen",
    }
}

/// How a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The system took it.
    Accepted,
    /// It did not.
    Refused,
    /// Nobody knows.
    Uncertain,
}

/// How the run of a message ended, where that says more than its arrivals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was as the journey expects.
    Right,
    /// It was not, by this cause.
    Wrong(String),
    /// The send failed, for this reason; what the account says of it goes by its answer.
    Refused(String),
    /// Nothing was sent, for this reason of ours.
    NotSent(String),
}

/// Where a journey receives: a message is here when each of these has had it so often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The channel.
    pub channel: Name,
    /// How many copies are expected there: as many as the journey's receives on it ask for.
    pub wanted: u32,
}

/// A message as the account knows it.
#[derive(Debug)]
pub struct Entry {
    /// Its token.
    pub token: Token,
    /// When it was due.
    pub due: Mono,
    /// When its send began.
    pub started: Option<Mono>,
    /// How that ended, and when.
    pub answer: Option<(Answer, Mono)>,
    seen: Vec<Seen>,
    /// When the last missing copy came, by its reader's stamp.
    here: Option<Mono>,
    /// The lane and the place of its first arrival on the first stream.
    first: Option<(i64, u64)>,
    verdict: Option<Verdict>,
    /// Copies beyond those that are wanted, and when each came.
    extra: u32,
}

/// Copies of one part of a message on one stream.
#[derive(Clone, Copy, Debug)]
struct Seen {
    stream: usize,
    part: Part,
    copies: u32,
}

impl Entry {
    /// From just before its send to the reader's stamp of the copy that made it whole.
    pub fn latency(&self) -> Option<Duration> {
        Some(self.here?.since(self.started.unwrap_or(self.due)))
    }

    /// When the last missing copy came.
    pub fn here(&self) -> Option<Mono> {
        self.here
    }

    /// Copies too many.
    pub fn extra(&self) -> u32 {
        self.extra
    }

    /// Why it is wrong, was refused, or was not sent.
    pub fn why(&self) -> Option<&str> {
        match self.verdict.as_ref()? {
            Verdict::Right => None,
            Verdict::Wrong(why) | Verdict::Refused(why) | Verdict::NotSent(why) => Some(why),
        }
    }
}

/// Every message.
#[derive(Debug)]
pub struct Account {
    streams: Vec<Stream>,
    deadline: Duration,
    entries: Vec<Entry>,
    places: HashMap<Token, usize>,
    arrivals: u64,
    strangers: u64,
    /// When a receiver was away without what came meanwhile being kept for it, for the last time.
    blind: Option<Mono>,
    /// When everything that was still to come had had its time, and whether it really had.
    closed: Option<(Mono, bool)>,
}

impl Account {
    /// An account of a journey that receives on these streams. `deadline` is when a message is late. Without a stream, a message is
    /// here when its run says so.
    pub fn new(streams: Vec<Stream>, deadline: Duration) -> Account {
        Account {
            streams,
            deadline,
            entries: Vec::new(),
            places: HashMap::new(),
            arrivals: 0,
            strangers: 0,
            blind: None,
            closed: None,
        }
    }

    /// A message is due; gives its number, from 0.
    pub fn begin(&mut self, token: Token, due: Mono) -> usize {
        let number = self.entries.len();
        self.places.insert(token, number);
        self.entries.push(Entry {
            token,
            due,
            started: None,
            answer: None,
            seen: Vec::new(),
            here: None,
            first: None,
            verdict: None,
            extra: 0,
        });
        number
    }

    /// Its send began then. The last word counts: the edge knows it better once the send has ended.
    pub fn sending(&mut self, number: usize, started: Mono) {
        self.entries[number].started = Some(started);
    }

    /// Its send ended so.
    pub fn answered(&mut self, number: usize, answer: Answer, at: Mono) {
        self.entries[number].answer.get_or_insert((answer, at));
    }

    /// Its run ended so. `at` is when all of it was there, if it is right.
    pub fn ended(&mut self, number: usize, verdict: Verdict, at: Mono) {
        let entry = &mut self.entries[number];
        // Nobody told us of an arrival that came before anybody knew its key; its run has it.
        if verdict == Verdict::Right {
            entry.here.get_or_insert(at);
        }
        entry.verdict = Some(verdict);
    }

    /// Something came, whose token is this, or nobody's that we know. `lane` tells partitions apart.
    pub fn arrived(&mut self, channel: &str, token: Token, part: Option<Part>, lane: i64, at: Mono) {
        let number = self.places.get(&token).copied();
        let stream = self.streams.iter().position(|stream| *stream.channel == *channel);
        let (Some(number), Some(stream)) = (number, stream) else {
            self.strangers += 1;
            return;
        };
        let place = self.arrivals;
        self.arrivals += 1;
        let part = part.unwrap_or(Part { index: 0, of: 1 });
        let (entry, wanted) = (&mut self.entries[number], self.streams[stream].wanted);
        if stream == 0 {
            entry.first.get_or_insert((lane, place));
        }
        let is_it = |seen: &&mut Seen| seen.stream == stream && seen.part.index == part.index;
        let copies = match entry.seen.iter_mut().find(is_it) {
            Some(seen) => {
                seen.copies += 1;
                seen.copies
            }
            None => {
                entry.seen.push(Seen { stream, part, copies: 1 });
                1
            }
        };
        if copies > wanted {
            entry.extra += 1;
        } else if entry.here.is_none() && is_whole(&self.streams, &entry.seen) {
            entry.here = Some(at);
        }
    }

    /// A receiver was away, and what came meanwhile is not kept for it: of what was on its way, nothing that is missing is surely lost.
    pub fn blind(&mut self, at: Mono) {
        self.blind = Some(self.blind.map_or(at, |before| before.max(at)));
    }

    /// Nothing is waited for any more. `is_drained` says that what was still to come has had its time.
    pub fn close(&mut self, at: Mono, is_drained: bool) {
        self.closed.get_or_insert((at, is_drained));
    }

    /// What became of a message, as far as that is known.
    pub fn fate(&self, entry: &Entry) -> Fate {
        if let Some(latency) = entry.latency() {
            return match entry.verdict {
                Some(Verdict::Wrong(_)) => Fate::Wrong,
                _ if latency > self.deadline => Fate::Late,
                _ => Fate::OnTime,
            };
        }
        match (&entry.verdict, entry.answer, self.closed) {
            (Some(Verdict::NotSent(_)), ..) => Fate::Unsent,
            (_, Some((Answer::Refused, _)), _) => Fate::Refused,
            (_, _, None) => match (&entry.verdict, self.streams.is_empty()) {
                (Some(Verdict::Wrong(_)), true) => Fate::Wrong,
                _ => Fate::Waiting,
            },
            (_, None, Some(_)) if entry.started.is_none() => Fate::Unsent,
            (_, None | Some((Answer::Uncertain, _)), Some(_)) => Fate::Uncertain,
            (Some(Verdict::Wrong(_)), Some((Answer::Accepted, _)), Some(_)) if self.streams.is_empty() => Fate::Wrong,
            (_, Some((Answer::Accepted, _)), Some((_, is_drained))) => {
                let was_away = self.blind.is_some_and(|blind| entry.started.is_none_or(|started| started <= blind));
                if was_away || !is_drained { Fate::Unseen } else { Fate::Lost }
            }
        }
    }

    /// Every message, in the order in which they were due.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether something that was sent may still come.
    pub fn is_waiting(&self) -> bool {
        self.entries.iter().any(|entry| self.fate(entry) == Fate::Waiting)
    }

    /// The count, at `now`.
    pub fn tally(&self, now: Mono) -> Tally {
        self.tally_of(&self.entries, now)
    }

    /// The count of what was sent within `window` before `now`, and of what came within it.
    pub fn lately(&self, now: Mono, window: Duration) -> Lately {
        let from = now - window;
        let mut lately = Lately::default();
        let mut latencies = Vec::new();
        for entry in &self.entries {
            if let Some((answer, _)) = entry.answer.filter(|(_, at)| *at >= from) {
                lately.answered += 1;
                lately.errors += u64::from(answer != Answer::Accepted);
            }
            if entry.here.is_some_and(|here| here >= from) {
                latencies.extend(entry.latency());
            }
        }
        lately.latency = Quantiles::of(latencies);
        lately
    }

    /// The count of some messages.
    pub fn tally_of<'a>(&'a self, entries: impl IntoIterator<Item = &'a Entry>, now: Mono) -> Tally {
        let mut tally = Tally { strangers: self.strangers, ..Tally::default() };
        let (mut latencies, mut passages) = (Vec::new(), Vec::new());
        for entry in entries {
            let fate = self.fate(entry);
            tally.due += 1;
            *tally.of_mut(fate) += 1;
            tally.duplicate += u64::from(entry.extra);
            let is_late_send = entry.started.is_some_and(|started| started.since(entry.due) > LATE_SEND);
            tally.late_sends += u64::from(is_late_send);
            tally.errors += u64::from(entry.answer.is_some_and(|(answer, _)| answer != Answer::Accepted));
            if fate == Fate::Waiting {
                let since = entry.started.unwrap_or(entry.due);
                tally.overdue += u64::from(now.since(since) > self.deadline);
            }
            if matches!(fate, Fate::OnTime | Fate::Late) {
                latencies.extend(entry.latency());
            }
            if let (Some(started), Some((_, acked)), Some((lane, place))) = (entry.started, entry.answer, entry.first) {
                passages.push(Passage { lane, started, acked, place });
            }
        }
        tally.reordered = reordered(&passages).len() as u64;
        tally.latency = Quantiles::of(latencies);
        tally
    }
}

/// Whether every stream has every part as often as it is wanted.
fn is_whole(streams: &[Stream], seen: &[Seen]) -> bool {
    streams.iter().enumerate().all(|(at, stream)| {
        let (mut parts, mut of) = (0, 1);
        for one in seen.iter().filter(|one| one.stream == at) {
            parts += u32::from(one.copies >= stream.wanted);
            of = of.max(one.part.of);
        }
        parts >= of
    })
}

/// What became of the latest messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lately {
    /// Sends that ended.
    pub answered: u64,
    /// Those of them that were refused, or had no clear answer.
    pub errors: u64,
    /// Of what came.
    pub latency: Option<Quantiles>,
}

/// How many messages came to what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// So many were due.
    pub due: u64,
    /// Never sent, through a fault of ours.
    pub unsent: u64,
    /// The system did not take them.
    pub refused: u64,
    /// Without a clear answer, and never seen.
    pub uncertain: u64,
    /// On their way.
    pub waiting: u64,
    /// Of those, how many should have been here by now.
    pub overdue: u64,
    /// Here within the deadline.
    pub on_time: u64,
    /// Here after it.
    pub late: u64,
    /// Here, and not as they should be.
    pub wrong: u64,
    /// Taken, and never seen.
    pub lost: u64,
    /// The same, while the receiver was away.
    pub unseen: u64,
    /// Copies too many.
    pub duplicate: u64,
    /// Overtaken by later ones.
    pub reordered: u64,
    /// Sends that were refused or had no clear answer, whatever became of their messages.
    pub errors: u64,
    /// Sends that began later than [`LATE_SEND`] after they were due.
    pub late_sends: u64,
    /// Arrivals that are no message of this experiment.
    pub strangers: u64,
    /// Of those that came as they should.
    pub latency: Option<Quantiles>,
}

impl Tally {
    fn of_mut(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Unsent => &mut self.unsent,
            Fate::Refused => &mut self.refused,
            Fate::Uncertain => &mut self.uncertain,
            Fate::Waiting => &mut self.waiting,
            Fate::OnTime => &mut self.on_time,
            Fate::Late => &mut self.late,
            Fate::Wrong => &mut self.wrong,
            Fate::Lost => &mut self.lost,
            Fate::Unseen => &mut self.unseen,
        }
    }

    /// Those that were sent.
    pub fn sent(&self) -> u64 {
        self.due - self.unsent
    }

    /// Those that came as they should, whether in time or not.
    pub fn delivered(&self) -> u64 {
        self.on_time + self.late
    }

    /// Those that the system answers for: it took them, or they came.
    pub fn taken(&self) -> u64 {
        self.delivered() + self.wrong + self.lost + self.unseen
    }
}

/// Quantiles by the nearest rank: each is a latency that some message really had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of them were as quick.
    #[serde(with = "crate::time::micros")]
    pub p50: Duration,
    /// Nine of ten.
    #[serde(with = "crate::time::micros")]
    pub p90: Duration,
    /// Ninety-nine of a hundred.
    #[serde(with = "crate::time::micros")]
    pub p99: Duration,
    /// All.
    #[serde(with = "crate::time::micros")]
    pub max: Duration,
}

impl Quantiles {
    /// Of these; `None` if there are none.
    pub fn of(mut latencies: Vec<Duration>) -> Option<Quantiles> {
        latencies.sort_unstable();
        let count = latencies.len();
        let at = |percent: usize| latencies.get((count * percent).div_ceil(100).max(1) - 1).copied();
        Some(Quantiles { p50: at(50)?, p90: at(90)?, p99: at(99)?, max: at(100)? })
    }
}

#[cfg(test)]
mod tests;
