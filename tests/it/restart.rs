//! Runs that outlive a restart: what is in flight when the daemon is killed, or stopped, goes on, ends in one verdict, and the
//! verdict is true. `JOURNEYMAN_TESTS_KILLS` kills more often than a change needs.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

mod cold;
mod kills;
mod races;
mod stop;
mod system;

use std::time::Duration;

use journeyman::journey::token::Token;
use rusqlite::{Connection, OpenFlags};

use self::system::{Place, System};
use crate::support::daemon::{Daemon, Setup};
use crate::support::redis::Redis;
use crate::support::table::Table;
use crate::support::{block_on, wait_for};

/// What waits for a verdict, on a machine that is busy with other tests.
const BOUND: Duration = Duration::from_secs(40);

fn redis_channel(redis: &Redis) -> String {
    format!(
        "[channels.queue]\ntype = \"redis\"\nurl = \"{}\"\nstream = \"back\"\nreceive = {{ stream = \"back\" }}\n",
        redis.url()
    )
}

const HOOK: &str = "[channels.hook]\ntype = \"webhook\"\npath = \"/hook\"\nverify = { scheme = \"none\" }\n";

/// A system that sends to `channel`, and a daemon that waits there. The journey is due each second.
fn configuration(system: &System, channels: &str, channel: &str, deadline: &str) -> (String, String) {
    let main = format!("[channels.web]\ntype = \"http\"\nurl = \"{}\"\n{channels}", system.url());
    let probes = format!(
        "[[journey]]\nname = \"trip\"\nevery = \"1s\"\ndeadline = \"{deadline}\"\nbudget = \"900ms\"\nmuted = true\n\
         step = [{{ name = \"out\", send = \"web\", path = \"/0\", text = \"{{{{ token }}}}\" }}, \
         {{ name = \"in\", receive = \"{channel}\" }}]\n"
    );
    (main, probes)
}

