//! Table T8 of the fault matrix: what a mail server may do, and what must follow. What each mail then says: `email::t8`.

use reqwest::StatusCode;

use super::*;
use crate::support::fake_smtp::{Act, At, Rule};

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// It is tried again after the first wait, half a second at the least; then there are so many mails.
    Again(usize),
    /// So many mails by the first attempt.
    Taken(usize),
    /// The fallback tells it at once, and there is no mail.
    Elsewhere,
}

/// What happens, what the server does, the recipients, and what must come of it.
fn faults() -> Vec<(&'static str, Rule, &'static [&'static str], Wanted)> {
    use Wanted::*;
    let say = |at, words| Rule::once(at, Act::Say(words));
    vec![
        ("451 greylist, then 250", say(At::Rcpt, "451 4.7.1 greylisted, come back"), ONE, Again(1)),
        ("421 as the greeting", say(At::Connect, "421 4.3.2 closing down"), ONE, Again(1)),
        ("421 to EHLO", say(At::Ehlo, "421 4.3.2 closing down"), ONE, Again(1)),
        ("452 to MAIL", say(At::Mail, "452 4.3.1 disk full"), ONE, Again(1)),
        ("450 to RCPT", say(At::Rcpt, "450 4.2.1 busy"), ONE, Again(1)),
        ("421 to DATA", say(At::Data, "421 4.3.2 closing down"), ONE, Again(1)),
        ("452 to the final dot", say(At::Dot, "452 4.3.1 disk full"), ONE, Again(1)),
        ("554 as the greeting", say(At::Connect, "554 5.7.1 go away"), ONE, Elsewhere),
        ("550 to MAIL", say(At::Mail, "550 5.7.1 not your address"), ONE, Elsewhere),
        ("550 to RCPT", say(At::Rcpt, "550 5.1.1 no such user"), ONE, Elsewhere),
        ("554 to DATA", say(At::Data, "554 5.5.1 no valid recipients"), ONE, Elsewhere),
        ("554 to the final dot", say(At::Dot, "554 5.7.1 spam"), ONE, Elsewhere),
        ("550 to one of two", say(At::Rcpt, "550 5.1.1 no such user").to(BOTH[1]), BOTH, Taken(1)),
        ("450 to one of two", say(At::Rcpt, "450 4.2.1 busy").to(BOTH[1]), BOTH, Again(2)),
        ("closed before the content", Rule::once(At::Data, Act::Close), ONE, Again(1)),
        ("closed after the final dot, and taken", Rule::once(At::Dot, Act::TakeAndClose), ONE, Again(2)),
        ("silence after the final dot, and taken", Rule::once(At::Dot, Act::TakeAndHang), ONE, Again(2)),
        ("one byte a second", Rule::once(At::Ehlo, Act::Drip), ONE, Again(1)),
        ("no greeting", Rule::once(At::Connect, Act::Hang), ONE, Again(1)),
    ]
}

const ONE: &[&str] = &["ops@example.net"];
const BOTH: &[&str] = &["ops@example.net", "duty@example.net"];
const HEADS: [&str; 4] = ["the mail server", "mails", "again after", "told by"];

#[test]
fn whatever_the_server_does_people_are_told() {
    block_on(async {
        let desk = FakeSlack::start().await;
        let (mut scene, mut rows) = (Scene::beside(&desk), Vec::new());
        for (n, (case, rule, to, wanted)) in faults().into_iter().enumerate() {
            let (name, slack, smtp) = (format!("mail-{n}"), FakeSlack::start().await, FakeSmtp::start().await);
            smtp.script([rule]);
            let fallback = format!("fallback = \"chat-{n}\"\nfallback_after = \"1h\"");
            scene = scene.mail_to(&name, &format!("smtp://127.0.0.1:{}", smtp.port()), to, &fallback);
            scene = scene.slack(&format!("chat-{n}"), &slack, "").watch(&format!("part-{n}"), &[&name]);
            rows.push((case, wanted, name, slack, smtp));
        }
        let (daemon, target) = scene.start("smtp").await;
        target.set_all(Mode::Fails);
        let mut table = Table::new("smtp", "1-faults", &HEADS);
        for (case, wanted, name, slack, smtp) in &rows {
            let (mut again, mut by) = ("-".to_owned(), "mail");
            if *wanted == Wanted::Elsewhere {
                wait_for_rows(&daemon, name, "dead", 1).await;
                let shown = slack.wait_for_message(CHANNEL, |_| true).await.shown();
                assert!(shown.contains(&case[..3]) && shown.contains(name), "{case}: {shown}");
                let took = between(smtp.connected()[0], slack.requests()[0].at.wall);
                assert!(took < SOON, "{case}: told by Slack after {took:?}");
                (again, by) = (seconds(took), "Slack");
            } else {
                wait_for_rows(&daemon, name, "sent", 1).await;
            }
            let (connected, mails) = (smtp.connected(), smtp.mails());
            let count = match wanted {
                Wanted::Again(count) => {
                    // Each recipient's mail has a connection of its own.
                    let waited = between(connected[0], *connected.last().unwrap());
                    // The store keeps whole milliseconds.
                    assert!(waited >= Duration::from_millis(499), "{case}: again after {waited:?}");
                    again = seconds(waited);
                    *count
                }
                Wanted::Taken(count) => *count,
                Wanted::Elsewhere => 0,
            };
            assert_eq!(mails.len(), count, "{case}: {:?}", smtp.commands());
            // Nobody has it twice, but where nobody knows whether it was taken; and then the mailbox can tell.
            let mut ids: Vec<_> = mails.iter().map(|taken| (&taken.to, taken.mail.header("Message-ID"))).collect();
            ids.dedup();
            let doubled = mails.len() - ids.len();
            assert_eq!(doubled, usize::from(case.ends_with("and taken")), "{case}: {ids:?}");
            let mails = if doubled > 0 { format!("{count}, with one Message-ID") } else { count.to_string() };
            table.row(&[case, &mails, &again, &by]);
        }
    });
}

#[test]
fn without_the_starttls_that_must_be_nothing_is_sent_and_the_fallback_tells_it() {
    block_on(async {
        let (slack, smtp) = (FakeSlack::start().await, FakeSmtp::start().await);
        let url = format!("smtp+starttls://127.0.0.1:{}", smtp.port());
        let scene = Scene::new().slack("chat", &slack, "").mail_to("mail", &url, ONE, "fallback = \"chat\"");
        let (daemon, target) = scene.watch("one", &["mail"]).start("stripped").await;
        target.set_all(Mode::Fails);
        wait_for_rows(&daemon, "mail", "dead", 1).await;
        let shown = slack.wait_for_message(CHANNEL, |_| true).await.shown();
        assert!(shown.contains("STARTTLS"), "{shown}");
        let commands = smtp.commands();
        assert!(commands.iter().all(|command| command.starts_with("EHLO") || command == "QUIT"), "{commands:?}");
        let took = between(smtp.connected()[0], slack.requests()[0].at.wall);
        let mut table = Table::new("smtp", "2-stripped", &HEADS);
        table.row(&[&"STARTTLS stripped", &smtp.mails().len(), &seconds(took), &"Slack"]);
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
