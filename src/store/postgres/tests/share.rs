//! Daemons that share journeys: what each of them may write, what it finds of others, and that no two ever run the same.

use super::*;
use crate::cluster::{SHARDS, Wish};
use crate::journey::message::Message;
use crate::ledger::Settled;
use crate::store::conformance::{checkpoint, expected};
use crate::time::{Mono, Now};

const NONE: [i32; 0] = [];
pub(super) const TTL: Duration = Duration::from_millis(300);
/// Up to when whoever gives shards back has counted their slots.
pub(super) const GIVEN: Timestamp = Timestamp::constant(1_790_000_000, 0);

/// Those that all daemons share.
const ALL: std::ops::RangeInclusive<i32> = 1..=SHARDS;

fn wish(standing: &Standing) -> Wish {
    standing.groups[0].wish()
}

pub(super) fn share(url: &str, name: &str, ttl: Duration) -> Share {
    Share::new(endpoint(url), name.to_owned(), ttl, None)
}

pub(super) fn about() -> Member {
    Member { version: "0".to_owned(), configuration: "aa".to_owned(), listens: String::new(), location: None }
}

/// A store that writes what is of our runs alone, or, with a fence, all.
pub(super) async fn store_of(url: &str, share: &Share, fence: Option<Fence>, clock: Clock) -> Postgres {
    Postgres::open_resting(endpoint(url), fence, Some(share.sharing()), clock, Duration::ZERO).await.unwrap()
}

/// A journey of this shard.
pub(super) fn journey_of(shard: i32) -> Name {
    (0..).map(|nth| format!("j{nth}")).find(|name| shard_of(name) == shard).unwrap().as_str().into()
}

fn shards(taken: Vec<Taken>) -> Vec<i32> {
    taken.into_iter().map(|taken| taken.shard).collect()
}

fn relay(shard: i32, document: &str) -> Vec<Change> {
    vec![Change::Relay { journey: journey_of(shard), ended: None, document: document.to_owned(), is_belated: false }]
}

fn documents(relayed: &[Relayed]) -> Vec<&str> {
    relayed.iter().map(|one| &*one.document).collect()
}

#[test]
fn shards_are_taken_made_to_last_given_back_and_lost() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", BOUND));
        let standing = one.renew(&about()).await.unwrap();
        assert_eq!((standing.members, standing.free, standing.left_over), (1, 32, false));
        assert_eq!((standing.held.len(), standing.lost.len(), wish(&standing)), (0, 0, Wish::Take(32)));
        assert_eq!(shards(one.take(32, &ALL).await.unwrap()), (1..=SHARDS).collect::<Vec<_>>());
        assert_eq!(shards(two.take(32, &ALL).await.unwrap()), NONE, "nobody takes what is another's");
        assert!(one.held().has(7) && !two.held().has(7));
        assert_eq!((one.held().epoch(7), one.held().shards().len()), (Some(1), 32));

        let standing = two.renew(&about()).await.unwrap();
        assert_eq!((standing.members, standing.free, wish(&standing)), (2, 0, Wish::Stay));
        assert_eq!(wish(&one.renew(&about()).await.unwrap()), Wish::GiveBack(16));
        one.give_back(&(17..=SHARDS).collect::<Vec<_>>(), GIVEN).await.unwrap();
        assert_eq!(one.held().shards(), (1..=16).collect::<Vec<_>>());
        assert_eq!(wish(&two.renew(&about()).await.unwrap()), Wish::Take(16));
        assert_eq!(shards(two.take(16, &ALL).await.unwrap()), (17..=SHARDS).collect::<Vec<_>>());
        assert_eq!(two.held().epoch(17), Some(2), "it has changed hands");
        let (first, second) = (one.renew(&about()).await.unwrap(), two.renew(&about()).await.unwrap());
        assert_eq!((wish(&first), wish(&second)), (Wish::Stay, Wish::Stay));
        assert_eq!((first.lost, second.lost), (vec![], vec![]), "what is given back is not lost");

        // Its time is over, and nobody has taken it: it lasts again. Of what another has taken nothing is ours.
        database.run("UPDATE lease SET until = 1 WHERE shard IN (3, 4, 5)").await;
        assert_eq!(shards(one.take(9, &ALL).await.unwrap()), NONE, "what is ours is renewed, and not taken anew");
        assert_eq!(shards(two.take(1, &ALL).await.unwrap()), [3]);
        let standing = one.renew(&about()).await.unwrap();
        assert_eq!((standing.lost, standing.free, standing.held.len()), (vec![3], 0, 15));
        assert_eq!(one.held().epoch(4), Some(1));
        assert_eq!(one.renew(&about()).await.unwrap().lost, NONE, "it is said once");
        one.give_back(&[3], GIVEN).await.unwrap();
        assert_eq!(two.renew(&about()).await.unwrap().lost, NONE, "nobody gives back what is not theirs");

        two.leave(GIVEN).await.unwrap();
        assert_eq!(two.held().shards(), NONE);
        let standing = one.renew(&about()).await.unwrap();
        assert_eq!((standing.members, standing.free), (1, 17));
        assert_eq!(count(&database.client, "SELECT count(*) FROM member").await, 1);
    });
}

