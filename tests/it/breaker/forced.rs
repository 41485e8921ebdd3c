//! People who know better: a breaker is forced on the command line, shown, outlives a kill, and goes by itself again.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::command::journeyman;
use crate::support::daemon::{Daemon, Setup};
use crate::support::target::Target;
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(30);

fn probes() -> String {
    let journey = |n: usize| {
        format!(
            "[[journey]]\nname = \"j{n}\"\nevery = \"200ms\"\ndeadline = \"2s\"\nstep = [{{ request = \"web\", path = \"/{n}\" }}]\n"
        )
    };
    journey(0) + &journey(1)
}

async fn cli(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let all = [&["breaker"], arguments, &["--config", "journeyman.toml"]].concat();
    let ended = journeyman(daemon.directory(), &all).await;
    (ended.code, ended.stdout + &ended.stderr)
}

async fn wait_for_blocked(daemon: &Daemon) {
    let blocked = async || daemon.metric("journeyman_run_causes_total", &[("cause", "blocked")]).await.unwrap_or(0.0);
    let before = blocked().await;
    wait_for("blocked runs", SOON, async || (blocked().await >= before + 4.0).then_some(())).await;
}

async fn state(daemon: &Daemon, state: &str) -> f64 {
    let labels = [("kind", "channel"), ("name", "web"), ("state", state)];
    daemon.metric("journeyman_breaker_state", &labels).await.expect("it is born with its channel")
}

#[test]
fn a_breaker_is_as_people_want_it_also_over_a_kill_and_until_they_want_it_no_more() {
    block_on(async {
        let (setup, target) = (Setup::new("forced"), Target::start(2).await);
        setup.write("admin", "the-admin-token");
        let config = format!(
            "[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\n[http]\nadmin_token = {{ file = \"admin\" }}\n",
            target.url()
        );
        let mut daemon = setup.start(&config, &probes()).await;
        wait_for("runs", SOON, async || (target.requests(0) > 2 && target.requests(1) > 2).then_some(())).await;
        assert_eq!((state(&daemon, "closed").await, state(&daemon, "forced_open").await), (1.0, 0.0));

        let open = ["web", "open", "--reason", "they migrate", "--for", "1h", "--by", "ada"];
        let (code, said) = cli(&daemon, &open).await;
        assert!(code == 0 && said.contains("nothing goes through it"), "{code}: {said}");
        wait_for_blocked(&daemon).await;
        let asked = target.answered().len();
        wait_for_blocked(&daemon).await;
        assert_eq!(target.answered().len(), asked, "nothing goes through it");
        assert_eq!(state(&daemon, "forced_open").await, 1.0);
        let (code, said) = cli(&daemon, &["web"]).await;
        assert!(
            code == 0 && said.contains("forced open: ada wants it so until") && said.contains("they migrate"),
            "{said}"
        );
        let (_, health) = daemon.get("/health").await;
        let health: Value = serde_json::from_str(&health).expect("JSON");
        let part = &health["components"]["breaker of channel web"];
        assert!(part["ok"] == false && part["critical"] == false, "{health:#}");
        let (_, page) = daemon.get("/").await;
        assert!(page.contains("ada wants it so until"), "{page}");
        let (_, runs) = daemon.get("/api/v1/journeys/j0").await;
        assert!(runs.contains("nothing was sent: the breaker of channel `web` is forced open"), "{runs}");

        daemon.kill().await;
        daemon.start_again().await;
        let asked = target.answered().len();
        wait_for_blocked(&daemon).await;
        assert_eq!(target.answered().len(), asked, "it was written down");

        let (code, said) = cli(&daemon, &["web", "auto"]).await;
        assert!(code == 0 && said.contains("by itself again"), "{said}");
        wait_for("runs again", SOON, async || (target.answered().len() > asked + 4).then_some(())).await;
        wait_for("it to be shown", SOON, async || (state(&daemon, "closed").await == 1.0).then_some(())).await;
        let moves = [("kind", "channel"), ("name", "web"), ("to", "closed")];
        assert_eq!(daemon.metric("journeyman_breaker_transitions_total", &moves).await, Some(1.0));

        daemon.kill().await;
        daemon.start_again().await;
        wait_for("runs after a kill", SOON, async || (target.answered().len() > asked + 20).then_some(())).await;
        assert_eq!(state(&daemon, "forced_open").await, 0.0, "that it was taken back was written down as well");
    });
}

#[test]
fn what_cannot_be_ordered_is_refused_in_words() {
    block_on(async {
        let (setup, target) = (Setup::new("forced-not"), Target::start(2).await);
        setup.write("admin", "the-admin-token");
        let config = format!(
            "[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\n[http]\nadmin_token = {{ file = \"admin\" }}\n",
            target.url()
        );
        let daemon = setup.start(&config, &probes()).await;
        for (arguments, code, part) in [
            (vec!["wbe", "auto"], 64, "no channel with a breaker is named `wbe`; did you mean `web`?"),
            (vec!["nowhere"], 64, "no channel with a breaker is named `nowhere`; there are: web"),
            (vec!["web", "auto", "--notifier"], 64, "no notifier with a breaker is named `web`; there"),
            (vec!["web", "open", "--reason", "why", "--for", "25h"], 64, "longer than 1d"),
            (vec!["web", "open", "--for", "1h"], 64, "--reason"),
        ] {
            let (found, said) = cli(&daemon, &arguments).await;
            assert!(found == code && said.contains(part), "{arguments:?}: {found}: {said}");
        }
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{}/api/v1/channels/web/breaker", daemon.http_url());
        let answer =
            client.post(&url).body(r#"{"state":"open","for":"1h","reason":"none"}"#).send().await.expect("one");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let (status, all) = daemon.get("/api/v1/breakers").await;
        let all: Value = serde_json::from_str(&all).expect("JSON");
        assert_eq!(
            (status, &all["breakers"][0]["state"], &all["breakers"][0]["name"]),
            (StatusCode::OK, &"closed".into(), &"web".into())
        );
    });
}
