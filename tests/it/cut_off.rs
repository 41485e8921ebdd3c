//! Daemons that are cut off from the store that they share: they tell people by themselves, and leave it to others in order.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

mod start;

use std::path::PathBuf;
use std::time::Duration;

use journeyman::clock::Clock;
use reqwest::StatusCode;
use rusqlite::{Connection, OpenFlags};

use crate::support::cluster::{check_slots, leads, number, shares};
use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::postgres::{Database, Postgres as Server};
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

/// What waits for a daemon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);
/// What is said to be cut off: 10 s, an attempt, and a machine that is busy.
const CUT: Duration = Duration::from_secs(25);
const EVERY: Duration = Duration::from_secs(1);
const JOURNEYS: usize = 12;

/// A daemon, and the way from it to the database.
struct Seat {
    daemon: Daemon,
    way: Proxy,
}

/// What people were told.
struct Told {
    text: String,
    /// The message whose thread it is in, itself if it began one.
    thread: String,
    /// A daemon that is cut off told it.
    is_alone: bool,
}

/// The stage of a test: several daemons, each with a way of its own.
struct Stage<'a> {
    database: Database<'a>,
    target: Target,
    slack: FakeSlack,
    server: &'a Server,
}

impl<'a> Stage<'a> {
    async fn new(server: &'a Server) -> Stage<'a> {
        let (target, slack) = (Target::start(JOURNEYS).await, FakeSlack::start().await);
        Stage { database: server.database().await, target, slack, server }
    }

    fn configuration(&self, spool: bool) -> (String, String) {
        let spool = if spool { "\n[store]\nspool = \"spool\"\n" } else { "" };
        let main = format!(
            "[alerting]\ngroup_by = []\ndigest_after = 1000\nnotify = []\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
             [notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n{spool}",
            self.target.url(),
            self.slack.url()
        );
        let journey = |part: usize| {
            format!(
                "[[journey]]\nname = \"part-{part}\"\nevery = \"{}ms\"\ndeadline = \"800ms\"\nnotify = [\"chat\"]\n\
                 alert = {{ down_after = 2, recover_after = 1, remind = \"never\", flapping = false }}\n\
                 step = [{{ request = \"web\", path = \"/{part}\" }}]\n",
                EVERY.as_millis()
            )
        };
        (main, (0..JOURNEYS).map(journey).collect())
    }

    async fn daemon(&self, name: &str, spool: bool) -> Seat {
        let way = Proxy::start(self.server.address()).await;
        let setup = Setup::new(name).store_url(&self.database.url_at(way.address()));
        setup.write("token", TOKEN);
        let (main, probes) = self.configuration(spool);
        Seat { daemon: setup.start(&main, &probes).await, way }
    }

    /// Waits until these daemons, and no others, have all shards between them.
    async fn settled(&self, seats: &[&Seat]) {
        let mut pids: Vec<_> = seats.iter().map(|seat| seat.daemon.pid()).collect();
        pids.sort_unstable();
        wait_for("the shards to be shared out", SOON, async || {
            let shares = shares(&self.database.client).await;
            let (least, most) = (shares.values().min()?, shares.values().max()?);
            let is_all = shares.values().sum::<usize>() == 32 && shares.keys().eq(pids.iter()) && most - least <= 1;
            is_all.then_some(())
        })
        .await;
    }

    /// The number of a journey that this daemon runs, once it does.
    async fn part_of(&self, seat: &Seat) -> usize {
        let seen = "select count(*) from run join journey on journey.id = run.journey join lease using (shard)
            where holder like '%process PID-%'";
        let seen = seen.replace("PID", &seat.daemon.pid().to_string());
        let before = number(&self.database.client, &seen).await;
        wait_for("the daemon to run what is its", SOON, async || {
            (number(&self.database.client, &seen).await > before + JOURNEYS as i64).then_some(())
        })
        .await;
        let sql = "select name from journey join lease using (shard) where holder like $1 order by name limit 1";
        let like = format!("%process {}-%", seat.daemon.pid());
        let name: String = self.database.client.query_one(sql, &[&like]).await.unwrap().get(0);
        name.strip_prefix("part-").unwrap().parse().unwrap()
    }

    /// What the books say of a slot.
    async fn verdict(&self, journey: &str, slot: i64) -> Option<i16> {
        let sql = "select verdict from run join journey on journey.id = run.journey where name = $1 and slot = $2";
        self.database.client.query_opt(sql, &[&journey, &slot]).await.unwrap().map(|row| row.get(0))
    }

    /// Each of these runs is in the books, with its verdict.
    async fn has(&self, seen: &[(String, i64, i16)]) {
        for (journey, slot, verdict) in seen {
            assert_eq!(self.verdict(journey, *slot).await, Some(*verdict), "{journey} at {slot}");
        }
    }

    /// Waits until whoever told by itself of a journey has handed that over.
    async fn handed_over(&self, part: usize) {
        wait_for("it to be handed over", SOON, async || {
            alone(&words(&self.told(part))).contains(&"HANDED OVER").then_some(())
        })
        .await;
    }

    /// Waits until who decides about all has told that a journey is well again.
    async fn ended(&self, part: usize) {
        wait_for("the end to be told", SOON, async || {
            together(&words(&self.told(part))).contains(&"WELL AGAIN").then_some(())
        })
        .await;
    }

    /// Waits until nothing is left on a daemon's disk, and nothing that nobody has heard.
    async fn heard(&self, seat: &Seat) {
        wait_for("what was left to be said and heard", SOON, async || {
            let unheard = number(&self.database.client, "select count(*) from relay").await;
            (unheard == 0 && kept(seat).is_empty()).then_some(())
        })
        .await;
    }

    /// What people were told of a journey, in order.
    fn told(&self, part: usize) -> Vec<Told> {
        let is_it = |told: &Told| told.text.contains(&format!(" part-{part} "));
        self.told_at_all().into_iter().filter(is_it).collect()
    }

    /// What people were told, as it was told: messages are edited later.
    fn told_at_all(&self) -> Vec<Told> {
        let posts = self.slack.requests().into_iter().filter(|request| request.method == "chat.postMessage");
        let messages = self.slack.messages(CHANNEL);
        let mut told: Vec<Told> = Vec::new();
        for (post, message) in posts.zip(messages) {
            let text = post.arguments["text"].as_str().unwrap_or_default().to_owned();
            let thread = message.thread_ts.clone().unwrap_or_else(|| message.ts.clone());
            let began_alone = told.iter().any(|before| before.thread == thread && before.is_alone);
            let is_alone = began_alone || post.arguments.to_string().contains("tells what it sees by itself");
            told.push(Told { text, thread, is_alone });
        }
        told
    }

    /// Ends them in order, whoever decides last, and checks that each slot was counted once; gives how many are unknown although the
    /// daemons say that they ran them. A busy machine makes them skip some.
    async fn end(&self, mut seats: Vec<Seat>) -> (usize, i64) {
        let mut skipped = 0;
        for seat in &seats {
            skipped += seat.daemon.metric("journeyman_runs_skipped_total", &[]).await.unwrap_or(0.0) as i64;
        }
        for seat in &mut seats {
            if !leads(&seat.daemon).await {
                assert_eq!(seat.daemon.terminate().await, 0, "{}", seat.daemon.log());
            }
        }
        wait_for("all that was seen to be heard", SOON, async || {
            (number(&self.database.client, "select count(*) from relay").await == 0).then_some(())
        })
        .await;
        for seat in &mut seats {
            if leads(&seat.daemon).await {
                assert_eq!(seat.daemon.terminate().await, 0, "{}", seat.daemon.log());
            }
        }
        let twice = "select count(*) from (select 1 from run group by journey, slot having count(*) > 1) as twice";
        assert_eq!(number(&self.database.client, twice).await, 0);
        let (slots, unknown) = check_slots(&self.database.client, JOURNEYS, EVERY).await;
        (slots, (unknown - skipped).max(0))
    }
}

/// A failed run's code in the books.
const FAILED: i16 = 2;

/// The journey, the slot and the verdict of each run that is on the disk of a daemon's spool.
fn kept(seat: &Seat) -> Vec<(String, i64, i16)> {
    let path = seat.daemon.directory().join("spool/unsaid.db");
    let disk = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = disk.prepare("select document from unsaid where ended is not null order by number").unwrap();
    let documents = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let run = |document: Result<String, rusqlite::Error>| {
        let document: serde_json::Value = serde_json::from_str(&document.unwrap()).unwrap();
        let (_, report) = document.as_object().unwrap().iter().next().unwrap();
        let verdict = match report["outcome"]["outcome"].as_str().unwrap() {
            "good" => 0,
            "failed" => FAILED,
            other => panic!("{other}"),
        };
        let slot: jiff::Timestamp = report["slot"].as_str().unwrap().parse().unwrap();
        (report["journey"].as_str().unwrap().to_owned(), slot.as_millisecond(), verdict)
    };
    documents.map(run).collect()
}

/// What is in the files of what a daemon could not say.
fn files(seat: &Seat) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = ["unsaid.db", "unsaid.db-wal"].map(|name| seat.daemon.directory().join("spool").join(name));
    paths.into_iter().filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?))).collect()
}

