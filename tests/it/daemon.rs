//! The daemon as a process: started, killed, started again on its own files, stopped in order.

use crate::support::block_on;
use crate::support::daemon::Daemon;

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
