//! A worker with a notifier that answers as told, on a real store. Waits are bounded, and for conditions.

use std::path::PathBuf;

use super::*;
use crate::breaker::{Force, Guarded, State};
use crate::commands::Levers;
use crate::notice::Notification;
use crate::notifier::Receipt;
use crate::notifier::memory::Memory;
use crate::store::sqlite::Sqlite;

struct Stage {
    store: Arc<dyn Store>,
    outbox: Arc<Outbox>,
    alarms: Alarms,
    notifiers: BTreeMap<&'static str, Arc<Memory>>,
    levers: Levers,
    board: Arc<Board>,
    stop: CancellationToken,
    workers: tokio::task::JoinSet<()>,
    clock: Clock,
    directory: PathBuf,
}

impl Stage {
    /// Workers for `slack`, with `mail` as its fallback after `fallback_after`.
    fn new(name: &str, fallback_after: Duration) -> Stage {
        let directory = std::env::temp_dir().join(format!("journeyman-delivery-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        Stage::resume(directory, fallback_after)
    }

    fn resume(directory: PathBuf, fallback_after: Duration) -> Stage {
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&directory.join("state.db")).unwrap());
        let (clock, board) = (Clock::system(), Arc::new(Board::default()));
        let metrics = crate::metrics::Metrics::new(&[], None);
        let mut notifiers = BTreeMap::new();
        let (mut lenders, levers) = (Vec::new(), Levers::default());
        for (name, fallback) in [("slack", Some("mail")), ("mail", None), ("forgetful", None)] {
            let memory = match name {
                "forgetful" => Arc::new(Memory::forgetful(Duration::from_millis(20))),
                _ => Arc::new(Memory::default()),
            };
            notifiers.insert(name, memory.clone());
            let what = Guarded::Notifier(name.into());
            lenders.push(Lender {
                name: name.into(),
                notifier: memory,
                fallback: fallback.map(|fallback| (fallback.into(), fallback_after)),
                metrics: metrics.notifier(&name.into()),
                lever: levers.of(&what),
                breaker: metrics.breaker(&what),
            });
        }
        let (observations, _) = mpsc::channel(9);
        let alarms = Alarms::default();
        let (outbox, built) = build(
            lenders,
            &Workplace {
                spare: None,
                store: store.clone(),
                clock,
                board: board.clone(),
                observations: observations.downgrade(),
                alarms: alarms.clone(),
            },
        );
        let (stop, mut workers) = (CancellationToken::new(), tokio::task::JoinSet::new());
        for worker in built {
            let pulse = board.pulse("delivery", clock.now().mono);
            workers.spawn(worker.run(pulse, stop.clone(), Duration::from_secs(1)));
        }
        Stage { store, outbox, alarms, notifiers, levers, board, stop, workers, clock, directory }
    }

    async fn owe(&self, incident: &str, sequence: u32, notifier: &str) {
        self.owe_because(incident, sequence, notifier, NotifyReason::First).await;
    }

    async fn owe_because(&self, incident: &str, sequence: u32, notifier: &str, reason: NotifyReason) {
        let mut row = crate::store::conformance::row(incident, sequence, notifier, 0);
        row.notification.reason = reason;
        row.created = self.clock.now().wall;
        row.state = OutboxState::pending(row.created);
        row.notification.decision = format!("{incident}.{sequence}");
        self.store.apply(vec![Change::Owe { row: Box::new(row) }]).await.unwrap();
        self.outbox.wake();
    }

