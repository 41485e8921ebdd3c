//! T6: a broker that five hundred journeys need is killed, and started again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::time::Mono;
use tokio::task::JoinSet;

use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::nats::NatsServer;
use crate::support::proxy::Proxy;
use crate::support::table::Table;
use crate::support::{block_on, wait_for};

const HEADS: [&str; 3] = ["T6: a dead broker under 500 journeys", "found", "goal"];
const JOURNEYS: usize = 500;
/// A minute would be usual; all else is as it always is.
const EVERY: Duration = Duration::from_secs(10);
/// Until every journey has run: five hundred have to start, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks at five hundred journeys.
const LOOK: Duration = Duration::from_millis(250);

/// Four of five make the round trip; the others only send.
fn probes() -> String {
    let mut probes = String::new();
    for n in 0..JOURNEYS {
        let receive = if n % 5 == 0 { "" } else { ", { receive = \"orders\" }" };
        let _ = writeln!(
            probes,
            "[[journey]]\nname = \"order-{n}\"\nevery = \"{}s\"\ndeadline = \"5s\"\nnotify = [\"ops\"]\n\
             alert = {{ down_after = 3, recover_after = 1, remind = \"never\" }}\n\
             step = [{{ send = \"orders\", text = \"{{{{ token }}}}\" }}{receive}]",
            EVERY.as_secs()
        );
    }
    probes
}

/// How often each journey came to this.
async fn counts(daemon: &Daemon, labels: &str) -> BTreeMap<String, u64> {
    tokio::time::sleep(LOOK).await;
    let text = daemon.metrics().await;
    let is_count = |line: &str| {
        ["journeyman_runs_total{", "journeyman_run_causes_total{"].iter().any(|family| line.starts_with(family))
    };
    let counts = text.lines().filter(|line| is_count(line) && line.contains(labels));
    let count = |line: &str| {
        let journey = line.split("journey=\"").nth(1)?.split('"').next()?;
        Some((journey.to_owned(), line.rsplit(' ').next()?.parse().ok()?))
    };
    counts.filter_map(count).collect()
}

/// Waits until every journey has come to this once more.
async fn wait_for_all(daemon: &Daemon, labels: &str, before: &BTreeMap<String, u64>, all: usize, bound: Duration) {
    wait_for(&format!("{all} with {labels}"), bound, async || {
        let now = counts(daemon, labels).await;
        let more = now.iter().filter(|(journey, count)| **count > before.get(*journey).copied().unwrap_or(0));
        (more.count() >= all).then_some(())
    })
    .await;
}

/// The most connections within a second, so far.
async fn watch_connections(proxy: Arc<Proxy>, most: Arc<std::sync::Mutex<u64>>) {
    let mut seen: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
    loop {
        seen.push_back(proxy.connections());
        if seen.len() > 20 {
            let within = seen.back().copied().unwrap_or(0) - seen.pop_front().unwrap_or(0);
            let mut most = most.lock().expect("no panic while held");
            *most = (*most).max(within);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_dead_broker_is_one_page_and_its_journeys_are_blocked_until_it_is_back() {
    block_on(async {
        let Some(mut server) = NatsServer::start().await else { return };
        let (proxy, smtp) = (Arc::new(Proxy::start(server.address()).await), FakeSmtp::start().await);
        let config = format!(
            "[channels.orders]\ntype = \"nats\"\nurl = \"nats://{}\"\nsubject = \"orders\"\nsubscribe = \"orders\"\n\
             [notifiers.ops]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"jm@example.net\"\nto = [\"ops@example.net\"]\n",
            proxy.address(),
            smtp.port()
        );
        let daemon = Setup::new("t6").start(&config, &probes()).await;
        let clock = Clock::system();
        let nothing = BTreeMap::new();
        wait_for_all(&daemon, "outcome=\"good\"", &nothing, JOURNEYS, SOON).await;
        let (most, mut tasks) = (Arc::default(), JoinSet::new());
        tasks.spawn(watch_connections(proxy.clone(), Arc::clone(&most)));

        let killed = clock.now().mono;
        server.kill();
        let since = |at: Mono| clock.now().mono.since(at);
        let page = smtp.wait_for_mail("the page", |_| true).await;
        let told = since(killed);
        let subject = page.mail.header("Subject").expect("a mail has a subject");
        assert!(subject.contains("channel orders"), "{subject}");
        // But the canary, which truly fails.
        wait_for_all(&daemon, "cause=\"blocked\"", &nothing, JOURNEYS - 1, SOON).await;
        let all_blocked = since(killed);
        let pages = smtp.mails().len();
        let reconnects = *most.lock().expect("no panic while held");

        let before = counts(&daemon, "outcome=\"good\"").await;
        server.start_again().await;
        let healed = clock.now().mono;
        wait_for_all(&daemon, "outcome=\"good\"", &before, JOURNEYS, SOON).await;
        let fresh = since(healed);
        wait_for("the end to be told", SOON, async || (smtp.mails().len() > pages).then_some(())).await;
        let states: Vec<_> = smtp.mails().iter().filter_map(|taken| taken.mail.header("X-Journeyman-State")).collect();

        let mut table = Table::new("breaker", "t6", &HEADS);
        let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
        table.row(&[&"a page, after", &seconds(told), &"60 s"]);
        table.row(&[&"pages", &pages, &1]);
        table.row(&[&format!("blocked, all of {JOURNEYS} but the canary, after"), &seconds(all_blocked), &"-"]);
        table.row(&[&"new connections in a second, at the most", &reconnects, &20]);
        table.row(&[&"healed: all fresh after (intervals of 10 s)", &seconds(fresh), &"20 s"]);
        assert!(told <= Duration::from_secs(60), "{told:?}");
        assert_eq!(states, ["DOWN", "WELL AGAIN"], "{}", daemon.log());
        assert!(reconnects <= 20, "{reconnects}");
        // The looks themselves are a second old and take their time.
        assert!(fresh <= EVERY * 2 + Duration::from_secs(2), "{fresh:?}");
    });
}
