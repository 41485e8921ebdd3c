//! SIGKILL, again and again, under load: no alert is lost, none is told twice outside the moment of sending, no slot counts twice.
//!
//! The oracle is in this process and never dies: a target whose parts fail and heal all the time, a workspace and a mail server
//! that keep everything that they took. What the daemon's store says must be what they saw.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{FakeSlack, TOKEN};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::{block_on, wait_for};

const KILLS: usize = 30;
/// One journey a notifier: a notifier sends one message a second, and every incident makes two.
const JOURNEYS: usize = 16;
/// These are told by mail too.
const MAILED: usize = 4;
const EVERY: Duration = Duration::from_millis(500);

/// A system of many parts, each well or not.
struct Target {
    url: String,
    fails: Arc<Vec<AtomicBool>>,
}

impl Target {
    async fn start() -> Target {
        let fails: Arc<Vec<AtomicBool>> = Arc::new((0..JOURNEYS).map(|_| AtomicBool::new(false)).collect());
        let parts = fails.clone();
        let answer = move |Path(part): Path<usize>| {
            let fails = parts.get(part).is_some_and(|part| part.load(Ordering::Relaxed));
            std::future::ready(if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT })
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/{part}", axum::routing::get(answer));
        #[expect(clippy::disallowed_methods, reason = "the oracle lives as long as the test")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Target { url, fails }
    }

    fn set(&self, part: usize, fails: bool) {
        self.fails[part].store(fails, Ordering::Relaxed);
    }
}

fn channel(n: usize) -> String {
    format!("C0CRASH{n}")
}

fn configuration(target: &Target, slack: &FakeSlack, smtp: &FakeSmtp) -> (String, String) {
    let mut main = format!("[channels.web]\ntype = \"http\"\nurl = \"{}\"\n", target.url);
    let mut probes = String::new();
    for n in 0..JOURNEYS {
        let _ = write!(
            main,
            "[notifiers.chat-{n}]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{}\"\napi_url = \"{}\"\n",
            channel(n),
            slack.url()
        );
        let mut notify = format!("\"chat-{n}\"");
        if n < MAILED {
            let _ = write!(
                main,
                "[notifiers.mail-{n}]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"jm@example.net\"\nto = [\"ops@example.net\"]\n",
                smtp.port()
            );
            let _ = write!(notify, ", \"mail-{n}\"");
        }
        let _ = write!(
            probes,
            "[[journey]]\nname = \"part-{n}\"\nevery = \"{}ms\"\ndeadline = \"400ms\"\nnotify = [{notify}]\n\
             alert = {{ down_after = 1, recover_after = 1, remind = \"never\" }}\nstep = [{{ request = \"web\", path = \"/{n}\" }}]\n",
            EVERY.as_millis()
        );
    }
    (main, probes)
}

#[test]
fn thirty_kills_lose_no_alert_and_repeat_none() {
    block_on(async {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (target, slack, smtp) = (Target::start().await, FakeSlack::start().await, FakeSmtp::start().await);
        for n in 0..JOURNEYS {
            slack.add_channel(&channel(n), &format!("part-{n}"), true);
        }
        let (main, probes) = configuration(&target, &slack, &smtp);
        let setup = Setup::new("crash");
        setup.write("token", TOKEN);
        let mut daemon = setup.start(&main, &probes).await;

        let mut restarts = Vec::new();
        for _ in 0..KILLS {
            for part in 0..JOURNEYS {
                if random.u8(0..3) == 0 {
                    target.set(part, random.bool());
                }
            }
            // A random moment is the point: nothing is waited for.
            tokio::time::sleep(Duration::from_millis(random.u64(200..1_500))).await;
            daemon.kill().await;
            let killed = now();
            daemon.start_again().await;
            restarts.push(now().duration_since(killed));
        }

        (0..JOURNEYS).for_each(|part| target.set(part, false));
        calm(&daemon).await;
        let before = slack.messages(&channel(0)).len();
        for (fails, messages) in [(true, before + 1), (false, before + 2)] {
            target.set(0, fails);
            wait_for("a fresh alert, and its end", Duration::from_secs(30), async || {
                (slack.messages(&channel(0)).len() >= messages).then_some(())
            })
            .await;
        }
        calm(&daemon).await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());

        let told = check_told(&daemon, &slack, &smtp);
        let slots = check_slots(&daemon);
        restarts.sort();
        println!(
            "{KILLS} kills: {told} notices, {slots} slots, restart to ready {:?} median, {:?} at most",
            restarts[restarts.len() / 2],
            restarts[restarts.len() - 1]
        );
        assert!(told >= KILLS, "too quiet to prove anything: {told} notices");
    });
}

#[expect(clippy::disallowed_methods, reason = "a test measures what it waits for")]
fn now() -> Instant {
    Instant::now()
}

