//! From a failed run to what people have: the real daemon, a Slack and a mail server that do as they are told, and every way
//! in which they refuse, stall and break.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

use std::fmt::Write as _;
use std::time::Duration;

use journeyman::clock::Clock;
use reqwest::StatusCode;
use rusqlite::{Connection, OpenFlags};

use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{Answer, CHANNEL, FakeSlack, TOKEN};
use crate::support::fake_smtp::{Act, At, FakeSmtp, Rule};
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const POST: &str = "chat.postMessage";
/// Anything that needs one attempt or two.
const SOON: Duration = Duration::from_secs(20);

/// A daemon that watches one part of a target for each notifier, and tells that notifier alone.
struct Scene {
    main: String,
    probes: String,
    parts: usize,
}

impl Scene {
    fn new() -> Scene {
        Scene { main: String::new(), probes: String::new(), parts: 0 }
    }

    /// A notifier that tells `slack`, with more lines of configuration.
    fn slack(mut self, name: &str, slack: &FakeSlack, more: &str) -> Scene {
        let url = slack.url();
        let _ = writeln!(
            self.main,
            "[notifiers.{name}]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{url}\"\n{more}"
        );
        self
    }

    /// A notifier that sends mail to `smtp`, with more lines of configuration.
    fn mail(mut self, name: &str, smtp: &FakeSmtp, more: &str) -> Scene {
        let port = smtp.port();
        let _ = writeln!(
            self.main,
            "[notifiers.{name}]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{port}\"\nfrom = \"jm@example.net\"\nto = [\"ops@example.net\"]\n{more}"
        );
        self
    }

    /// The next part of the target is watched by a journey of this name, which tells these notifiers.
    fn watch(mut self, name: &str, notify: &[&str]) -> Scene {
        let part = self.parts;
        self.parts += 1;
        let _ = writeln!(
            self.probes,
            "[[journey]]\nname = \"{name}\"\nevery = \"1s\"\ndeadline = \"15s\"\nnotify = {notify:?}\n\
             alert = {{ down_after = 1, recover_after = 1, remind = \"never\", flapping = false }}\nstep = [{{ request = \"web\", path = \"/{part}\" }}]"
        );
        self
    }

    async fn start(self, name: &str) -> (Daemon, Target) {
        let target = Target::start(self.parts).await;
        let setup = Setup::new(name);
        setup.write("token", TOKEN);
        let main = format!(
            "[alerting]\ngroup_by = []\ndigest_after = 1000\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n{}",
            target.url(),
            self.main
        );
        let daemon = setup.start(&main, &self.probes).await;
        (daemon, target)
    }
}

