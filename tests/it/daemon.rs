//! The daemon as a process: started, killed, started again on its own files, stopped in order.

use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::proxy::Proxy;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

#[test]
fn the_daemon_starts_is_killed_starts_again_and_stops_in_order() {
    block_on(async {
        let probes = r#"
            [[journey]]
            name = "loop"
            every = "200ms"
            step = [{ name = "out", send = "loop", text = "{{ token }}" }, { name = "in", receive = "loop" }]
        "#;
        let mut daemon =
            Daemon::start("location = \"here\"\n[channels.loop]\ntype = \"memory\"\n[http]\n", probes).await;
        daemon.kill().await;
        daemon.start_again().await;
        let labels = [("journey", "loop"), ("location", "here")];
        assert!(daemon.metric("journeyman_runs_total", &labels).await.is_some(), "{}", daemon.metrics().await);
        assert_eq!(daemon.metric("journeyman_runs_total", &[("journey", "other")]).await, None);
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
    });
}

#[test]
fn a_plan_in_which_nobody_receives_runs_all_the_same() {
    block_on(async {
        let probes = r#"
            [[journey]]
            name = "asks"
            every = "200ms"
            step = [{ request = "http://127.0.0.1:1/" }]
        "#;
        let daemon = Daemon::start("", probes).await;
        let failed = [("journey", "asks"), ("outcome", "failed"), ("cause", "unreachable")];
        wait_for("two runs", Duration::from_secs(15), async || {
            daemon.metric("journeyman_run_causes_total", &failed).await.filter(|runs| *runs >= 2.0)
        })
        .await;
    });
}

/// One that is broken and looks whole would confirm its own failure.
#[test]
fn a_failure_is_confirmed_over_a_connection_of_its_own() {
    block_on(async {
        let target = Target::start(1).await;
        target.set(0, Mode::Fails);
        let proxy = Proxy::start(target.url()["http://".len()..].parse().expect("an address")).await;
        let probes = format!(
            r#"
            [[journey]]
            name = "asks"
            every = "1s"
            alert = {{ confirm = ["100ms", "100ms"] }}
            step = [{{ request = "http://{}/0", expect = [{{ status = 204 }}] }}]
            "#,
            proxy.address()
        );
        let _daemon = Daemon::start("", &probes).await;
        let confirmed = async || (proxy.connections() >= 3).then_some(());
        wait_for("two connections beside the first", Duration::from_secs(30), confirmed).await;
    });
}
