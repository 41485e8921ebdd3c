//! The figures that the README quotes, each measured beside its reference in one run: `cargo bench --features full`.
//!
//! One section alone: `cargo bench --features full -- lateness` (or `memory`, `channels`, `mail`, `in-flight`, `alert`, `down`, `storm`,
//! `idle`); `channels` is all brokers, and each has its own word (`amqp`, `kafka`, `redis`, …).

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, spawns tasks and starts processes itself")]

#[path = "../tests/it/support/mod.rs"]
mod support;

mod floors {
    #[cfg(feature = "amqp")]
    pub(crate) mod amqp;
    #[cfg(feature = "kafka")]
    pub(crate) mod kafka;
    #[cfg(all(feature = "imap", feature = "smtp"))]
    pub(crate) mod mail;
    #[cfg(feature = "mqtt")]
    pub(crate) mod mqtt;
    #[cfg(feature = "nats")]
    pub(crate) mod nats;
    #[cfg(feature = "redis")]
    pub(crate) mod redis;
    pub(crate) mod timer;
}

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use journeyman::time::{Human, between};
use serde_json::Value;

use support::daemon::{Daemon, Setup};
use support::fake_slack::{FakeSlack, Request};

/// Long enough for a p99 that is more than chance.
const SECONDS: u64 = 60;

fn main() {
    // `cargo bench` passes its own flags; a word without dashes names a section.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |section: &str| wanted.is_empty() || wanted.iter().any(|word| word == section);
    println!("| what | figure | reference in the same run | ratio | goal |\n|---|---|---|---|---|");
    support::block_on(async {
        if is_wanted("lateness") {
            lateness().await;
        }
        if is_wanted("memory") {
            memory().await;
        }
        #[cfg(feature = "amqp")]
        if is_wanted("channels") || is_wanted("amqp") {
            amqp().await;
        }
        #[cfg(feature = "mqtt")]
        if is_wanted("channels") || is_wanted("mqtt") {
            mqtt().await;
        }
        #[cfg(feature = "nats")]
        if is_wanted("channels") || is_wanted("nats") {
            nats().await;
        }
        if is_wanted("in-flight") {
            in_flight().await;
        }
        #[cfg(feature = "redis")]
        if is_wanted("channels") || is_wanted("redis") {
            redis().await;
        }
        #[cfg(feature = "kafka")]
        if is_wanted("channels") || is_wanted("kafka") {
            kafka().await;
        }
        #[cfg(all(feature = "imap", feature = "smtp"))]
        if is_wanted("mail") {
            mail().await;
        }
        if is_wanted("alert") {
            alert().await;
        }
        if is_wanted("down") {
            down().await;
        }
        if is_wanted("storm") {
            storm().await;
        }
        if is_wanted("idle") {
            idle().await;
        }
    });
}

/// 1,000 journeys every 10 s against bare timers on one heap in this process.
async fn lateness() {
    let probes = timers(1_000);
    let daemon = Daemon::start(MEMORY, &probes).await;
    let floor = floors::timer::run(1_000, Duration::from_secs(10), SECONDS).await;
    let buckets = histogram(&daemon.metrics().await, "journeyman_schedule_lateness_seconds");
    let figure = quantile_of(&buckets, 0.99);
    let reference = quantile(floor, 0.99);
    row(
        "start of a run against its slot, 1,000 journeys every 10 s, p99 (upper edge of its bucket)",
        figure,
        reference,
        "≤ 5 ms",
    );
}

/// What is left of the latency of a channel that needs no time: all of it is ours.
async fn memory() {
    let probes = "[[journey]]\nname = \"loop\"\nevery = \"100ms\"\ndeadline = \"5s\"\nmuted = true\n\
        [[journey.step]]\nsend = \"loop\"\njson = { id = \"{{ token }}\" }\n[[journey.step]]\nreceive = \"loop\"\n";
    let daemon = Daemon::start(MEMORY, probes).await;
    tokio::time::sleep(Duration::from_secs(SECONDS / 3)).await;
    let figure = quantile(latencies(&daemon, "loop").await, 0.5);
    row("reported latency of a channel that needs no time, p50", figure, Duration::from_micros(50), "≤ 50 µs");
}

