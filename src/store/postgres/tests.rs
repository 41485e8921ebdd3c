//! The conformance suite on PostgreSQL, and what only PostgreSQL can get wrong.

use std::net::TcpListener;
use std::path::PathBuf;

use tokio::time::timeout;
use tokio_postgres::Client;

use self::server::{Database, Postgres as Server};
use super::*;
use crate::clock::Clock;
use crate::secret::{Redactor, Secret};
use crate::store::conformance::{self, at, row};
use crate::store::{OutboxState, OutboxStatus};

/// The server of the integration tests.
#[path = "../../../tests/it/support/postgres.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod server;

mod history;
mod share;

const START: Duration = Duration::from_secs(90);
const BOUND: Duration = Duration::from_secs(30);

fn server_binary(name: &str, package: &str) -> Option<PathBuf> {
    eprintln!("NOT TESTED: `{name}` is missing; install the Debian package `{package}`, or use tests/run");
    assert!(std::env::var_os("JOURNEYMAN_TESTS_REQUIRED").is_none(), "{name} is missing");
    None
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

async fn wait_for<T>(what: &str, bound: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(bound, waiting).await.unwrap_or_else(|_| panic!("waited {bound:?} for {what}"))
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint::new(&Secret::new(url.to_owned(), &Redactor::new())).unwrap()
}

fn lease(url: &str, holder: &str, ttl: Duration) -> Lease {
    Lease::new(endpoint(url), 0, holder.to_owned(), ttl)
}

/// Takes the lease from whoever has it: it lasts for no time.
async fn taken(url: &str, holder: &str) -> Fence {
    match lease(url, holder, Duration::ZERO).take().await.unwrap() {
        Turn::Ours(fence) => fence,
        held @ Turn::Held { .. } => panic!("{held:?}"),
    }
}

async fn open(url: &str, fence: Option<Fence>) -> Arc<dyn Store> {
    Arc::new(Postgres::open_resting(endpoint(url), fence, None, Clock::system(), Duration::ZERO).await.unwrap())
}

fn owe(sequence: u32) -> Vec<Change> {
    vec![Change::Owe { row: Box::new(row("i1", sequence, "slack", 0)) }]
}

fn spend(messages: u64) -> Vec<Change> {
    let (channel, journey) = ("sms".into(), "sms".into());
    vec![Change::Spend { spent: Spent { channel, day: "2026-09-21".parse().unwrap(), journey, messages } }]
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A database of the shared server; `None`: there is no server.
async fn database() -> Option<Database<'static>> {
    Some(Server::shared().await?.database().await)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    // One runtime for the whole process: the shared server's sessions live in it.
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    RUNTIME.block_on(future)
}

/// Runs the suite on a database of its own, with `more` behind its URL; each time that it is opened, by another holder.
fn conforms_with(more: &str) {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url() + more;
        let opened = std::sync::atomic::AtomicU64::default();
        let open = async || {
            let holder = format!("holder {}", opened.fetch_add(1, Ordering::Relaxed));
            open(&url, Some(taken(&url, &holder).await)).await
        };
        Box::pin(conformance::all(open)).await;
    });
}

#[test]
fn conforms() {
    conforms_with("");
}

#[test]
fn conforms_where_everything_is_serializable() {
    conforms_with("&options=-c%20default_transaction_isolation%3Dserializable");
}

#[test]
fn text_that_postgresql_does_not_take_is_kept_all_the_same() {
    block_on(async {
        let Some(database) = database().await else { return };
        let store = open(&database.url(), None).await;
        store.apply(owe(1)).await.unwrap();
        let mut owed = row("i1", 2, "slack", 0);
        owed.notification.decision = "nul \0 in a document".to_owned();
        let state = OutboxState { error: Some("it said \0".to_owned()), ..owed.state.clone() };
        let changes = vec![
            Change::Owe { row: Box::new(owed.clone()) },
            Change::Outbox { id: owed.id.clone(), state },
            Change::Unsilence { id: "\0".to_owned() },
        ];
        store.apply(changes).await.unwrap();
        let found = store.undelivered("slack".into(), Some("i1".to_owned())).await.unwrap();
        assert_eq!(found[1].notification.decision, "nul \0 in a document");
        assert_eq!(found[1].state.error.as_deref(), Some("it said \u{2400}"));
        assert_eq!(store.incident("\0".to_owned()).await.unwrap(), None);
        store.close().await.unwrap();
    });
}

