//! The wall clock steps, stands still, gains, or is in another century, while the daemon runs: journeys go on at their pace, no
//! latency is touched, nothing is made up for, and whoever waits before telling people again waits no longer.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::app;
use journeyman::clock::{Clock, Steering};
use journeyman::config::load;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::fake_slack::{Answer, CHANNEL, FakeSlack, TOKEN};
use crate::support::table::Table;
use crate::support::target::{Mode, Target};
use crate::support::{Scratch, block_on, free_port, wait_for};

const SOON: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(500);
const STEADY: usize = 0;
const VICTIM: usize = 1;
const DAY: i64 = 86_400_000;

fn configuration(target: &Target, slack: &FakeSlack) -> (Scratch, std::path::PathBuf) {
    let scratch = Scratch::new("clock-steps");
    scratch.write("token", TOKEN);
    let journey = |name: &str, part: usize| {
        format!(
            "[[journey]]\nname = \"{name}\"\nevery = \"{}ms\"\ndeadline = \"400ms\"\nnotify = [\"chat\"]\n\
             alert = {{ down_after = 1, recover_after = 1, remind = \"never\", flapping = false }}\n\
             step = [{{ request = \"web\", path = \"/{part}\" }}]\n",
            EVERY.as_millis()
        )
    };
    let main = scratch.write(
        "journeyman.toml",
        &format!(
            "[http]\nlisten = \"127.0.0.1:{}\"\n[hooks]\nlisten = \"127.0.0.1:{}\"\n[store]\nurl = \"sqlite:state.db\"\n[alerting]\ngroup_by = []\n\
             [channels.web]\ntype = \"http\"\nurl = \"{}\"\n[notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\n\
             channel = \"{CHANNEL}\"\napi_url = \"{}\"\n{}{}",
            free_port(),
            free_port(),
            target.url(),
            slack.url(),
            journey("steady", STEADY),
            journey("victim", VICTIM),
        ),
    );
    (scratch, main)
}

/// A sample of the exposition, without labels or with these.
async fn metric(http: &str, series: &str) -> f64 {
    let text = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{http}/metrics"));
    let text = text.send().await.unwrap().text().await.unwrap();
    let values = text.lines().filter_map(|line| line.strip_prefix(series)?.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// Runs of the steady journey, and how long they took together.
async fn runs(http: &str) -> (f64, f64) {
    let of = "{journey=\"steady\"";
    (
        metric(http, &format!("journeyman_run_duration_seconds_count{of}")).await,
        metric(http, &format!("journeyman_run_duration_seconds_sum{of}")).await,
    )
}

#[test]
fn whatever_the_wall_clock_does_journeys_keep_their_pace_and_people_are_told() {
    static STEERING: Steering =
        Steering { ahead: std::sync::atomic::AtomicI64::new(0), gains: std::sync::atomic::AtomicI64::new(0) };
    let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    // What it is called, by how much the clock is ahead from then on, how much it gains, whether that is a step to be counted.
    let cases = [
        ("+1 s", 1_050, 0, true),
        ("a leap second", 0, 0, true),
        ("+1 h", 3_600_000, 0, true),
        ("-1 h", -3_600_000, 0, true),
        ("+1 d", DAY, 0, true),
        ("-1 d", -DAY, 0, true),
        ("8 h of suspend", 8 * 3_600_000, 0, true),
        ("to 1970", -start.as_millisecond() + 1_000_000, 0, true),
        ("to 2038 and beyond", (1 << 31) * 1_000 - start.as_millisecond(), 0, true),
        ("back to today", 0, 0, true),
        ("gains 500 ppm", 0, 500, false),
        ("stands still", 0, -1_000_000, true),
    ];
    block_on(async {
        let mut table = Table::new("robustness", "t10", &["test", "tried", "held"]);
        let (target, slack) = (Target::start(2).await, FakeSlack::start().await);
        let (_scratch, main) = configuration(&target, &slack);
        let (plan, _) = load(&main).unwrap_or_else(|problems| panic!("{problems:?}"));
        let http = format!("http://{}", plan.http.listen);
        let stop = CancellationToken::new();
        let mut daemon = JoinSet::new();
        daemon.spawn(Box::pin(app::run(plan, None, Clock::steered(start, &STEERING), stop.clone(), |_| {})));
        wait_for("runs", SOON, async || {
            let is_there = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{http}/ready")).send();
            is_there.await.ok().filter(|_| target.requests(STEADY) >= 2)
        })
        .await;

        let told = || slack.messages(CHANNEL).into_iter().filter(|message| message.text.contains("victim")).count();
        let real = Clock::system();
        for (n, (name, ahead, gains, is_step)) in cases.into_iter().enumerate() {
            // Slack wants fewer messages: the notice of this incident waits for two seconds, in which the clock is set.
            let posts = slack.count("chat.postMessage");
            slack.script("chat.postMessage", [Answer::RateLimited(Some("2"))]);
            target.set(VICTIM, Mode::Fails);
            wait_for(&format!("{name}: a notice to wait"), SOON, async || {
                (slack.count("chat.postMessage") > posts).then_some(())
            })
            .await;
            let steps = metric(&http, "journeyman_clock_steps_total").await;
            let (count, sum) = runs(&http).await;
            let (asked, since) = (target.requests(STEADY), real.now().mono);
            STEERING.gains.store(gains, Ordering::Relaxed);
            STEERING.ahead.store(ahead, Ordering::Relaxed);

            wait_for(&format!("{name}: five more runs"), SOON, async || {
                (target.requests(STEADY) >= asked + 5).then_some(())
            })
            .await;
            let took = real.now().mono.since(since);
            // Five runs are due in two and a half seconds; at most one more than its pace is made up for.
            let due = took.as_secs_f64() / EVERY.as_secs_f64();
            let made = (target.requests(STEADY) - asked) as f64;
            assert!(made <= due + 2.0, "{name}: {made} runs within {took:?}");
            assert!(took < Duration::from_secs(12), "{name}: five runs took {took:?}");
            wait_for(&format!("{name}: people to be told"), Duration::from_secs(15), async || {
                (told() > 2 * n).then_some(())
            })
            .await;
            target.set(VICTIM, Mode::Well);
            wait_for(&format!("{name}: people to be told that it is over"), Duration::from_secs(15), async || {
                (told() >= 2 * n + 2).then_some(())
            })
            .await;
            assert_eq!(told(), 2 * n + 2, "{name}: once each");
            let (counted, summed) = runs(&http).await;
            if counted > count {
                let mean = (summed - sum) / (counted - count);
                assert!((0.0..0.4).contains(&mean), "{name}: {mean} s a run");
            }
            let stepped = metric(&http, "journeyman_clock_steps_total").await - steps;
            assert_eq!(stepped >= 1.0, is_step, "{name}: {stepped} steps counted");
        }
        STEERING.gains.store(0, Ordering::Relaxed);
        stop.cancel();
        let ended = daemon.join_next().await.unwrap().unwrap();
        ended.unwrap_or_else(|failure| panic!("{failure}"));
        table.row(&[
            &"T10 clock",
            &cases.map(|(name, ..)| name).join(", "),
            &"runs at their pace, none made up for, latencies untouched, a notice that waits is told in time, steps counted",
        ]);
    });
}