/// One message in flight, twenty a second, by the daemon and by the bare library, on one broker at the same time.
#[cfg(feature = "amqp")]
async fn amqp() {
    let Some(broker) = support::rabbitmq::RabbitMq::shared().await else { return };
    let (ours, theirs) = (broker.vhost().await, broker.vhost().await);
    let main = format!(
        "[channels.queue]\ntype = \"amqp\"\nurl = \"{}\"\nexchange = \"amq.direct\"\n\
         routing_key = \"figures\"\nqueue = {{ name = \"figures\", bind = [{{ exchange = \"amq.direct\", routing_key = \"figures\" }}] }}\n",
        ours.url()
    );
    round_trips("RabbitMQ", &main, "", async || floors::amqp::run(&theirs.url(), SECONDS).await).await;
}

/// One message in flight, twenty a second, by the daemon and by the bare library, on one broker at the same time.
#[cfg(feature = "mqtt")]
async fn mqtt() {
    let Some(broker) = support::mosquitto::Mosquitto::start().await else { return };
    let main = format!(
        "[channels.queue]\ntype = \"mqtt\"\nurl = \"{}\"\ntopic = \"figures\"\nsubscribe = \"figures\"\n",
        broker.url()
    );
    round_trips("Mosquitto", &main, "", async || floors::mqtt::run(broker.address().port(), SECONDS).await).await;
}

/// One message in flight, twenty a second, by the daemon and by a client library, on one server at the same time: without a stream,
/// and with one in memory each.
#[cfg(feature = "nats")]
async fn nats() {
    use async_nats::jetstream::stream::{Config, StorageType};
    let Some(server) = support::nats::NatsServer::start().await else { return };
    let main = format!(
        "[channels.queue]\ntype = \"nats\"\nurl = \"{}\"\nsubject = \"figures\"\nsubscribe = \"figures\"\n",
        server.url()
    );
    round_trips("NATS", &main, "", async || Box::pin(floors::nats::run(&server.url(), None, SECONDS)).await).await;
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    for name in ["figures", "floor"] {
        let config = Config {
            name: name.to_owned(),
            subjects: vec![name.to_owned()],
            storage: StorageType::Memory,
            ..Config::default()
        };
        async_nats::jetstream::new(client.clone()).create_stream(config).await.expect("a stream can be made");
    }
    let main = format!("{main}stream = \"figures\"\n");
    let floor = async || Box::pin(floors::nats::run(&server.url(), Some("floor"), SECONDS)).await;
    round_trips("JetStream", &main, "", floor).await;
}

/// What the daemon reports of round trips through `[channels.queue]` of `main`, 20 a second, beside the bare library's `floor`,
/// at the same time on the same broker: alone, and with 1,000 other journeys; and what the daemon's connections cost when nothing is
/// sent. The channel has `keys` only while messages are timed.
async fn round_trips(broker: &str, main: &str, keys: &str, floor: impl AsyncFn() -> Vec<Duration>) {
    readiness(broker, main).await;
    let mut probes = String::new();
    for n in 0..2 {
        let _ = write!(
            probes,
            "[[journey]]\nname = \"queue-{n}\"\nevery = \"100ms\"\ndeadline = \"5s\"\nmuted = true\n\
             [[journey.step]]\nsend = \"queue\"\njson = {{ id = \"{{{{ token }}}}\" }}\n\
             [[journey.step]]\nreceive = \"queue\"\n"
        );
    }
    let timed = format!("{main}{keys}");
    let with_others = format!("{timed}{}", MEMORY.trim_start_matches("max_runs = 2000\n"));
    let others = probes.clone() + &timers(1_000);
    for (main, probes, beside, goals) in [
        (&timed, &probes, "", ["≤ 1.10 ×", "≤ 1.5 ×"]),
        (&with_others, &others, ", 1,000 other journeys every 10 s", ["≤ 1.25 ×", "≤ 3 ×"]),
    ] {
        let daemon = Daemon::start(main, probes).await;
        let floor = floor().await;
        let mut figure = latencies(&daemon, "queue-0").await;
        figure.extend(latencies(&daemon, "queue-1").await);
        for ((name, share), goal) in [("p50", 0.5), ("p99", 0.99)].into_iter().zip(goals) {
            let what = format!("reported round trip through {broker}, 20/s{beside}, {name}");
            row(&what, quantile(figure.clone(), share), quantile(floor.clone(), share), goal);
        }
    }
    let quiet = probes.replace("every = \"100ms\"", "every = \"24h\"");
    let idle = Daemon::start(main, &quiet).await;
    // The connections are there, and the start is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = cpu(idle.pid());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let share = (cpu(idle.pid()) - before).as_secs_f64() / 20.0 * 100.0;
    println!("| a daemon with an idle channel to {broker} | {share:.2} % of a core | - | - | ≤ 0.5 % |");
}

