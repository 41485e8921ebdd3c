//! SIGKILL, again and again, under load: no alert is lost, none is told twice outside the moment of sending, no slot counts twice.
//!
//! The oracle is in this process and never dies: a target whose parts fail and heal all the time, a workspace and a mail server
//! that keep everything that they took. What the daemon's store says must be what they saw.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::clock::Clock;
use rusqlite::{Connection, OpenFlags};

use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{Answer, FakeSlack, TOKEN};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::table::Table;
use crate::support::target::{Answered, Mode, Target};
use crate::support::{block_on, kills_wanted, wait_for};

/// One journey a notifier: a notifier sends one message a second, and every incident makes two.
const JOURNEYS: usize = 30;
/// The last of them are round trips: a message goes out by HTTP and comes back by webhook.
const ROUND_TRIPS: usize = 8;
/// These are told by mail too; the first and the last.
const MAILED: [usize; 4] = [0, 1, JOURNEYS - 2, JOURNEYS - 1];
const EVERY: Duration = Duration::from_millis(500);
/// A run that the target let fail has been decided, and is on disk, after this, also on a busy machine.
const DECIDED: Duration = Duration::from_millis(1_500);
/// A lost message is waited for until its deadline.
const DECIDED_ROUND_TRIP: Duration = Duration::from_secs(3);

fn channel(n: usize) -> String {
    format!("C0CRASH{n}")
}

fn is_round_trip(n: usize) -> bool {
    n >= JOURNEYS - ROUND_TRIPS
}

fn configuration(target: &Target, slack: &FakeSlack, smtp: &FakeSmtp) -> (String, String) {
    let mut main = format!(
        "[alerting]\ngroup_by = []\ndigest_after = 1000\nnotify = []\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n[channels.back]\ntype = \"webhook\"\npath = \"/back\"\nverify = {{ scheme = \"none\" }}\n",
        target.url()
    );
    let mut probes = String::new();
    for n in 0..JOURNEYS {
        let _ = write!(
            main,
            "[notifiers.chat-{n}]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{}\"\napi_url = \"{}\"\n",
            channel(n),
            slack.url()
        );
        let mut notify = format!("\"chat-{n}\"");
        if MAILED.contains(&n) {
            let _ = write!(
                main,
                "[notifiers.mail-{n}]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"jm@example.net\"\nto = [\"ops@example.net\"]\n",
                smtp.port()
            );
            let _ = write!(notify, ", \"mail-{n}\"");
        }
        let (deadline, steps) = match is_round_trip(n) {
            false => ("400ms", format!("{{ request = \"web\", path = \"/{n}\" }}")),
            true => {
                let send = format!("{{ send = \"web\", path = \"/{n}\", text = \"{{{{ token }}}}\" }}");
                ("900ms", format!("{send}, {{ receive = \"back\" }}"))
            }
        };
        let _ = writeln!(
            probes,
            "[[journey]]\nname = \"part-{n}\"\nevery = \"{}ms\"\ndeadline = \"{deadline}\"\nnotify = [{notify}]\n\
             alert = {{ down_after = 1, recover_after = 1, remind = \"never\", flapping = false }}\nstep = [{steps}]",
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
        let setup = Setup::new("crash");
        let target = Target::start_with(JOURNEYS, setup.hook_url("/back")).await;
        let (slack, smtp) = (FakeSlack::start().await, FakeSmtp::start().await);
        for n in 0..JOURNEYS {
            slack.add_channel(&channel(n), &format!("part-{n}"), true);
        }
        // Slack has the message for so long before the daemon knows: a window for kills to fall into.
        let answer = Answer::SlowAfterAccepting(Duration::from_millis(300));
        slack.script("chat.postMessage", std::iter::repeat_n(answer, 10_000));
        let (main, probes) = configuration(&target, &slack, &smtp);
        setup.write("token", TOKEN);
        let mut daemon = setup.start(&main, &probes).await;

        let clock = Clock::system();
        let (mut kills, mut restarts) = (Vec::new(), Vec::new());
        for kill in 0..kills_wanted() {
            for part in 0..JOURNEYS {
                match random.u8(0..6) {
                    0 => target.set(part, Mode::Fails),
                    1 => target.set(part, Mode::Well),
                    _ => {}
                }
            }
            // A random moment is the point: nothing is waited for. Some lives are long enough for every decision to be due.
            let life = if kill % 6 == 0 { 3_000..5_000 } else { 200..1_500 };
            tokio::time::sleep(Duration::from_millis(random.u64(life))).await;
            daemon.kill().await;
            let killed = clock.now();
            daemon.start_again().await;
            kills.push(killed.wall);
            restarts.push(clock.now().mono.since(killed.mono));
        }

        target.set_all(Mode::Well);
        calm(&daemon).await;
        let before = slack.messages(&channel(0)).len();
        target.set(0, Mode::Fails);
        let fresh = clock.now().mono;
        wait_for("a fresh alert", Duration::from_secs(30), async || {
            (slack.messages(&channel(0)).len() > before).then_some(())
        })
        .await;
        let fresh = clock.now().mono.since(fresh);
        target.set(0, Mode::Well);
        // The metrics may be a second old, and from before.
        wait_for("it to be over", Duration::from_secs(30), async || {
            (slack.messages(&channel(0)).len() > before + 1).then_some(())
        })
        .await;
        calm(&daemon).await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());

        let told = check_told(&daemon, &slack, &smtp, kills.len());
        let seen = check_seen(&daemon, &target.answered(), &kills);
        let slots = check_slots(&daemon);
        let looked_up = slack.count("conversations.history");
        restarts.sort();
        let incidents: i64 = store(&daemon).query_row("SELECT count(*) FROM incident", [], |row| row.get(0)).unwrap();
        let mut table = Table::new("restart", "t1-notices", &["T1, notices", "figure"]);
        table.row(&[&"kills", &format!("{} (seed {seed})", kills.len())]);
        table.row(&[&"journeys", &format!("{JOURNEYS} every {EVERY:?}, {ROUND_TRIPS} of them round trips")]);
        table.row(&[&"slots", &format!("{slots}, each counted once")]);
        table.row(&[&"requests at the target", &target.answered().len()]);
        table.row(&[&"failures seen by the oracle", &format!("{seen}, each in an incident")]);
        table.row(&[&"incidents", &format!("{incidents}, each told first and resolved")]);
        table.row(&[&"notices", &format!("{} in Slack, each once; {} by mail", told.posts, told.mails)]);
        table.row(&[&"posts cut and looked up", &looked_up]);
        table.row(&[&"mails repeated", &format!("{} (at most one for each kill)", told.repeated)]);
        let (median, most) = (restarts[restarts.len() / 2], restarts[restarts.len() - 1]);
        table.row(&[&"restart to ready", &format!("{median:.0?} median, {most:.0?} at most")]);
        table.row(&[&"fresh alert afterwards", &format!("{fresh:.1?}")]);
        assert!(told.posts >= 2 * kills.len() && seen >= kills.len() && looked_up > 0, "too quiet to prove anything");
    });
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