/// Waits until the daemon says that it is cut off, or that it is not.
async fn cut_off(daemon: &Daemon, is_cut_off: bool) {
    let wanted = if is_cut_off { 1.0 } else { 0.0 };
    wait_for("the daemon to notice how it stands with its store", CUT, async || {
        (daemon.metric("journeyman_cluster_cut_off", &[]).await == Some(wanted)).then_some(())
    })
    .await;
}

/// The first words of each, and whether it is of a daemon that tells by itself.
fn words(told: &[Told]) -> Vec<(String, bool)> {
    let word = |told: &Told| told.text.split(" part-").next().unwrap_or_default().to_owned();
    told.iter().map(|told| (word(told), told.is_alone)).collect()
}

fn alone(words: &[(String, bool)]) -> Vec<&str> {
    words.iter().filter(|(_, is_alone)| *is_alone).map(|(word, _)| word.as_str()).collect()
}

fn together(words: &[(String, bool)]) -> Vec<&str> {
    words.iter().filter(|(_, is_alone)| !*is_alone).map(|(word, _)| word.as_str()).collect()
}

#[test]
fn one_that_runs_its_part_tells_by_itself_and_hands_over() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let first = stage.daemon("cut-off-first", false).await;
        let second = stage.daemon("cut-off-second", false).await;
        stage.settled(&[&first, &second]).await;
        let part = stage.part_of(&second).await;

        second.way.shut().await;
        let clock = Clock::system();
        cut_off(&second.daemon, true).await;
        stage.target.set(part, Mode::Fails);
        let broken = clock.now().mono;
        wait_for("the daemon that is cut off to tell", SOON, async || {
            (!alone(&words(&stage.told(part))).is_empty()).then_some(())
        })
        .await;
        let took = clock.now().mono.since(broken);
        wait_for("the one that decides to tell", SOON, async || {
            (!together(&words(&stage.told(part))).is_empty()).then_some(())
        })
        .await;
        let (status, said) = second.daemon.get("/ready").await;
        assert!(status == StatusCode::OK && said.contains("cut off from the store since"), "{status} {said}");
        let (_, health) = second.daemon.get("/health").await;
        assert!(health.contains("cut off from the store since"), "{health}");
        assert!(second.daemon.metric("journeyman_cluster_spooled", &[]).await.unwrap() > 0.0);

        second.way.reopen().await;
        stage.handed_over(part).await;
        cut_off(&second.daemon, false).await;
        stage.target.set(part, Mode::Well);
        stage.ended(part).await;
        stage.settled(&[&first, &second]).await;
        let log = second.daemon.log();
        let (slots, unknown) = stage.end(vec![first, second]).await;

        let told = words(&stage.told(part));
        assert_eq!(alone(&told), ["DOWN", "HANDED OVER"], "{told:?}");
        assert_eq!(together(&told), ["DOWN", "WELL AGAIN"], "{told:?}");
        // Whoever reads only the last word of a journey reads what is so.
        assert_eq!(told.last().unwrap(), &("WELL AGAIN".to_owned(), false));
        let handed = stage.told(part).into_iter().find(|told| told.text.starts_with("HANDED OVER")).unwrap();
        assert!(handed.text.contains("if it still fails, that one tells"), "{}", handed.text);
        let others: Vec<_> = stage.told_at_all().into_iter().filter(|told| !told.text.contains("part-")).collect();
        let others: Vec<_> = others.iter().map(|told| told.text.as_str()).collect();
        let [cut, back] = others[..] else { panic!("{others:?}") };
        assert!(cut.starts_with("FAILING journeyman: store") && cut.contains("is cut off"), "{cut}");
        assert!(back.starts_with("WELL AGAIN journeyman: store"), "{back}");
        assert_eq!(unknown, 0, "what was seen meanwhile is known in the end\n{log}");
        eprintln!("told {took:.1?} after it broke; {slots} slots, each once, none unknown");
    });
}