/// Journeys through memory every 10 s.
fn timers(count: usize) -> String {
    let mut probes = String::new();
    for n in 0..count {
        let _ = write!(
            probes,
            "[[journey]]\nname = \"timer-{n}\"\nevery = \"10s\"\ndeadline = \"5s\"\nmuted = true\n\
             [[journey.step]]\nsend = \"loop\"\njson = {{ id = \"{{{{ token }}}}\" }}\n[[journey.step]]\nreceive = \"loop\"\n"
        );
    }
    probes
}

/// How long the receiver of the only channel of `main` takes until a message that is sent now would be seen: connected, subscribed, and
/// that confirmed.
async fn readiness(broker: &str, main: &str) {
    let plan = match journeyman::config::load_text("figures.toml", main, &[], &std::env::temp_dir()) {
        Ok((plan, _)) => plan,
        Err(problems) => panic!("{}", journeyman::config::render(&problems, false)),
    };
    let opening =
        journeyman::channel::Opening { clock: support::listening::clock(), hooks: None, alarms: Default::default() };
    let (_, planned) = plan.channels.first_key_value().expect("it has a channel");
    let channel = planned.settings.open(&opening).expect("it can be opened").expect("this build has it");
    let mut waits = Vec::new();
    for _ in 0..20 {
        let began = tokio::time::Instant::now();
        let mut receiver = support::listening::Receiver::on(&channel);
        receiver.ready().await;
        waits.push(began.elapsed());
        receiver.stop().await;
    }
    let (half, most) = (quantile(waits.clone(), 0.5), quantile(waits, 1.0));
    println!(
        "| from nothing to ready to receive through {broker}, p50 of 20 | {} | - | most: {} | ≤ 50 ms |",
        Human(half),
        Human(most)
    );
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it runs");
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("proc(5)") * 4_096
}

/// What a message costs that is under way, on one channel with thousands of them: the slope between daemons that have 1,000 and
/// 3,000 under way, of one plan and one age. So nothing is in it that they pay once; and nobody scrapes them before they are
/// measured, because rendering the metrics of 3,000 journeys leaves tens of megabytes with the allocator, and would be all that
/// one sees.
async fn in_flight() {
    const JOURNEYS: u64 = 3_000;
    const EVERY: Duration = Duration::from_secs(30);
    let resident_with = async |messages: u64| {
        let mut probes = String::new();
        for n in 0..JOURNEYS {
            let every = if n < messages { Human(EVERY).to_string() } else { "24h".to_owned() };
            let _ = write!(
                probes,
                "[[journey]]\nname = \"flight-{n}\"\nevery = \"{every}\"\ndeadline = \"10m\"\nmuted = true\n\
                 [[journey.step]]\nsend = \"loop\"\njson = {{ id = \"{{{{ token }}}}\" }}\ndelay = \"9m\"\n\
                 [[journey.step]]\nreceive = \"loop\"\n"
            );
        }
        let main =
            MEMORY.replace("2000", "6000").replace("type = \"memory\"", "type = \"memory\"\nmax_in_flight = 4000");
        let daemon = Daemon::start(&main, &probes).await;
        // Every journey's first slot has come.
        tokio::time::sleep(EVERY + Duration::from_secs(2)).await;
        let resident = resident(daemon.pid());
        let under_way = daemon.metric("journeyman_runs_in_flight", &[]).await.unwrap_or_default() as u64;
        // Of those that are due once a day, one may have been due just now.
        assert!(under_way.abs_diff(messages) < 20, "{under_way} of {messages} messages are under way");
        (under_way, resident)
    };
    let ((few, with_few), (many, with_many)) = (resident_with(1_000).await, resident_with(3_000).await);
    println!(
        "| a message in flight, between {few} and {many} on one channel | {} bytes | {:.1} MiB with {few} | | ≤ 2 KiB |",
        with_many.saturating_sub(with_few) / (many - few),
        with_few as f64 / 1_048_576.0
    );
}