#[test]
fn whoever_says_nothing_is_counted_for_as_long_as_it_would_hold() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", BOUND));
        two.renew(&about()).await.unwrap();
        two.take(8, &ALL).await.unwrap();
        let standing = one.renew(&about()).await.unwrap();
        assert_eq!((standing.members, standing.free), (2, 24));
        let silent = format!("UPDATE member SET seen = seen - {} WHERE name = 'two'", BOUND.as_millis() - 1_000);
        database.run(&silent).await;
        database.run("UPDATE lease SET until = 1 WHERE holder = 'two'").await;
        assert_eq!(one.renew(&about()).await.unwrap().free, 32, "its shards are");
        database.run("UPDATE member SET seen = seen - 1001 WHERE name = 'two'").await;
        assert_eq!(one.renew(&about()).await.unwrap().members, 1);
    });
}

#[test]
fn what_is_of_a_run_is_written_by_whoever_holds_its_shard_and_nobody_else() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", BOUND));
        let store = store_of(&url, &one, None, Clock::system()).await;
        assert_eq!(shards(one.take(3, &ALL).await.unwrap()), [1, 2, 3]);
        let moved = |result: Result<(), StoreError>, shard: i32| {
            let error = result.unwrap_err();
            assert!(matches!(error, StoreError::Moved(_)), "{error}");
            let said = format!("another daemon runs journey {} now", journey_of(shard));
            assert!(error.to_string().contains(&said), "{error}");
        };
        // What was never ours.
        moved(store.apply(relay(4, "never")).await, 4);
        let run = checkpoint(&journey_of(5), 100);
        moved(store.apply(vec![expected(&run)]).await, 5);
        moved(store.apply(vec![Change::Begun { checkpoint: Box::new(run.clone()) }]).await, 5);
        moved(store.apply(vec![Change::Waits { checkpoint: Box::new(run) }]).await, 5);
        store.apply(spend(1)).await.unwrap();

        // What another has taken, without our having heard of it: that batch fails, and no other of the same commit.
        database.run("UPDATE lease SET until = 1 WHERE shard = 2").await;
        assert_eq!(shards(two.take(1, &ALL).await.unwrap()), [2]);
        assert!(one.held().has(2));
        let batches = (0..12).map(|nth| store.apply(relay(1 + nth % 3, &format!("a{nth}"))));
        for (nth, result) in futures_util::future::join_all(batches).await.into_iter().enumerate() {
            match nth % 3 {
                1 => moved(result, 2),
                _ => result.unwrap(),
            }
        }
        assert!(!one.held().has(2), "the writer has found it");
        two.give_back(&[2], GIVEN).await.unwrap();
        assert_eq!(shards(one.take(1, &ALL).await.unwrap()), [4], "that it was lost is said before it is ours again");
        assert_eq!(shards(two.take(1, &ALL).await.unwrap()), [2]);
        assert_eq!(one.renew(&about()).await.unwrap().lost, [2]);
        let mut both = relay(1, "both");
        both.extend(relay(2, "both"));
        moved(store.apply(both).await, 2);

        // What is ours again is of another epoch: what was handed in before is not.
        let before = store.proof(&relay(3, "before")).unwrap();
        one.give_back(&[3], GIVEN).await.unwrap();
        assert_eq!(shards(two.take(1, &ALL).await.unwrap()), [3]);
        two.give_back(&[3], GIVEN).await.unwrap();
        assert_eq!(shards(one.take(1, &ALL).await.unwrap()), [3]);
        let changes = relay(3, "before");
        let late = store.send(|answer| Job::Apply(Batch { changes, proof: before, answer })).await;
        moved(late, 3);
        assert!(one.held().has(3), "ours is of another epoch");
        store.apply(relay(3, "after")).await.unwrap();

        let found = two.relayed(99).await.unwrap();
        assert_eq!(documents(&found), ["a0", "a2", "a3", "a5", "a6", "a8", "a9", "a11", "after"]);
        assert!(found.iter().all(|one| one.writer == "one"));
        assert!(found.windows(2).all(|pair| pair[0].number < pair[1].number), "{found:?}");
        store.close().await.unwrap();
    });
}

