//! A start while what we depend on is down: it says so, does what it can, and floods nobody.

use std::time::Duration;

use journeyman::clock::Clock;
use serde_json::Value;

use super::store;
use crate::support::daemon::Setup;
use crate::support::fake_slack::TOKEN;
use crate::support::table::Table;
use crate::support::{block_on, free_port, wait_for};

const JOURNEYS: usize = 20;

#[test]
fn a_start_with_everything_else_down_says_so_and_alarms_nobody() {
    block_on(async {
        let [broker, relay, slack] = [(); 3].map(|()| free_port());
        let main = format!(
            "[alerting]\nnotify = [\"chat\", \"mail\"]\n\
             [channels.loop]\ntype = \"memory\"\n\
             [channels.queue]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{broker}\"\nstream = \"x\"\nreceive = {{ stream = \"x\" }}\n\
             [notifiers.mail]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{relay}\"\nfrom = \"a@example.net\"\nto = [\"b@example.net\"]\n\
             [notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"C1\"\napi_url = \"http://127.0.0.1:{slack}\"\n"
        );
        let mut probes = "[[journey]]\nname = \"well\"\nevery = \"500ms\"\nnotify = [\"chat\"]\n\
            step = [{ send = \"loop\", text = \"{{ token }}\" }, { receive = \"loop\" }]\n"
            .to_owned();
        for n in 0..JOURNEYS {
            probes += &format!(
                "[[journey]]\nname = \"trip-{n}\"\nevery = \"30s\"\ndeadline = \"20s\"\nnotify = [\"chat\", \"mail\"]\nalert = {{ down_after = 1 }}\n\
                 step = [{{ send = \"queue\", text = \"{{{{ token }}}}\" }}, {{ receive = \"queue\" }}]\n"
            );
        }
        let setup = Setup::new("cold");
        setup.write("token", TOKEN);
        let clock = Clock::system();
        let began = clock.now().mono;
        let mut daemon = setup.start(&main, &probes).await;
        let ready = clock.now().mono.since(began);
        let unknown = [("outcome", "unknown"), ("cause", "not_ready")];
        let blocked = [("outcome", "failed"), ("cause", "blocked")];
        wait_for("each journey to say that it cannot know, or is blocked", Duration::from_secs(60), async || {
            let runs = |labels| daemon.metric("journeyman_run_causes_total", labels);
            let (unknown, blocked) = (runs(&unknown).await.unwrap_or(0.0), runs(&blocked).await.unwrap_or(0.0));
            (unknown + blocked >= JOURNEYS as f64).then_some(())
        })
        .await;
        let (status, body) = daemon.get("/health").await;
        let health: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_u16(), &health["status"]), (200, &"degraded".into()), "{body}");
        assert_eq!(health["components"]["channel queue"]["ok"], Value::Bool(false), "{body}");
        assert!(daemon.log().contains("cannot receive"), "{}", daemon.log());
        let well = [("journey", "well"), ("outcome", "good")];
        wait_for("what needs nobody to go on", Duration::from_secs(20), async || {
            (daemon.metric("journeyman_runs_total", &well).await? >= 2.0).then_some(())
        })
        .await;
        let owed = || -> (i64, i64) {
            let sql = "SELECT count(DISTINCT incident), count(DISTINCT notifier) FROM outbox";
            store(&daemon).query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        // Who is blocked by the broker's breaker is told of with the broker.
        assert!(owed().0 <= 1, "that we cannot know is nobody's alarm");
        wait_for("the broker's alert", Duration::from_secs(150), async || (owed().1 == 2).then_some(())).await;
        let (incidents, _) = owed();
        assert_eq!(incidents, 1, "one cause, one incident");
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        let mut table = Table::new("restart", "t22", &["T22, a start with all down", "figure"]);
        table.row(&[&"down", &"broker, mail relay, Slack"]);
        table.row(&[&"start to ready", &format!("{ready:.0?}")]);
        table.row(&[&"health", &"200, degraded; the channel says why"]);
        table.row(&[&"runs", &"unknown(not_ready), then failed(blocked); others go on"]);
        table.row(&[&"incidents", &format!("{incidents}: the broker's, after a minute")]);
    });
}