/// One entry in flight, twenty a second, by the daemon and by the bare library, on one server at the same time.
#[cfg(feature = "redis")]
async fn redis() {
    let Some(server) = support::redis::Redis::with(&["--appendonly", "no"]).await else { return };
    let main = format!(
        "[channels.queue]\ntype = \"redis\"\nurl = \"{}\"\nstream = \"figures\"\nmax_length = 1000\n\
         receive = {{ stream = \"figures\" }}\n",
        server.url()
    );
    round_trips("a Redis stream", &main, "", async || floors::redis::run(&server.url(), SECONDS).await).await;
}

/// One message in flight, twenty a second, by the daemon and by the bare library, on one broker at the same time. The broker looks
/// for messages only at the beginning and in the middle of a fetch's wait, so the waits are short while messages are timed: the rows
/// compare what we add, and not at which moment of a wait a message happens to come.
#[cfg(feature = "kafka")]
async fn kafka() {
    const WAIT: Duration = Duration::from_millis(4);
    let Some(broker) = support::tansu::Tansu::start().await else { return };
    for topic in ["ours", "theirs"] {
        broker.create_topic(topic, 1).await;
    }
    let main = format!("[channels.queue]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"ours\"\n", broker.address());
    let keys = format!("fetch_wait = \"{}ms\"\n", WAIT.as_millis());
    let floor = async || floors::kafka::run(&broker.address().to_string(), "theirs", WAIT, SECONDS).await;
    round_trips("Kafka", &main, &keys, floor).await;
}

/// One mail in flight by the daemon, and one by a loop that asks every millisecond, through one Postfix and one Dovecot.
#[cfg(all(feature = "imap", feature = "smtp"))]
async fn mail() {
    let scratch = support::Scratch::new("figures-mail");
    let certificate = support::certificate::Certificate::new(&scratch, &["127.0.0.1"]);
    let Some(dovecot) = support::dovecot::Dovecot::start().await else { return };
    let Some(postfix) = support::postfix::Postfix::start_before(&dovecot, &certificate).await else { return };
    let main = format!(
        "[channels.out]\ntype = \"smtp\"\nurl = \"smtp://127.0.0.1:{}\"\nfrom = \"inbox@example.test\"\nto = [\"inbox@example.test\"]\n\
         [channels.in]\ntype = \"imap\"\nurl = \"imap://127.0.0.1:{}\"\nusername = \"inbox@example.test\"\npassword = {{ file = \"password\" }}\n",
        postfix.port(),
        dovecot.imap
    );
    let probes = "[[journey]]\nname = \"mail\"\nevery = \"500ms\"\ndeadline = \"5s\"\nmuted = true\n\
        [[journey.step]]\nsend = \"out\"\ntext = \"{{ token }}\"\n[[journey.step]]\nreceive = \"in\"\n";
    let setup = Setup::new("figures-mail");
    setup.write("password", support::dovecot::PASSWORD);
    let daemon = setup.start(&main, probes).await;
    let floor = floors::mail::run(postfix.port(), &dovecot, SECONDS).await;
    let figure = latencies(&daemon, "mail").await;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let what = format!("reported way of a mail, SMTP to IMAP, {name} of {}", figure.len());
        row(&what, quantile(figure.clone(), share), quantile(floor.clone(), share), "≤ 1.5 × and 20 ms");
    }
}

/// A target, and a daemon that tells a fake Slack at once what it is like, as often as it changes; `pace` is how often the target is asked.
async fn watched_by_slack(pace: &str) -> (FakeSlack, Target, Daemon) {
    let slack = FakeSlack::start().await;
    let target = Target::start().await;
    let main = format!(
        "[channels.web]\ntype = \"http\"\nurl = \"{}\"\n[notifiers.slack]\ntype = \"slack\"\n\
         token = {{ file = \"token\" }}\nchannel = \"{}\"\napi_url = \"{}\"\n",
        target.url(),
        support::fake_slack::CHANNEL,
        slack.url()
    );
    let probes = format!(
        "[[journey]]\nname = \"flips\"\n{pace}\nnotify = [\"slack\"]\n\
         alert = {{ down_after = 1, recover_after = 1, flapping = false }}\n[[journey.step]]\nrequest = \"web\"\n"
    );
    let setup = Setup::new("figures");
    setup.write("token", support::fake_slack::TOKEN);
    let daemon = setup.start(&main, &probes).await;
    (slack, target, daemon)
}

