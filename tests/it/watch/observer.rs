//! Our own network goes away and comes back: nothing is blamed on anybody else, and it is told once.

use tokio::net::TcpListener;

use super::boots::told;
use super::*;
use crate::support::free_port;

#[test]
fn a_dead_network_of_ours_is_told_once_and_no_target_is_blamed() {
    block_on(async {
        let mut table =
            Table::new("watcher", "4-observer", &["our own network goes away", "until it is told, s", "notices"]);
        let setup = Setup::new("observer");
        let (hook, watched) = switch(&setup).await;
        let ports: [u16; 5] = [(); 5].map(|()| free_port());
        let [one, other, targets @ ..] = ports;
        let mut config = format!(
            "{watched}[observer]\nreference = [\"tcp://127.0.0.1:{one}\", \"http://127.0.0.1:{other}/health\"]\n\
             [notifiers.ops]\ntype = \"webhook\"\nurl = \"{}\"\n[alerting]\ngroup_by = []\nnotify = [\"ops\"]\n",
            hook.url("/ops")
        );
        let mut probes = String::new();
        for (n, port) in targets.iter().enumerate() {
            config += &format!("[channels.web-{n}]\ntype = \"http\"\nurl = \"http://127.0.0.1:{port}\"\n");
            probes += &format!(
                "[[journey]]\nname = \"web-{n}\"\nevery = \"1s\"\ndeadline = \"1s\"\nnotify = [\"ops\"]\n\
                 alert = {{ down_after = 2, recover_after = 1, flapping = false }}\nstep = [{{ request = \"web-{n}\" }}]\n"
            );
        }
        let reference = TcpListener::bind(("127.0.0.1", one)).await.unwrap();
        let answering = answer(targets).await;
        let daemon = setup.start(&config, &probes).await;
        alive(&hook).await;
        wait_for("good runs", SOON, async || Some(runs(&daemon, "good", "").await).filter(|runs| *runs >= 3.0)).await;

        let clock = Clock::system();
        let began = clock.now().mono;
        drop((reference, answering));
        let first = "first journeyman: network".to_owned();
        wait_for("the notice", SOON * 2, async || told(&hook).contains(&first).then_some(())).await;
        let took = clock.now().mono.since(began);
        table.row(&[&"3 journeys, every second", &format!("{:.1}", took.as_secs_f64()), &told(&hook).len()]);
        // Long enough for every journey to be down twice over, or stale.
        let unknown = async || Some(runs(&daemon, "unknown", "observer").await).filter(|runs| *runs >= 9.0);
        wait_for("runs that say nothing", SOON * 2, unknown).await;
        assert_eq!(told(&hook), [first.as_str()], "once, and nobody else is blamed");
        assert_eq!(runs(&daemon, "failed", "").await, 0.0);
        assert_eq!(daemon.metric("journeyman_observer_offline", &[]).await, Some(1.0));
        assert!(daemon.metric("journeyman_observer_offline_seconds_total", &[]).await.unwrap() >= 1.0);
        assert_eq!(health(&daemon).await.1["components"]["network"]["ok"], false);
        let fail: Value = calls(&hook, "/fail").pop().unwrap().json();
        assert!(fail["trouble"].as_str().unwrap().contains("our own network is down"), "{fail}");

        // It is back, and the targets are not: now it is theirs.
        let _reference = TcpListener::bind(("127.0.0.1", one)).await.unwrap();
        wait_for("the end of it", SOON * 2, async || {
            told(&hook).contains(&"resolved journeyman: network".to_owned()).then_some(())
        })
        .await;
        wait_for("every target to be down", SOON * 2, async || {
            let told = told(&hook);
            (0..targets.len()).all(|n| told.contains(&format!("first web-{n}"))).then_some(())
        })
        .await;
        assert!(runs(&daemon, "failed", "unreachable").await >= 6.0);
        alive(&hook).await;
    });
}

/// Targets that answer until this is dropped.
async fn answer<const N: usize>(ports: [u16; N]) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for port in ports {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let router = axum::Router::new().fallback(async || StatusCode::NO_CONTENT);
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    }
    tasks
}

/// How many runs of all three came to this.
async fn runs(daemon: &Daemon, outcome: &str, cause: &str) -> f64 {
    let mut sum = 0.0;
    for n in 0..3 {
        sum += daemon.runs(&format!("web-{n}"), outcome, cause).await;
    }
    sum
}