fn store(daemon: &Daemon) -> Connection {
    let connection =
        Connection::open_with_flags(daemon.store_path(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the store is there");
    connection.busy_timeout(BOUND).unwrap();
    connection
}

/// Verdicts as the store codes them.
const VERDICTS: [&str; 6] = ["good", "slow", "failed", "late", "unknown", "excluded"];
const WHYS: [(i64, &str); 6] =
    [(0, ""), (8, "uncertain"), (9, "not_received"), (18, "not_ready"), (20, "shutdown"), (28, "restart")];

/// What every run of a journey came to, by slot in milliseconds.
fn verdicts(daemon: &Daemon, journey: &str) -> Vec<(i64, String)> {
    let store = store(daemon);
    let sql = "SELECT slot, verdict, why FROM run JOIN journey ON journey.id = journey WHERE name = ? ORDER BY slot";
    let mut statement = store.prepare(sql).unwrap();
    let rows = statement.query_map([journey], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(|row| {
        let (slot, verdict, why): (i64, u32, i64) = row.unwrap();
        let why = WHYS.iter().find(|(code, _)| *code == why).map_or("?", |(_, why)| why);
        let verdict = VERDICTS[verdict as usize];
        (slot, if why.is_empty() { verdict.to_owned() } else { format!("{verdict}({why})") })
    })
    .collect()
}

/// What the run of this token came to, once it has. Of slots without a run there is no row, so the last before it is its.
async fn verdict(daemon: &Daemon, token: Token) -> String {
    let issued = token.issued().as_millisecond();
    wait_for(&format!("the verdict of {token}\n{}", daemon.log()), BOUND, async || {
        let unfinished: i64 = store(daemon)
            .query_row("SELECT count(*) FROM unfinished WHERE token = ?", [token.bits().to_be_bytes()], |row| {
                row.get(0)
            })
            .unwrap();
        let verdicts = verdicts(daemon, "trip");
        let own = verdicts.iter().rev().find(|(slot, _)| *slot <= issued && issued < slot + 1_000);
        own.filter(|_| unfinished == 0).map(|(_, verdict)| verdict.clone())
    })
    .await
}

/// Every slot between the first and the last is counted, and once; gives how many that are.
fn check_slots(daemon: &Daemon, every: i64) -> i64 {
    let store = store(daemon);
    let sql = "SELECT name, start, step, count FROM span JOIN journey ON journey.id = journey ORDER BY name, start";
    let mut statement = store.prepare(sql).unwrap();
    let spans = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    let mut slots: std::collections::BTreeMap<String, Vec<i64>> = Default::default();
    for span in spans {
        let (name, start, step, count): (String, i64, i64, i64) = span.unwrap();
        slots.entry(name).or_default().extend((0..count).map(|n| start + n * step));
    }
    for (name, slots) in &slots {
        for pair in slots.windows(2) {
            assert_eq!(pair[1] - pair[0], every, "{name}: a slot is missing, or there twice");
        }
    }
    slots.values().map(|slots| slots.len() as i64).sum()
}

#[test]
fn a_message_that_came_while_nobody_was_there_is_found_in_its_queue() {
    block_on(async {
        let Some(redis) = Redis::start().await else { return };
        let mut system = System::start().await;
        let channel = redis_channel(&redis);
        let place = Place::open(&channel, "queue");
        let (main, probes) = configuration(&system, &channel, "queue", "30s");
        let mut daemon = Setup::new("restart").start(&main, &probes).await;
        let taken = system.take().await;
        daemon.kill().await;
        place.put(taken.token).await;
        daemon.start_again().await;
        let verdict = verdict(&daemon, taken.token).await;
        assert!(["good", "slow"].contains(&verdict.as_str()), "{verdict}\n{}", daemon.log());
        let (_, run) = daemon.get(&format!("/api/v1/runs/{}", taken.token)).await;
        let run: serde_json::Value = serde_json::from_str(&run).unwrap();
        let said = run["run"]["steps"][1]["detail"].as_str().unwrap_or_else(|| panic!("{run:#}"));
        assert!(said.starts_with("measured over a restart"), "{said}");
        check_slots(&daemon, 1_000);
        let mut table = Table::new("restart", "queue-found", &["case", "came to"]);
        table.row(&[&"killed while a queue's message was waited for, which came meanwhile", &verdict]);
    });
}

#[test]
fn a_message_that_never_comes_to_a_queue_is_lost_whoever_was_there() {
    block_on(async {
        let Some(redis) = Redis::start().await else { return };
        let mut system = System::start().await;
        let (main, probes) = configuration(&system, &redis_channel(&redis), "queue", "4s");
        let mut daemon = Setup::new("restart").start(&main, &probes).await;
        let taken = system.take().await;
        kept_waiting(&daemon, taken.token).await;
        daemon.kill().await;
        daemon.start_again().await;
        let verdict = verdict(&daemon, taken.token).await;
        assert_eq!(verdict, "failed(not_received)", "{}", daemon.log());
        let mut table = Table::new("restart", "queue-lost", &["case", "came to"]);
        table.row(&[&"killed while a queue's message was waited for, which never came", &verdict]);
    });
}

/// Waits until it is on disk that the run waits.
async fn kept_waiting(daemon: &Daemon, token: Token) {
    wait_for("the run to be kept", BOUND, async || {
        let sql = "SELECT state LIKE '%receiving%' FROM unfinished WHERE token = ?";
        store(daemon).query_row(sql, [token.bits().to_be_bytes()], |row| row.get(0)).ok().filter(|is_so: &bool| *is_so)
    })
    .await;
}

#[test]
fn a_call_that_found_nobody_leaves_the_run_unknown_and_one_more_is_made_at_once() {
    block_on(async {
        let mut system = System::start().await;
        let (main, probes) = configuration(&system, HOOK, "hook", "3s");
        let mut daemon = Setup::new("restart").start(&main, &probes).await;
        let hook = daemon.hook_url("/hook");
        let taken = system.take().await;
        kept_waiting(&daemon, taken.token).await;
        daemon.kill().await;
        assert!(!system.call(&hook, &taken.token.to_string()).await, "nobody is there");
        daemon.start_again().await;
        // The next message is the one in its place: the journey's turn is not over before.
        let again = system.take().await;
        assert!(system.call(&hook, &again.token.to_string()).await);
        let verdict = verdict(&daemon, taken.token).await;
        assert_eq!(verdict, "unknown(restart)", "{}", daemon.log());
        let repeated = daemon.log().matches("running again what a restart left unknown").count();
        assert_eq!(repeated, 1);
        wait_for("the journey to go on", BOUND, async || system.try_take()).await;
        let mut table = Table::new("restart", "hook-missed", &["case", "came to"]);
        table.row(&[&"killed while a call was waited for, which found nobody", &format!("{verdict}, and 1 more run")]);
    });
}

#[test]
fn a_call_that_was_answered_is_not_lost_with_whoever_answered() {
    block_on(async {
        let mut system = System::start().await;
        // The first of two copies does not end the run, so that nothing but the call itself can have been written down.
        let (main, probes) = configuration(&system, HOOK, "hook", "8s");
        let probes = probes.replace("receive = \"hook\"", "receive = \"hook\", expect = [{ copies = 2 }]");
        let mut daemon = Setup::new("restart").start(&main, &probes).await;
        let hook = daemon.hook_url("/hook");
        let mut found = Vec::new();
        for _ in 0..3 {
            let taken = system.take().await;
            assert!(system.call(&hook, &taken.token.to_string()).await);
            daemon.kill().await;
            daemon.start_again().await;
            assert!(system.call(&hook, &taken.token.to_string()).await);
            let verdict = verdict(&daemon, taken.token).await;
            assert!(["good", "slow"].contains(&verdict.as_str()), "{verdict}\n{}", daemon.log());
            found.push(verdict);
            while system.try_take().is_some() {}
        }
        check_slots(&daemon, 1_000);
        let mut table = Table::new("restart", "hook-answered", &["case", "came to"]);
        table.row(&[&"killed right after the 2xx of the first of two calls, 3 times", &found.join(", ")]);
    });
}

#[test]
fn a_message_that_was_being_sent_is_believed_when_it_comes_and_not_missed_when_it_does_not() {
    block_on(async {
        let Some(redis) = Redis::start().await else { return };
        let mut system = System::start().await;
        let channel = redis_channel(&redis);
        let place = Place::open(&channel, "queue");
        let (main, probes) = configuration(&system, &channel, "queue", "5s");
        let mut table = Table::new("restart", "sending", &["case", "came to"]);
        for comes in [true, false] {
            system.hold_answers(true);
            let mut daemon = Setup::new("restart").start(&main, &probes).await;
            let taken = system.take().await;
            daemon.kill().await;
            system.hold_answers(false);
            if comes {
                place.put(taken.token).await;
            }
            daemon.start_again().await;
            let verdict = verdict(&daemon, taken.token).await;
            match comes {
                true => assert!(["good", "slow"].contains(&verdict.as_str()), "{verdict}\n{}", daemon.log()),
                false => assert_eq!(verdict, "unknown(restart)", "{}", daemon.log()),
            }
            let case =
                if comes { "killed while sending, and it came" } else { "killed while sending, and nothing came" };
            table.row(&[&case, &verdict]);
            daemon.kill().await;
            while system.try_take().is_some() {}
        }
    });
}

#[test]
fn a_journey_that_is_another_or_gone_leaves_nothing_that_waits() {
    block_on(async {
        let Some(redis) = Redis::start().await else { return };
        let mut system = System::start().await;
        let (main, probes) = configuration(&system, &redis_channel(&redis), "queue", "20s");
        let mut daemon = Setup::new("restart").start(&main, &probes).await;
        let taken = system.take().await;
        daemon.kill().await;
        std::fs::write(daemon.directory().join("probes.toml"), probes.replace("\"20s\"", "\"19s\"")).unwrap();
        daemon.start_again().await;
        assert_eq!(verdict(&daemon, taken.token).await, "unknown(restart)", "{}", daemon.log());
        system.take().await;
        daemon.kill().await;
        std::fs::write(daemon.directory().join("probes.toml"), probes.replace("\"trip\"", "\"other\"")).unwrap();
        daemon.start_again().await;
        let waiting = "SELECT count(*) FROM unfinished WHERE state LIKE '%\"trip\"%'";
        let left: i64 = store(&daemon).query_row(waiting, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
        let mut table = Table::new("restart", "changed", &["case", "came to"]);
        table.row(&[&"killed, and the journey was changed meanwhile", &"unknown(restart)"]);
    });
}