/// A target that goes down at any moment of a second, asked once a second: until there is a message at Slack.
async fn down() {
    const TIMES: usize = 40;
    let (slack, target, _daemon) = watched_by_slack("every = \"1s\"\ndeadline = \"900ms\"").await;
    let mut waits = Vec::new();
    for time in 0..TIMES {
        // Every part of a second once, whenever the slots are: forty moments of it, in no order.
        tokio::time::sleep(Duration::from_millis(2_000 + (time as u64 * 17 % TIMES as u64) * 1_000 / TIMES as u64))
            .await;
        let began = tokio::time::Instant::now();
        target.fail(true);
        slack.wait_for_requests("chat.postMessage", time * 2 + 1).await;
        waits.push(began.elapsed());
        target.fail(false);
        slack.wait_for_requests("chat.postMessage", time * 2 + 2).await;
    }
    for (name, share, goal) in [("median", 0.5, 600), ("most", 1.0, 1_150)] {
        let what = format!("down → message at Slack, asked once a second, {name} of {TIMES}");
        row(&what, quantile(waits.clone(), share), Duration::from_millis(goal), "≤ 1 ×");
    }
}

/// A journey that fails and recovers all the time: from the decision, as the outbox has it, to the request at a fake Slack.
async fn alert() {
    let (slack, target, daemon) = watched_by_slack("every = \"2500ms\"\ndeadline = \"2s\"").await;
    let end = tokio::time::Instant::now() + Duration::from_secs(SECONDS * 2);
    let mut told = 0;
    while tokio::time::Instant::now() < end {
        target.fail(told % 2 == 0);
        told += 1;
        slack.wait_for_requests("chat.postMessage", told).await;
    }
    let rows = json(&daemon, "/api/v1/outbox?limit=1000").await;
    let rows = rows.as_array().or_else(|| rows["notices"].as_array()).cloned().unwrap_or_default();
    let requests = slack.requests();
    for reason in ["first", "resolved"] {
        let mut waits = Vec::new();
        for row in rows.iter().filter(|row| row["reason"] == reason) {
            let created: Timestamp =
                row["created"].as_str().and_then(|text| text.parse().ok()).expect("a row has its time");
            let is_it = |request: &&Request| {
                request.method == "chat.postMessage"
                    && request.arguments["metadata"]["event_payload"]["delivery"] == row["id"]
            };
            waits.extend(requests.iter().find(is_it).map(|request| between(created, request.at.wall)));
        }
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let what = format!("run decided → `{reason}` at Slack, outbox included, {name} of {}", waits.len());
            row(&what, quantile(waits.clone(), share), Duration::from_millis(25), "≤ 1 ×");
        }
    }
}

