//! What messages may cost in a day: the daemon runs more rarely, says so, and a restart is no new day.

use std::time::Duration;

use jiff::tz::TimeZone;
use journeyman::clock::Clock;

use crate::support::daemon::{Daemon, Setup};
use crate::support::{block_on, wait_for};

const BOUND: Duration = Duration::from_secs(20);

/// A zone where it is between one and two in the afternoon, so that no test runs over midnight.
fn zone_after_noon() -> String {
    let hour = Clock::system().now().wall.to_zoned(TimeZone::UTC).hour();
    match 13 - hour {
        0 => "Etc/GMT".to_owned(),
        // POSIX counts these westwards.
        ahead if ahead > 0 => format!("Etc/GMT-{ahead}"),
        behind => format!("Etc/GMT+{}", -behind),
    }
}

async fn metric(daemon: &Daemon, name: &str, labels: &[(&str, &str)]) -> f64 {
    daemon.metric(name, labels).await.unwrap_or_else(|| panic!("no {name} {labels:?}"))
}

async fn wait_for_skips(daemon: &Daemon, at_least: f64) {
    wait_for("slots that cost too much", BOUND, async || {
        daemon.metric("journeyman_runs_skipped_total", &[("reason", "spend")]).await.filter(|skips| *skips >= at_least)
    })
    .await;
}

#[test]
fn a_day_has_one_budget_however_often_the_daemon_starts() {
    block_on(async {
        let config = format!(
            "[channels.sms]\ntype = \"memory\"\n\
             spend = {{ cost = 0.25, per_day = 1.00, timezone = \"{}\" }}\n\
             [channels.free]\ntype = \"memory\"\n",
            zone_after_noon()
        );
        let probes = ["sms", "free"].map(|channel| {
            format!(
                "[[journey]]\nname = \"{channel}\"\nevery = \"200ms\"\ndeadline = \"2s\"\n\
                 objective = {{ delivered = \"99%\", window = \"1d\" }}\n\
                 [[journey.step]]\nsend = \"{channel}\"\ntext = \"{{{{ token }}}}\"\n\
                 [[journey.step]]\nreceive = \"{channel}\"\n"
            )
        });
        let mut daemon = Setup::new("spend").start(&config, &probes.join("\n")).await;
        let log = daemon.log();
        let told =
            "at every 200ms, 432,000 messages a day would cost 108000.00; with 1.00 a day it runs about every 6h";
        assert!(log.contains(told), "{log}");

        // Four messages a day. Between 13 and 14 h two are due, and a run more than that may be ahead.
        let good = [("journey", "sms"), ("outcome", "good")];
        let excluded = [("journey", "sms"), ("outcome", "excluded"), ("cause", "spend")];
        wait_for_skips(&daemon, 5.0).await;
        assert_eq!(metric(&daemon, "journeyman_runs_total", &good).await, 3.0);
        assert!(metric(&daemon, "journeyman_run_causes_total", &excluded).await >= 5.0);
        let of = [("channel", "sms")];
        assert_eq!(metric(&daemon, "journeyman_channel_spend_today", &of).await, 0.75);
        assert_eq!(metric(&daemon, "journeyman_channel_spend_limit", &of).await, 1.0);
        assert_eq!(daemon.metric("journeyman_channel_spend_limit", &[("channel", "free")]).await, None);
        assert!(metric(&daemon, "journeyman_stale_after_seconds", &[("journey", "sms")]).await > 43_200.0);
        assert!(metric(&daemon, "journeyman_stale_after_seconds", &[("journey", "free")]).await < 3.0);
        let free = [("journey", "free"), ("outcome", "good")];
        assert!(metric(&daemon, "journeyman_runs_total", &free).await > 3.0, "another channel's journey goes on");

        for is_killed in [true, false] {
            if is_killed {
                daemon.kill().await
            } else {
                assert_eq!(daemon.terminate().await, 0)
            }
            daemon.start_again().await;
            wait_for_skips(&daemon, 5.0).await;
            assert_eq!(metric(&daemon, "journeyman_runs_total", &good).await, 0.0, "killed: {is_killed}");
            assert_eq!(metric(&daemon, "journeyman_channel_spend_today", &of).await, 0.75);
            assert_eq!(metric(&daemon, "journeyman_alert_state", &[("journey", "sms")]).await, 0.0);
        }
    });
}
