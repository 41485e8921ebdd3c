//! Another configuration while the real daemon runs: what stays is not touched, what is wrong changes nothing, and a storm of both
//! leaves one plan, whole.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use journeyman::clock::Clock;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::support::command::{Ended, journeyman};
use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::table::Table;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(40);
const TOKEN: &str = "the-admin-token";

struct Stage {
    daemon: Daemon,
    target: Target,
    smtp: FakeSmtp,
}

fn config(target: &Target, smtp: &FakeSmtp) -> String {
    format!(
        "reload_on_change = false\n[http]\nadmin_token = {{ file = \"admin\" }}\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
         [channels.loop]\ntype = \"memory\"\n\
         [notifiers.ops]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"jm@example.net\"\nto = [\"ops@example.net\"]\n",
        target.url(),
        smtp.port()
    )
}

fn asks(name: &str, path: usize) -> String {
    format!(
        "[[journey]]\nname = \"{name}\"\nevery = \"200ms\"\ndeadline = \"2s\"\nnotify = [\"ops\"]\n\
         alert = {{ down_after = 2, recover_after = 2, partial = false }}\nstep = [{{ request = \"web\", path = \"/{path}\" }}]\n"
    )
}

fn loops(name: &str, every: &str, delay: &str) -> String {
    format!(
        "[[journey]]\nname = \"{name}\"\nevery = \"{every}\"\ndeadline = \"20s\"\nnotify = [\"ops\"]\n[[journey.step]]\nname = \"out\"\n\
         send = \"loop\"\ntext = \"{{{{ token }}}}\"\ndelay = \"{delay}\"\n[[journey.step]]\nname = \"in\"\nreceive = \"loop\"\n"
    )
}

impl Stage {
    async fn start(name: &str, probes: &str) -> Stage {
        let setup = Setup::new(name);
        let (target, smtp) = (Target::start(3).await, FakeSmtp::start().await);
        setup.write("admin", TOKEN);
        let daemon = setup.start(&config(&target, &smtp), probes).await;
        Stage { daemon, target, smtp }
    }

    /// Changes a file beside the configuration.
    fn write(&self, name: &str, text: &str) {
        let path = self.daemon.directory().join(name);
        let new = path.with_extension("new");
        std::fs::write(&new, text).expect("the directory is ours");
        std::fs::rename(&new, &path).expect("the directory is ours");
    }

