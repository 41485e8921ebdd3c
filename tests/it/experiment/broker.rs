//! Over a real RabbitMQ: the recipes of `experiments/`, as people run them.

use tokio::sync::Semaphore;

use super::*;
use crate::support::browser::{Browser, Look};
use crate::support::command::run;
use crate::support::is_long;
use crate::support::rabbitmq::RabbitMq;

/// Set to any value, the pictures of docs/experiments.md are taken anew.
const UPDATE: &str = "UPDATE_PICTURES";
/// A picture of a report is no larger than this.
const LARGEST: usize = 60 * 1024;
const LOOK: Look = Look { width: 720, is_dark: false };
/// Leaves of the page what it came to, the claims and the charts.
const SUMMARY: &str =
    "document.querySelectorAll('dl, main > section:nth-of-type(n+3), footer').forEach(of => of.remove());
    document.querySelector('main').style.fontSize = '14px';
    document.body.style.paddingBottom = 0;";

/// So many recipes go at once: each wants a hundred orders a second to be done within two seconds by programs that share the machine.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A recipe with a virtual host of its own; what it came to, and its report.
async fn recipe(name: &str, more: &[&str]) -> Option<(Ended, Value)> {
    let _turn = TURNS.acquire().await.expect("it is never closed");
    let broker = RabbitMq::shared().await?;
    let vhost = broker.vhost().await;
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/recipe.py");
    let mut command = tokio::process::Command::new("/usr/bin/python3");
    command.arg(recipe).arg(name).args(["--amqp", &vhost.url(), "--journeyman", env!("CARGO_BIN_EXE_journeyman")]);
    command.args(["--format", "json"]).args(more);
    let scratch = Scratch::new("experiment-page");
    // One that is varied has the name of another.
    let is_pictured = std::env::var_os(UPDATE).is_some() && (more.is_empty() || name == "thousand-a-second");
    let page = scratch.path().join("report.html");
    if is_pictured {
        command.arg("--html").arg(&page);
    }
    let ended = run(command).await;
    let report = report(&ended);
    if is_pictured {
        summary(name, &page).await;
    }
    Some((ended, report))
}

/// Takes the picture of a recipe's report anew.
async fn summary(name: &str, page: &Path) {
    let browser = Browser::start().await.expect("pictures are wanted, so a browser is");
    browser.look(LOOK).await;
    browser.open(&format!("file://{}", page.display())).await;
    browser.run(SUMMARY).await;
    let picture = browser.picture().await;
    assert!(picture.len() <= LARGEST, "{name}: {} bytes", picture.len());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/pictures/experiment-{name}.png"));
    std::fs::write(file, picture).expect("a picture can be written");
}

#[test]
fn an_outage_of_a_zone_makes_orders_late_and_loses_none() {
    block_on(async {
        let Some((ended, report)) = recipe("az-outage", &[]).await else { return };
        assert_eq!(ended.code, 0, "{}: {}", report["why"], ended.stderr);
        let tally = &report["tally"];
        assert_eq!((&tally["lost"], &tally["unseen"]), (&0.into(), &0.into()), "{tally:#}");
        assert!(tally["late"].as_u64().is_some_and(|late| late > 100), "{tally:#}");
    });
}

#[test]
fn a_spool_that_is_no_spool_is_found_out_to_the_last_order() {
    block_on(async {
        let scratch = Scratch::new("experiment-spool");
        let page = scratch.path().join("report.html");
        let page = page.to_str().expect("a path is text");
        let Some((ended, report)) = recipe("az-outage", &["--broken-spool", "--html", page]).await else { return };
        assert_eq!(ended.code, 1, "{}: {}", report["why"], ended.stderr);
        let dropped = dropped(&ended);
        assert!(dropped > 100, "{dropped}");
        assert_eq!(report["tally"]["lost"], dropped, "{:#}", report["tally"]);
        if std::env::var_os(UPDATE).is_some() {
            picture(page).await;
        }
    });
}

/// Takes the picture of docs/experiments.md anew.
async fn picture(page: &str) {
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures/experiment.png");
    let mut command = tokio::process::Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,1250"]);
    command.arg(format!("--screenshot={}", to.display())).arg(format!("file://{page}"));
    let taken = run(command).await;
    assert_eq!(taken.code, 0, "{}", taken.stderr);
}

