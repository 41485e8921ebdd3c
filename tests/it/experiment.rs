//! `journeyman experiment`, with real brokers, real processes and real signals: what it counts is what happened, and what it cuts is
//! healed whatever happens to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::{get, post};
use journeyman::clock::Clock;
use journeyman::config;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::support::command::{Ended, journeyman};
use crate::support::document::toml_blocks;
use crate::support::{Process, Scratch, block_on, wait_for};

#[cfg(feature = "amqp")]
mod broker;
#[cfg(feature = "amqp")]
mod zone;

const BOUND: Duration = Duration::from_secs(60);

/// A loop in the process itself: what is sent comes back at once.
const LOOP: &str = r#"
[store]
url = "sqlite:journeyman.db"

[channels.loop]
type = "memory"

[channels.narrow]
type = "memory"
rate = "1/s"

[[journey]]
name = "narrow"
every = "1h"
deadline = "500ms"
step = [{ send = "narrow", text = "{{ token }}", timeout = "300ms" }, { receive = "narrow" }]

[[journey]]
name = "loop"
every = "1h"
deadline = "500ms"
step = [{ send = "loop", text = "{{ token }}" }, { receive = "loop" }]

[[journey]]
name = "twice"
every = "1h"
deadline = "500ms"
step = [{ send = "loop", text = "{{ token }}", copies = "2" }, { receive = "loop" }]

[[journey]]
name = "slow"
every = "1h"
deadline = "500ms"
step = [{ send = "loop", text = "{{ token }}", delay = "700ms" }, { receive = "loop" }]
"#;

/// An experiment on the loop, with more of its file.
fn on_loop(journey: &str, more: &str) -> String {
    format!(
        "[experiment]\nname = \"loop\"\ntargets = [\"sandbox\"]\n[traffic]\njourney = \"{journey}\"\nrate = \"100/s\"\ndrain = \"20s\"\n{more}"
    )
}

struct Bench {
    scratch: Scratch,
}