    async fn until(&self, what: &str, holds: impl Fn(&[OutboxRow]) -> bool) -> Vec<OutboxRow> {
        let waiting = async {
            loop {
                let rows = self.store.outbox(None, None, 999).await.unwrap();
                if holds(&rows) {
                    return rows;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("waited for {what}"))
    }

    fn breaker(&self, notifier: &str) -> Arc<crate::board::BreakerStatus> {
        self.board.breakers()[&Guarded::Notifier(notifier.into())].clone()
    }

    fn attempts(&self, notifier: &str) -> Vec<Delivery> {
        self.notifiers[notifier].deliveries()
    }

    /// Waits until the forgetful one is told these again, and nothing else.
    async fn until_retold(&self, decisions: &[&str]) {
        let is_it = |told: &Vec<Notification>| told.iter().map(|told| &told.decision).eq(decisions);
        let waiting = async {
            while !self.notifiers["forgetful"].retold().iter().any(is_it) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "waited for {decisions:?}: {:#?}", self.notifiers["forgetful"].retold().last());
    }

    async fn end(mut self) -> PathBuf {
        self.stop.cancel();
        while self.workers.join_next().await.is_some() {}
        self.store.close().await.unwrap();
        self.directory.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_began_and_ended_while_nobody_could_be_told_is_told_in_one() {
    let stage = Stage::new("whole", LATER);
    let refusals =
        std::iter::repeat_n(Err(NotifyError::After { wait: Duration::from_secs(1), detail: "429".into() }), 1);
    stage.notifiers["slack"].script(refusals);
    stage.owe("i1", 1, "slack").await;
    stage.until("the 429", |rows| rows.iter().any(|row| row.state.error.is_some())).await;
    for (sequence, reason) in [(2, NotifyReason::Worse), (3, NotifyReason::Resolved)] {
        stage.owe_because("i1", sequence, "slack", reason).await;
    }
    let told = |rows: &[OutboxRow]| rows.iter().any(|row| row.state.status == OutboxStatus::Sent);
    let rows = stage.until("the whole story", told).await;
    let superseded = rows.iter().filter(|row| row.state.status == OutboxStatus::Superseded).count();
    assert_eq!((rows.len(), superseded), (3, 2));
    let attempts = stage.attempts("slack");
    assert_eq!(attempts.len(), 2, "a 429 and one");
    let whole = &attempts[1].notification;
    assert_eq!((attempts[1].id.as_str(), whole.state_word()), ("i1.3.slack", "WAS DOWN"));
    assert!(whole.news.iter().any(|news| news.contains("429")), "{:?}", whole.news);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fallback_that_was_told_of_the_beginning_is_told_of_the_end() {
    let stage = Stage::new("fallback-end", Duration::from_millis(100));
    stage.notifiers["slack"].script([Err(NotifyError::Backoff("503".into()))]);
    stage.owe("i1", 1, "slack").await;
    stage.until("both", |rows| rows.len() == 2 && all_sent(rows)).await;
    stage.owe_because("i1", 2, "slack", NotifyReason::Resolved).await;
    stage.until("both ends", |rows| rows.len() == 4 && all_sent(rows)).await;
    let mail: Vec<_> = stage.attempts("mail").iter().map(|delivery| delivery.notification.reason).collect();
    assert_eq!(mail, [NotifyReason::First, NotifyReason::Resolved]);
    stage.end().await;
}

/// It was away itself when the end was told: hearing of the beginning alone, it would have people look for what is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fallback_that_is_yet_to_hear_of_the_beginning_hears_of_the_end_too() {
    let stage = Stage::new("fallback-late-end", Duration::from_millis(100));
    stage.notifiers["slack"].script([Err(NotifyError::Backoff("503".into()))]);
    stage.notifiers["mail"].script([Err(NotifyError::After { wait: Duration::from_secs(5), detail: "429".into() })]);
    stage.owe("i1", 1, "slack").await;
    let is_away = |row: &OutboxRow| &*row.notifier == "mail" && row.state.error.is_some();
    let has_heard = |row: &OutboxRow| &*row.notifier == "slack" && row.state.status == OutboxStatus::Sent;
    stage.until("one of them", |rows| rows.iter().any(is_away) && rows.iter().any(has_heard)).await;
    stage.owe_because("i1", 2, "slack", NotifyReason::Resolved).await;
    let is_told = |row: &OutboxRow| matches!(row.state.status, OutboxStatus::Sent | OutboxStatus::Superseded);
    stage.until("both ends", |rows| rows.len() == 4 && rows.iter().all(is_told)).await;
    let mail: Vec<_> = stage.attempts("mail").iter().map(|delivery| delivery.notification.state_word()).collect();
    assert_eq!(mail.last(), Some(&"WAS DOWN"), "{mail:?}");
    stage.end().await;
}

fn all_sent(rows: &[OutboxRow]) -> bool {
    rows.iter().all(|row| row.state.status == OutboxStatus::Sent)
}

const LATER: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_of_an_incident_go_in_order_and_carry_the_root() {
    let stage = Stage::new("order", LATER);
    stage.notifiers["slack"].script([Err(NotifyError::Backoff("503".into()))]);
    stage.owe("i1", 1, "slack").await;
    stage.until("the first", |rows| rows.len() == 1 && all_sent(rows)).await;
    stage.owe("i1", 2, "slack").await;
    stage.until("both", |rows| rows.len() == 2 && all_sent(rows)).await;
    let told: Vec<_> = stage
        .attempts("slack")
        .iter()
        .map(|d| (d.id.clone(), d.attempt, d.root.as_ref().map(|r| r.id.clone())))
        .collect();
    let root = Some("memory-i1.1.slack".to_owned());
    let expected =
        [("i1.1.slack".to_owned(), 1, None), ("i1.1.slack".to_owned(), 2, None), ("i1.2.slack".to_owned(), 1, root)];
    assert_eq!(told, expected);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_will_never_be_taken_goes_to_the_fallback_at_once_and_comes_back_when_it_works() {
    let stage = Stage::new("fallback", LATER);
    stage.notifiers["slack"].script([Err(NotifyError::Never("the token was revoked".into()))]);
    stage.owe("i1", 1, "slack").await;
    stage
        .until("the mail", |rows| {
            rows.iter().any(|row| &*row.notifier == "mail" && row.state.status == OutboxStatus::Sent)
        })
        .await;
    let mail = stage.attempts("mail").remove(0);
    assert_eq!(mail.instead_of, Some(("slack".to_owned(), "the token was revoked".to_owned())));
    let rows = stage.store.outbox(Some(OutboxStatus::Dead), None, 9).await.unwrap();
    assert_eq!(rows.len(), 1);
    // Slack works again: the dead letter follows the next notice.
    stage.owe("i2", 1, "slack").await;
    stage.until("the dead letter", |rows| rows.len() == 3 && all_sent(rows)).await;
    assert_eq!(stage.attempts("mail").len(), 1, "the fallback is told once");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_taken_in_time_goes_to_the_fallback_too() {
    let stage = Stage::new("overdue", Duration::from_millis(300));
    stage.notifiers["slack"].script(std::iter::repeat_n(Err(NotifyError::Backoff("503".into())), 2));
    stage.owe("i1", 1, "slack").await;
    stage.until("both", |rows| rows.len() == 2 && all_sent(rows)).await;
    assert_eq!(stage.attempts("slack").len(), 3);
    assert_eq!(stage.attempts("mail").len(), 1);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_before_the_other_side_said_also_over_a_restart() {
    let stage = Stage::new("hold", LATER);
    let wait = Duration::from_secs(3);
    stage.notifiers["slack"].script([Err(NotifyError::After { wait, detail: "429".into() })]);
    stage.owe("i1", 1, "slack").await;
    stage.owe("i2", 1, "slack").await;
    stage.until("the 429", |rows| rows.iter().any(|row| row.state.error.is_some())).await;
    let asked = stage.clock.now().wall;
    let stage = Stage::resume(stage.end().await, LATER);
    stage.until("both", all_sent).await;
    let first = stage.store.outbox(None, None, 9).await.unwrap().iter().map(|row| row.state.at).min().unwrap();
    let waited = between(asked, first);
    assert!(waited >= wait - Duration::from_millis(500), "sent after {waited:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unclear_answer_is_looked_up_by_the_next_attempt() {
    let stage = Stage::new("ambiguous", LATER);
    stage.notifiers["slack"].script([Err(NotifyError::Ambiguous("reset".into())), Ok(Receipt::default())]);
    stage.owe("i1", 1, "slack").await;
    stage.until("it", |rows| rows.len() == 1 && all_sent(rows)).await;
    let told: Vec<_> = stage.attempts("slack").iter().map(|d| (d.attempt, d.is_ambiguous)).collect();
    assert_eq!(told, [(1, false), (2, true)]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_people_are_told_and_not_told_again_when_it_is_back() {
    let stage = Stage::new("direct", LATER);
    let mut row = crate::store::conformance::row("i1", 1, "slack", 0);
    row.created = stage.clock.now().wall;
    row.state = OutboxState::pending(row.created);
    stage.outbox.tell_without_store(row.clone());
    let told = async {
        while stage.attempts("slack").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    // Nobody else has to say that it was owed: the end of an incident goes to those who heard that it began.
    stage.until("the row", |rows| rows.len() == 1 && all_sent(rows)).await;
    stage.store.apply(vec![Change::Owe { row: Box::new(row) }]).await.unwrap();
    stage.outbox.wake();
    stage.owe("i2", 1, "slack").await;
    stage.until("the next", |rows| rows.len() == 2 && all_sent(rows)).await;
    assert_eq!(stage.attempts("slack").len(), 2);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_it_is_over_is_not_told_before_that_it_began() {
    let stage = Stage::new("dead-first", LATER);
    stage.notifiers["slack"].script([Err(NotifyError::Never("the token was revoked".into()))]);
    stage.owe("i1", 1, "slack").await;
    stage.until("the dead letter", |rows| rows.iter().any(|row| row.state.status == OutboxStatus::Dead)).await;
    stage.owe_because("i1", 2, "slack", NotifyReason::Resolved).await;
    let is_over = |rows: &[OutboxRow]| rows.iter().filter(|row| row.state.status == OutboxStatus::Sent).count() >= 3;
    stage.until("all", is_over).await;
    let slack: Vec<_> = stage.attempts("slack").into_iter().map(|told| (told.id, told.notification.is_whole)).collect();
    assert_eq!(slack, [("i1.1.slack".to_owned(), false), ("i1.2.slack".to_owned(), true)], "both ends in one");
    let mail: Vec<_> = stage.attempts("mail").into_iter().map(|told| told.notification.reason).collect();
    assert_eq!(mail, [NotifyReason::First, NotifyReason::Resolved]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_owed_before_the_store_stopped_writing_is_told_once_all_the_same() {
    let stage = Stage::new("locked", LATER);
    let wait = Duration::from_secs(1);
    stage.notifiers["slack"].script([Err(NotifyError::After { wait, detail: "429".into() })]);
    for incident in ["i1", "i2"] {
        stage.owe(incident, 1, "slack").await;
    }
    stage.until("the 429", |rows| rows.iter().any(|row| row.state.error.is_some())).await;
    let other = rusqlite::Connection::open(stage.directory.join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = async {
        while stage.attempts("slack").len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Each attempt to write waits 5 s for the lock.
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    assert!(stage.store.outbox(Some(OutboxStatus::Sent), None, 9).await.unwrap().is_empty());
    other.execute_batch("ROLLBACK").unwrap();
    stage.until("the store to know", |rows| rows.len() == 2 && all_sent(rows)).await;
    assert_eq!(stage.attempts("slack").len(), 3, "a 429 and one each");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_notice_without_a_store_waits_for_the_first() {
    let stage = Stage::new("direct-order", LATER);
    let other = rusqlite::Connection::open(stage.directory.join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    stage.notifiers["slack"].script([Err(NotifyError::Backoff("503".into()))]);
    for sequence in [1, 2] {
        let mut row = crate::store::conformance::row("i1", sequence, "slack", 0);
        row.created = stage.clock.now().wall;
        row.state = OutboxState::pending(row.created);
        stage.outbox.tell_without_store(row);
    }
    let told = async {
        while stage.attempts("slack").len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    let told: Vec<_> = stage.attempts("slack").into_iter().map(|delivery| (delivery.id, delivery.attempt)).collect();
    let expected = [("i1.1.slack", 1), ("i1.1.slack", 2), ("i1.2.slack", 1)];
    assert_eq!(told, expected.map(|(id, attempt)| (id.to_owned(), attempt)));
    other.execute_batch("ROLLBACK").unwrap();
    stage.until("the store to know", |rows| rows.len() == 2 && all_sent(rows)).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_forgets_is_told_again_what_stands_also_after_a_restart() {
    let stage = Stage::new("standing", LATER);
    stage.owe("i1", 1, "slack").await;
    stage.owe("i1", 1, "forgetful").await;
    stage.owe("i2", 1, "forgetful").await;
    stage.until_retold(&["i1.1", "i2.1"]).await;
    stage.owe("i2", 2, "forgetful").await;
    stage.until_retold(&["i1.1", "i2.2"]).await;
    let stage = Stage::resume(stage.end().await, LATER);
    stage.until_retold(&["i1.1", "i2.2"]).await;
    // An incident of a journey that nobody watches any more.
    let incident = crate::store::IncidentRow {
        id: "i1".into(),
        subject: "sms".into(),
        since: stage.clock.now().wall,
        resolved: None,
        severity: "critical".into(),
        detectors: Vec::new(),
        summary: String::new(),
        bad_runs: 3,
        members: 1,
    };
    stage.store.apply(vec![Change::Incident { row: incident, open: None, journeys: Vec::new() }]).await.unwrap();
    stage.until_retold(&["i2.2"]).await;
    assert_eq!(stage.attempts("forgetful").len(), 0, "it is no notice");
    assert_eq!(stage.notifiers["slack"].retold().len(), 0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_us_to_wait_is_not_told_again_meanwhile() {
    let stage = Stage::new("standing-hold", LATER);
    stage.owe("i1", 1, "forgetful").await;
    stage.until_retold(&["i1.1"]).await;
    let wait = Duration::from_secs(2);
    stage.notifiers["forgetful"].script([Err(NotifyError::After { wait, detail: "429".into() })]);
    stage.owe("i2", 1, "forgetful").await;
    stage.until("the 429", |rows| rows.iter().any(|row| row.state.error.is_some())).await;
    let (asked, before) = (stage.clock.now().mono, stage.notifiers["forgetful"].retold().len());
    stage.until_retold(&["i1.1", "i2.1"]).await;
    let waited = stage.clock.now().mono.since(asked);
    assert!(waited >= wait - Duration::from_millis(500), "told again after {waited:?}");
    let told = stage.notifiers["forgetful"].retold();
    let early = told[before..].iter().filter(|told| told.len() == 1).count();
    assert!(early <= 1, "one may have been under way: {early}");
    stage.end().await;
}

fn told_by(rows: &[OutboxRow], notifier: &str) -> usize {
    rows.iter().filter(|row| &*row.notifier == notifier && row.state.status == OutboxStatus::Sent).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_three_failures_in_a_row_it_is_left_alone_and_what_is_owed_stays_owed_also_over_a_restart() {
    let soon = Duration::from_secs(2);
    let stage = Stage::new("breaker", soon);
    stage.notifiers["slack"].script(std::iter::repeat_n(Err(NotifyError::Backoff("503".into())), 3));
    stage.owe("i1", 1, "slack").await;
    let third = |row: &OutboxRow| &*row.notifier == "slack" && row.state.attempt == 3 && row.state.error.is_some();
    let is_open = |rows: &[OutboxRow]| told_by(rows, "mail") == 1 && rows.iter().any(third);
    let rows = stage.until("the mail, and the third attempt", is_open).await;
    let slack = rows.iter().find(|row| &*row.notifier == "slack").unwrap();
    assert_eq!((slack.state.status, slack.state.error.as_deref()), (OutboxStatus::Pending, Some("503")));
    let until = stage.store.hold("breaker slack".into()).await.unwrap().unwrap();
    let left = between(stage.clock.now().wall, until);
    assert!((10..=18).contains(&left.as_secs()), "{left:?}");

    let stage = Stage::resume(stage.end().await, soon);
    stage.owe("i2", 1, "slack").await;
    stage.until("the second mail", |rows| told_by(rows, "mail") == 2).await;
    assert_eq!(stage.attempts("slack").len(), 0, "it is open");
    assert_eq!(stage.breaker("slack").state, State::Open);
    let rows = stage.until("slack to have all", |rows| rows.len() == 4 && all_sent(rows)).await;
    let first = rows.iter().filter(|row| &*row.notifier == "slack").map(|row| row.state.at).min().unwrap();
    assert!(first >= until, "{first} is before {until}");
    assert_eq!(stage.breaker("slack").state, State::Closed, "two notices were taken");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_good_or_for_a_time_does_not_open_the_breaker() {
    let stage = Stage::new("breaker-not", LATER);
    let never = std::iter::repeat_n(Err(NotifyError::Never("no such channel".into())), 4);
    let wait = Duration::from_millis(10);
    let after = std::iter::repeat_n(Err(NotifyError::After { wait, detail: "429".into() }), 4);
    stage.notifiers["slack"].script(never.chain(after));
    for n in 0..5 {
        stage.owe(&format!("i{n}"), 1, "slack").await;
    }
    stage.until("the last", |rows| told_by(rows, "slack") >= 1).await;
    assert_eq!((stage.breaker("slack").state, stage.breaker("slack").changes.len()), (State::Closed, 0));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_can_have_the_fallback_tell_and_take_that_back() {
    let stage = Stage::new("breaker-forced", LATER);
    let until = later(stage.clock.now().wall, LATER);
    let order = crate::breaker::Order { to: Force::Open, by: "ada".into(), reason: "they migrate".into(), until };
    let slack = Guarded::Notifier("slack".into());
    assert!(stage.levers.pull(&slack, Some(order)));
    stage.owe("i1", 1, "slack").await;
    stage.until("the mail", |rows| told_by(rows, "mail") == 1).await;
    assert_eq!((stage.attempts("slack").len(), stage.breaker("slack").state), (0, State::ForcedOpen));
    assert!(stage.levers.pull(&slack, None));
    stage.until("slack to have it", |rows| rows.len() == 2 && all_sent(rows)).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_alarm_has_one_attempt_and_none_while_notices_wait_and_is_no_notice() {
    use crate::alarm::Why;
    use crate::notice::sample::test_alarm;
    let stage = Stage::new("alarms", Duration::from_secs(600));
    let alarm = |nth| {
        let token = crate::journey::token::Token::from_bits(nth);
        let notification = test_alarm(stage.clock.now().wall, token, "");
        async { stage.alarms.ring(&"slack".into(), notification).await }
    };
    let taken = alarm(1).await.unwrap();
    assert_eq!((taken.place.as_str(), stage.attempts("slack").len()), ("memory", 1));
    assert!(stage.attempts("mail").is_empty());

    stage.notifiers["slack"].script([Err(NotifyError::Never("invalid_auth".to_owned()))]);
    assert_eq!(alarm(2).await.unwrap_err().why, Why::Refused);
    let wait = Duration::from_secs(600);
    stage.notifiers["slack"].script([Err(NotifyError::After { wait, detail: "slow down".to_owned() })]);
    assert_eq!(alarm(3).await.unwrap_err().why, Why::Throttled);
    let why = alarm(4).await.unwrap_err();
    assert_eq!((why.why, why.detail.contains("asked to be left alone")), (Why::Throttled, true), "{why}");
    assert_eq!(stage.attempts("slack").len(), 3, "while notices wait, a test does not go");

    let what = Guarded::Notifier("slack".into());
    let until = crate::time::later(stage.clock.now().wall, wait);
    let order = crate::breaker::Order { to: Force::Open, by: "ada".into(), reason: "why".into(), until };
    assert!(stage.levers.pull(&what, Some(order)));
    assert_eq!(alarm(5).await.unwrap_err().why, Why::Blocked);
    assert_eq!(stage.attempts("slack").len(), 3);
    assert!(stage.attempts("mail").is_empty(), "no fallback hides that it does not tell");
    assert!(stage.store.outbox(None, None, 9).await.unwrap().is_empty());
    let gone =
        stage.alarms.ring(&"gone".into(), test_alarm(until, crate::journey::token::Token::from_bits(6), "")).await;
    assert_eq!(gone.unwrap_err().why, Why::Nobody);
    stage.end().await;
}