#[test]
fn one_that_led_leaves_what_it_told_to_its_follower() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let mut first = stage.daemon("cut-off-leader", true).await;
        let second = stage.daemon("cut-off-follower", true).await;
        stage.settled(&[&first, &second]).await;
        let part = stage.part_of(&first).await;

        // Nothing is refused, and nothing comes back.
        let clock = Clock::system();
        for direction in [Direction::ToClient, Direction::ToServer] {
            first.way.set(direction, Flow::Hold);
        }
        let cut = clock.now().mono;
        wait_for("another to decide", SOON, async || leads(&second.daemon).await.then_some(())).await;
        let followed = clock.now().mono.since(cut);
        stage.target.set(part, Mode::Fails);
        let downs = || stage.told(part).iter().filter(|told| told.text.starts_with("DOWN")).count();
        wait_for("both to tell", SOON, async || (downs() == 2).then_some(())).await;
        assert_eq!(first.daemon.metric("journeyman_cluster_cut_off", &[]).await, Some(1.0));

        for direction in [Direction::ToClient, Direction::ToServer] {
            first.way.set(direction, Flow::Pass);
        }
        assert_eq!(first.daemon.wait_for_exit().await, 75, "{}", first.daemon.log());
        let told = stage.told(part);
        let handed: Vec<_> = told.iter().filter(|told| told.text.starts_with("HANDED OVER")).collect();
        let [handed] = handed[..] else { panic!("{:?}\n{}", words(&told), first.daemon.log()) };
        assert!(handed.text.contains("another daemon has taken over"), "{}", handed.text);
        let thread = handed.thread.clone();
        assert!(told.iter().any(|told| told.thread == thread && told.text.starts_with("DOWN")), "in its own thread");

        first.daemon.start_again().await;
        stage.settled(&[&first, &second]).await;
        stage.target.set(part, Mode::Well);
        let ends =
            || stage.told(part).into_iter().filter(|told| told.text.starts_with("WELL AGAIN")).collect::<Vec<_>>();
        wait_for("the end to be told", SOON, async || (!ends().is_empty()).then_some(())).await;
        let (slots, unknown) = stage.end(vec![first, second]).await;
        let told = stage.told(part);
        assert_eq!(told.len(), 4, "two began, one was handed over, and one has ended: {:?}", words(&told));
        assert!(downs() == 2 && ends().len() == 1 && ends()[0].thread != thread, "{:?}", words(&told));
        assert_eq!(told.last().unwrap().text.split(" part-").next(), Some("WELL AGAIN"));
        assert!(followed < Duration::from_secs(10), "followed after {followed:?}");
        eprintln!("followed after {followed:.1?}; {slots} slots, each once, {unknown} of them unknown");
    });
}

