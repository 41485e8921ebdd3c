//! The worked example of the order pipeline, with the configuration that its page shows: an API, RabbitMQ and a consumer as
//! processes of their own, of which one after the other dies.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::daemon::{Daemon, Setup};
use crate::support::document::{adapt, toml_blocks};
use crate::support::fake_slack::{CHANNEL, FakeSlack, Message, TOKEN};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::pipeline::Pipeline;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{block_on, wait_for};

/// What waits for something that takes a few runs.
const BOUND: Duration = Duration::from_secs(60);
const HOOK_TOKEN: &str = "of-our-own-e4d909c2";

#[test]
fn a_dead_consumer_is_told_once_and_what_waited_for_it_is_late_and_not_lost() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let vhost = broker.vhost().await;
        let Some(mut story) = Story::begin(&vhost.url()).await else { return };
        story.wait_for_runs("order", "good", 2.0).await;
        story.wait_for_runs("orders-exchange", "good", 2.0).await;
        assert_eq!(
            (story.slack.messages(CHANNEL).len(), story.mail.mails().len()),
            (0, 0),
            "nobody is told of good runs"
        );

        story.pipeline.stop_consumer().await;
        let good = story.runs("orders-exchange", "good").await;
        let alert = story.message(|message| message.thread_ts.is_none()).await;
        assert!(alert.text.starts_with("DOWN order · failed (not_received) at step `done`"), "{}", alert.text);
        let mail = story.mail.wait_for_mail("the alert", |_| true).await.mail;
        assert_eq!(mail.header("X-Journeyman-State").as_deref(), Some("DOWN"));
        let (shown, text) = (alert.shown(), mail.part("text/plain").text());
        for part in ["not_received", "✓ submit", "✗ done", "last good", "not received within 8s", "jm01"] {
            let step = part.trim_start_matches(['✓', '✗', ' ']);
            assert!(shown.contains(step), "`{step}` is not in Slack's {shown}");
            assert!(text.contains(part), "`{part}` is not in the mail's\n{text}");
        }
        // The hop before the consumer is well, and goes on being so.
        story.wait_for_runs("orders-exchange", "good", good + 2.0).await;
        assert_eq!(story.runs("orders-exchange", "failed").await, 0.0);

        story.pipeline.start_consumer().await;
        let recovery = story.message(|message| message.thread_ts.as_ref() == Some(&alert.ts)).await;
        assert!(recovery.text.starts_with("WELL AGAIN order"), "{}", recovery.text);
        let well = |message: &Message| message.ts == alert.ts && message.edits == 1 && message.text == recovery.text;
        story.message(well).await;
        story.mail.wait_for_mail("the recovery", |taken| taken.raw.contains("X-Journeyman-State: WELL AGAIN")).await;

        // Every order that failed had waited in the queue: none is lost.
        let runs = wait_for("every failed run to be late", BOUND, async || {
            let runs = story.run_rows("order").await;
            runs.iter().all(|run| run["verdict"] != "failed").then_some(runs)
        })
        .await;
        let late: Vec<_> = runs.iter().filter(|run| run["verdict"] == "late").collect();
        assert!(late.len() >= 3, "{late:#?}");
        assert!(late.iter().all(|run| run["late_by_seconds"].as_f64().is_some_and(|by| by > 0.0)), "{late:#?}");
        let arrivals = [("channel", "order-done"), ("kind", "late")];
        assert_eq!(story.daemon.metric("journeyman_arrivals_total", &arrivals).await, Some(late.len() as f64));
        for kind in ["duplicate", "orphan", "foreign", "forged", "unmatched"] {
            let count = story.daemon.metric("journeyman_arrivals_total", &[("kind", kind)]).await;
            assert_eq!(count, Some(0.0), "{kind}");
        }
        assert_eq!(story.slack.messages(CHANNEL).len(), 2, "{:#?}", story.slack.messages(CHANNEL));
        assert_eq!(story.mail.mails().len(), 2);
    });
}