    /// Changes a piece of a file.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.daemon.directory().join(name)).expect("it is there");
        assert!(text.contains(from), "{name} has no `{from}`:\n{text}");
        self.write(name, &text.replace(from, to));
    }

    async fn reload(&self) -> (StatusCode, Value) {
        reload(&Client::new(), &self.daemon.http_url()).await
    }

    async fn cli(&self, arguments: &[&str]) -> Ended {
        journeyman(self.daemon.directory(), &[arguments, &["--config", "journeyman.toml"]].concat()).await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.daemon.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).expect("the API answers in JSON")
    }

    async fn journeys(&self) -> BTreeSet<String> {
        let answer = self.json("/api/v1/journeys").await;
        let journeys = answer["journeys"].as_array().expect("a list");
        journeys.iter().map(|journey| journey["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// The slots of its last runs, newest first.
    async fn slots(&self, journey: &str) -> Vec<String> {
        let answer = self.json(&format!("/api/v1/journeys/{journey}/runs?limit=1000")).await;
        let runs = answer["runs"].as_array().expect("a list");
        runs.iter().map(|run| run["slot"].as_str().expect("a time").to_owned()).collect()
    }

    async fn wait_for_runs(&self, journey: &str, at_least: usize) {
        wait_for(&format!("{at_least} runs of {journey}"), SOON, async || {
            (self.slots(journey).await.len() >= at_least).then_some(())
        })
        .await;
    }

    fn told(&self) -> Vec<String> {
        self.smtp
            .mails()
            .into_iter()
            .map(|taken| {
                let subject = taken.mail.header("Subject").unwrap_or_default();
                let (about, _) = subject.rsplit_once(": incident").unwrap_or((&subject, ""));
                format!(
                    "{} {}",
                    taken.mail.header("X-Journeyman-State").unwrap_or_default(),
                    about.trim_start_matches("[journeyman] ")
                )
            })
            .collect()
    }

    async fn wait_until_told(&self, expected: &[&str]) {
        wait_for(&format!("{expected:?}"), SOON, async || (self.told().len() >= expected.len()).then_some(())).await;
        assert_eq!(self.told(), expected);
    }
}

async fn read(answer: reqwest::Response) -> Value {
    serde_json::from_str(&answer.text().await.expect("a whole answer")).expect("in JSON")
}

async fn reload(client: &Client, url: &str) -> (StatusCode, Value) {
    let answer = client.post(format!("{url}/api/v1/reload")).bearer_auth(TOKEN).send().await.expect("it answers");
    (answer.status(), read(answer).await)
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn journeys_come_change_and_go_and_the_others_do_not_notice() {
    block_on(async {
        let stage = Stage::start("reload", &format!("{}{}", asks("stays", 0), asks("goes", 1))).await;
        stage.wait_for_runs("stays", 3).await;
        stage.wait_for_runs("goes", 1).await;

        stage.write("probes.toml", &format!("{}{}", asks("stays", 0), asks("new", 2)));
        let ended = stage.cli(&["reload"]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (0, "read again: journeys: +new -goes\n"), "{ended:?}");
        assert_eq!(stage.journeys().await, names(&["stays", "new"]));
        stage.wait_for_runs("new", 3).await;
        let (status, _) = stage.daemon.get("/journeys/goes").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        wait_for("the metrics to forget it", SOON, async || {
            (!stage.daemon.metrics().await.contains("journey=\"goes\"")).then_some(())
        })
        .await;
        let gone = stage.json("/api/v1/journeys").await;
        assert!(!gone.to_string().contains("goes"), "{gone}");

        // Nothing was run twice, and no slot was left out.
        let slots = stage.slots("stays").await;
        assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), slots.len());
        // A machine that is busy may still have a run going when the next is due, or be late for it; that has nothing to do with a reload.
        let runs = stage.json("/api/v1/journeys/stays/runs?limit=1000").await;
        let is_ours = |run: &Value| run["verdict"] == "unknown" && run["why"] != "skipped" && run["why"] != "missed";
        assert!(!runs["runs"].as_array().expect("a list").iter().any(is_ours), "{runs}");

        // What comes back has its history.
        stage.write("probes.toml", &format!("{}{}", asks("stays", 0), asks("goes", 1)));
        let (status, answer) = stage.reload().await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let expected = json!({ "added": ["goes"], "changed": [], "removed": ["new"] });
        assert_eq!(answer["reloaded"]["journeys"], expected, "{answer}");
        stage.wait_for_runs("goes", 3).await;
        assert!(stage.told().is_empty(), "{:?}", stage.told());
        assert_eq!(stage.reload().await.1["said"], "nothing is different");
    });
}

#[test]
fn a_configuration_with_an_error_changes_nothing_and_says_where_it_is() {
    block_on(async {
        let stage = Stage::start("reload-bad", &asks("stays", 0)).await;
        stage.wait_for_runs("stays", 1).await;
        let accepted = async || stage.daemon.metric("journeyman_config_last_load_accepted", &[]).await;
        assert_eq!(accepted().await, Some(1.0));

        stage.write("probes.toml", &format!("{}{}", asks("new", 1), asks("broken", 2).replace("every", "evry")));
        let ended = stage.cli(&["reload"]).await;
        assert_eq!(ended.code, 78, "{ended:?}");
        let said = ["probes.toml:", "evry", "did you mean `every`", "the daemon was not asked, and goes on as it was"];
        assert!(said.iter().all(|line| ended.stderr.contains(line)), "{ended:?}");
        let (status, answer) = stage.reload().await;
        let why = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert!(said[..3].iter().all(|line| why.contains(line)), "{answer}");
        assert_eq!(stage.journeys().await, names(&["stays"]));
        wait_for("the metric", SOON, async || (accepted().await == Some(0.0)).then_some(())).await;
        let health = stage.json("/health").await;
        assert_eq!(
            (&health["status"], &health["components"]["configuration"]["ok"]),
            (&json!("degraded"), &json!(false))
        );
        stage.wait_until_told(&["REFUSED journeyman: reload"]).await;
        let runs = stage.slots("stays").await.len();
        stage.wait_for_runs("stays", runs + 3).await;

        // What only a restart can take up is refused whole.
        stage.write("probes.toml", &asks("new", 1));
        stage.edit("journeyman.toml", "[http]\n", "[http]\npublic_url = \"http://other.example.net\"\n");
        let (status, answer) = stage.reload().await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert_eq!(answer["error"], "`http` changed, which only a restart can take up; nothing of it was");
        assert_eq!(stage.journeys().await, names(&["stays"]));

        stage.edit("journeyman.toml", "public_url = \"http://other.example.net\"\n", "");
        let (status, answer) = stage.reload().await;
        assert_eq!((status, &answer["said"]), (StatusCode::OK, &json!("journeys: +new -stays")), "{answer}");
        stage.wait_until_told(&["REFUSED journeyman: reload", "WELL AGAIN journeyman: reload"]).await;
        wait_for("both refusals to be counted", SOON, async || {
            let refused = stage.daemon.metric("journeyman_config_loads_total", &[("result", "refused")]).await;
            (refused == Some(2.0)).then_some(())
        })
        .await;
    });
}

#[test]
fn sighup_and_changed_files_are_taken_up_by_themselves() {
    block_on(async {
        let mut stage = Stage::start("reload-files", &asks("first", 0)).await;
        stage.write("probes.toml", &asks("second", 0));
        stage.daemon.signal("HUP");
        wait_for("SIGHUP to be heeded", SOON, async || (stage.journeys().await == names(&["second"])).then_some(()))
            .await;

        stage.edit("journeyman.toml", "reload_on_change = false", "reload_on_change = true");
        assert_eq!(stage.reload().await.0, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(stage.daemon.terminate().await, 0, "{}", stage.daemon.log());
        stage.daemon.start_again().await;
        stage.write("probes.toml", &asks("third", 0));
        wait_for("the file to be seen", SOON, async || (stage.journeys().await == names(&["third"])).then_some(()))
            .await;
        // A file that matches the pattern, and was not there.
        stage.edit("journeyman.toml", "probes = [\"probes.toml\"]", "probes = [\"probe*.toml\"]");
        stage.write("probes-more.toml", &asks("fourth", 1));
        let expected = names(&["third", "fourth"]);
        wait_for("the new file to be seen", SOON, async || (stage.journeys().await == expected).then_some(())).await;
    });
}

#[test]
fn the_incident_of_a_journey_that_goes_is_over_and_it_comes_back_well() {
    block_on(async {
        let stage = Stage::start("reload-incident", &format!("{}{}", asks("stays", 0), asks("goes", 1))).await;
        stage.target.set(1, Mode::Fails);
        stage.wait_until_told(&["DOWN goes"]).await;
        stage.write("probes.toml", &asks("stays", 0));
        assert_eq!(stage.reload().await.0, StatusCode::OK);
        stage.wait_until_told(&["DOWN goes", "WELL AGAIN goes"]).await;
        let mail = stage.smtp.mails().pop().expect("two were told").mail.parts()[0].text();
        assert!(mail.contains("goes was taken out of the configuration"), "{mail}");

        // Still broken when it comes back: it is told anew.
        stage.write("probes.toml", &format!("{}{}", asks("stays", 0), asks("goes", 1)));
        assert_eq!(stage.reload().await.0, StatusCode::OK);
        stage.wait_until_told(&["DOWN goes", "WELL AGAIN goes", "DOWN goes"]).await;
    });
}

/// Its definition changes while its incident is open: it is the same incident, and one end.
#[test]
fn a_changed_journey_keeps_its_incident_and_a_changed_notifier_is_told_its_end() {
    block_on(async {
        let stage = Stage::start("reload-changed", &asks("sms", 0)).await;
        stage.target.set(0, Mode::Fails);
        stage.wait_until_told(&["DOWN sms"]).await;
        stage.write("probes.toml", &asks("sms", 0).replace("down_after = 2", "down_after = 5"));
        stage.edit("journeyman.toml", "\"jm@example.net\"", "\"Journeyman <jm@example.net>\"");
        let (status, answer) = stage.reload().await;
        assert_eq!((status, &answer["said"]), (StatusCode::OK, &json!("journeys: ~sms; notifiers: ~ops")), "{answer}");
        let bad = async || {
            stage
                .daemon
                .metric("journeyman_runs_total", &[("journey", "sms"), ("outcome", "failed")])
                .await
                .unwrap_or(0.0)
        };
        let before = bad().await;
        wait_for("more bad runs", SOON, async || (bad().await > before + 5.0).then_some(())).await;
        assert_eq!(stage.told(), ["DOWN sms"]);
        stage.target.set(0, Mode::Well);
        stage.wait_until_told(&["DOWN sms", "WELL AGAIN sms"]).await;
        let from = stage.smtp.mails().pop().and_then(|taken| taken.mail.header("From")).unwrap_or_default();
        assert!(from.contains("Journeyman"), "{from}");
    });
}

/// A run that began under the old plan ends under it, over the channel that it began with.
#[test]
fn a_run_under_way_ends_as_it_began() {
    block_on(async {
        let stage = Stage::start("reload-under-way", &loops("slow", "20s", "3s")).await;
        let (status, answer) = {
            let client = Client::new();
            let url = format!("{}/api/v1/journeys/slow/run", stage.daemon.http_url());
            let request = client.post(url).bearer_auth(TOKEN).header("content-type", "application/json").body("{}");
            let answer = request.send().await.expect("it answers");
            (answer.status(), read(answer).await)
        };
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        let token = answer["asked"]["token"].as_str().expect("a token").to_owned();
        wait_for("the run to be under way", SOON, async || {
            (stage.daemon.metric("journeyman_runs_in_flight", &[]).await >= Some(1.0)).then_some(())
        })
        .await;
        // The journey goes, and its channel with it; then the journey comes back over another channel, which the run never sees.
        stage.write("probes.toml", &asks("other", 0));
        stage.edit("journeyman.toml", "[channels.loop]\ntype = \"memory\"\n", "");
        let (status, answer) = stage.reload().await;
        let expected = json!("journeys: +other -slow; channels: -loop");
        assert_eq!((status, &answer["said"]), (StatusCode::OK, &expected), "{answer}");
        stage.write("probes.toml", &loops("slow", "20s", "3s").replace("\"loop\"", "\"ring\""));
        stage.edit("journeyman.toml", "[channels.web]", "[channels.ring]\ntype = \"memory\"\n[channels.web]");
        assert_eq!(stage.reload().await.0, StatusCode::OK);
        let run = wait_for("the run to end", SOON, async || {
            let (_, text) = stage.daemon.get(&format!("/api/v1/runs/{token}")).await;
            let answer: Value = serde_json::from_str(&text).expect("in JSON");
            answer["run"].is_object().then_some(answer)
        })
        .await;
        assert_eq!(run["run"]["verdict"], "good", "{run}");
        let log = stage.daemon.log();
        assert!(!log.contains("panicked") && !log.contains("ended that must not"), "{log}");
    });
}

fn figures(daemon: &Daemon) -> (usize, u64) {
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count();
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", daemon.pid())).expect("it runs");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    (files, pages * 4 / 1_024)
}

/// Whoever is told to read it by a signal meets the whole of it, or of the one before.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("replaced");
}

/// A thousand reloads, every other one with an error, by the API and by signal; a journey over a webhook that stays all the time.
#[test]
fn a_storm_of_reloads_leaves_what_stays_alone() {
    const RELOADS: usize = 1_000;
    block_on(async {
        let setup = Setup::new("reload-storm");
        let (target, smtp) = (Target::start(3).await, FakeSmtp::start().await);
        setup.write("admin", TOKEN);
        let hook = "[channels.hook-out]\ntype = \"http\"\nurl = \"URL\"\n[channels.hook-in]\ntype = \"webhook\"\npath = \"/in\"\n\
                    verify = { scheme = \"bearer\", secret = \"hook-secret\" }\n"
            .replace("URL", &setup.hook_url("/in"));
        let stays = "[[journey]]\nname = \"stays\"\nevery = \"200ms\"\ndeadline = \"10s\"\nnotify = [\"ops\"]\n[[journey.step]]\nname = \"out\"\n\
                     send = \"hook-out\"\nheaders = { authorization = \"Bearer hook-secret\" }\njson = { id = \"{{ token }}\" }\n[[journey.step]]\nname = \"in\"\nreceive = \"hook-in\"\n";
        let mut daemon = setup.start(&format!("{}{hook}", config(&target, &smtp)), stays).await;
        wait_for("the first runs", SOON, async || {
            (daemon.metric("journeyman_runs_total", &[("journey", "stays"), ("outcome", "good")]).await >= Some(3.0))
                .then_some(())
        })
        .await;
        let probes = daemon.directory().join("probes.toml");
        let main = daemon.directory().join("journeyman.toml");
        let base = std::fs::read_to_string(&main).expect("it is there");
        let client = Client::new();
        let url = daemon.http_url();
        // As many of each kind as there will be, so that what is kept once for each name is there.
        let good = |round: usize| {
            let changed = asks("changes", round % 3).replace("200ms", &format!("{}ms", 1_000 + round % 7));
            let comes = if round.is_multiple_of(4) { loops("comes", "1s", "10ms") } else { String::new() };
            format!("{stays}{changed}{comes}")
        };
        for round in 0..8 {
            replace(&probes, &good(round));
            assert_eq!(reload(&client, &url).await.0, StatusCode::OK);
        }
        let before = figures(&daemon);
        let clock = Clock::system();
        let began = clock.now().mono;
        let (mut accepted, mut refused) = (0, 0);
        for round in 0..RELOADS {
            let text =
                if round % 2 == 0 { good(round / 2) } else { format!("{}\n[[journey]]\nname = 7\n", good(round)) };
            replace(&probes, &text);
            let moved = base.replace("\"Journeyman <jm@example.net>\"", "\"jm@example.net\"");
            if round % 10 == 0 {
                let timeout = format!("[channels.web]\ntimeout = \"{}s\"\n", 5 + round % 3);
                replace(&main, &moved.replace("[channels.web]\n", &timeout));
            }
            if round % 16 == 15 {
                daemon.signal("HUP");
            }
            match reload(&client, &url).await {
                (StatusCode::OK, _) => accepted += 1,
                (StatusCode::UNPROCESSABLE_ENTITY, answer) => {
                    assert!(answer["error"].as_str().is_some_and(|why| why.contains("probes.toml:")), "{answer}");
                    refused += 1;
                }
                (status, answer) => panic!("{status}: {answer}"),
            }
        }
        let took = clock.now().mono.since(began);
        assert_eq!((accepted, refused), (RELOADS / 2, RELOADS / 2));
        replace(&probes, stays);
        replace(&main, &base);
        let (status, answer) = reload(&client, &url).await;
        assert_eq!(status, StatusCode::OK, "{answer}");

        let (_, runs) = daemon.get("/api/v1/journeys/stays/runs?limit=1000").await;
        let runs: Value = serde_json::from_str(&runs).expect("in JSON");
        let runs = runs["runs"].as_array().expect("a list");
        let slots: BTreeSet<_> = runs.iter().map(|run| run["slot"].as_str().expect("a time")).collect();
        assert_eq!(slots.len(), runs.len(), "no slot was run twice");
        let other: Vec<_> =
            runs.iter().filter(|run| !["good", "slow"].contains(&run["verdict"].as_str().unwrap_or(""))).collect();
        // A slot may be skipped on a machine that is busy with other tests; nothing may be lost or refused.
        assert!(other.iter().all(|run| run["verdict"] == "unknown"), "{other:?}");
        let lost = daemon.metric("journeyman_channel_receiver_lost_total", &[("channel", "hook-in")]).await;
        assert_eq!(lost, Some(0.0), "its receiver was never unbound");
        let unknown_path =
            daemon.metric("journeyman_webhook_requests_total", &[("channel", "hook-in"), ("result", "busy")]).await;
        assert!(unknown_path.is_none_or(|calls| calls == 0.0));
        let after = wait_for("descriptors to be given back", SOON, async || {
            let now = figures(&daemon);
            (now.0 <= before.0 + 4).then_some(now)
        })
        .await;
        let mut table = Table::new("reload", "storm", &["test", "what", "came out"]);
        table.row(&[
            &"T19",
            &format!("{RELOADS} reloads, every other one bad"),
            &format!("{accepted} taken up, {refused} refused with their place, in {:.1} s", took.as_secs_f64()),
        ]);
        table.row(&[
            &"T19",
            &"the journey that stays, over a webhook",
            &format!("{} runs, no slot twice, {} unknown, receiver never away", runs.len(), other.len()),
        ]);
        table.row(&[
            &"T19",
            &"file descriptors; resident memory, MiB",
            &format!("{} then {}; {} then {}", before.0, after.0, before.1, after.1),
        ]);
        assert!(took < Duration::from_secs(60), "{took:?}");
        assert!(after.1 < before.1 + 64, "{before:?} {after:?}");
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
    });
}
