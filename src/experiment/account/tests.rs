//! The account against an oracle: a world that decides what becomes of each message, and tells the account only what an edge sees.

use std::collections::HashSet;

use super::*;

const DEADLINE: Duration = Duration::from_secs(2);

fn at(millis: u64) -> Mono {
    Mono(Duration::from_millis(millis))
}

fn token(number: u64) -> Token {
    Token::from_bits(u128::from(number) + 1)
}

fn account() -> Account {
    Account::new(vec![Stream { channel: "in".into(), wanted: 1 }], DEADLINE)
}

impl Account {
    /// A message that was due and sent at `sent`, and taken a millisecond later.
    fn send(&mut self, number: u64, sent: u64) -> usize {
        let entry = self.begin(token(number), at(sent));
        self.sending(entry, at(sent));
        self.answered(entry, Answer::Accepted, at(sent + 1));
        entry
    }

    fn see(&mut self, number: u64, millis: u64) {
        self.arrived("in", token(number), None, 0, at(millis));
    }

    fn fate_of(&self, number: usize) -> Fate {
        self.fate(&self.entries[number])
    }
}

#[test]
fn the_deadline_belongs_to_what_is_on_time() {
    let mut account = account();
    for (number, sent) in [(0, 0), (1, 0), (2, 0)] {
        account.send(number, sent);
    }
    account.see(0, 2_000);
    account.see(1, 2_001);
    assert_eq!([0, 1, 2].map(|number| account.fate_of(number)), [Fate::OnTime, Fate::Late, Fate::Waiting]);
    assert_eq!((account.tally(at(2_000)).overdue, account.tally(at(2_001)).overdue), (0, 1));
    account.close(at(60_000), true);
    assert_eq!(account.fate_of(2), Fate::Lost);
    let tally = account.tally(at(60_000));
    assert_eq!((tally.taken(), tally.delivered(), tally.lost), (3, 2, 1));
    assert_eq!(tally.latency.map(|latency| latency.max), Some(Duration::from_millis(2_001)));
}

#[test]
fn only_what_was_promised_and_could_be_seen_is_lost() {
    let mut account = account();
    for (number, answer) in [(0, Answer::Refused), (1, Answer::Uncertain), (2, Answer::Uncertain), (3, Answer::Refused)]
    {
        let entry = account.begin(token(number), at(0));
        account.sending(entry, at(0));
        account.answered(entry, answer, at(5));
    }
    account.begin(token(4), at(0));
    let never = account.begin(token(5), at(0));
    account.ended(never, Verdict::NotSent("the receiver was not ready".to_owned()), at(1));
    account.send(6, 10);
    account.blind(at(20));
    account.send(7, 30);
    account.see(2, 40);
    account.see(3, 40);
    account.close(at(5_000), true);
    let fates: Vec<_> = (0..8).map(|number| account.fate_of(number)).collect();
    use Fate::*;
    assert_eq!(fates, [Refused, Uncertain, OnTime, OnTime, Unsent, Unsent, Unseen, Lost]);
    assert_eq!(account.tally(at(5_000)).errors, 4, "an error stays one, also where the message came all the same");
}

#[test]
fn what_was_cut_short_is_not_called_lost() {
    let mut account = account();
    account.send(0, 0);
    account.close(at(100), false);
    assert_eq!(account.fate_of(0), Fate::Unseen);
}

#[test]
fn copies_parts_and_streams_are_counted_each_for_itself() {
    let streams = vec![Stream { channel: "in".into(), wanted: 2 }, Stream { channel: "also".into(), wanted: 1 }];
    let mut account = Account::new(streams, DEADLINE);
    account.send(0, 0);
    account.see(0, 10);
    account.arrived("also", token(0), None, 0, at(20));
    assert_eq!(account.fate_of(0), Fate::Waiting, "a second copy is wanted");
    account.see(0, 30);
    assert_eq!((account.fate_of(0), account.entries[0].latency()), (Fate::OnTime, Some(Duration::from_millis(30))));
    account.see(0, 40);
    account.arrived("also", token(0), None, 0, at(50));
    assert_eq!(account.tally(at(50)).duplicate, 2);

    let mut account = self::account();
    account.send(1, 0);
    for index in [0, 2, 0] {
        account.arrived("in", token(1), Some(Part { index, of: 3 }), 0, at(10));
    }
    assert_eq!((account.fate_of(0), account.tally(at(10)).duplicate), (Fate::Waiting, 1));
    account.arrived("in", token(1), Some(Part { index: 1, of: 3 }), 0, at(20));
    assert_eq!(account.fate_of(0), Fate::OnTime);
}

#[test]
fn strangers_and_unknown_channels_are_nobodys_and_are_counted() {
    let mut account = account();
    account.send(0, 0);
    account.arrived("elsewhere", token(0), None, 0, at(1));
    account.arrived("in", token(99), None, 0, at(1));
    assert_eq!((account.fate_of(0), account.tally(at(1)).strangers), (Fate::Waiting, 2));
}

#[test]
fn a_journey_that_only_asks_is_here_when_its_run_says_so() {
    let mut account = Account::new(Vec::new(), DEADLINE);
    let entry = account.begin(token(0), at(0));
    account.sending(entry, at(0));
    account.answered(entry, Answer::Accepted, at(30));
    account.ended(entry, Verdict::Right, at(30));
    assert_eq!(account.fate_of(0), Fate::OnTime);
    let entry = account.begin(token(1), at(0));
    account.answered(entry, Answer::Accepted, at(30));
    account.ended(entry, Verdict::Wrong("mismatch".to_owned()), at(30));
    assert_eq!(account.fate_of(1), Fate::Wrong);
}

