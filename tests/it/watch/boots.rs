//! Starts that crash, and starts that do not.

use super::*;
use crate::support::daemon::Daemon;

/// What a notifier was told, by reason and subject. What it was told again, because a crash came before its answer was on disk, it knows
/// by the delivery's name.
pub(super) fn told(hook: &Hook) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let is_new = |request: &Request| seen.insert(request.header("X-Journeyman-Delivery").map(str::to_owned));
    let notices = hook.requests().into_iter().filter(|request| request.head.starts_with("POST /ops")).filter(is_new);
    let said = |request: Request| {
        let notice = request.json();
        format!("{} {}", notice["reason"].as_str().unwrap(), notice["subject"].as_str().unwrap())
    };
    notices.map(said).collect()
}

async fn safe_mode(daemon: &Daemon) -> bool {
    daemon.metric("journeyman_safe_mode", &[]).await == Some(1.0)
}

#[test]
fn ten_crashes_in_a_row_are_told_once_and_end_in_safe_mode_until_a_stop_in_order() {
    block_on(async {
        let setup = Setup::new("boots");
        let (hook, watched) = switch(&setup).await;
        let notifier = format!(
            "[notifiers.ops]\ntype = \"webhook\"\nurl = \"{}\"\n[alerting]\nnotify = [\"ops\"]\n",
            hook.url("/ops")
        );
        let mut daemon = setup.start(&format!("{watched}{LOOP}{notifier}"), JOURNEY).await;
        assert!(!safe_mode(&daemon).await);
        for crash in 1..=10 {
            daemon.kill().await;
            daemon.start_again().await;
            assert_eq!(safe_mode(&daemon).await, crash >= 4, "after {crash} crashes");
        }
        wait_for("the boot alert outside", SOON, async || {
            let fail = calls(&hook, "/fail").pop()?.json();
            fail["trouble"].as_str()?.contains("crash loop").then_some(())
        })
        .await;
        let crash_loop = "first journeyman: crash loop";
        wait_for("the notice", SOON, async || told(&hook).contains(&crash_loop.to_owned()).then_some(())).await;
        let (_, health) = health(&daemon).await;
        assert_eq!(health["components"]["crash loop"]["ok"], false, "{health:#}");
        assert!(
            health["components"]["boots"]["detail"].as_str().unwrap().starts_with("start 11; 10 crashes"),
            "{health:#}"
        );
        wait_for("a run in safe mode", SOON, async || {
            let good = [("journey", "loop"), ("outcome", "good")];
            daemon.metric("journeyman_runs_total", &good).await.filter(|runs| *runs >= 1.0)
        })
        .await;

        // In order, as often as anyone likes.
        for _ in 0..3 {
            assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
            daemon.start_again().await;
            assert!(!safe_mode(&daemon).await);
        }
        wait_for("the end", SOON, async || {
            told(&hook).contains(&"resolved journeyman: crash loop".to_owned()).then_some(())
        })
        .await;
        assert_eq!(told(&hook), [crash_loop, "resolved journeyman: crash loop"], "once each, and nothing else");
        let mut table = Table::new("watcher", "5-boots", &["starts", "notices", "safe mode from"]);
        table.row(&[&"10 crashes in a row", &1, &"the 5th start"]);
    });
}
