//! The worked example of the SMS path, with the configuration that its page shows: out through the real gateway Kannel, back from
//! the handset, and reported by the SMS centre. Then the handset falls silent, which no delivery report tells.

use std::time::Duration;

use journeyman::journey::token::Token;
use serde_json::Value;

use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::document::{adapt, toml_blocks};
use crate::support::fake_slack::{CHANNEL, FakeSlack, Message, TOKEN};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::kannel::{Handset, Kannel};
use crate::support::{block_on, wait_for};

/// What waits for something that takes a few runs.
const BOUND: Duration = Duration::from_secs(60);
const HOOK_SECRET: &str = "shared-with-the-gateway-81b637d8";

#[test]
fn a_handset_that_falls_silent_is_told_once_although_its_messages_are_reported_as_delivered() {
    block_on(async {
        let setup = Setup::new("sms-story");
        let hook = setup.hook_url(&format!("/kannel/mo?secret={HOOK_SECRET}"));
        let Some(kannel) = Kannel::start(&hook, &setup.hook_url("/unused")).await else { return };
        let handset = Handset::answering(kannel.smsc).await;
        let (slack, mail) = (FakeSlack::start().await, FakeSmtp::start().await);
        write_configuration(&setup, &kannel, &slack, &mail);

        // The form with GET, by hand.
        let once = journeyman(setup.directory(), &["once", "sms-by-get", "--config", "journeyman.toml"]).await;
        assert_eq!(once.code, 0, "{once:#?}");
        assert!(once.stdout.contains("202 Accepted"), "{}", once.stdout);

        let daemon = setup.start_as_written().await;
        let good = [("journey", "sms-round-trip"), ("outcome", "good")];
        wait_for("two good runs", BOUND, async || {
            daemon.metric("journeyman_runs_total", &good).await.filter(|runs| *runs >= 2.0)
        })
        .await;
        assert_eq!((slack.messages(CHANNEL).len(), mail.mails().len()), (0, 0), "nobody is told of good runs");

        handset.set_silent(true);
        let message = async |what: &str, is_it: &dyn Fn(&Message) -> bool| {
            wait_for(what, BOUND, async || slack.messages(CHANNEL).into_iter().find(is_it)).await
        };
        let alert = message("an alert", &|_| true).await;
        assert!(
            alert.text.starts_with("DOWN sms-round-trip · failed (not_received) at step `arrive`"),
            "{}",
            alert.text
        );
        let told = wait_for("a mail", BOUND, async || mail.mails().pop()).await.mail;
        assert_eq!(told.header("X-Journeyman-State").as_deref(), Some("DOWN"));
        let (shown, text) = (alert.shown(), told.part("text/plain").text());
        let parts = ["not_received", "✓ submit", "✓ report", "✗ arrive", "last good", "https://wiki.example.net/sms"];
        for part in parts {
            let step = part.trim_start_matches(['✓', '✗', ' ']);
            assert!(shown.contains(step), "`{step}` is not in Slack's {shown}");
            assert!(text.contains(part), "`{part}` is not in the mail's\n{text}");
        }
        // The token leads to the run.
        let token = Token::find_all(text.as_bytes()).next().expect("the mail names the run").to_string();
        assert!(shown.contains(&token), "{token} is not in Slack's {shown}");
        let (_, body) = daemon.get(&format!("/api/v1/runs/{token}")).await;
        let run: Value = serde_json::from_str(&body).expect("the API answers JSON");
        assert_eq!(
            (&run["run"]["journey"], &run["run"]["token"]),
            (&"sms-round-trip".into(), &token.into()),
            "{run:#}"
        );

        // What the gateway proves itself with is in every message of its, and in no evidence.
        let (_, body) = daemon.get("/api/v1/journeys/sms-round-trip/runs").await;
        let runs: Value = serde_json::from_str(&body).expect("the API answers JSON");
        let with_evidence = |run: &&Value| run["verdict"] == "good" && run["token"].is_string();
        let run = runs["runs"].as_array().expect("a list").iter().find(with_evidence).expect("the first good run");
        let (_, evidence) = daemon.get(&format!("/api/v1/runs/{}", run["token"].as_str().expect("text"))).await;
        assert!(evidence.contains("secret=•••&from=") && !evidence.contains(HOOK_SECRET), "{evidence}");

        handset.set_silent(false);
        let recovery = message("the recovery", &|message| message.thread_ts.as_ref() == Some(&alert.ts)).await;
        assert!(recovery.text.starts_with("WELL AGAIN sms-round-trip"), "{}", recovery.text);
        let is_edited =
            |message: &Message| message.ts == alert.ts && message.edits == 1 && message.text == recovery.text;
        message("the edited message", &is_edited).await;
        mail.wait_for_mail("the recovery", |taken| taken.raw.contains("X-Journeyman-State: WELL AGAIN")).await;
        assert_eq!((slack.messages(CHANNEL).len(), mail.mails().len()), (2, 2), "each is told once");

        // Every call of the gateway was let in; what it was is known, too.
        for kind in ["foreign", "forged", "unmatched", "refused"] {
            let count = daemon.metric("journeyman_arrivals_total", &[("kind", kind)]).await;
            assert_eq!(count, Some(0.0), "{kind}: {}", daemon.metrics().await);
        }
    });
}