#[test]
fn what_a_killed_daemon_could_not_say_is_said_by_the_next() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let first = stage.daemon("cut-off-stays", true).await;
        let mut second = stage.daemon("cut-off-killed", true).await;
        stage.settled(&[&first, &second]).await;
        let part = stage.part_of(&second).await;

        second.way.shut().await;
        cut_off(&second.daemon, true).await;
        stage.target.set(part, Mode::Fails);
        wait_for("the daemon that is cut off to tell", SOON, async || {
            (!alone(&words(&stage.told(part))).is_empty()).then_some(())
        })
        .await;
        second.daemon.kill().await;
        second.way.reopen().await;
        second.daemon.start_again().await;
        stage.handed_over(part).await;
        stage.settled(&[&first, &second]).await;
        stage.target.set(part, Mode::Well);
        stage.ended(part).await;
        let (slots, unknown) = stage.end(vec![first, second]).await;
        let told = words(&stage.told(part));
        assert_eq!(alone(&told), ["DOWN", "HANDED OVER"], "{told:?}");
        assert_eq!(together(&told), ["DOWN", "WELL AGAIN"], "{told:?}");
        assert_eq!(unknown, 0, "what the killed one saw is known in the end");
        eprintln!("{slots} slots, each once, none unknown");
    });
}

