//! Table T7 of the fault matrix: what Slack may answer, and what must follow.

use super::*;
use crate::support::free_port;

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
        let mut table = Table::new("slack", "3-kill", &FIGURE);
        table.row(&[&"Retry-After: 3, and a kill: asked again after", &seconds(waited), &"3 s"]);
        wait_for_rows(&daemon, "chat", "sent", 1).await;
        assert_eq!(told(&slack).len(), 1);
    });
}

/// What must come of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// It was taken.
    Taken,
    /// Another attempt after the first wait, half a second at the least.
    Again,
    /// The same, but Slack is asked first whether it has the message.
    LookedUp,
    /// No request for so many seconds.
    Held(i64),
    /// The fallback tells it at once.
    Elsewhere,
}

fn answers() -> Vec<(&'static str, Answer, Wanted)> {
    use Wanted::*;
    vec![
        ("ok", Answer::Ok, Taken),
        ("ok, with a field that is not documented", Answer::Unexpected, Taken),
        ("429, Retry-After: 1", Answer::RateLimited(Some("1")), Held(1)),
        ("429, Retry-After: 30", Answer::RateLimited(Some("30")), Held(30)),
        ("429, Retry-After: 0", Answer::RateLimited(Some("0")), Held(1)),
        ("429, no Retry-After", Answer::RateLimited(None), Held(30)),
        ("429, Retry-After: soon", Answer::RateLimited(Some("soon")), Held(30)),
        ("429, Retry-After: 86400", Answer::RateLimited(Some("86400")), Held(3_600)),
        ("500", Answer::Status(500, "oops"), Again),
        ("501", Answer::Status(501, ""), Again),
        ("502", Answer::Status(502, "<html>bad gateway"), Again),
        ("503", Answer::Status(503, ""), Again),
        ("504", Answer::Status(504, ""), Again),
        ("403 of a proxy", Answer::Status(403, "denied"), Again),
        ("404 of a proxy", Answer::Status(404, ""), Again),
        ("410 of a proxy", Answer::Status(410, ""), Again),
        ("a page to log in", Answer::Status(200, "<html>Please log in"), LookedUp),
        ("JSON cut short", Answer::Garbage, LookedUp),
        ("35 s late", Answer::Slow(Duration::from_secs(35)), LookedUp),
        ("none, not taken", Answer::Hang, LookedUp),
        ("none, and taken", Answer::HangAfterAccepting, LookedUp),
        ("reset, not taken", Answer::Reset, LookedUp),
        ("reset after the body, and taken", Answer::ResetAfterAccepting, LookedUp),
        ("reset within the answer, and taken", Answer::ResetBeforeBody, LookedUp),
        ("internal_error", Answer::Refuse("internal_error"), Again),
        ("never_heard_of", Answer::Refuse("never_heard_of"), Again),
        ("ratelimited", Answer::Refuse("ratelimited"), Held(30)),
        ("invalid_auth", Answer::Refuse("invalid_auth"), Elsewhere),
        ("missing_scope", Answer::Refuse("missing_scope"), Elsewhere),
        ("channel_not_found", Answer::Refuse("channel_not_found"), Elsewhere),
        ("not_in_channel", Answer::Refuse("not_in_channel"), Elsewhere),
        ("is_archived", Answer::Refuse("is_archived"), Elsewhere),
    ]
}

const HEADS: [&str; 4] = ["Slack answers", "in Slack", "again after", "told by"];

#[test]
fn whatever_the_answer_the_message_is_there_once() {
    block_on(async {
        let desk = FakeSlack::start().await;
        let (mut scene, mut rows) = (Scene::beside(&desk), Vec::new());
        for (n, (case, answer, wanted)) in answers().into_iter().enumerate() {
            let (name, slack, smtp) = (format!("chat-{n}"), FakeSlack::start().await, FakeSmtp::start().await);
            let hangs = matches!(answer, Answer::Hang);
            slack.script(POST, [answer]);
            let (mail, fallback) = (format!("mail-{n}"), format!("fallback = \"mail-{n}\"\nfallback_after = \"1h\""));
            scene = scene.slack(&name, &slack, &fallback).mail(&mail, &smtp, "");
            let notify = [&*name, "desk"];
            scene = scene.watch(&format!("part-{n}"), if hangs { &notify } else { &notify[..1] });
            rows.push((case, wanted, name, slack, smtp));
        }
        let (daemon, target) = scene.start("answers").await;
        target.set_all(Mode::Fails);
        // Those who answer are not held up by those who do not.
        wait_for_rows(&daemon, "desk", "sent", 1).await;
        let mut table = Table::new("slack", "1-answers", &HEADS);
        for (case, wanted, name, slack, smtp) in &rows {
            let (mut again, mut by) = ("-".to_owned(), "Slack");
            match wanted {
                Wanted::Taken | Wanted::Again | Wanted::LookedUp | Wanted::Held(..=1) => {
                    wait_for_rows(&daemon, name, "sent", 1).await;
                }
                Wanted::Held(_) => by = "-",
                Wanted::Elsewhere => {
                    wait_for_rows(&daemon, name, "dead", 1).await;
                    let mail = smtp.wait_for_mail("the mail instead", |_| true).await;
                    let text = mail.mail.part("text/plain").text();
                    assert!(text.contains(&format!("`{name}` did not take it")) && text.contains(case), "{text}");
                    let took = between(slack.requests()[0].at.wall, mail.at);
                    // The goal is a minute.
                    assert!(took < SOON, "{case}: told by mail after {took:?}");
                    (again, by) = (seconds(took), "mail");
                }
            }
            let requests = slack.requests();
            let waited = requests.get(1).map(|second| second.at.mono.since(requests[0].at.mono));
            let lookups = slack.count("conversations.history");
            match wanted {
                Wanted::Taken => assert_eq!(requests.len(), 1, "{case}: {requests:#?}"),
                Wanted::Again | Wanted::LookedUp => {
                    // The store keeps whole milliseconds.
                    assert!(waited >= Some(Duration::from_millis(499)), "{case}: again after {waited:?}");
                    again = seconds(waited.unwrap());
                }
                Wanted::Held(least) => {
                    let until = hold(&daemon, name).await - requests[0].at.wall.as_millisecond();
                    let least = least * 1_000;
                    assert!((least..least + SOON.as_millis() as i64).contains(&until), "{case}: held for {until} ms");
                    assert!(waited.is_none_or(|waited| waited.as_millis() as i64 >= least - 1), "{case}: {waited:?}");
                    again = waited.map_or_else(|| format!("held for {} s", until / 1_000), seconds);
                }
                Wanted::Elsewhere => {}
            }
            let is_unclear = *wanted == Wanted::LookedUp;
            assert_eq!(lookups, usize::from(is_unclear), "{case}: an unclear answer is looked up, a clear one is not");
            let there = told(slack).len();
            assert_eq!(there, usize::from(by == "Slack"), "{case}: {requests:#?}");
            table.row(&[case, &there, &again, &by]);
        }
        target.set_all(Mode::Well);
        for (case, wanted, name, slack, _) in &rows {
            if matches!(wanted, Wanted::Taken | Wanted::Again | Wanted::LookedUp) {
                wait_for_rows(&daemon, name, "sent", 2).await;
                let told = told(slack);
                assert!(told.len() == 2 && told[0].contains(".1.") && told[1].contains(".2."), "{case}: {told:?}");
            }
        }
    });
}