/// The page's configuration on this test's addresses and at its pace, with the people to tell, who are on other pages.
fn write_configuration(setup: &Setup, kannel: &Kannel, slack: &FakeSlack, mail: &FakeSmtp) {
    let blocks = toml_blocks("docs/examples/sms-kannel.md");
    let [main, journey, by_get] = &blocks[..] else { panic!("the page has {} TOML blocks", blocks.len()) };
    let (hooks, sendsms) = (setup.hooks_address().to_string(), kannel.sendsms.to_string());
    let main = adapt(
        main,
        &[
            ("127.0.0.1:9465", &hooks),
            ("127.0.0.1:13013", &sendsms),
            ("equals = \"…\"", &format!("equals = \"{HOOK_SECRET}\"")),
        ],
    );
    let people = format!(
        r#"
[http]
listen = "{}"

[defaults]
notify = ["oncall", "ops-mail"]

[notifiers.oncall]
type    = "slack"
token   = {{ file = "secrets/slack-bot-token" }}
channel = "{CHANNEL}"
api_url = "{}"

[notifiers.ops-mail]
type = "email"
smtp = "smtp://127.0.0.1:{}"
from = "journeyman@example.net"
to   = ["ops@example.net"]
"#,
        setup.http_address(),
        slack.url(),
        mail.port(),
    );
    setup.write("journeyman.toml", &format!("probes = [\"probes/*.toml\"]\n{main}{people}"));
    setup.write("secrets/kannel-password", Kannel::PASSWORD);
    setup.write("secrets/slack-bot-token", TOKEN);

    let pace = [
        ("every     = \"1m\"", "every     = \"1s\""),
        ("budget    = \"10s\"", "budget    = \"5s\""),
        ("deadline  = \"60s\"", "deadline  = \"6s\""),
    ];
    let journey = adapt(&adapt(journey, &[("127.0.0.1:9465", &hooks)]), &pace);
    let by_get = adapt(
        by_get,
        &[("127.0.0.1:9465", &hooks), ("password = \"…\"", &format!("password = \"{}\"", Kannel::PASSWORD))],
    );
    // Run by hand only.
    let head = "[[journey]]\nname = \"sms-by-get\"\ncron = \"0 0 29 2 *\"\ndeadline = \"20s\"\n";
    let tail = "\n  [[journey.step]]\n  receive = \"sms-reports\"\n\n  [[journey.step]]\n  receive = \"sms-in\"\n";
    setup.write("probes/sms.toml", &format!("{journey}\n{head}\n{by_get}{tail}"));
}