#[test]
fn what_a_killed_leader_could_not_write_is_said_by_the_next_and_counted_once() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let mut seat = stage.daemon("cut-off-killed-leader", true).await;
        stage.settled(&[&seat]).await;
        let part = stage.part_of(&seat).await;
        assert!(leads(&seat.daemon).await);

        seat.way.shut().await;
        stage.target.set(part, Mode::Fails);
        wait_for("it to be told without the store", SOON, async || (!stage.told(part).is_empty()).then_some(())).await;
        wait_for("runs to be kept", SOON, async || (kept(&seat).len() >= 10 * JOURNEYS).then_some(())).await;
        let killed = Clock::system().now().wall;
        seat.daemon.kill().await;
        let seen = kept(&seat);
        let copies = files(&seat);
        assert!(seen.iter().any(|(journey, _, verdict)| *journey == format!("part-{part}") && *verdict == FAILED));
        for (journey, slot, _) in &seen {
            assert_eq!(stage.verdict(journey, *slot).await, None, "the store has it already, and it proves nothing");
        }

        seat.way.reopen().await;
        seat.daemon.start_again().await;
        stage.settled(&[&seat]).await;
        stage.heard(&seat).await;
        stage.has(&seen).await;
        // As if the answer to the commit of all of it had been lost: the store has it, and so has the disk.
        assert_eq!(seat.daemon.terminate().await, 0);
        copies.into_iter().for_each(|(path, content)| std::fs::write(path, content).unwrap());
        assert_eq!(kept(&seat).len(), seen.len());
        seat.daemon.start_again().await;
        stage.settled(&[&seat]).await;
        stage.heard(&seat).await;
        stage.target.set(part, Mode::Well);
        stage.ended(part).await;
        stage.has(&seen).await;
        let lost = "select count(*) from span where verdict = 4 and start < ";
        // What was under way when it was killed has no verdict: a slot of each journey, or two.
        let before = number(&stage.database.client, &format!("{lost}{}", killed.as_millisecond() - 2_000)).await;
        let (slots, unknown) = stage.end(vec![seat]).await;
        assert_eq!(before, 0, "what was seen before it was killed is known");
        eprintln!(
            "{} runs of an outage of {slots} slots, each once, {unknown} unknown: none before the kill",
            seen.len()
        );
    });
}