#[test]
fn without_its_broker_the_api_is_to_blame_and_the_exchange_is_unknown() {
    block_on(async {
        let Some(mut broker) = RabbitMq::private().await else { return };
        let url = broker.vhost().await.url();
        let Some(story) = Story::begin(&url).await else { return };
        story.wait_for_runs("order", "good", 1.0).await;
        story.wait_for_runs("orders-exchange", "good", 1.0).await;
        let ready = [("channel", "orders-exchange")];
        assert_eq!(story.daemon.metric("journeyman_channel_ready", &ready).await, Some(1.0));

        broker.kill();
        wait_for("the channel not to be ready", BOUND, async || {
            story.daemon.metric("journeyman_channel_ready", &ready).await.filter(|ready| *ready == 0.0)
        })
        .await;
        let alert = story.message(|message| message.text.starts_with("DOWN ")).await;
        assert_eq!(alert.text, "DOWN order · failed (rejected) at step `submit`: status equals 202, found 503");
        assert!(
            alert.shown().contains("What came back") && alert.shown().contains("ConnectionError"),
            "{}",
            alert.shown()
        );
        let stale = story.message(|message| message.text.starts_with("STALE ")).await;
        // The last run may have been a good one, which says nothing about the silence after it.
        assert!(
            stale.text.starts_with("STALE orders-exchange · ") && !stale.text.contains("good in"),
            "{}",
            stale.text
        );

        let not_ready = [("journey", "orders-exchange"), ("outcome", "unknown"), ("cause", "not_ready")];
        wait_for("a run without the broker", BOUND, async || {
            story.daemon.metric("journeyman_run_causes_total", &not_ready).await.filter(|runs| *runs >= 1.0)
        })
        .await;
        // The first of them may have been under way when the broker went.
        wait_for("one that began without it", BOUND, async || {
            let (_, body) = story.daemon.get("/api/v1/journeys/orders-exchange").await;
            body.contains("channel `orders-exchange` was not ready to receive: ").then_some(())
        })
        .await;
        // A run that was under way may have failed with the broker; those that came after it are unknown.
        let failed = story.runs("orders-exchange", "failed").await;
        assert!(failed <= 1.0, "{failed}");
        let (status, body) = story.daemon.get("/ready").await;
        assert_eq!(status, StatusCode::OK, "a broker that is down is news about the broker: {body}");
    });
}

/// The pipeline, the daemon that watches it, and where people are told.
struct Story {
    pipeline: Pipeline,
    slack: FakeSlack,
    mail: FakeSmtp,
    daemon: Daemon,
}

impl Story {
    /// Starts all of it; `None`, loudly, where something is not installed.
    async fn begin(amqp: &str) -> Option<Story> {
        let setup = Setup::new("pipeline-story");
        let header = format!("authorization: Bearer {HOOK_TOKEN}");
        let pipeline = Pipeline::start(amqp, &setup.hook_url("/order-done"), &["--header", &header]).await?;
        let (slack, mail) = (FakeSlack::start().await, FakeSmtp::start().await);
        let blocks = toml_blocks("docs/examples/order-pipeline.md");
        let [main, probes] = &blocks[..] else { panic!("the page has {} TOML blocks", blocks.len()) };
        let main = adapt(
            main,
            &[
                ("127.0.0.1:9464", &setup.http_address().to_string()),
                ("0.0.0.0:9465", &setup.hooks_address().to_string()),
                ("http://orders.example.net/orders", &pipeline.orders_url),
                ("\"C0123456789\"", &format!("\"{CHANNEL}\"\napi_url = \"{}\"", slack.url())),
                ("smtp://mail.example.net:25", &format!("smtp://127.0.0.1:{}", mail.port())),
            ],
        );
        // Nobody waits for half a minute here; and two cores are shared with other tests.
        let pace = [("\"30s\"", "\"1s\""), ("\"2s\"", "\"4s\""), ("\"500ms\"", "\"4s\""), ("\"20s\"", "\"8s\"")];
        let probes = adapt(probes, &pace);
        setup.write("journeyman.toml", &main);
        setup.write("probes/orders.toml", &probes);
        setup.write("secrets/hook-token", HOOK_TOKEN);
        setup.write("secrets/orders-amqp-url", amqp);
        setup.write("secrets/slack-bot-token", TOKEN);
        let daemon = setup.start_as_written().await;
        Some(Story { pipeline, slack, mail, daemon })
    }

    async fn runs(&self, journey: &str, outcome: &str) -> f64 {
        let labels = [("journey", journey), ("outcome", outcome)];
        self.daemon.metric("journeyman_runs_total", &labels).await.expect("it is born at zero")
    }

    async fn wait_for_runs(&self, journey: &str, outcome: &str, count: f64) {
        wait_for(&format!("{count} {outcome} runs of {journey}"), BOUND, async || {
            (self.runs(journey, outcome).await >= count).then_some(())
        })
        .await;
    }

    /// The runs as the API shows them.
    async fn run_rows(&self, journey: &str) -> Vec<Value> {
        let (status, body) = self.daemon.get(&format!("/api/v1/journeys/{journey}/runs?limit=1000")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let body: Value = serde_json::from_str(&body).expect("the API answers JSON");
        body["runs"].as_array().expect("a list").clone()
    }

    /// The first message in Slack that `is_it`, once it is there.
    async fn message(&self, is_it: impl Fn(&Message) -> bool) -> Message {
        wait_for("a message in Slack", BOUND, async || self.slack.messages(CHANNEL).into_iter().find(&is_it)).await
    }
}