fn store(daemon: &Daemon) -> Connection {
    Connection::open_with_flags(daemon.store_path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// Until when the store says that nothing is to be sent to `notifier`; milliseconds since the epoch.
async fn hold(daemon: &Daemon, notifier: &str) -> i64 {
    let store = store(daemon);
    let key = format!("hold:{notifier}");
    wait_for(&format!("the hold of {notifier}"), SOON, async || {
        store.query_row("SELECT value FROM meta WHERE key = ?", [&key], |row| row.get(0)).ok()
    })
    .await
}

/// Waits until this many of the notifier's notices stand like this.
async fn wait_for_rows(daemon: &Daemon, notifier: &str, status: &str, count: i64) {
    let store = store(daemon);
    wait_for(&format!("{count} {status} of {notifier}"), Duration::from_secs(60), async || {
        let sql = "SELECT count(*) FROM outbox WHERE notifier = ? AND status = ?";
        let found: i64 = store.query_row(sql, [notifier, status], |row| row.get(0)).unwrap();
        (found >= count).then_some(())
    })
    .await;
}

/// The delivery ids of what is in Slack, in order.
fn told(slack: &FakeSlack) -> Vec<String> {
    slack.messages(CHANNEL).iter().filter_map(|message| message.delivery().map(str::to_owned)).collect()
}

#[test]
fn nothing_is_sent_before_retry_after_also_over_a_kill() {
    block_on(async {
        let slack = FakeSlack::start().await;
        slack.script(POST, [Answer::RateLimited(Some("3"))]);
        let (mut daemon, target) = Scene::new().slack("chat", &slack, "").watch("one", &["chat"]).start("hold").await;
        target.set(0, Mode::Fails);
        hold(&daemon, "chat").await;
        daemon.kill().await;
        daemon.start_again().await;
        slack.wait_for_message(CHANNEL, |_| true).await;
        let requests = slack.requests();
        let waited = requests[1].at.mono.since(requests[0].at.mono);
        // Slack's three seconds begin when its answer is sent, ours when we have read it; the store keeps milliseconds.
        assert!(waited >= Duration::from_millis(2_999), "asked again after {waited:?}: {requests:#?}");
        wait_for_rows(&daemon, "chat", "sent", 1).await;
        assert_eq!(told(&slack).len(), 1);
    });
}

#[test]
fn a_429_without_a_usable_retry_after_waits_half_a_minute_and_none_longer_than_an_hour() {
    block_on(async {
        let table =
            [("none", None, 30), ("garbage", Some("soon"), 30), ("zero", Some("0"), 1), ("day", Some("86400"), 3_600)];
        let mut scene = Scene::new();
        let mut slacks = Vec::new();
        for (name, retry_after, _) in table {
            let slack = FakeSlack::start().await;
            slack.script(POST, [Answer::RateLimited(retry_after)]);
            scene = scene.slack(name, &slack, "").watch(name, &[name]);
            slacks.push(slack);
        }
        let (daemon, target) = scene.start("retry-after").await;
        target.set_all(Mode::Fails);
        for ((name, _, seconds), slack) in table.iter().zip(&slacks) {
            let until = hold(&daemon, name).await;
            let asked = slack.requests()[0].at.wall.as_millisecond();
            let (least, most) = (seconds * 1_000, seconds * 1_000 + SOON.as_millis() as i64);
            assert!((least..most).contains(&(until - asked)), "{name}: waits {} ms", until - asked);
        }
        // One second is over soon, and what has to wait longer holds nobody up.
        slacks[2].wait_for_message(CHANNEL, |_| true).await;
        for slack in [&slacks[0], &slacks[1], &slacks[3]] {
            assert_eq!(slack.requests().len(), 1, "asked again before the time");
        }
    });
}

#[test]
fn whatever_the_answer_the_message_is_there_once() {
    block_on(async {
        let table = [
            ("unwell", Answer::Status(500, "oops"), 0),
            ("internal", Answer::Refuse("internal_error"), 0),
            ("garbage", Answer::Garbage, 1),
            ("unexpected", Answer::Unexpected, 0),
            ("reset", Answer::Reset, 1),
            ("reset-taken", Answer::ResetAfterAccepting, 1),
            ("cut-taken", Answer::ResetBeforeBody, 1),
            ("hang", Answer::Hang, 1),
            ("hang-taken", Answer::HangAfterAccepting, 1),
        ];
        let well = FakeSlack::start().await;
        let mut scene = Scene::new().slack("well", &well, "");
        let mut slacks = Vec::new();
        for (name, answer, _) in table.clone() {
            let slack = FakeSlack::start().await;
            slack.script(POST, [answer]);
            scene = scene.slack(name, &slack, "").watch(name, &[name, "well"]);
            slacks.push(slack);
        }
        let (daemon, target) = scene.start("answers").await;
        target.set_all(Mode::Fails);
        // Those who answer are not held up by those who do not.
        wait_for_rows(&daemon, "well", "sent", table.len() as i64).await;
        for ((name, _, lookups), slack) in table.iter().zip(&slacks) {
            wait_for_rows(&daemon, name, "sent", 1).await;
            assert_eq!(told(slack).len(), 1, "{name}: {:#?}", slack.requests());
            let looked_up = slack.count("conversations.history");
            assert_eq!(looked_up, *lookups, "{name}: an unclear answer is looked up, a clear one is not");
        }
        target.set_all(Mode::Well);
        wait_for_rows(&daemon, "well", "sent", 2 * table.len() as i64).await;
        for ((name, ..), slack) in table.iter().zip(&slacks) {
            wait_for_rows(&daemon, name, "sent", 2).await;
            let told = told(slack);
            assert!(told.len() == 2 && told[0].contains(".1.") && told[1].contains(".2."), "{name}: {told:?}");
        }
    });
}

#[test]
fn a_refused_token_means_mail_at_once_and_a_dead_letter_that_comes_back_in_order() {
    block_on(async {
        let (slack, smtp) = (FakeSlack::start().await, FakeSmtp::start().await);
        slack.script(POST, [Answer::Refuse("invalid_auth")]);
        let scene = Scene::new().slack("chat", &slack, "fallback = \"mail\"").mail("mail", &smtp, "");
        let (daemon, target) = scene.watch("one", &["chat"]).start("refused").await;
        target.set(0, Mode::Fails);
        let mail = smtp.wait_for_mail("the mail instead", |_| true).await.mail;
        let text = mail.part("text/plain").text();
        assert!(text.contains("`chat` did not take it") && text.contains("invalid_auth"), "{text}");
        let dead = [("notifier", "chat")];
        wait_for("the dead letter to be seen", SOON, async || {
            (daemon.metric("journeyman_outbox_dead", &dead).await? == 1.0).then_some(())
        })
        .await;

        target.set(0, Mode::Well);
        wait_for_rows(&daemon, "chat", "sent", 1).await;
        wait_for_rows(&daemon, "chat", "superseded", 1).await;
        let reasons: Vec<_> = told(&slack).iter().map(|id| id.split('.').nth(1).unwrap().to_owned()).collect();
        assert_eq!(reasons, ["2"], "both ends in one: nobody there was told that it began");
        wait_for("no dead letter", SOON, async || {
            (daemon.metric("journeyman_outbox_dead", &dead).await? == 0.0).then_some(())
        })
        .await;
        // Of the journey, because mail was told instead; and of the notifier itself, by another.
        let states = async || {
            let states = smtp.mails().into_iter().filter_map(|taken| taken.mail.header("X-Journeyman-State"));
            Some(states.collect::<Vec<_>>()).filter(|states| states.len() == 4)
        };
        let mut states = wait_for("both beginnings and both ends", SOON, states).await;
        states.sort();
        assert_eq!(states, ["DOWN", "FAILING", "WELL AGAIN", "WELL AGAIN"]);
    });
}

#[test]
fn what_slack_does_not_take_in_time_is_mailed_and_posted_when_it_is_back() {
    block_on(async {
        let (slack, smtp) = (FakeSlack::start().await, FakeSmtp::start().await);
        slack.script(POST, std::iter::repeat_n(Answer::Status(503, "maintenance"), 3));
        let more = "fallback = \"mail\"\nfallback_after = \"3s\"";
        let scene = Scene::new().slack("chat", &slack, more).mail("mail", &smtp, "");
        let (daemon, target) = scene.watch("one", &["chat"]).start("overdue").await;
        target.set(0, Mode::Fails);
        let mail = smtp.wait_for_mail("the mail instead", |_| true).await.mail;
        assert!(mail.part("text/plain").text().contains("503"), "{}", mail.part("text/plain").text());
        let created: i64 = store(&daemon).query_row("SELECT min(created) FROM outbox", [], |row| row.get(0)).unwrap();
        let tried = slack.requests();
        let last = tried.last().unwrap().at.wall.as_millisecond() - created;
        assert!(tried.len() >= 2 && last < 20_000, "{tried:#?}");
        wait_for_rows(&daemon, "chat", "sent", 1).await;
        assert_eq!((told(&slack).len(), smtp.mails().len()), (1, 1));
    });
}

#[test]
fn a_greylist_is_waited_for_and_a_refusal_goes_to_the_fallback() {
    block_on(async {
        let (slack, grey, strict) = (FakeSlack::start().await, FakeSmtp::start().await, FakeSmtp::start().await);
        grey.script([Rule::once(At::Rcpt, Act::Say("451 4.7.1 greylisted, come back"))]);
        strict.script([Rule::always(At::Rcpt, Act::Say("550 5.1.1 no such user"))]);
        let scene = Scene::new().slack("chat", &slack, "").mail("grey", &grey, "");
        let scene = scene.mail("strict", &strict, "fallback = \"chat\"");
        let (daemon, target) = scene.watch("one", &["grey"]).watch("two", &["strict"]).start("smtp").await;
        target.set_all(Mode::Fails);
        let shown = slack.wait_for_message(CHANNEL, |_| true).await.shown();
        assert!(shown.contains("550") && shown.contains("strict"), "{shown}");
        wait_for_rows(&daemon, "strict", "dead", 1).await;
        wait_for_rows(&daemon, "grey", "sent", 1).await;
        assert_eq!((grey.mails().len(), strict.mails().len(), told(&slack).len()), (1, 0, 1));
    });
}

#[test]
fn a_server_that_does_not_answer_does_not_make_the_daemon_look_dead() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        smtp.script([Rule::once(At::Connect, Act::Hang)]);
        let (daemon, target) = Scene::new().mail("mail", &smtp, "").watch("one", &["mail"]).start("stall").await;
        target.set(0, Mode::Fails);
        smtp.wait_for_stall().await;
        // The conversation is given up after 30 s.
        wait_for("another attempt", Duration::from_secs(60), async || {
            let (status, text) = daemon.get("/live").await;
            assert_eq!(status, StatusCode::OK, "{text}");
            smtp.mails().first().map(drop)
        })
        .await;
    });
}

