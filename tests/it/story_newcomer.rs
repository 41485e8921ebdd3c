//! Ten minutes with the README: its own files, as they stand there, against a small shop; checked, run once, and left to run until
//! the shop's consumer dies and comes back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use journeyman::journey::token::Token;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::document::{adapt, toml_blocks};
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::{block_on, wait_for};

/// What waits for something that takes a few runs.
const BOUND: Duration = Duration::from_secs(60);
const HOOK_TOKEN: &str = "of-our-own-9e107d9d";

#[test]
fn ten_minutes_with_the_readme_lead_to_an_alert() {
    block_on(async {
        let setup = Setup::new("newcomer");
        let shop = Shop::open(setup.hook_url("/order-done")).await;
        let slack = FakeSlack::start().await;
        let blocks = toml_blocks("README.md");
        let [main, probe] = &blocks[..] else { panic!("the README has {} TOML blocks", blocks.len()) };
        let main = adapt(
            main,
            &[
                ("127.0.0.1:9464", &setup.http_address().to_string()),
                ("0.0.0.0:9465", &setup.hooks_address().to_string()),
                ("https://shop.example.net/orders", &shop.orders_url),
                ("channel = \"C0123456789\"", &format!("channel = \"{CHANNEL}\"\napi_url = \"{}\"", slack.url())),
            ],
        );
        setup.write("journeyman.toml", &main);
        setup.write("probes/order.toml", probe);
        setup.write("secrets/hook-token", HOOK_TOKEN);
        setup.write("secrets/slack-bot-token", TOKEN);
        let directory = setup.directory().to_owned();
        let run = async |arguments: &[&str]| journeyman(&directory, arguments).await;

        let check = run(&["check", "--config", "journeyman.toml"]).await;
        assert_eq!((check.code, check.stderr.as_str()), (0, ""), "no problem and no warning: {check:#?}");
        assert_eq!(check.stdout, "journeyman.toml: 1 journey, 2 channels, 1 notifier\n");

        // Nobody waits for half a minute here.
        let pace = [("every     = \"30s\"", "every     = \"1s\""), ("deadline  = \"20s\"", "deadline  = \"4s\"")];
        setup.write("probes/order.toml", &adapt(probe, &pace));

        let good = run(&["once", "order", "--config", "journeyman.toml"]).await;
        assert_eq!(good.code, 0, "{good:#?}");
        assert!(good.stdout.starts_with("order  good in "), "{}", good.stdout);
        for (mark, step) in [('✓', "send shop"), ('✓', "receive done")] {
            assert!(good.stdout.lines().any(|line| line.starts_with(mark) && line.contains(step)), "{}", good.stdout);
        }
        let line = |name: &str| good.stdout.lines().find_map(|line| line.strip_prefix(name)).expect("it is printed");
        let token = Token::parse(line("run   ")).expect("it is a token");
        assert_eq!(line("trace "), token.trace_id());
        assert_eq!(shop.seen(), [token.to_string()], "the shop had this order and no other");

        let machine = run(&["once", "order", "--config", "journeyman.toml", "--format", "json"]).await;
        let report: Value = serde_json::from_str(&machine.stdout).expect("it is JSON and nothing else");
        assert_eq!((machine.code, &report["outcome"]["outcome"]), (0, &json!("good")), "{report:#}");
        let statuses: Vec<_> = report["steps"].as_array().expect("steps").iter().map(|step| &step["status"]).collect();
        assert_eq!(statuses, ["passed", "passed"]);

        shop.stop_consumer();
        let bad = run(&["once", "order", "--config", "journeyman.toml"]).await;
        assert_eq!(bad.code, 2, "{bad:#?}");
        assert!(
            bad.stdout.contains("order  failed (not_received) at step `receive done`: not received within 4"),
            "{bad:#?}"
        );
        assert!(bad.stdout.lines().any(|line| line.starts_with("✗ receive done")), "{}", bad.stdout);
        shop.start_consumer();

        let unknown = run(&["once", "oder", "--config", "journeyman.toml"]).await;
        assert_eq!(unknown.code, 64, "{unknown:#?}");
        assert!(unknown.stderr.contains("no journey is named `oder`; did you mean `order`?"), "{unknown:#?}");

        let daemon = setup.start_as_written().await;
        let good = [("journey", "order"), ("outcome", "good")];
        wait_for("two good runs", BOUND, async || {
            daemon.metric("journeyman_runs_total", &good).await.filter(|runs| *runs >= 2.0)
        })
        .await;
        assert_eq!(slack.messages(CHANNEL).len(), 0, "all is well, and nobody is told");
        shop.stop_consumer();
        let alert = wait_for("an alert", BOUND, async || slack.messages(CHANNEL).pop()).await;
        let shown = alert.shown();
        assert!(alert.text.starts_with("DOWN order · failed (not_received) at step `receive done`"), "{}", alert.text);
        for part in [
            "receive done",
            "not_received",
            "none (budget 2s, deadline 4s)",
            "down_after = 3",
            "25917.0 of 25920.0 bad runs left",
            "last good",
            "run jm",
        ] {
            assert!(shown.contains(part), "`{part}` is not in {shown}");
        }

        shop.start_consumer();
        let reply = wait_for("the recovery", BOUND, async || {
            slack.messages(CHANNEL).into_iter().find(|message| message.thread_ts.is_some())
        })
        .await;
        assert_eq!(reply.thread_ts.as_ref(), Some(&alert.ts));
        assert!(reply.text.starts_with("WELL AGAIN order"), "{}", reply.text);
        wait_for("the message to be edited", BOUND, async || {
            let messages = slack.messages(CHANNEL);
            assert_eq!(messages.len(), 2, "one message and one reply: {messages:#?}");
            (messages[0].edits == 1 && messages[0].text.starts_with("WELL AGAIN order")).then_some(())
        })
        .await;
    });
}