#[test]
fn whoever_lost_the_lease_writes_nothing_any_more() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let (first, second) = (lease(&url, "first", BOUND), lease(&url, "second", BOUND));
        let Turn::Ours(fence) = first.take().await.unwrap() else { panic!("it is free") };
        assert_eq!(first.take().await.unwrap(), Turn::Ours(fence.clone()), "it is ours already");
        assert_eq!(second.holder().await.unwrap().as_deref(), Some("first"));
        match second.take().await.unwrap() {
            Turn::Held { by, left } => assert!(by == "first" && left <= BOUND && left > BOUND / 2, "{by} {left:?}"),
            ours @ Turn::Ours(_) => panic!("{ours:?}"),
        }
        let store = Postgres::open_resting(endpoint(&url), Some(fence.clone()), None, Clock::system(), Duration::ZERO)
            .await
            .unwrap();
        let leased = OutboxState { status: OutboxStatus::Leased, ..row("i1", 1, "slack", 0).state };
        store.apply(owe(1)).await.unwrap();
        store.apply(vec![Change::Outbox { id: row("i1", 1, "slack", 0).id, state: leased }]).await.unwrap();
        assert!(first.renew(&fence).await.unwrap());

        first.release(&fence).await.unwrap();
        assert_eq!(second.holder().await.unwrap(), None);
        let Turn::Ours(taken) = second.take().await.unwrap() else { panic!("it was given back") };
        assert_eq!(taken.epoch(), fence.epoch() + 1);
        let error = store.apply(owe(2)).await.unwrap_err();
        assert!(matches!(error, StoreError::Fenced(_)), "{error}");
        assert!(error.to_string().contains("another daemon has taken over"), "{error}");
        assert!(store.fenced().is_cancelled());
        assert!(matches!(store.revive("slack".into(), at(0)).await, Err(StoreError::Fenced(_))));
        let retention = Retention { runs_before: at(9), good_evidence_before: at(9), ledger_before: at(9) };
        assert!(matches!(store.forget(retention).await, Err(StoreError::Fenced(_))));
        assert!(!first.renew(&fence).await.unwrap(), "it is another's");
        first.release(&fence).await.unwrap();
        assert_eq!(second.holder().await.unwrap().as_deref(), Some("second"), "nobody gives back what is not theirs");
        assert_eq!(count(&database.client, "SELECT count(*) FROM outbox").await, 1, "nothing of the batch was kept");
        let found = store.undelivered("slack".into(), None).await.unwrap();
        assert_eq!(found[0].state.status, OutboxStatus::Ambiguous, "the attempt was the other's");
    });
}

#[test]
fn a_batch_that_is_not_to_be_takes_no_other_along() {
    block_on(async {
        let Some(database) = database().await else { return };
        let store = open(&database.url(), None).await;
        store.apply(spend(1)).await.unwrap();
        database.run("ALTER TABLE spent ADD CONSTRAINT few CHECK (messages < 1000)").await;
        let batches = (0..20).map(|nth| store.apply(if nth == 7 { spend(5_000) } else { spend(1) }));
        let results = futures_util::future::join_all(batches).await;
        for (nth, result) in results.iter().enumerate() {
            assert_eq!(result.is_err(), nth == 7, "{nth}: {result:?}");
        }
        let error = results[7].as_ref().unwrap_err().to_string();
        assert!(error.contains("violates check constraint \"few\""), "{error}");
        assert_eq!(store.spent().await.unwrap()[0].messages, 20);
    });
}

/// Sessions of ours are ended at any moment, also between a commit and its answer.
#[test]
fn nothing_is_lost_or_counted_twice_when_sessions_are_ended() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let store = open(&url, None).await;
        let (ender, _driver) = Server::shared().await.unwrap().session(&database.name).await;
        let ended = std::sync::atomic::AtomicI64::default();
        let is_enough = || ended.load(Ordering::Relaxed) >= 20;
        let ending = async {
            while !is_enough() {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE application_name = 'journeyman writer' AND datname = current_database()";
                ended.fetch_add(count(&ender, sql).await, Ordering::Relaxed);
                // Some commits go through between two ends.
                sleep(Duration::from_millis(fastrand::u64(30..90))).await;
            }
        };
        let writing = async {
            let mut written = 0;
            while !is_enough() {
                let batches = (0..5).map(|_| store.apply(spend(1)));
                for result in futures_util::future::join_all(batches).await {
                    result.expect("a session that is ended is made anew");
                    written += 1;
                }
            }
            written
        };
        let ((), written) = futures_util::future::join(ending, writing).await;
        assert_eq!(store.spent().await.unwrap()[0].messages, written);
    });
}

#[test]
fn writers_in_each_others_way_try_again() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = format!("{}&options=-c%20default_transaction_isolation%3Dserializable", database.url());
        let stores = [open(&url, None).await, open(&url, None).await];
        let write = async |store: &Arc<dyn Store>| {
            for _ in 0..50 {
                store.apply(spend(1)).await.unwrap();
            }
        };
        futures_util::future::join(write(&stores[0]), write(&stores[1])).await;
        assert_eq!(stores[0].spent().await.unwrap()[0].messages, 100);
    });
}