#[test]
fn it_stops_in_time_while_runs_and_slack_hang_and_tells_once_afterwards() {
    block_on(async {
        const PARTS: usize = 20;
        let slack = FakeSlack::start().await;
        slack.script(POST, [Answer::HangAfterAccepting]);
        let mut scene = Scene::new().slack("chat", &slack, "");
        for part in 0..2 * PARTS {
            scene = scene.watch(&format!("part-{part}"), &["chat"]);
        }
        let (mut daemon, target) = scene.start("stop").await;
        (0..PARTS).for_each(|part| target.set(part, Mode::Fails));
        (PARTS..2 * PARTS).for_each(|part| target.set(part, Mode::Hangs));
        let seen: Vec<_> = (PARTS..2 * PARTS).map(|part| target.requests(part)).collect();
        slack.wait_for_requests(POST, 1).await;
        wait_for("hanging runs", SOON, async || {
            (PARTS..2 * PARTS).zip(&seen).all(|(part, seen)| target.requests(part) > *seen).then_some(())
        })
        .await;
        let clock = Clock::system();
        let began = clock.now().mono;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        let took = clock.now().mono.since(began);
        println!("stopped after {took:?} with {PARTS} runs and Slack hanging");
        assert!(took < Duration::from_secs(20), "{took:?}\n{}", daemon.log());

        target.set_all(Mode::Well);
        daemon.start_again().await;
        wait_for("everything to be told", Duration::from_secs(90), async || {
            let firing = daemon.metric("journeyman_alert_state", &[]).await?;
            let owed = daemon.metric("journeyman_outbox_pending", &[]).await?;
            (firing == 0.0 && owed == 0.0).then_some(())
        })
        .await;
        let mut ids = told(&slack);
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "told twice");
        assert!(count >= 2 * PARTS, "{ids:?}");
    });
}