/// Waits until nothing fires and nothing is owed.
async fn calm(daemon: &Daemon) {
    wait_for("every incident to be over and told", Duration::from_secs(90), async || {
        let firing = daemon.metric("journeyman_alert_state", &[]).await?;
        let owed = daemon.metric("journeyman_outbox_pending", &[]).await?;
        let dead = daemon.metric("journeyman_outbox_dead", &[]).await?;
        (firing == 0.0 && owed == 0.0 && dead == 0.0).then_some(())
    })
    .await;
}

fn store(daemon: &Daemon) -> Connection {
    Connection::open_with_flags(daemon.store_path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// Every notice that the store says was owed was taken by whom it was for: once, in order, the first first and the last last.
fn check_told(daemon: &Daemon, slack: &FakeSlack, smtp: &FakeSmtp) -> usize {
    let store = store(daemon);
    let mut statement = store
        .prepare(
            "SELECT outbox.id, incident, sequence, notifier, status, json_extract(notification, '$.reason'), name, since
             FROM outbox JOIN incident ON incident.id = incident JOIN journey ON journey.id = journey ORDER BY notifier, since, sequence",
        )
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut incidents: BTreeMap<(String, String), Vec<(u32, String)>> = BTreeMap::new();
    let (mut count, mut mailed) = (0, BTreeSet::new());
    while let Some(row) = rows.next().unwrap() {
        let text = |column: usize| row.get::<_, String>(column).unwrap();
        let (id, notifier) = (text(0), text(3));
        assert_eq!(text(4), "sent", "{id}");
        match notifier.split_once('-').unwrap() {
            ("chat", n) => {
                let messages = slack.messages(&channel(n.parse().unwrap()));
                let copies = messages.iter().filter(|message| message.delivery() == Some(&id)).count();
                assert_eq!(copies, 1, "{id} must be there once: an unclear send is looked up");
            }
            _ => assert!(mailed.insert(id.clone())),
        }
        incidents.entry((notifier, text(1))).or_default().push((row.get(2).unwrap(), text(5)));
        count += 1;
    }
    for ((notifier, incident), told) in &incidents {
        let sequence: Vec<_> = told.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(sequence, (1..=told.len() as u32).collect::<Vec<_>>(), "{notifier} {incident}");
        assert_eq!(
            (told[0].1.as_str(), told[told.len() - 1].1.as_str()),
            ("first", "resolved"),
            "{notifier} {incident}"
        );
    }
    let untold: i64 = store
        .query_row("SELECT count(*) FROM incident WHERE id NOT IN (SELECT incident FROM outbox)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(untold, 0, "an incident that nobody was told of");
    let open: i64 =
        store.query_row("SELECT count(*) FROM incident WHERE resolved IS NULL", [], |row| row.get(0)).unwrap();
    assert_eq!(open, 0);

    let mails = smtp.mails();
    let ids: BTreeSet<_> = mails.iter().filter_map(|taken| taken.mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), mailed.len(), "every notice by mail, and nothing else");
    let repeated = mails.len() - ids.len();
    assert!(repeated <= KILLS, "{repeated} mails repeated by {KILLS} kills");
    eprintln!("{repeated} of {} mails were repeated, in the moment of sending", mails.len());
    check_order(slack);
    count
}

/// In each channel an incident's notices stand in the order in which they were decided.
fn check_order(slack: &FakeSlack) {
    for n in 0..JOURNEYS {
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for message in slack.messages(&channel(n)) {
            let Some((incident, rest)) = message.delivery().and_then(|id| id.split_once('.')) else { continue };
            let sequence: u32 = rest.split('.').next().unwrap().parse().unwrap();
            let before = last.insert(incident.to_owned(), sequence).unwrap_or(0);
            assert!(sequence > before, "{incident}: {sequence} after {before}");
        }
    }
}

/// Between a journey's first and last slot every slot is there, and once.
fn check_slots(daemon: &Daemon) -> i64 {
    let store = store(daemon);
    let mut statement = store
        .prepare("SELECT name, start, step, count FROM span JOIN journey ON journey.id = journey ORDER BY name, start")
        .unwrap();
    let spans = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    let mut slots: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for span in spans {
        let (name, start, step, count): (String, i64, i64, i64) = span.unwrap();
        slots.entry(name).or_default().extend((0..count).map(|n| start + n * step));
    }
    assert_eq!(slots.len(), JOURNEYS);
    for (name, slots) in &slots {
        for pair in slots.windows(2) {
            assert_eq!(pair[1] - pair[0], EVERY.as_millis() as i64, "{name}: a slot is missing, or there twice");
        }
    }
    slots.values().map(|slots| slots.len() as i64).sum()
}