/// Between the proof and the end of a transaction a shard changes hands no more than before and after.
#[test]
fn nobody_takes_a_shard_while_something_is_written_in_it() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        // What it holds is over at once.
        let (one, two) = (share(&url, "one", Duration::ZERO), share(&url, "two", BOUND));
        let store = store_of(&url, &one, None, Clock::system()).await;
        assert_eq!(shards(one.take(2, &ALL).await.unwrap()), [1, 2]);
        let (blocker, _driver) = Server::shared().await.unwrap().session(&database.name).await;
        blocker.batch_execute("BEGIN; LOCK TABLE relay").await.unwrap();
        let taking = async {
            wait_for("the writer to wait", BOUND, async || {
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'journeyman writer'
                    AND datname = current_database() AND wait_event_type = 'Lock'";
                (count(&database.client, sql).await > 0).then_some(())
            })
            .await;
            let taken = shards(two.take(32, &ALL).await.unwrap());
            assert!(!taken.contains(&1) && taken.contains(&2) && taken.len() == 31, "{taken:?}");
            blocker.batch_execute("ROLLBACK").await.unwrap();
        };
        let (written, ()) = futures_util::future::join(store.apply(relay(1, "in time")), taking).await;
        written.unwrap();
        assert_eq!(shards(two.take(32, &ALL).await.unwrap()), [1]);
        assert!(matches!(store.apply(relay(1, "late")).await, Err(StoreError::Moved(_))));
        assert_eq!(documents(&two.relayed(99).await.unwrap()), ["in time"]);
    });
}

#[test]
fn a_store_that_is_nobody_elses_relays_nothing() {
    block_on(async {
        let Some(database) = database().await else { return };
        let store = open(&database.url(), None).await;
        assert!(matches!(store.apply(relay(1, "x")).await, Err(StoreError::Unshared)));
    });
}