#[test]
fn slack_is_asked_right_after_the_decision() {
    block_on(async {
        const PARTS: usize = 20;
        let mut scene = Scene::new();
        let mut slacks = Vec::new();
        for part in 0..PARTS {
            let slack = FakeSlack::start().await;
            let name = format!("chat-{part}");
            scene = scene.slack(&name, &slack, "").watch(&format!("part-{part}"), &[&name]);
            slacks.push(slack);
        }
        let (daemon, target) = scene.start("latency").await;
        target.set_all(Mode::Fails);
        for part in 0..PARTS {
            wait_for_rows(&daemon, &format!("chat-{part}"), "sent", 1).await;
        }
        let store = store(&daemon);
        let mut waits: Vec<_> = slacks
            .iter()
            .enumerate()
            .map(|(part, slack)| {
                let sql = "SELECT created FROM outbox WHERE notifier = ? AND sequence = 1";
                let created: i64 = store.query_row(sql, [format!("chat-{part}")], |row| row.get(0)).unwrap();
                slack.requests()[0].at.wall.as_millisecond() - created
            })
            .collect();
        waits.sort_unstable();
        let (median, worst) = (waits[PARTS / 2], waits[PARTS - 1]);
        println!("decision to request at Slack: p50 {median} ms, p99 {worst} ms of {PARTS}");
        // On an idle machine a few milliseconds; the bound is for one that is busy with other tests.
        assert!(median < 1_000 && worst < 5_000, "{waits:?}");
    });
}