/// A shop: takes orders at once; its consumer, if it runs, tells the webhook of each in turn.
struct Shop {
    orders_url: String,
    orders: Arc<Orders>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Orders {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    seen: Vec<String>,
    waiting: VecDeque<String>,
    is_stopped: bool,
}

impl Shop {
    async fn open(hook: String) -> Shop {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address: SocketAddr = listener.local_addr().expect("a listener has an address");
        let orders = Arc::new(Orders::default());
        let taken = orders.clone();
        let take = async move |body: Bytes| match serde_json::from_slice::<Value>(&body) {
            Ok(order) if order["id"].is_string() && order["sku"] == "PROBE-1" => {
                let id = order["id"].as_str().expect("it is a string").to_owned();
                taken.change(|inner| {
                    inner.seen.push(id.clone());
                    inner.waiting.push_back(id);
                });
                StatusCode::ACCEPTED
            }
            _ => StatusCode::BAD_REQUEST,
        };
        let mut tasks = JoinSet::new();
        let routes = Router::new().route("/orders", post(take));
        tasks.spawn(async move { axum::serve(listener, routes).await.expect("it serves until dropped") });
        tasks.spawn(consume(orders.clone(), hook));
        Shop { orders_url: format!("http://{address}/orders"), orders, _tasks: tasks }
    }

    fn seen(&self) -> Vec<String> {
        self.orders.lock().seen.clone()
    }

    fn stop_consumer(&self) {
        self.orders.change(|inner| inner.is_stopped = true);
    }

    /// It goes on with the orders that have waited.
    fn start_consumer(&self) {
        self.orders.change(|inner| inner.is_stopped = false);
    }
}

impl Orders {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn next(&self) -> Option<String> {
        let mut inner = self.lock();
        if inner.is_stopped { None } else { inner.waiting.pop_front() }
    }
}

async fn consume(orders: Arc<Orders>, hook: String) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client can be built");
    loop {
        while let Some(id) = orders.next() {
            let body = json!({ "id": id, "status": "shipped" }).to_string();
            // A daemon that does not run takes no calls, and this shop does not repeat them.
            let _ = client.post(&hook).bearer_auth(HOOK_TOKEN).body(body).send().await;
        }
        orders.changed.notified().await;
    }
}