#[test]
fn what_is_relayed_is_heard_once_with_what_followed_from_it() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, leader) = (share(&url, "one", BOUND), share(&url, "leader", BOUND));
        let store = store_of(&url, &one, None, Clock::system()).await;
        one.take(32, &ALL).await.unwrap();
        let run = checkpoint(&journey_of(6), 100);
        let begun = Change::Begun { checkpoint: Box::new(run.clone()) };
        store.apply(vec![expected(&run), begun.clone()]).await.unwrap();
        assert_eq!(store.unfinished().await.unwrap().len(), 1);
        let ended = Change::Relay {
            journey: run.journey.clone(),
            ended: Some(run.token),
            document: "end".to_owned(),
            is_belated: false,
        };
        store.apply(vec![ended]).await.unwrap();
        assert_eq!(store.unfinished().await.unwrap(), [], "nobody goes on with it");
        assert_eq!(store.ledger().await.unwrap()[0].1.settled, None, "how it ended is for the leader to say");
        let many = (0..5).flat_map(|nth| relay(nth + 1, &nth.to_string())).collect();
        store.apply(many).await.unwrap();

        assert!(leader.renew(&about()).await.unwrap().left_over);
        let first = leader.relayed(2).await.unwrap();
        assert_eq!(documents(&first), ["end", "0"]);
        assert_eq!(documents(&leader.relayed(99).await.unwrap()), ["1", "2", "3", "4"]);
        assert_eq!(leader.relayed(99).await.unwrap(), [], "each once");
        // Whoever leads next hears what this one had not.
        let fence = taken(&url, "leader").await;
        let leading = store_of(&url, &leader, Some(fence), Clock::system()).await;
        let heard = |one: &Relayed| Change::Heard { writer: one.writer.clone(), number: one.number };
        let settled = Change::Settle { token: run.token, how: Settled::Arrived };
        leading.apply(vec![settled, heard(&first[0])]).await.unwrap();
        let next = share(&url, "next", BOUND);
        let again = next.relayed(99).await.unwrap();
        assert_eq!(documents(&again), ["0", "1", "2", "3", "4"]);
        taken(&url, "next").await;
        let refused = leading.apply(vec![heard(&again[0])]).await;
        assert!(matches!(refused, Err(StoreError::Fenced(_))), "{refused:?}");
        assert!(next.renew(&about()).await.unwrap().left_over, "it leads no more");

        // Another writer of the same process goes on with its numbers.
        let anew = store_of(&url, &one, None, Clock::system()).await;
        anew.apply(relay(1, "anew")).await.unwrap();
        assert_eq!(documents(&next.relayed(99).await.unwrap()), ["anew"]);

        // What is a day old is no news.
        database.run("UPDATE relay SET at = at - 86400001 WHERE document <> 'anew'").await;
        let retention = Retention { runs_before: at(0), good_evidence_before: at(0), ledger_before: at(0) };
        let last = taken(&url, "last").await;
        let sweeper = store_of(&url, &next, Some(last), Clock::system()).await;
        sweeper.forget(retention).await.unwrap();
        assert_eq!(count(&database.client, "SELECT count(*) FROM relay").await, 1);
    });
}

fn call(run: &Checkpoint, body: &str, at: Mono) -> Change {
    let stamp = Now { wall: super::at(5), mono: at };
    let arrival = Arrival { channel: "in".into(), at: stamp, message: Message::new(body) };
    Change::Arrived { token: run.token, arrival: Box::new(arrival) }
}

#[test]
fn a_message_that_another_daemon_took_is_handed_over_once_with_its_age() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", BOUND));
        let clock = Clock::system();
        let (first, second) = (store_of(&url, &one, None, clock).await, store_of(&url, &two, None, clock).await);
        one.take(16, &ALL).await.unwrap();
        let runs = [1, 2].map(|shard| checkpoint(&journey_of(shard), i64::from(shard)));
        first.apply(runs.iter().map(expected).collect()).await.unwrap();
        assert!(one.arrivals().await.unwrap().is_empty());

        // It came three seconds before it is written.
        sleep(Duration::from_millis(20)).await;
        let came = clock.now().mono;
        let at_first = Mono(came.0.saturating_sub(Duration::from_millis(15)));
        second.apply(vec![call(&runs[0], "theirs", at_first)]).await.unwrap();
        first.apply(vec![call(&runs[0], "ours", came)]).await.unwrap();
        let stranger = checkpoint("stranger", 9);
        second.apply(vec![call(&stranger, "nobody's", came)]).await.unwrap();
        let handed = one.arrivals().await.unwrap();
        assert_eq!(handed.len(), 1, "{handed:?}");
        assert_eq!((handed[0].token, &*handed[0].message.message.text()), (runs[0].token, "theirs"));
        assert_eq!((handed[0].message.at.wall, handed[0].message.at.mono), (super::at(5), Mono::default()));
        let age = handed[0].age;
        assert!(age >= Duration::from_millis(15) && age < BOUND, "{age:?}");
        assert!(one.arrivals().await.unwrap().is_empty(), "each once");
        assert!(two.arrivals().await.unwrap().is_empty(), "it holds none of these");
        second.apply(vec![call(&runs[1], "next", came)]).await.unwrap();
        assert_eq!(one.arrivals().await.unwrap().len(), 1);
    });
}