/// 10,000 journeys of one channel, whose system begins to fail for all of them.
async fn storm() {
    const JOURNEYS: usize = 10_000;
    let slack = FakeSlack::start().await;
    let target = Target::start().await;
    target.fail(true);
    let main = format!(
        "max_runs = 2000\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\nmax_in_flight = 200\n\
         [notifiers.slack]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{}\"\napi_url = \"{}\"\n",
        target.url(),
        support::fake_slack::CHANNEL,
        slack.url()
    );
    let mut probes = String::new();
    for n in 0..JOURNEYS {
        let _ = write!(
            probes,
            "[[journey]]\nname = \"storm-{n}\"\nevery = \"1m\"\ndeadline = \"10s\"\nnotify = [\"slack\"]\n\
             [[journey.step]]\nrequest = \"web\"\n"
        );
    }
    let setup = Setup::new("storm");
    setup.write("token", support::fake_slack::TOKEN);
    let daemon = setup.start(&main, &probes).await;
    // Three runs of each: nobody is told before.
    let is_message = |request: &&Request| matches!(&*request.method, "chat.postMessage" | "chat.update");
    let first = loop {
        if let Some(first) = slack.requests().iter().find(is_message) {
            break first.at.mono;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    tokio::time::sleep(Duration::from_secs(SECONDS * 2)).await;
    let minute = Duration::from_secs(60);
    let told =
        slack.requests().iter().filter(is_message).filter(|request| request.at.mono.since(first) < minute).count();
    let open = json(&daemon, "/api/v1/incidents").await;
    let open = open.as_array().or_else(|| open["incidents"].as_array()).cloned().unwrap_or_default();
    let members = open.first().map_or(0, |incident| incident["members"].as_u64().unwrap_or_default());
    let read_only = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(daemon.store_path(), read_only).expect("the store is there");
    let bytes = "SELECT COALESCE(SUM(LENGTH(notification) + LENGTH(COALESCE(error, ''))), 0) FROM outbox";
    let bytes: i64 = store.query_row(bytes, [], |row| row.get(0)).expect("an outbox");
    println!(
        "| {JOURNEYS} journeys fail together: open incidents, members of the first | {}, {members} | - | - | 1 |",
        open.len()
    );
    println!("| of the same: messages and edits in the minute from the first on | {told} | - | - | ≤ 5 |");
    println!(
        "| of the same: notices in the outbox after two minutes | {:.2} MiB | - | - | ≤ 64 MiB |",
        bytes as f64 / 1_048_576.0
    );
    println!("| of the same: resident memory | {:.0} MiB | - | - | - |", resident_mib(daemon.pid()));
}

/// 100 journeys a minute, and nothing wrong.
async fn idle() {
    let target = Target::start().await;
    let main = format!("[channels.web]\ntype = \"http\"\nurl = \"{}\"\n", target.url());
    let mut probes = String::new();
    for n in 0..100 {
        let _ = write!(
            probes,
            "[[journey]]\nname = \"idle-{n}\"\nevery = \"1m\"\nmuted = true\nobjective = {{ delivered = \"99%\" }}\n[[journey.step]]\nrequest = \"web\"\n"
        );
    }
    let daemon = Daemon::start(&main, &probes).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = cpu(daemon.pid());
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let share = (cpu(daemon.pid()) - before).as_secs_f64() / SECONDS as f64 * 100.0;
    println!("| CPU of an idle daemon, 100 journeys a minute | {share:.2} % of a core | - | - | ≤ 0.5 % |");
    println!("| resident memory of the same | {:.1} MiB | - | - | ≤ 30 MiB |", resident_mib(daemon.pid()));
}

const MEMORY: &str = "max_runs = 2000\n[channels.loop]\ntype = \"memory\"\n";

fn row(what: &str, figure: Duration, reference: Duration, goal: &str) {
    let ratio = figure.as_secs_f64() / reference.as_secs_f64();
    println!("| {what} | {} | {} | {ratio:.2} | {goal} |", Human(figure), Human(reference));
}

fn quantile(mut values: Vec<Duration>, share: f64) -> Duration {
    values.sort();
    let place = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1));
    values.get(place - 1).copied().unwrap_or_default()
}

/// The cumulative buckets of a histogram without labels of its own, by upper edge in seconds.
fn histogram(exposition: &str, family: &str) -> Vec<(f64, f64)> {
    let prefix = format!("{family}_bucket{{le=\"");
    let bucket = |line: &str| {
        let (edge, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
        Some((edge.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
    };
    exposition.lines().filter_map(bucket).collect()
}

/// The upper edge of the bucket in which the quantile lies.
fn quantile_of(buckets: &[(f64, f64)], share: f64) -> Duration {
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    let found = buckets.iter().find(|(_, count)| *count >= all * share);
    Duration::from_secs_f64(found.map_or(0.0, |(edge, _)| edge.min(1e6)))
}

async fn latencies(daemon: &Daemon, journey: &str) -> Vec<Duration> {
    let runs = json(daemon, &format!("/api/v1/journeys/{journey}/runs?limit=1000")).await;
    let rows = runs.as_array().or_else(|| runs["runs"].as_array()).cloned().unwrap_or_default();
    let latency = |row: &Value| row["latency_seconds"].as_f64().map(Duration::from_secs_f64);
    rows.iter().filter_map(latency).collect()
}

async fn json(daemon: &Daemon, path: &str) -> Value {
    let (status, text) = daemon.get(path).await;
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).expect("the API answers in JSON")
}

/// An HTTP system that works, or does not.
struct Target {
    url: String,
    fails: Arc<AtomicBool>,
}

impl Target {
    async fn start() -> Target {
        let fails = Arc::new(AtomicBool::new(false));
        let state = fails.clone();
        let answer = move || {
            let status = if state.load(Ordering::Relaxed) { 500 } else { 204 };
            std::future::ready(axum::http::StatusCode::from_u16(status).expect("it is a status"))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        let router = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Target { url, fails }
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }
}

/// CPU time of a process so far (proc(5), in ticks of 10 ms).
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon lives");
    let fields: Vec<_> = stat.rsplit_once(')').expect("its name ends").1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number of ticks");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn resident_mib(pid: u32) -> f64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("the daemon lives");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("a number of pages");
    pages * 4_096.0 / 1_048_576.0
}