#[test]
fn a_way_that_comes_and_goes_costs_nobody_a_word() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let first = stage.daemon("cut-off-steady", false).await;
        let second = stage.daemon("cut-off-flaps", false).await;
        stage.settled(&[&first, &second]).await;
        let part = stage.part_of(&second).await;
        stage.target.set(part, Mode::Fails);
        let clock = Clock::system();
        // The fault itself takes this long: there is nothing to wait for in it.
        for _ in 0..5 {
            second.way.shut().await;
            clock.sleep_until(clock.now().mono + Duration::from_secs(4)).await;
            second.way.reopen().await;
            clock.sleep_until(clock.now().mono + Duration::from_secs(2)).await;
        }
        stage.settled(&[&first, &second]).await;
        stage.target.set(part, Mode::Well);
        stage.ended(part).await;
        let (slots, unknown) = stage.end(vec![first, second]).await;
        let told: Vec<_> = stage.told_at_all().into_iter().map(|told| told.text).collect();
        assert_eq!(
            words(&stage.told(part)),
            [("DOWN".to_owned(), false), ("WELL AGAIN".to_owned(), false)],
            "{told:#?}"
        );
        assert_eq!(told.len(), 2, "nobody is told of anything else: {told:#?}");
        assert_eq!(unknown, 0);
        eprintln!("{slots} slots, each once, none unknown");
    });
}

#[test]
fn all_of_them_tell_while_the_server_is_away_and_lose_nothing() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let first = stage.daemon("cut-off-all-first", true).await;
        let second = stage.daemon("cut-off-all-second", true).await;
        stage.settled(&[&first, &second]).await;
        let parts = [stage.part_of(&first).await, stage.part_of(&second).await];

        // As when the server is stopped: to every daemon the same, and the tests can still look.
        for seat in [&first, &second] {
            seat.way.shut().await;
        }
        let clock = Clock::system();
        let stopped = clock.now().mono;
        cut_off(&second.daemon, true).await;
        for part in parts {
            stage.target.set(part, Mode::Fails);
        }
        wait_for("each to tell what it sees", SOON, async || {
            parts.iter().all(|part| !stage.told(*part).is_empty()).then_some(())
        })
        .await;
        clock.sleep_until(stopped + Duration::from_secs(30)).await;
        for seat in [&first, &second] {
            seat.way.reopen().await;
        }
        let [of_first, of_second] = parts;
        stage.handed_over(of_second).await;
        wait_for("the other to decide again", SOON, async || {
            (!together(&words(&stage.told(of_second))).is_empty()).then_some(())
        })
        .await;
        for part in parts {
            stage.target.set(part, Mode::Well);
        }
        wait_for("the ends to be told", SOON, async || {
            parts.iter().all(|part| together(&words(&stage.told(*part))).contains(&"WELL AGAIN")).then_some(())
        })
        .await;
        wait_for("both disks to be empty", SOON, async || {
            [&first, &second].iter().all(|seat| kept(seat).is_empty()).then_some(())
        })
        .await;
        let (slots, unknown) = stage.end(vec![first, second]).await;
        // Whoever led leads on: nobody took the lease while nobody could.
        let (one, other) = (words(&stage.told(of_first)), words(&stage.told(of_second)));
        assert_eq!(one, [("DOWN".to_owned(), false), ("WELL AGAIN".to_owned(), false)], "{one:?}");
        assert_eq!(alone(&other), ["DOWN", "HANDED OVER"], "{other:?}");
        assert_eq!(together(&other), ["DOWN", "WELL AGAIN"], "{other:?}");
        assert_eq!(unknown, 0);
        eprintln!("{slots} slots, each once, none unknown");
    });
}
