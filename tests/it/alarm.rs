//! Can people be told? Journeys that ring a notifier and read the test back: by mail through Postfix and Dovecot, by Slack, by webhook; and what
//! the switch outside hears when it fails.

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Daemon, Setup};
#[cfg(feature = "slack")]
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::hook::{Hook, Request};
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Rings, and reads back from the channel `seen`, every second.
const ALERT_PATH: &str = "
    [[journey]]
    name = \"alert-path\"
    every = \"1s\"
    deadline = \"20s\"
    notify = []
    alert = { down_after = 1 }
    step = [
      { name = \"ring\", send = \"alarm\", text = \"the hourly test\" },
      { name = \"seen\", receive = \"seen\", expect = [{ copies = 1 }] },
    ]";
const ALARM: &str = "[channels.alarm]\ntype = \"notifier\"\nnotifier = \"oncall\"\n";

async fn until_good(daemon: &Daemon, runs: f64) {
    wait_for("good runs of the alert path", SOON, async || {
        let failed = daemon.runs("alert-path", "failed", "").await;
        assert!(failed < 1.0, "it failed:\n{}", daemon.log());
        (daemon.runs("alert-path", "good", "").await >= runs).then_some(())
    })
    .await;
}

async fn api(daemon: &Daemon, path: &str) -> Value {
    let (_, text) = daemon.get(path).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

/// Nobody is owed anything, nothing is open, and nothing is counted as a notice.
async fn assert_it_is_no_incident(daemon: &Daemon) {
    assert_eq!(api(daemon, "/api/v1/incidents").await["incidents"], Value::Array(Vec::new()));
    assert_eq!(api(daemon, "/api/v1/outbox").await["notices"], Value::Array(Vec::new()));
    let sent = [("notifier", "oncall"), ("result", "sent")];
    assert_eq!(daemon.metric("journeyman_notifications_total", &sent).await, Some(0.0));
}

#[cfg(feature = "imap")]
#[test]
fn a_test_goes_by_mail_through_postfix_into_dovecot_and_is_read_back() {
    use crate::support::certificate::Certificate;
    use crate::support::dovecot::{Dovecot, PASSWORD};
    use crate::support::postfix::Postfix;

    block_on(async {
        let setup = Setup::new("alarm-mail");
        let scratch = crate::support::Scratch::new("alarm-mail-tls");
        let certificate = Certificate::new(&scratch, &["127.0.0.1"]);
        let Some(dovecot) = Dovecot::start().await else { return };
        let Some(postfix) = Postfix::start_before(&dovecot, &certificate).await else { return };
        setup.write("password", PASSWORD);
        let config = format!(
            "{ALARM}
            [channels.seen]
            type = \"imap\"
            url = \"imap://127.0.0.1:{}\"
            username = \"inbox@example.test\"
            password = {{ file = \"password\" }}

            [notifiers.oncall]
            type = \"email\"
            smtp = \"smtp://127.0.0.1:{}\"
            from = \"journeyman@example.test\"
            to = [\"inbox@example.test\"]
            template = {{ subject = \"our own words\" }}\n",
            dovecot.imap,
            postfix.port()
        );
        // What arrives says first that it is a test, whatever the template says.
        let expected = "{ copies = 1 }, { header = \"Subject\", equals = \"TEST our own words\" },
            { header = \"X-Journeyman-Mark\", equals = \"test\" }, { body = { contains = \"the hourly test\" } }";
        let daemon = setup.start(&config, &ALERT_PATH.replace("{ copies = 1 }", &expected.replace('\n', " "))).await;
        until_good(&daemon, 2.0).await;
        assert_it_is_no_incident(&daemon).await;
    });
}

#[cfg(feature = "slack")]
#[test]
fn a_test_is_posted_in_slack_and_read_back_from_its_history() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let setup = Setup::new("alarm-slack");
        setup.write("token", TOKEN);
        let config = format!(
            "{ALARM}
            [channels.seen]
            type = \"slack\"
            token = {{ file = \"token\" }}
            channel = \"{CHANNEL}\"
            api_url = \"{0}\"
            poll = \"1s\"

            [notifiers.oncall]
            type = \"slack\"
            token = {{ file = \"token\" }}
            channel = \"{CHANNEL}\"
            api_url = \"{0}\"
            template = {{ text = \"our own words\" }}\n",
            slack.url()
        );
        let daemon = setup.start(&config, ALERT_PATH).await;
        until_good(&daemon, 2.0).await;
        assert_it_is_no_incident(&daemon).await;
        let posted = slack.requests().into_iter().find(|request| request.method == "chat.postMessage").unwrap();
        let text = posted.arguments["text"].as_str().unwrap().to_owned();
        assert_eq!(text, "TEST our own words", "it says first that it is a test");
        assert!(posted.arguments.to_string().contains("the hourly test"));
    });
}

/// The calls of one kind that a switch took.
fn calls(hook: &Hook, path: &str) -> Vec<Request> {
    let line = format!("POST {path}?rid=");
    hook.requests().into_iter().filter(|request| request.head.starts_with(&line)).collect()
}

#[test]
fn a_notifier_that_is_refused_fails_the_journey_and_the_switch_outside_is_told_until_it_works() {
    block_on(async {
        let setup = Setup::new("alarm-switch");
        let switch = Hook::start([]).await;
        setup.write("switch", &switch.url("/ping"));
        let (good, bad) = ("Bearer the-right-one-4711", "Bearer the-wrong-one-4711");
        setup.write("authorization", good);
        setup.write("secret", "the-right-one-4711");
        let config = format!(
            "{ALARM}
            [self_journey]
            every = \"1s\"
            [dead_man]
            url = {{ file = \"switch\" }}
            every = \"1s\"
            requires = [\"alert-path\"]

            [channels.seen]
            type = \"webhook\"
            path = \"/seen\"
            verify = {{ scheme = \"bearer\", secret = {{ file = \"secret\" }} }}

            [notifiers.oncall]
            type = \"webhook\"
            url = \"{}\"
            headers = {{ authorization = {{ file = \"authorization\" }} }}\n",
            setup.hook_url("/seen")
        );
        let authorization = setup.directory().join("authorization");
        let daemon = setup.start(&config, ALERT_PATH).await;
        until_good(&daemon, 2.0).await;
        wait_for("calls that all is well", SOON, async || (calls(&switch, "/ping").len() >= 2).then_some(())).await;
        let first = |path| calls(&switch, path).first().map(Request::json);
        assert_eq!(first("/ping/fail"), None, "nothing failed yet");
        let said = daemon.get("/health").await.1;
        assert!(said.contains("each has passed"), "{said}");

        std::fs::write(&authorization, bad).unwrap();
        wait_for("the switch to hear of it", SOON, async || first("/ping/fail")).await;
        let told = first("/ping/fail").unwrap();
        let trouble = told["trouble"].as_str().unwrap();
        assert!(
            trouble.contains("`alert-path`, which is required, failed") && trouble.contains("refused"),
            "{trouble}"
        );
        assert!(!trouble.contains("wrong-one") && !daemon.log().contains("wrong-one"), "{trouble}");
        let well = calls(&switch, "/ping").len();
        let failed = calls(&switch, "/ping/fail").len();
        wait_for("more of it", SOON, async || (calls(&switch, "/ping/fail").len() >= failed + 2).then_some(())).await;
        assert_eq!(calls(&switch, "/ping").len(), well, "nobody says that all is well meanwhile");
        assert!(daemon.runs("alert-path", "failed", "refused").await >= 1.0);

        std::fs::write(&authorization, good).unwrap();
        wait_for("all to be well", SOON, async || (calls(&switch, "/ping").len() > well + 1).then_some(())).await;
    });
}

#[test]
fn a_journey_with_no_run_yet_withholds_the_call_and_is_no_failure() {
    block_on(async {
        let setup = Setup::new("alarm-unproven");
        let switch = Hook::start([]).await;
        setup.write("switch", &switch.url("/ping"));
        let config = format!(
            "{ALARM}
            [self_journey]
            every = \"1s\"
            [dead_man]
            url = {{ file = \"switch\" }}
            every = \"1s\"
            requires = [\"alert-path\"]

            [channels.seen]
            type = \"webhook\"
            path = \"/seen\"
            verify = {{ scheme = \"none\" }}

            [notifiers.oncall]
            type = \"webhook\"
            url = \"{}\"\n",
            setup.hook_url("/seen")
        );
        // Its first run is an hour away.
        let daemon = setup.start(&config, &ALERT_PATH.replace("\"1s\"", "\"24h\"")).await;
        wait_for("the own journey to go round", SOON, async || {
            (daemon.runs("journeyman", "good", "").await >= 3.0).then_some(())
        })
        .await;
        assert_eq!((calls(&switch, "/ping").len(), calls(&switch, "/ping/fail").len()), (0, 0));
        assert_eq!(calls(&switch, "/ping/start").len(), 1);
        let health = api(&daemon, "/health").await;
        let said = health["components"]["dead man requires"]["detail"].as_str().unwrap_or_default();
        assert_eq!(said, "`alert-path`, which is required, has not run yet");
    });
}