impl Bench {
    fn new(name: &str, experiment: &str) -> Bench {
        let scratch = Scratch::new(name);
        scratch.write("journeyman.toml", LOOP);
        scratch.write("x.toml", experiment);
        Bench { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    async fn run(&self, more: &[&str]) -> Ended {
        let arguments = ["experiment", "x.toml", "--config", "journeyman.toml", "--format", "json"];
        journeyman(self.scratch.path(), &[&arguments[..], more].concat()).await
    }

    /// The same in the background, with what it says in `log`.
    fn start(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_journeyman"));
        command.args(["experiment", "x.toml", "--config", "journeyman.toml", "--format", "json"]);
        Process::start("journeyman experiment", command.current_dir(self.scratch.path()), &self.path("log"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    async fn wait_for_file(&self, name: &str) {
        let path = self.path(name);
        wait_for(&format!("{}; {}", path.display(), self.log()), BOUND, async || path.exists().then_some(())).await;
    }
}

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

const CUT: &str = r#"
[hypothesis]
delivered = "100%"
lost = 0
[[phase]]
name = "cut"
run = ["sh", "-c", "echo run >> acts; touch cut"]
undo = ["sh", "-c", "echo undo >> acts; rm cut"]
least = "60s"
"#;

fn acts(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn what_comes_back_is_counted_and_the_claims_are_judged_by_it() {
    block_on(async {
        let phase = "[[phase]]\nname = \"hold\"\nleast = \"1s\"\n";
        let claims =
            "[hypothesis]\ndelivered = \"100%\"\nlost = 0\nlate = 0\nduplicate = 0\nreordered = 0\np99 = \"400ms\"\n";
        let bench = Bench::new("experiment-good", &on_loop("loop", &format!("{claims}{phase}")));
        let ended = bench.run(&["--html", "report.html", "--json", "report.json"]).await;
        assert_eq!(ended.code, 0, "{ended:#?}");
        let good = report(&ended);
        let tally = &good["tally"];
        let due = tally["due"].as_u64().expect("a number");
        assert!((95..=105).contains(&due), "{tally:#}");
        assert_eq!((tally["on_time"].as_u64(), &tally["lost"]), (Some(due), &Value::from(0)), "{tally:#}");
        let page = std::fs::read_to_string(bench.path("report.html")).expect("the page is there");
        assert!(page.contains("the hypothesis held") && !page.contains("<script"), "{page}");

        bench.scratch.write("x.toml", &on_loop("twice", &format!("{claims}{phase}")));
        let ended = bench.run(&["--compare", "report.json"]).await;
        assert_eq!(ended.code, 1, "{ended:#?}");
        let twice = report(&ended);
        assert_eq!(twice["tally"]["duplicate"], twice["tally"]["due"], "{:#}", twice["tally"]);
        let compared = twice["compared"].as_array().expect("a list");
        let change = |what: &str| compared.iter().find(|row| row["what"] == what).map(|row| row["change"].clone());
        assert_eq!(change("duplicate at most 0"), Some("worse".into()), "{compared:#?}");
        assert_eq!(change("lost at most 0"), Some("same".into()), "{compared:#?}");

        bench.scratch.write("x.toml", &on_loop("slow", &format!("{claims}{phase}")));
        let ended = bench.run(&[]).await;
        assert_eq!(ended.code, 1, "{ended:#?}");
        let slow = report(&ended);
        let tally = &slow["tally"];
        assert_eq!(
            (&tally["late"], &tally["lost"], &tally["on_time"]),
            (&tally["due"], &0.into(), &0.into()),
            "{tally:#}"
        );
    });
}

#[test]
fn whoever_stops_it_finds_everything_healed() {
    block_on(async {
        let bench = Bench::new("experiment-stop", &on_loop("loop", CUT));
        let mut process = bench.start();
        bench.wait_for_file("cut").await;
        process.signal("TERM");
        assert_eq!(process.wait_for_exit(BOUND).await, 2, "{}", bench.log());
        assert_eq!(acts(&bench.path("acts")), "run\nundo\n");
        assert!(!bench.path("cut").exists());

        // In the middle of a command, which is ended with all that it has started.
        let endless = CUT.replace("touch cut", "touch cut; sleep 600 & echo $! > child; wait");
        bench.scratch.write("x.toml", &on_loop("loop", &endless));
        let mut process = bench.start();
        bench.wait_for_file("child").await;
        process.signal("INT");
        assert_eq!(process.wait_for_exit(BOUND).await, 2, "{}", bench.log());
        assert_eq!(acts(&bench.path("acts")), "run\nundo\nrun\nundo\n");
        let child = std::fs::read_to_string(bench.path("child")).expect("it was started");
        // Whoever inherits it may not have buried it yet.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "the command's child goes on: {stat}");
    });
}

#[test]
fn what_a_killed_experiment_left_cut_is_undone_by_the_next_and_told_by_the_daemon() {
    block_on(async {
        let bench = Bench::new("experiment-kill", &on_loop("loop", CUT));
        let mut process = bench.start();
        bench.wait_for_file("cut").await;
        let again = bench.run(&[]).await;
        assert_eq!(again.code, 75, "one at a time: {again:#?}");
        process.signal("KILL");
        assert_eq!(process.wait_for_exit(BOUND).await, 128 + 9);
        assert!(bench.path("cut").exists(), "nobody could undo it");

        let mut command = Command::new(env!("CARGO_BIN_EXE_journeyman"));
        bench.scratch.write("daemon.toml", &format!("{LOOP}\n[http]\nlisten = \"127.0.0.1:0\"\n"));
        let command = command.args(["run", "--config", "daemon.toml"]).current_dir(bench.scratch.path());
        let mut daemon = Process::start("journeyman run", command, &bench.path("daemon.log"));
        let said = || std::fs::read_to_string(bench.path("daemon.log")).unwrap_or_default();
        wait_for("the daemon to start", BOUND, async || said().contains("started").then_some(())).await;
        assert!(
            said().contains("an experiment was left cut") && said().contains("phase `cut` of x.toml"),
            "{}",
            said()
        );
        daemon.signal("TERM");
        daemon.wait_for_exit(BOUND).await;

        let quick = CUT.replace("60s", "1s").replace("touch cut", "touch cut; test ! -e other");
        bench.scratch.write("x.toml", &on_loop("loop", &quick));
        let next = bench.run(&[]).await;
        assert_eq!(next.code, 0, "{next:#?}");
        assert!(next.stderr.contains("was left cut: undoing it"), "{}", next.stderr);
        assert_eq!(acts(&bench.path("acts")), "run\nundo\nrun\nundo\n", "the old is undone before the new is cut");
        let nothing = journeyman(bench.scratch.path(), &["experiment", "--undo", "--config", "journeyman.toml"]).await;
        assert_eq!((nothing.code, nothing.stderr.trim()), (0, "nothing was left cut"));
    });
}

#[test]
fn what_cannot_be_undone_is_said_with_what_to_type_and_stays_remembered() {
    block_on(async {
        let stuck = CUT.replace("echo undo >> acts; rm cut", "test -e key && rm cut").replace("60s", "1s");
        let bench = Bench::new("experiment-stuck", &on_loop("loop", &stuck));
        let ended = bench.run(&[]).await;
        assert_eq!(ended.code, 4, "{ended:#?}");
        let told = report(&ended);
        assert_eq!(told["ending"], "undo_failed");
        let why = told["why"].as_str().expect("a text");
        assert!(why.contains("tried 3 times") && why.contains("journeyman experiment --undo"), "{why}");
        assert!(why.contains("sh -c 'test -e key && rm cut'"), "{why}");
        bench.scratch.write("key", "");
        let undo = ["experiment", "--undo", "--config", "journeyman.toml"];
        let undone = journeyman(bench.scratch.path(), &undo).await;
        assert_eq!(undone.code, 0, "{undone:#?}");
        assert!(!bench.path("cut").exists());
    });
}

#[test]
fn a_fault_that_takes_no_effect_is_no_test_and_never_green() {
    block_on(async {
        let without = CUT.replace("touch cut", "true").replace("rm cut", "true");
        let proof = "proof = { run = [\"test\", \"-e\", \"cut\"], within = \"1s\" }\n";
        let bench = Bench::new("experiment-no-effect", &on_loop("loop", &format!("{without}{proof}")));
        let ended = bench.run(&[]).await;
        assert_eq!(ended.code, 3, "{ended:#?}");
        let told = report(&ended);
        assert_eq!((&told["ending"], &told["tally"]["lost"]), (&"not_tested".into(), &0.into()));
        assert!(told["why"].as_str().is_some_and(|why| why.contains("took no effect")), "{told:#}");
        assert_eq!(acts(&bench.path("acts")), "run\nundo\n");
    });
}

#[test]
fn a_bound_that_is_passed_heals_within_a_second() {
    block_on(async {
        let abort = format!("{CUT}[abort]\noverdue = 5\n");
        // What is sent while the cut lasts takes longer than the deadline.
        let bench = Bench::new("experiment-abort", &on_loop("slow", &abort));
        let ended = bench.run(&[]).await;
        assert_eq!(ended.code, 2, "{ended:#?}");
        let told = report(&ended);
        let why = told["why"].as_str().expect("a text");
        assert!(why.starts_with("overdue at most 5: "), "{why}");
        let acts = told["acts"].as_array().expect("a list");
        let undo = acts.iter().find(|act| act["what"].as_str().is_some_and(|what| what.starts_with("undo: ")));
        let undo = undo.expect("it was undone")["at"].as_u64().expect("microseconds");
        // A hundred a second and a deadline of 500 ms: the sixth is overdue after 550 ms. It is looked once a second.
        let passed = 0.550;
        let took = undo as f64 / 1e6 - passed;
        // What docs/experiments.md says; `--nocapture` shows it.
        println!("from the bound that is passed ({passed:.3} s) to the undo: {took:.3} s");
        assert!((0.0..2.0).contains(&took), "undone only {took} s after the bound was passed");
        assert_eq!(told["tally"]["lost"], 0, "what was on its way was waited for");
    });
}

/// Seconds since the epoch.
fn wall() -> f64 {
    Clock::system().now().wall.as_microsecond() as f64 / 1e6
}

#[test]
fn an_abort_that_is_asked_for_heals_at_once() {
    block_on(async {
        // The undo says itself when it begins.
        let cut = CUT.replace("echo undo >> acts; rm cut", "date +%s.%N > undone; rm cut");
        let bench = Bench::new("experiment-asked", &on_loop("loop", &cut));
        let mut process = bench.start();
        bench.wait_for_file("cut").await;
        let asked = wall();
        process.signal("TERM");
        assert_eq!(process.wait_for_exit(BOUND).await, 2, "{}", bench.log());
        let undone: f64 = acts(&bench.path("undone")).trim().parse().expect("a time");
        let took = undone - asked;
        // What docs/experiments.md says; `--nocapture` shows it.
        println!("from the abort that is asked for to the undo: {took:.3} s");
        assert!((0.0..2.0).contains(&took), "undone only {took} s after it was asked for");
    });
}

/// Messages a second. A build without optimisation does not carry a thousand.
const RATE: u64 = if cfg!(debug_assertions) { 300 } else { 1_000 };

/// The CPU time of ten seconds of an experiment, in seconds, and how long it went in all; drawn on a terminal, or not.
async fn cost(bench: &Bench, is_drawn: bool) -> Option<(f64, f64)> {
    let script = crate::support::server_binary("script", "bsdutils")?;
    let program = env!("CARGO_BIN_EXE_journeyman");
    let typed = format!(
        "{program} experiment x.toml --config journeyman.toml --format json > report.json{}; echo $? > code; times > times",
        if is_drawn { "" } else { " 2> said" }
    );
    let mut command = tokio::process::Command::new(script);
    command
        .args(["--quiet", "--command", &typed, "/dev/null"])
        .current_dir(bench.scratch.path())
        .env("SHELL", "/bin/sh");
    let shown = crate::support::command::run(command).await.stdout;
    assert_eq!(acts(&bench.path("code")).trim(), "0", "{shown} {}", acts(&bench.path("said")));
    // The pictures, and nothing of them where nobody looks.
    assert_eq!(shown.contains("nothing amiss") || shown.contains("last 10 s"), is_drawn, "{shown}");
    let report: Value = serde_json::from_str(&acts(&bench.path("report.json"))).expect("a report");
    assert!(report["tally"]["due"].as_u64() > Some(RATE * 9), "{:#}", report["tally"]);
    let took = report["phases"].as_array().and_then(|parts| parts.last()?["to"].as_f64()).expect("a time") / 1e6;
    // The second line is of those that were waited for: user and system time, as in `0m1.234s`. (POSIX, `times`)
    let times = acts(&bench.path("times"));
    let second = |text: &str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        minutes.parse::<f64>().expect("a number") * 60.0 + seconds.parse::<f64>().expect("a number")
    };
    let cpu = times.lines().nth(1).expect("two lines").split_whitespace().map(second).sum();
    Some((cpu, took))
}

/// What the picture costs that is drawn once a second: docs/experiments.md.
#[test]
fn the_picture_costs_next_to_nothing() {
    if !crate::support::is_long() {
        return;
    }
    block_on(async {
        let phase = "[hypothesis]\nlost = 0\n[[phase]]\nname = \"load\"\nleast = \"10s\"\n";
        let file = on_loop("loop", phase).replace("100/s", &format!("{RATE}/s"));
        let bench = Bench::new("experiment-picture", &file);
        let mut least = [f64::INFINITY; 2];
        // In turn, and of each the least: whatever else goes on only adds to it.
        for _ in 0..3 {
            for is_drawn in [false, true] {
                let Some((cpu, took)) = cost(&bench, is_drawn).await else { return };
                println!("{} {cpu:.2} s of CPU in {took:.1} s", if is_drawn { "drawn:    " } else { "not drawn:" });
                least[usize::from(is_drawn)] = least[usize::from(is_drawn)].min(cpu / took);
            }
        }
        let [without, with] = least.map(|share| share * 100.0);
        let more = with - without;
        println!(
            "at {RATE} messages/s {without:.1} % of a core without the picture, {with:.1} % with it: {more:.1} % more"
        );
        assert!(more <= 5.0, "the picture costs {more:.1} % of a core");
    });
}

#[test]
fn what_we_hold_back_ourselves_is_not_refused_and_makes_it_no_test() {
    block_on(async {
        let more = "[hypothesis]\nrefused = 0\nlost = 0\n[[phase]]\nname = \"load\"\nleast = \"2s\"\n";
        let bench = Bench::new("experiment-narrow", &on_loop("narrow", more));
        let ended = bench.run(&[]).await;
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        let told = report(&ended);
        let tally = &told["tally"];
        assert!(tally["unsent"].as_u64() > Some(100), "{tally:#}");
        assert_eq!((&tally["refused"], &tally["lost"]), (&0.into(), &0.into()), "{tally:#}");
        assert!(
            told["why"].as_str().is_some_and(|why| why.contains("not the load that was asked for")),
            "{}",
            told["why"]
        );
        let why = told["messages"][0]["why"].as_str().expect("a text");
        assert!(why.contains("held back by this channel's own limit"), "{why}");
    });
}

#[test]
fn nobody_hurts_production_by_mistake() {
    block_on(async {
        let bench = Bench::new("experiment-target", &on_loop("loop", CUT));
        let refused = bench.run(&["--target", "production"]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (64, ""), "{refused:#?}");
        assert!(refused.stderr.contains("may not run against `production`"), "{refused:#?}");
        let asks = CUT.replace("least = \"60s\"", "confirm = \"cut the zone\"");
        bench.scratch.write("x.toml", &on_loop("loop", &asks));
        let refused = bench.run(&[]).await;
        assert_eq!(refused.code, 64, "{refused:#?}");
        assert!(refused.stderr.contains("--yes"), "{refused:#?}");
        assert!(!bench.path("acts").exists());
    });
}

#[test]
fn a_hand_on_the_switch_is_asked_at_the_terminal() {
    block_on(async {
        let Some(script) = crate::support::server_binary("script", "bsdutils") else { return };
        for (answer, code, did) in [("y\n", "0", "run\nundo\n"), ("n\n", "2", "")] {
            let asks = CUT.replace("least = \"60s\"", "least = \"1s\"\nconfirm = \"cut the zone\"");
            let bench = Bench::new("experiment-hand", &on_loop("loop", &asks));
            let program = env!("CARGO_BIN_EXE_journeyman");
            let typed = format!("{program} experiment x.toml --config journeyman.toml; echo $? > code");
            let mut command = tokio::process::Command::new(&script);
            command.args(["--quiet", "--command", &typed, "/dev/null"]).current_dir(bench.scratch.path());
            command.env("SHELL", "/bin/sh").kill_on_drop(true);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("it starts");
            // Who knows what will be asked types ahead.
            let mut hand = child.stdin.take().expect("a hand");
            hand.write_all(answer.as_bytes()).await.expect("it is typed");
            let ended = tokio::time::timeout(BOUND, child.wait_with_output()).await.expect("an end").expect("an end");
            let shown = String::from_utf8_lossy(&ended.stdout).into_owned();
            drop(hand);
            assert!(shown.contains("cut the zone"), "{shown}");
            assert_eq!(acts(&bench.path("code")).trim(), code, "{shown}");
            assert_eq!(acts(&bench.path("acts")), did, "{shown}");
        }
    });
}

#[test]
fn the_page_and_every_recipe_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (plan, warnings) = config::load(&root.join("experiments/journeyman.toml")).expect("it is accepted");
    assert!(warnings.iter().all(|warning| !warning.is_error()), "{warnings:?}");
    let page = &toml_blocks("docs/experiments.md")[0];
    let loaded = config::experiment::load_text("the page", page, &plan, Path::new(""));
    loaded.unwrap_or_else(|problems| panic!("{}", config::render(&problems, false)));
    let mut seen = 0;
    for entry in std::fs::read_dir(root.join("experiments")).expect("it is there") {
        let path = entry.expect("an entry").path();
        let is_recipe = path.extension().is_some_and(|end| end == "toml") && !path.ends_with("journeyman.toml");
        if !is_recipe {
            continue;
        }
        let loaded = config::experiment::load(&path, &plan);
        let (experiment, _) = loaded.unwrap_or_else(|problems| panic!("{}", config::render(&problems, false)));
        assert_eq!(path.file_stem().and_then(|name| name.to_str()), Some(&*experiment.name));
        seen += 1;
    }
    assert!(seen > 5, "only {seen} recipes");
}

/// Prometheus, which says what it is told to, and Grafana, which remembers what it was told.
#[derive(Clone, Default)]
struct Others {
    said: Arc<Mutex<f64>>,
    notes: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Others {
    async fn open(&self, tasks: &mut JoinSet<()>) -> String {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let query = async |State(others): State<Others>, Query(asked): Query<Vec<(String, String)>>| {
            assert_eq!(asked, [("query".to_owned(), "sum(depth)".to_owned())]);
            let said = others.said.lock().expect("nobody panics with it").to_string();
            json!({ "status": "success", "data": { "resultType": "vector", "result": [{ "value": [0, said] }] } })
                .to_string()
        };
        let note = async |State(others): State<Others>, headers: axum::http::HeaderMap, body: String| {
            let token = headers["authorization"].to_str().expect("text").to_owned();
            others
                .notes
                .lock()
                .expect("nobody panics with it")
                .push((token, serde_json::from_str(&body).expect("JSON")));
            "{}"
        };
        let routes = Router::new().route("/api/v1/query", get(query)).route("/api/annotations", post(note));
        let routes = routes.with_state(self.clone());
        tasks.spawn(async move { axum::serve(listener, routes).await.expect("it is open") });
        format!("http://{address}")
    }
}

#[test]
fn what_prometheus_says_is_a_claim_and_grafana_is_told_of_each_part() {
    block_on(async {
        let (others, mut tasks) = (Others::default(), JoinSet::new());
        let url = others.open(&mut tasks).await;
        let query = format!("prometheus = [{{ url = \"{url}\", query = \"sum(depth)\", at_most = 5 }}]\n");
        let phase = "[[phase]]\nname = \"hold\"\nleast = \"1s\"\n";
        let grafana = "[grafana]\ntoken = { file = \"grafana\" }\n";
        let steady = "[steady]\nfor = \"1s\"\n";
        let file = on_loop("loop", &format!("{steady}{grafana}[hypothesis]\nlost = 0\n{query}{phase}"));
        let bench = Bench::new("experiment-others", &file);
        bench.scratch.write("grafana", "a-token-of-grafana");
        let ended = bench.run(&["--grafana", &url]).await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let hypothesis = &report(&ended)["hypothesis"];
        assert_eq!((&hypothesis[1]["bound"], &hypothesis[1]["found"]), (&"sum(depth) at most 5".into(), &"0".into()));
        let notes = others.notes.lock().unwrap().clone();
        let tags: Vec<_> = notes.iter().map(|(_, note)| note["tags"][3].as_str().unwrap_or_default()).collect();
        assert_eq!(tags, ["steady", "hold", "drain"]);
        assert!(notes.iter().all(|(token, note)| token == "Bearer a-token-of-grafana" && note["timeEnd"].is_number()));
        assert!(!ended.stdout.contains("a-token-of-grafana") && !ended.stderr.contains("a-token-of-grafana"));

        // What ends an experiment is asked for all the while.
        let abort = format!("{CUT}[abort]\n{query}");
        bench.scratch.write("x.toml", &on_loop("loop", &abort));
        *others.said.lock().unwrap() = 6.0;
        let ended = bench.run(&[]).await;
        assert_eq!((ended.code, &report(&ended)["why"]), (2, &"sum(depth) at most 5: 6".into()), "{}", ended.stderr);
        assert_eq!(acts(&bench.path("acts")), "run\nundo\n");

        // A system that is not well before anything is cut is not cut.
        let file = on_loop("loop", &format!("{steady}{}", CUT.replace("lost = 0\n", &format!("lost = 0\n{query}"))));
        bench.scratch.write("x.toml", &file);
        let ended = bench.run(&[]).await;
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        assert!(report(&ended)["why"].as_str().is_some_and(|why| why.contains("before anything was cut")));
        assert_eq!(acts(&bench.path("acts")), "run\nundo\n", "nothing was cut this time");
    });
}