#[test]
fn what_its_run_has_is_here_although_nobody_saw_whose_it_was() {
    let mut account = account();
    let entry = account.send(0, 0);
    account.ended(entry, Verdict::Right, at(50));
    account.see(0, 60);
    account.close(at(5_000), true);
    assert_eq!((account.fate_of(0), account.tally(at(5_000)).duplicate), (Fate::OnTime, 0));
    assert_eq!(account.entries[0].latency(), Some(Duration::from_millis(50)));
}

#[test]
fn quantiles_are_of_the_nearest_rank() {
    let millis = |all: &[u64]| Quantiles::of(all.iter().map(|n| Duration::from_millis(*n)).collect());
    assert_eq!(millis(&[]), None);
    let hundred: Vec<u64> = (1..=100).rev().collect();
    let of = millis(&hundred).unwrap();
    assert_eq!([of.p50, of.p90, of.p99, of.max].map(|one| one.as_millis()), [50, 90, 99, 100]);
    let of = millis(&[7]).unwrap();
    assert_eq!([of.p50, of.p90, of.p99, of.max].map(|one| one.as_millis()), [7; 4]);
}

/// What the oracle has decided.
#[derive(Default)]
struct Oracle {
    fates: Vec<Fate>,
    duplicates: u64,
}

/// Plays `messages` messages at a thousand a second, with every fate among them, and compares each one with what was decided.
fn play(messages: u64, seed: u64) -> usize {
    let mut chance = fastrand::Rng::with_seed(seed);
    let (mut account, mut oracle) = (account(), Oracle::default());
    // What an edge will see, and when: sends in their order, arrivals by their time.
    let mut arrivals: Vec<(u64, u64)> = Vec::new();
    for number in 0..messages {
        let sent = number;
        let entry = account.begin(token(number), at(sent));
        let mut arrive = |delay: u64| arrivals.push((sent + delay, number));
        let fate = match chance.u32(0..100) {
            0..4 => Fate::Lost,
            4..6 => Fate::Refused,
            6..8 => Fate::Uncertain,
            8..9 => Fate::Unsent,
            9..15 => Fate::Late,
            _ => Fate::OnTime,
        };
        if fate == Fate::Unsent {
            account.ended(entry, Verdict::NotSent("not ready".to_owned()), at(sent));
            oracle.fates.push(fate);
            continue;
        }
        account.sending(entry, at(sent));
        let answer = match fate {
            Fate::Refused => Answer::Refused,
            Fate::Uncertain => Answer::Uncertain,
            // What was not acknowledged may come all the same, and is then as good as any other.
            _ if chance.u32(0..50) == 0 && fate != Fate::Lost => Answer::Uncertain,
            _ => Answer::Accepted,
        };
        account.answered(entry, answer, at(sent + 1));
        match fate {
            Fate::OnTime => arrive(chance.u64(1..=2_000)),
            Fate::Late => arrive(chance.u64(2_001..30_000)),
            _ => {}
        }
        if matches!(fate, Fate::OnTime | Fate::Late) {
            let copies = if chance.u32(0..100) < 3 { chance.u64(1..4) } else { 0 };
            oracle.duplicates += copies;
            // The copy that is first decides; those after it are never earlier.
            (0..copies).for_each(|_| arrive(30_000 + chance.u64(0..1_000)));
        }
        oracle.fates.push(fate);
    }
    arrivals.sort_unstable();
    for (millis, number) in arrivals {
        account.see(number, millis);
    }
    let end = at(messages + 60_000);
    account.close(end, true);
    let wrong = account.entries.iter().zip(&oracle.fates).filter(|(entry, fate)| account.fate(entry) != **fate).count();
    let tally = account.tally(end);
    assert_eq!(tally.duplicate, oracle.duplicates);
    let count = |wanted: Fate| oracle.fates.iter().filter(|fate| **fate == wanted).count() as u64;
    let found = [tally.on_time, tally.late, tally.lost, tally.refused, tally.uncertain, tally.unsent];
    let wanted = [Fate::OnTime, Fate::Late, Fate::Lost, Fate::Refused, Fate::Uncertain, Fate::Unsent].map(count);
    assert_eq!(found, wanted);
    assert_eq!(found.iter().sum::<u64>(), tally.due, "each message is one thing");
    let distinct: HashSet<_> = oracle.fates.iter().collect();
    assert_eq!(distinct.len(), 6, "the world had them all");
    wrong
}

#[test]
fn a_million_messages_are_each_what_the_oracle_says() {
    assert_eq!(play(1_000_000, 7), 0);
}

#[test]
fn of_any_world_each_message_is_what_the_oracle_says() {
    for seed in 0..20 {
        assert_eq!(play(5_000, seed), 0, "seed {seed}");
    }
}

/// Order by the definition, one by one.
fn overtaken(passages: &[Passage]) -> Vec<usize> {
    let is_overtaken = |mine: &Passage| {
        passages.iter().any(|other| other.lane == mine.lane && other.started > mine.acked && other.place < mine.place)
    };
    (0..passages.len()).filter(|at| is_overtaken(&passages[*at])).collect()
}

#[test]
fn order_is_found_as_by_looking_at_every_pair() {
    let mut chance = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let count = chance.usize(0..60);
        let mut places: Vec<u64> = (0..count as u64).collect();
        chance.shuffle(&mut places);
        let passages: Vec<_> = places
            .into_iter()
            .map(|place| {
                let started = chance.u64(0..100);
                let lane = chance.i64(0..3);
                Passage { lane, started: at(started), acked: at(started + chance.u64(0..20)), place }
            })
            .collect();
        assert_eq!(reordered(&passages), overtaken(&passages), "{passages:?}");
    }
}