/// What people were told.
struct Told {
    posts: usize,
    mails: usize,
    repeated: usize,
}

/// What the target let fail, and nobody killed the daemon over, is in an incident of that journey. Gives how much that is.
fn check_seen(daemon: &Daemon, answered: &[Answered], kills: &[Timestamp]) -> usize {
    let store = store(daemon);
    let sql = "SELECT subject, since, resolved FROM incident WHERE resolved NOT NULL";
    let mut statement = store.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let incidents: Vec<(String, i64, i64)> = rows.collect::<Result<_, _>>().unwrap();
    let was_cut = |answer: &Answered| {
        let decided = if is_round_trip(answer.part) { DECIDED_ROUND_TRIP } else { DECIDED };
        kills.iter().any(|kill| answer.at <= *kill && *kill <= answer.at + decided)
    };
    let owed = answered.iter().filter(|answer| answer.mode == Mode::Fails && !was_cut(answer));
    let mut count = 0;
    for Answered { part, at, .. } in owed {
        let (name, millis) = (format!("part-{part}"), at.as_millisecond());
        let is_in = |(journey, since, resolved): &(String, i64, i64)| {
            *journey == name && (*since..=*resolved).contains(&millis)
        };
        assert!(incidents.iter().any(is_in), "{name} failed at {at}, and nobody was told: {incidents:?}");
        count += 1;
    }
    count
}

/// Every notice that the store says was owed was taken by whom it was for: once, in order, the first first and the last last.
fn check_told(daemon: &Daemon, slack: &FakeSlack, smtp: &FakeSmtp, kills: usize) -> Told {
    let store = store(daemon);
    let mut statement = store
        .prepare(
            "SELECT outbox.id, incident, sequence, notifier, status, json_extract(notification, '$.reason'), subject, since
             FROM outbox JOIN incident ON incident.id = incident WHERE subject LIKE 'part-%' ORDER BY notifier, since, sequence",
        )
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut incidents: BTreeMap<(String, String), Vec<(u32, String)>> = BTreeMap::new();
    let (mut count, mut mailed) = (0, BTreeSet::new());
    while let Some(row) = rows.next().unwrap() {
        let text = |column: usize| row.get::<_, String>(column).unwrap();
        let (id, notifier) = (text(0), text(3));
        incidents.entry((notifier.clone(), text(1))).or_default().push((row.get(2).unwrap(), text(5)));
        // What the next notice told as well was not told by itself.
        if text(4) == "superseded" {
            continue;
        }
        assert_eq!(text(4), "sent", "{id}");
        match notifier.split_once('-').unwrap() {
            ("chat", n) => {
                let messages = slack.messages(&channel(n.parse().unwrap()));
                let copies = messages.iter().filter(|message| message.delivery() == Some(&id)).count();
                assert_eq!(copies, 1, "{id} must be there once: an unclear send is looked up");
            }
            _ => assert!(mailed.insert(id.clone())),
        }
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
    // So many kills are a crash loop, of which nobody is told here.
    let mut statement = store.prepare("SELECT id, subject FROM incident WHERE subject LIKE 'part-%'").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    for (incident, journey) in rows.map(Result::unwrap) {
        let n: usize = journey.trim_start_matches("part-").parse().unwrap();
        let kinds = if MAILED.contains(&n) { vec!["chat", "mail"] } else { vec!["chat"] };
        for kind in kinds {
            let told = incidents.get(&(format!("{kind}-{n}"), incident.clone()));
            assert!(told.is_some_and(|told| told.len() >= 2), "{kind}-{n} was not told of {incident}: {told:?}");
        }
    }
    let open: i64 = store
        .query_row("SELECT count(*) FROM incident WHERE resolved IS NULL AND subject LIKE 'part-%'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(open, 0);

    let mails = smtp.mails();
    let ids: BTreeSet<_> = mails.iter().filter_map(|taken| taken.mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), mailed.len(), "every notice by mail, and nothing else");
    let repeated = mails.len() - ids.len();
    assert!(repeated <= kills, "{repeated} mails repeated by {kills} kills");
    check_order(slack);
    Told { posts: count - mailed.len(), mails: mailed.len(), repeated }
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
