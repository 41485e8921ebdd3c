//! Who hangs holds nobody else up: journeys that wait for a system that says nothing, and others beside them.

use std::fmt::Write as _;
use std::time::Duration;

use journeyman::time::between;

use crate::support::daemon::Setup;
use crate::support::target::{Answered, Mode, Target};
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(60);

fn journey(name: &str, part: usize, keys: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "[[journey]]\nname = \"{name}\"\nevery = \"500ms\"\n{keys}\nstep = [{{ request = \"part{part}\", path = \"/{part}\" }}]"
    );
    text
}

fn channel(part: usize, target: &Target) -> String {
    format!("[channels.part{part}]\ntype = \"http\"\nurl = \"{}\"\n", target.url())
}

/// The longest time between two answers of a part.
fn longest_pause(answered: &[Answered], part: usize) -> Duration {
    let times: Vec<_> = answered.iter().filter(|answered| answered.part == part).map(|answered| answered.at).collect();
    times.windows(2).map(|pair| between(pair[0], pair[1])).max().expect("it was asked more than once")
}

/// Eight may run at once, and two of these places are kept: ordinary journeys that hang take six.
#[test]
fn a_crowd_that_hangs_leaves_the_places_that_are_kept_for_critical_journeys() {
    block_on(async {
        const CROWD: usize = 30;
        let target = Target::start(CROWD + 2).await;
        (0..CROWD).for_each(|part| target.set(part, Mode::Hangs));
        let (critical, ordinary) = (CROWD, CROWD + 1);
        // A run that takes longer than its interval, on a machine that is busy with other tests, costs a slot, too.
        let seldom = journey("critical", critical, "deadline = \"10s\"\ncritical = true").replacen("500ms", "1s", 1);
        let mut probes = seldom + &journey("ordinary", ordinary, "deadline = \"2s\"");
        let mut config = "max_runs = 8\n".to_owned() + &channel(critical, &target) + &channel(ordinary, &target);
        for part in 0..CROWD {
            probes += &journey(&format!("hangs-{part}"), part, "deadline = \"20s\"");
            config += &channel(part, &target);
        }
        let daemon = Setup::new("bulkheads").start(&config, &probes).await;
        let capacity = [("reason", "capacity")];
        wait_for("a crowd that takes all that it may", SOON, async || {
            (daemon.metric("journeyman_runs_skipped_total", &capacity).await? >= 50.0).then_some(())
        })
        .await;
        let before = target.answered().len();
        let asked = target.requests(critical);
        wait_for("critical runs", SOON, async || (target.requests(critical) >= asked + 10).then_some(())).await;
        let answered = &target.answered()[before..];
        let pause = longest_pause(answered, critical);
        assert!(pause <= Duration::from_secs(5), "the critical one had to wait for {pause:?}");
        let share = answered.iter().filter(|answered| answered.part == ordinary).count();
        assert!(share < 20, "ordinary ones have a share of what is left: {share}");
        let skipped = [("journey", "critical"), ("outcome", "unknown"), ("cause", "skipped")];
        assert_eq!(daemon.metric("journeyman_run_causes_total", &skipped).await.unwrap_or_default(), 0.0);
        let failed = [("journey", "critical"), ("outcome", "failed")];
        assert_eq!(daemon.metric("journeyman_runs_total", &failed).await, Some(0.0));
    });
}

/// Each channel has its own permits, and a journey at most one run.
#[test]
fn a_journey_that_hangs_does_not_delay_one_on_another_channel() {
    block_on(async {
        let target = Target::start(2).await;
        target.set(0, Mode::Hangs);
        let probes = journey("hangs", 0, "deadline = \"5s\"") + &journey("well", 1, "deadline = \"10s\"");
        let config = format!("{}max_in_flight = 1\n{}", channel(0, &target), channel(1, &target));
        let daemon = Setup::new("beside").start(&config, &probes).await;
        wait_for("runs", SOON, async || (target.requests(1) >= 30 && target.requests(0) >= 3).then_some(())).await;
        let pause = longest_pause(&target.answered(), 1);
        assert!(pause <= Duration::from_secs(5), "{pause:?}");
        let of = |journey, outcome| [("journey", journey), ("outcome", outcome)];
        assert_eq!(daemon.metric("journeyman_runs_total", &of("well", "failed")).await, Some(0.0));
        assert!(daemon.metric("journeyman_runs_total", &of("hangs", "failed")).await >= Some(1.0));
        let overlap = daemon.metric("journeyman_runs_skipped_total", &[("reason", "overlap")]).await;
        assert!(overlap >= Some(10.0), "one run of a journey at a time: {overlap:?}");
    });
}