#[test]
fn whoever_takes_a_shard_over_finds_what_was_left_in_it() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", BOUND));
        let clock = Clock::system();
        let first = store_of(&url, &one, None, clock).await;
        one.take(3, &ALL).await.unwrap();
        let runs = [3, 1, 2].map(|shard| checkpoint(&journey_of(shard), i64::from(shard)));
        for run in &runs {
            let begun = Change::Begun { checkpoint: Box::new(run.clone()) };
            first.apply(vec![expected(run), begun, call(run, "left", clock.now().mono)]).await.unwrap();
        }
        one.give_back(&[1, 3], GIVEN).await.unwrap();
        assert_eq!(shards(two.take(2, &ALL).await.unwrap()), [1, 3]);
        let late = first.apply(vec![Change::Waits { checkpoint: Box::new(runs[0].clone()) }]).await;
        assert!(matches!(late, Err(StoreError::Moved(_))), "{late:?}");
        let estate = two.left_in(&[1, 3]).await.unwrap();
        assert_eq!(estate.unfinished, [runs[1].clone(), runs[0].clone()], "in the order of their slots");
        assert_eq!((estate.arrivals.len(), estate.ledger.len()), (2, 2));
        assert!(two.arrivals().await.unwrap().is_empty(), "they have been handed over with it");
        first.apply(vec![call(&runs[0], "later", clock.now().mono)]).await.unwrap();
        assert_eq!(two.arrivals().await.unwrap().len(), 1);
        let rest = two.left_in(&[]).await.unwrap();
        assert!(rest.unfinished.is_empty() && rest.ledger.is_empty() && rest.arrivals.is_empty());
    });
}

#[test]
fn daemons_that_come_at_once_agree_where_everything_is_serializable() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = format!("{}&options=-c%20default_transaction_isolation%3Dserializable", database.url());
        let all: Vec<_> = (0..5).map(|nth| share(&url, &format!("daemon {nth}"), BOUND)).collect();
        let live = async |share: &Share| {
            let standing = share.renew(&about()).await.unwrap();
            let wish = wish(&standing);
            match wish {
                Wish::Take(many) => drop(share.take(many, &ALL).await.unwrap()),
                Wish::GiveBack(many) => share.give_back(&standing.held[..many], GIVEN).await.unwrap(),
                Wish::Stay => {}
            }
            (standing.members, wish)
        };
        let agree = async || {
            let said = futures_util::future::join_all(all.iter().map(live)).await;
            said.iter().all(|said| *said == (5, Wish::Stay)).then_some(())
        };
        wait_for("each to have its due", BOUND, agree).await;
        let mut shares: Vec<_> = all.iter().map(|share| share.held().shards().len()).collect();
        shares.sort_unstable();
        assert_eq!(shares, [6, 6, 6, 7, 7]);
    });
}

#[test]
fn the_command_line_sees_who_leads_and_who_runs_what() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", BOUND));
        let Turn::Ours(_) = lease(&url, "one", BOUND).take().await.unwrap() else { panic!("it is free") };
        let store = store_of(&url, &two, None, Clock::system()).await;
        for (share, many) in [(&one, 2), (&two, 30)] {
            share.renew(&about()).await.unwrap();
            share.take(many, &ALL).await.unwrap();
        }
        two.give_back(&[32], GIVEN).await.unwrap();
        store.apply(relay(3, "seen")).await.unwrap();
        database.run("UPDATE relay SET at = at - 5000").await;
        let look = Look::open(&endpoint(&url)).await.unwrap();
        let cluster = look.cluster().await.unwrap();
        look.close().await;
        let told = |nth: usize| {
            let daemon = &cluster.daemons[nth];
            (&*daemon.name, daemon.lease.map(|lease| lease.epoch), daemon.shards.len(), daemon.shards.first().copied())
        };
        assert_eq!(told(0), ("one", Some(1), 2, Some((1, 1))));
        assert_eq!(told(1), ("two", None, 29, Some((3, 1))));
        assert_eq!((cluster.daemons.len(), cluster.free, cluster.relay.rows), (2, 1, 1));
        assert!(cluster.relay.oldest.unwrap() >= Duration::from_secs(5));
    });
}

#[test]
fn each_call_can_be_made_from_a_task() {
    fn is_send<T: Send>(_: &T) {}
    let share = share("postgres://u@h/d", "one", TTL);
    let about = about();
    is_send(&share.renew(&about));
    is_send(&share.take(1, &ALL));
    is_send(&share.give_back(&[1], GIVEN));
    is_send(&share.left_in(&[1]));
    is_send(&share.arrivals());
    is_send(&share.relayed(1));
    is_send(&share.leave(GIVEN));
}