#[test]
fn who_cannot_be_reached_is_tried_again_and_mail_tells_it() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let table = [
            ("no such name", format!("http://{}.invalid/api/", "x".repeat(64))),
            ("connection refused", format!("http://127.0.0.1:{}/api/", free_port())),
            ("no TLS where it should be", slack.url().replace("http:", "https:")),
        ];
        let desk = FakeSlack::start().await;
        let (mut scene, mut rows) = (Scene::beside(&desk), Vec::new());
        for (n, (case, url)) in table.into_iter().enumerate() {
            let (name, smtp) = (format!("chat-{n}"), FakeSmtp::start().await);
            let fallback = format!("fallback = \"mail-{n}\"\nfallback_after = \"3s\"");
            scene = scene.slack_at(&name, &url, &fallback).mail(&format!("mail-{n}"), &smtp, "");
            scene = scene.watch(&format!("part-{n}"), &[&name]);
            rows.push((case, name, smtp));
        }
        let (daemon, target) = scene.start("unreachable").await;
        target.set_all(Mode::Fails);
        let mut table = Table::new("slack", "2-unreachable", &HEADS);
        for (case, name, smtp) in &rows {
            let mail = smtp.wait_for_mail("the mail instead", |_| true).await;
            let text = mail.mail.part("text/plain").text();
            assert!(text.contains(&format!("`{name}` did not take it")), "{case}: {text}");
            let (attempts, created) = wait_for("another attempt", SOON, async || {
                let sql =
                    "SELECT attempt, created FROM outbox WHERE notifier = ? AND status = 'pending' AND attempt > 1";
                store(&daemon).query_row(sql, [name], |row| Ok((row.get(0)?, row.get(1)?))).ok()
            })
            .await;
            let (attempts, created): (i64, i64) = (attempts, created);
            let took = mail.at.as_millisecond() - created;
            assert!((3_000..20_000).contains(&took), "{case}: told by mail after {took} ms");
            let took = seconds(Duration::from_millis(took as u64));
            table.row(&[case, &told(&slack).len(), &format!("{took}, attempt {attempts}"), &"mail"]);
        }
        assert_eq!(slack.requests().len(), 0);
    });
}

/// A hundred journeys that fail in the same moment: how many messages there are when everything is told.
async fn storm(digest_after: usize) -> usize {
    const PARTS: usize = 100;
    let slack = FakeSlack::start().await;
    let mut scene = Scene::with(&format!("[alerting]\ndigest_after = {digest_after}\n")).slack("chat", &slack, "");
    for part in 0..PARTS {
        scene = scene.watch(&format!("part-{part}"), &["chat"]);
    }
    let (daemon, target) = scene.start("storm").await;
    target.set_all(Mode::Fails);
    wait_for("all to be told", Duration::from_secs(90), async || {
        let firing = daemon.metric("journeyman_alert_state", &[]).await?;
        let owed = daemon.metric("journeyman_outbox_pending", &[]).await?;
        (firing >= PARTS as f64 && owed == 0.0).then_some(())
    })
    .await;
    slack.count(POST)
}

#[test]
fn a_hundred_alerts_at_once_are_a_digest() {
    block_on(async {
        let mut table = Table::new("slack", "3-storm", &FIGURE);
        // The digest, and the cause once it is known, are messages too.
        for (digest_after, most) in [(2, 5), (20, 23)] {
            let posts = storm(digest_after).await;
            table.row(&[&format!("messages of 100 alerts at once, digest_after = {digest_after}"), &posts, &most]);
            assert!((1..=most).contains(&posts), "{posts} messages");
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
