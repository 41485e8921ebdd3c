//! What the supervisor hears: that we are ready, that our loops go round - and nothing, when one of them does not.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::*;

/// As systemd gives it, only shorter: it is fed three times as often.
const WATCHDOG: Duration = Duration::from_secs(3);

/// The supervisor's socket, and what came in.
struct Supervisor {
    heard: Arc<Mutex<Vec<(Duration, String)>>>,
    clock: Clock,
    _hearing: JoinSet<()>,
}

impl Supervisor {
    fn new(setup: Setup) -> (Supervisor, Setup) {
        let path = setup.directory().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UnixDatagram::from_std(socket).unwrap();
        let (heard, clock) = (Arc::<Mutex<Vec<_>>>::default(), Clock::system());
        let mut hearing = JoinSet::new();
        let into = heard.clone();
        hearing.spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                into.lock().unwrap().push((clock.now().mono.0, text));
            }
        });
        let setup = setup
            .environment("NOTIFY_SOCKET", path.to_str().unwrap())
            .environment("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string());
        (Supervisor { heard, clock, _hearing: hearing }, setup)
    }

    fn heard(&self, what: &str) -> Vec<Duration> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(_, text)| text.lines().any(|line| line.starts_with(what))).map(|(at, _)| *at).collect()
    }

    async fn feeds(&self) {
        let before = self.heard("WATCHDOG=1").len();
        wait_for("the watchdog to be fed", SOON, async || (self.heard("WATCHDOG=1").len() >= before + 3).then_some(()))
            .await;
    }

    /// Waits until it was not fed for so long that systemd would have ended the process; from `fault` until then.
    async fn starves(&self, fault: Duration) -> Duration {
        wait_for("the watchdog to starve", SOON * 2, async || {
            let last = *self.heard("WATCHDOG=1").last()?;
            (self.clock.now().mono.0.saturating_sub(last) >= WATCHDOG).then_some(last + WATCHDOG)
        })
        .await
        .saturating_sub(fault)
    }
}

#[test]
fn a_loop_that_is_stuck_starves_the_watchdog_and_the_others_go_on() {
    block_on(async {
        let mut table = Table::new("watcher", "3-watchdog", &["fault", "a watchdog of 3 s ends the process after, s"]);
        let setup = Setup::new("watchdog");
        let target = Target::start(1).await;
        let taking = Hook::start([]).await;
        let secret = setup.write("secret", "s3cret-of-the-hook");
        let config = format!(
            "{QUICK}[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
             [notifiers.ops]\ntype = \"webhook\"\nurl = \"{}\"\nheaders = {{ x-key = {{ file = \"secret\" }} }}\n",
            target.url(),
            taking.url("/")
        );
        let probes = "
            [[journey]]
            name = \"web\"
            every = \"500ms\"
            notify = [\"ops\"]
            alert = { down_after = 1, recover_after = 1, flapping = false }
            step = [{ request = \"web\", path = \"/0\" }]";
        let (supervisor, setup) = Supervisor::new(setup);
        let mut daemon = setup.start(&config, probes).await;
        supervisor.feeds().await;
        assert_eq!(supervisor.heard("READY=1").len(), 1);
        assert!(!supervisor.heard("EXTEND_TIMEOUT_USEC=").is_empty(), "it may take its time to start");

        // Reading a pipe that nobody writes to takes for ever: whoever needs this secret is stuck, as on a dead network disk.
        std::fs::remove_file(&secret).unwrap();
        assert!(Command::new("mkfifo").arg(&secret).status().unwrap().success());
        let fault = supervisor.clock.now().mono.0;
        target.set(0, Mode::Fails);
        let (took, part) = until_part(&daemon, "loop delivery", false, SOON).await;
        assert!(took <= BAD_WITHIN + SLACK, "{part}");
        assert_eq!(daemon.get("/live").await.0, StatusCode::SERVICE_UNAVAILABLE);
        let starved = supervisor.starves(fault).await;
        table.row(&[&"a delivery loop is stuck", &format!("{:.1}", starved.as_secs_f64())]);
        assert!(starved <= BAD_WITHIN + WATCHDOG * 2 + SLACK, "{starved:?}");
        for part in ["loop scheduler", "loop evaluator", "loop switchboard", "loop store", "self-journey"] {
            assert_eq!(health(&daemon).await.1["components"][part]["ok"], true, "{part}");
        }
        wait_for("the log to name it", SOON, async || daemon.log().contains("stuck=[\"delivery\"]").then_some(()))
            .await;

        std::fs::write(&secret, "s3cret-of-the-hook").unwrap();
        supervisor.feeds().await;

        let fault = supervisor.clock.now().mono.0;
        daemon.signal("STOP");
        let starved = supervisor.starves(fault).await;
        table.row(&[&"SIGSTOP", &format!("{:.1}", starved.as_secs_f64())]);
        daemon.signal("CONT");
        supervisor.feeds().await;

        let extended = supervisor.heard("EXTEND_TIMEOUT_USEC=").len();
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        assert_eq!(supervisor.heard("STOPPING=1").len(), 1);
        assert!(supervisor.heard("EXTEND_TIMEOUT_USEC=").len() > extended, "it may take its time to drain");
    });
}

#[test]
fn the_unit_file_says_what_the_daemon_does() {
    let unit = include_str!("../../../config/systemd/journeyman.service");
    for line in
        ["Type=notify", "WatchdogSec=30", "Restart=always", "RestartPreventExitStatus=64 78", "StartLimitIntervalSec=0"]
    {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    // What is stuck is bad after 15 s, and has been fed for the last time before that.
    assert!(BAD_WITHIN + Duration::from_secs(30) <= Duration::from_secs(45));
}