/// The number of orders that the system says it dropped.
fn dropped(ended: &Ended) -> u64 {
    let said = ended.stderr.lines().find_map(|line| line.strip_prefix("the system dropped "));
    said.and_then(|said| said.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("it says nothing: {}", ended.stderr))
}

#[test]
fn a_worker_that_loses_seven_orders_is_told_of_seven() {
    block_on(async {
        let Some((ended, report)) = recipe("worker-loses", &[]).await else { return };
        assert_eq!(ended.code, 1, "{}: {}", report["why"], ended.stderr);
        assert_eq!((dropped(&ended), &report["tally"]["lost"]), (7, &7.into()), "{:#}", report["tally"]);
        let messages = report["messages"].as_array().expect("a list");
        let named = messages.iter().filter(|message| message["fate"] == "lost").count();
        assert_eq!(named, 7, "each of them has a name");
    });
}

#[test]
fn a_worker_that_crashes_again_and_again_loses_nothing() {
    block_on(async {
        let Some((ended, report)) = recipe("consumer-crash-loop", &[]).await else { return };
        assert_eq!(ended.code, 0, "{}: {}", report["why"], ended.stderr);
        assert_eq!(report["tally"]["lost"], 0, "{:#}", report["tally"]);
    });
}

#[test]
fn a_queue_that_backs_up_is_drained_in_time() {
    block_on(async {
        let Some((ended, report)) = recipe("queue-backs-up", &[]).await else { return };
        assert_eq!(ended.code, 0, "{}: {}", report["why"], ended.stderr);
        assert!(report["tally"]["late"].as_u64() > Some(0), "{:#}", report["tally"]);
    });
}

#[test]
fn a_slow_way_to_the_broker_is_borne() {
    block_on(async {
        let Some((ended, report)) = recipe("slow-dependency", &[]).await else { return };
        assert_eq!(ended.code, 0, "{}: {}", report["why"], ended.stderr);
        assert_eq!(report["tally"]["on_time"], report["tally"]["due"], "{:#}", report["tally"]);
    });
}

#[test]
fn orders_that_cannot_be_done_hold_up_no_others_unless_the_worker_is_stubborn() {
    block_on(async {
        let Some((ended, report)) = recipe("poison-message", &[]).await else { return };
        assert_eq!(ended.code, 0, "{}: {}", report["why"], ended.stderr);
        assert_eq!(report["tally"]["on_time"], report["tally"]["due"], "{:#}", report["tally"]);
        let Some((ended, report)) = recipe("poison-message", &["--stubborn"]).await else { return };
        assert_eq!(ended.code, 2, "{}: {}", report["why"], ended.stderr);
        assert!(report["why"].as_str().is_some_and(|why| why.starts_with("overdue at most 50: ")), "{}", report["why"]);
    });
}

#[test]
fn what_a_throttled_provider_refuses_is_refused_and_not_lost() {
    block_on(async {
        let Some((ended, report)) = recipe("throttled-provider", &[]).await else { return };
        assert_eq!(ended.code, 0, "{}: {}", report["why"], ended.stderr);
        let tally = &report["tally"];
        assert_eq!(tally["lost"], 0, "{tally:#}");
    });
}

#[test]
fn a_thousand_messages_a_second_for_a_minute_are_each_accounted_for() {
    block_on(async {
        // A minute at that rate is for a machine that has nothing else to do.
        let (more, least): (&[&str], u64) = if is_long() { (&[], 59_900) } else { (&["--short"], 590) };
        let Some((ended, report)) = recipe("thousand-a-second", more).await else { return };
        let tally = &report["tally"];
        let first = &report["messages"][0];
        assert_eq!(ended.code, 0, "{}: {}, {tally:#}: {first:#}", report["why"], ended.stderr);
        let due = tally["due"].as_u64().expect("a number");
        let here = ["on_time", "late"].iter().filter_map(|fate| tally[*fate].as_u64()).sum::<u64>();
        assert!(due >= least && here == due, "{tally:#}: {first:#}");
        // What docs/experiments.md says; `--nocapture` shows it.
        println!("{tally}");
    });
}