#[test]
fn many_that_start_at_once_make_one_schema() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        let opened = futures_util::future::join_all((0..6).map(|_| open(&url, None))).await;
        let keys = futures_util::future::join_all(opened.iter().map(|store| store.key())).await;
        let keys: Vec<_> = keys.into_iter().map(Result::unwrap).collect();
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "one installation has one key");
        let sql = "SELECT number FROM meta WHERE key = 'schema'";
        assert_eq!(count(&database.client, sql).await, 3);
    });
}

#[test]
fn a_newer_schema_is_refused_unless_it_says_that_we_may() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        drop(open(&url, None).await);
        database.run("UPDATE meta SET number = 9 WHERE key = 'schema'").await;
        drop(open(&url, None).await);
        Look::open(&endpoint(&url)).await.unwrap().close().await;
        database.run("UPDATE meta SET number = 9 WHERE key = 'readable_from'").await;
        let error =
            Postgres::open_resting(endpoint(&url), None, None, Clock::system(), Duration::ZERO).await.err().unwrap();
        assert!(matches!(error, StoreError::TooNew { found: 9, known: 3 }), "{error}");
        assert!(error.to_string().contains("run the newer build"));
        let error = Look::open(&endpoint(&url)).await.err().unwrap();
        assert!(matches!(error, StoreError::TooNew { found: 9, known: 3 }), "{error}");
        database.run("UPDATE meta SET number = 0 WHERE key = 'schema'").await;
        let error = Look::open(&endpoint(&url)).await.err().unwrap();
        assert!(error.to_string().contains("has no state of ours"), "{error}");
    });
}

#[test]
fn a_server_that_is_away_is_said_in_words_and_found_again() {
    block_on(async {
        let Some(mut server) = Server::private().await else { return };
        let url = server.database().await.url();
        let store = open(&url, None).await;
        store.apply(spend(1)).await.unwrap();
        server.kill();
        let error = store.apply(spend(1)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unwritable(why) if why.contains("PostgreSQL at 127.0.0.1:")), "{error}");
        // One that was away is not waited for again.
        let again = timeout(Duration::from_secs(2), store.apply(spend(1))).await.expect("an answer at once");
        assert!(again.is_err());
        assert!(matches!(store.spent().await, Err(StoreError::Unreadable(_))));
        server.start().await;
        wait_for("the store to write again", BOUND, async || store.apply(spend(1)).await.ok()).await;
        assert_eq!(store.spent().await.unwrap()[0].messages, 2);
        store.close().await.unwrap();
        assert!(matches!(store.apply(spend(1)).await, Err(StoreError::Closed)));
    });
}

/// The server lives, and says nothing.
#[test]
fn a_server_that_is_silent_hangs_nobody() {
    block_on(async {
        let Some(server) = Server::private().await else { return };
        let url = server.database().await.url();
        let store = open(&url, None).await;
        store.apply(spend(1)).await.unwrap();
        let (client, _driver) = server.session("postgres").await;
        let database = url.split(['/', '?']).nth(3).unwrap();
        // Whoever has the table keeps everybody else from it.
        let (blocker, _blocking) = server.session(database).await;
        blocker.batch_execute("BEGIN; LOCK TABLE spent").await.unwrap();
        let error = timeout(BOUND, store.apply(spend(1))).await.expect("an answer").unwrap_err();
        assert!(matches!(error, StoreError::Unwritable(_)), "{error}");
        blocker.batch_execute("ROLLBACK").await.unwrap();
        store.apply(spend(1)).await.unwrap();
        assert_eq!(store.spent().await.unwrap()[0].messages, 2);
        drop(client);
    });
}

/// What a commit of many runs costs; printed, because it is this machine's.
#[test]
fn many_runs_are_one_commit() {
    block_on(async {
        let Some(database) = database().await else { return };
        let store = open(&database.url(), None).await;
        let run = |slot: i64| {
            let report = conformance::good(slot);
            vec![Change::Run { report: Box::new(report), keep_evidence: false }]
        };
        store.apply(run(0)).await.unwrap();
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        let before = count(&database.client, commits).await;
        #[expect(clippy::disallowed_methods, reason = "it measures real time")]
        let begun = std::time::Instant::now();
        futures_util::future::join_all((1..=256).map(|slot| store.apply(run(slot)))).await;
        eprintln!("256 runs: {:?}", begun.elapsed());
        assert_eq!(count(&database.client, "SELECT count(*) FROM run").await, 257);
        assert!(count(&database.client, commits).await - before < 20);
    });
}