#[test]
fn who_takes_what_was_given_back_knows_up_to_when_it_was_counted() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", TTL));
        for daemon in [&one, &two] {
            daemon.renew(&about()).await.unwrap();
        }
        let taken = |shard, counted| Taken { shard, counted };
        assert_eq!(two.take(3, &ALL).await.unwrap(), [1, 2, 3].map(|shard| taken(shard, None)), "nobody had them");
        two.give_back(&[2], GIVEN).await.unwrap();
        assert_eq!(one.take(1, &ALL).await.unwrap(), [taken(2, Some(GIVEN))]);
        // The others end by themselves: nobody says up to when they were counted.
        let mut found = Vec::new();
        wait_for("their time to be over", BOUND, async || {
            found.extend(one.take(2, &ALL).await.unwrap().into_iter().filter(|taken| taken.shard < 4));
            (found.len() == 2).then_some(())
        })
        .await;
        assert_eq!(found, [taken(1, None), taken(3, None)]);
        one.leave(GIVEN).await.unwrap();
        let three = share(&url, "three", BOUND);
        three.renew(&about()).await.unwrap();
        let all = three.take(32, &ALL).await.unwrap();
        let given: Vec<_> = all.iter().filter(|taken| taken.counted == Some(GIVEN)).map(|taken| taken.shard).collect();
        assert!(given.starts_with(&[1, 2, 3]), "{all:?}");
    });
}

#[test]
fn what_configurations_consist_of_is_kept_while_somebody_has_them() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (one, two) = (share(&url, "one", BOUND), share(&url, "two", BOUND));
        let (aa, bb) = (about(), Member { configuration: "bb".to_owned(), ..about() });
        drop(open(&url, None).await);
        let known = async || {
            let look = Look::open(&endpoint(&url)).await.unwrap();
            let found = look.cluster().await.unwrap();
            look.close().await;
            found.parts
        };
        let kept = async || count(&database.client, "SELECT count(*) FROM configuration").await;
        for share in [&one, &two] {
            assert_eq!(share.renew(&aa).await.unwrap().configurations, 1);
            share.describe("aa", "{\"max_runs\":\"1\"}").await.unwrap();
        }
        assert_eq!((kept().await, known().await), (1, [].into()), "daemons with one configuration have one row");
        assert_eq!(two.renew(&bb).await.unwrap().configurations, 2);
        two.describe("bb", "{\"max_runs\":\"2\"}").await.unwrap();
        let both = [("aa", "{\"max_runs\":\"1\"}"), ("bb", "{\"max_runs\":\"2\"}")];
        assert_eq!(known().await, both.map(|(name, parts)| (name.to_owned(), parts.to_owned())).into());

        // Whoever says nothing for a while may come back.
        let age = "UPDATE configuration SET seen = seen - 300001";
        database.run(age).await;
        one.describe("aa", "{}").await.unwrap();
        assert_eq!((kept().await, known().await.len()), (2, 2));
        two.describe("bb", "{}").await.unwrap();
        assert_eq!(two.renew(&aa).await.unwrap().configurations, 1);
        one.describe("aa", "{}").await.unwrap();
        assert_eq!(kept().await, 2, "its new one may be on its way");
        database.run(age).await;
        one.describe("aa", "{}").await.unwrap();
        let left = "SELECT count(*) FROM configuration WHERE fingerprint = 'aa' AND parts <> '{}'";
        assert_eq!((kept().await, count(&database.client, left).await), (1, 1));

        // Daemons before this table was thought of go on without it, and who comes next makes it.
        database.run("DROP TABLE configuration; UPDATE meta SET number = 2 WHERE key = 'schema'").await;
        let error = one.describe("aa", "{}").await.unwrap_err();
        assert!(error.to_string().contains("configuration"), "{error}");
        one.renew(&aa).await.unwrap();
        drop(open(&url, None).await);
        one.describe("aa", "{}").await.unwrap();
        assert_eq!(kept().await, 1);
    });
}
