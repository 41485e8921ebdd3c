//! `exec` steps with real programs: what they get, what their end means, and that nothing of them is left behind.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use journeyman::channel::exec::{Exec, ExecSettings};
use journeyman::channel::{Channel, Settings};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::run::{Fault, Reply};
use journeyman::journey::token::Token;
use journeyman::secret::HeaderText;
use serde_json::json;

use crate::support::command::{Ended, journeyman};
use crate::support::document::{example, toml_blocks};
use crate::support::{Process, Scratch, block_on, wait_for};

const BOUND: Duration = Duration::from_secs(20);
/// Far longer than any test, so that what is still there at the end was left behind.
const FOREVER: &str = "sleep 3600";

/// A text that is in the environment of the programs of one test, and of all that they start, and nowhere else.
fn mark() -> String {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    format!("journeyman-it-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// How many processes have `mark` in their environment. One that is dead and not yet waited for has none any more.
fn alive(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("there is a /proc").filter_map(Result::ok);
    let environments = processes.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    let mark = format!("MARK={mark}");
    environments.filter(|environment| environment.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())).count()
}

async fn wait_until_alive(mark: &str, count: usize) {
    wait_for(&format!("{count} processes"), BOUND, async || (alive(mark) == count).then_some(())).await;
}

/// A channel whose programs have a mark, and a grace that no test that ends by it waits for long.
fn channel(mark: &str) -> Exec {
    let path = std::env::var_os("PATH").expect("there is a PATH").into_string().expect("it is text");
    let settings = ExecSettings {
        directory: "/".into(),
        env: [("PATH", path.as_str()), ("MARK", mark)]
            .map(|(name, value)| (name.to_owned(), HeaderText::Plain(value.to_owned())))
            .into(),
        max_output: 64 << 10,
        grace: Duration::from_millis(400),
    };
    Exec::open(settings, Clock::system())
}

fn with_command(command: &[&str], timeout: Duration) -> Outgoing {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Outgoing { command, token: Token::from_bits(7), ..Outgoing::empty(timeout) }
}

async fn run(channel: &Exec, command: &[&str]) -> Result<Reply, Fault> {
    channel.request(&with_command(command, BOUND)).await
}

fn words(reply: &Reply) -> String {
    reply.message.as_ref().expect("a program's end has a message").text().into_owned()
}

#[test]
fn a_program_gets_its_arguments_as_they_are_and_an_environment_of_its_own() {
    block_on(async {
        let channel = channel("environment");
        let reply = run(&channel, &["printf", "%s|", "a b", "$HOME", "", "`id`"]).await.unwrap();
        assert_eq!(words(&reply), "a b|$HOME||`id`|", "no shell reads them");
        assert_eq!(reply.phases.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>(), ["start", "run"]);

        let before = Clock::system().now().wall;
        let reply = channel.request(&with_command(&["env"], Duration::from_millis(20_900))).await.unwrap();
        let environment = words(&reply);
        let of = |name: &str| {
            let line = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {name} in {environment}"))
        };
        let token = Token::from_bits(7);
        assert_eq!((of("JOURNEYMAN_TOKEN"), of("MARK")), (token.to_string().as_str(), "environment"));
        assert_eq!(of("JOURNEYMAN_TRACEPARENT"), token.traceparent());
        assert_eq!(of("JOURNEYMAN_TIMEOUT_SECONDS"), "20");
        let deadline: jiff::Timestamp = of("JOURNEYMAN_DEADLINE").parse().expect("it is a timestamp of RFC 3339");
        let ahead = deadline.duration_since(before).as_secs_f64();
        assert!((20.0..30.0).contains(&ahead), "{ahead}");
        // Six of ours, and nothing of the environment that the tests run in.
        assert_eq!(environment.lines().count(), 6, "{environment}");
        let reply = run(&channel, &["sh", "-c", "read line || echo nothing; pwd"]).await.unwrap();
        assert_eq!(words(&reply), "nothing\n/\n", "standard input is empty");
    });
}

#[test]
fn its_end_is_told_as_plug_ins_mean_it() {
    block_on(async {
        let channel = channel("codes");
        let end = async |script: &str| {
            let reply = run(&channel, &["sh", "-c", script]).await.unwrap();
            let message = reply.message.unwrap();
            (
                message.status.unwrap(),
                message.trouble.map(|trouble| trouble.cause),
                message.warning.map(|warning| warning.detail),
                reply.ack,
            )
        };
        let good = "OK - 3 in 0.2 s".to_owned();
        assert_eq!(end("echo 'OK - 3 in 0.2 s|time=0.2s'").await, (0, None, None, good));
        let warning = "WARNING: WARN - slow".to_owned();
        assert_eq!(end("echo WARN - slow; exit 1").await, (1, None, Some(warning.clone()), warning));
        let crash = "exit code 1: sh: oops".to_owned();
        assert_eq!(end("echo sh: oops >&2; exit 1").await, (1, Some(Cause::Exec), None, crash));
        let critical = "CRITICAL (exit code 2): lost".to_owned();
        assert_eq!(end("echo lost; exit 2").await, (2, Some(Cause::Exec), None, critical));
        assert_eq!(end("kill -KILL $$").await.3, "ended by signal 9 (KILL)");

        let odd = run(&channel, &["printf", r"\377\000\376ok\n"]).await.unwrap().message.unwrap();
        assert_eq!(odd.body, b"\xff\x00\xfeok\n");
        let reported = ["sh", "-c", "sleep 0.2; echo '{\"outcome\": \"good\", \"latency_ms\": 50}'"];
        let reply = run(&channel, &reported).await.unwrap();
        assert_eq!(reply.finished.mono.since(reply.started.mono), Duration::from_millis(50), "what it measured itself");
    });
}

#[test]
fn what_cannot_be_started_says_why() {
    block_on(async {
        let scratch = Scratch::new("exec");
        scratch.write("plain.sh", "#!/bin/sh\necho hi\n");
        let mut settings = ExecSettings {
            directory: scratch.path().to_owned(),
            env: vec![("PATH".to_owned(), HeaderText::Plain("/usr/bin:/bin".to_owned()))],
            max_output: 1_024,
            grace: Duration::from_secs(1),
        };
        let open = |settings: &ExecSettings| Exec::open(settings.clone(), Clock::system());
        let channel = open(&settings);
        assert!(channel.prove(BOUND).await.unwrap().contains("programs run in /"));
        for (program, why) in [
            ("no-such-program", "no directory in PATH has a program of this name"),
            ("./gone.sh", "there is no such program, seen from /"),
            ("./plain.sh", "is it executable (`chmod +x`)"),
            ("nul\0", "cannot start `nul\0`"),
        ] {
            let fault = run(&channel, &[program]).await.unwrap_err();
            assert_eq!((fault.cause, fault.uncertain), (Cause::Exec, false), "{fault:?}");
            assert!(fault.detail.contains(why), "{}", fault.detail);
        }
        settings.directory = scratch.path().join("gone");
        let channel = open(&settings);
        assert!(run(&channel, &["true"]).await.unwrap_err().detail.contains("there is no directory"));
        assert!(channel.prove(BOUND).await.unwrap_err().detail.contains("there is no directory"));
    });
}

#[test]
fn at_the_timeout_the_whole_group_is_told_to_end_and_then_ended() {
    block_on(async {
        let (mark, limit) = (mark(), Duration::from_millis(700));
        let channel = channel(&mark);
        // Itself, a child and a grandchild that do not listen to TERM, and one that does.
        let script = format!(
            "trap '' TERM; {FOREVER} & (sh -c '{FOREVER} & wait' & wait) & trap - TERM; (trap 'exit 0' TERM; {FOREVER} & wait) & echo half way; wait; {FOREVER}"
        );
        let outgoing = with_command(&["sh", "-c", &format!("trap '' TERM; {script}")], limit);
        let fault = channel.request(&outgoing).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Exec, true), "{fault:?}");
        assert_eq!(fault.detail, "`sh` did not end within 700ms and was told to; its last line was: half way");
        let took = fault.finished.mono.since(fault.started.mono);
        assert!(took >= limit && took < limit + Duration::from_millis(500), "{took:?}");
        assert!(alive(&mark) >= 2, "those that do not listen have their grace");
        wait_until_alive(&mark, 0).await;
    });
}

#[test]
fn a_program_that_listens_to_term_has_time_to_tidy_up() {
    block_on(async {
        let scratch = Scratch::new("exec-tidy");
        let (mark, tidied) = (mark(), scratch.path().join("tidied"));
        let channel = channel(&mark);
        let script = format!(
            "import signal, sys, time\n\
             def tidy(*_):\n    print('x' * 300_000); time.sleep(0.1); open({:?}, 'w').close(); sys.exit(0)\n\
             signal.signal(signal.SIGTERM, tidy)\nprint('ready', flush=True)\ntime.sleep(3600)\n",
            tidied.display().to_string()
        );
        let outgoing = with_command(&["python3", "-c", &script], Duration::from_millis(1_500));
        let fault = channel.request(&outgoing).await.unwrap_err();
        assert!(fault.detail.ends_with("its last line was: ready"), "{}", fault.detail);
        // More than a pipe holds is printed on the way: it must not be stuck on that.
        wait_until_alive(&mark, 0).await;
        assert!(tidied.exists(), "it was killed before it could tidy up");
    });
}

#[test]
fn what_a_program_leaves_running_ends_with_it_and_holds_nothing_up() {
    block_on(async {
        let mark = mark();
        let channel = channel(&mark);
        // The child has the same standard output, so that nobody ever reads its end.
        let reply = run(&channel, &["sh", "-c", &format!("{FOREVER} & echo done")]).await.unwrap();
        assert_eq!(words(&reply), "done\n");
        assert!(reply.finished.mono.since(reply.started.mono) < Duration::from_secs(5));
        wait_until_alive(&mark, 0).await;
    });
}

#[test]
fn a_run_that_is_cut_and_a_channel_that_goes_take_their_programs_along() {
    let (cut, gone) = (mark(), mark());
    block_on(async {
        let channel = Arc::new(channel(&cut));
        let outgoing = with_command(&["sh", "-c", &format!("trap '' TERM; {FOREVER} & wait; {FOREVER}")], BOUND);
        {
            let mut running = channel.request(&outgoing);
            tokio::select! {
                _ = &mut running => panic!("it ended"),
                () = wait_until_alive(&cut, 2) => {}
            }
        }
        wait_until_alive(&cut, 0).await;

        // A grace that is longer than the channel lives.
        let channel = self::channel(&gone);
        let mut running = channel.request(&outgoing);
        tokio::select! {
            _ = &mut running => panic!("it ended"),
            () = wait_until_alive(&gone, 2) => {}
        }
        drop(running);
        drop(channel);
        wait_until_alive(&gone, 0).await;
    });
    // A runtime that ends with a program under way.
    let mark = mark();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let channel = channel(&mark);
    let outgoing = with_command(&["sh", "-c", &format!("trap '' TERM; {FOREVER}")], BOUND);
    runtime.block_on(async {
        tokio::select! {
            _ = channel.request(&outgoing) => panic!("it ended"),
            () = wait_until_alive(&mark, 2) => {}
        }
    });
    drop(runtime);
    block_on(wait_until_alive(&mark, 0));
}

#[test]
fn many_at_once_each_have_their_own_answer() {
    block_on(async {
        let channel = channel("many");
        let names: Vec<_> = (0..40).map(|number| format!("number {number}")).collect();
        let commands: Vec<_> = names.iter().map(|name| with_command(&["echo", name], BOUND)).collect();
        let answers = futures_util::future::join_all(commands.iter().map(|outgoing| channel.request(outgoing))).await;
        let told: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().ack).collect();
        assert_eq!(told, names);
    });
}

/// A daemon's file and a probe's, run once.
async fn once(scratch: &Scratch, main: &str, journey: &str, arguments: &[&str]) -> Ended {
    scratch.write("journeyman.toml", main);
    scratch.write("probe.toml", journey);
    let all = [&["once", "script", "--config", "journeyman.toml"], arguments].concat();
    journeyman(scratch.path(), &all).await
}

const MAIN: &str = "probes = [\"probe.toml\"]\nallow_exec = true\n";

fn probe(exec: &str, rest: &str) -> String {
    format!(
        "[[journey]]\nname = \"script\"\nevery = \"10m\"\ndeadline = \"10s\"\nmuted = true\n[[journey.step]]\nexec = {exec}\n{rest}\n"
    )
}

async fn report(scratch: &Scratch, main: &str, journey: &str) -> (i32, serde_json::Value) {
    let ended = once(scratch, main, journey, &["--format", "json"]).await;
    let report = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
    (ended.code, report)
}

#[test]
fn a_journey_runs_a_script_beside_its_file_and_judges_what_it_says() {
    block_on(async {
        let scratch = Scratch::new("exec-once");
        scratch.write(
            "scripts/probe.py",
            "import json, os, sys\n\
             assert sys.argv[1:] == ['--token', os.environ['JOURNEYMAN_TOKEN']], sys.argv\n\
             print('sending')\n\
             print(json.dumps({'outcome': os.environ['SAYS'], 'message': 'sent 3', 'value': 3, 'key': os.environ['KEY_SECRET']}))\n",
        );
        scratch.write("secrets/key", "CANARY-0f31");
        let main = |says: &str| {
            format!(
                "{MAIN}[channels.exec]\ntype = \"exec\"\nenv = {{ SAYS = \"{says}\", KEY_SECRET = {{ file = \"secrets/key\" }} }}\n"
            )
        };
        let exec = "[\"python3\", \"scripts/probe.py\", \"--token\", \"{{ token }}\"]";
        let expect = "expect = [{ value = { at_least = 3 } }, { json = \"$.message\", equals = \"sent 3\" }, { regex = \"^send(ing)\", equals = \"ing\" }]\n\
                      capture = { sent = { json = \"$.value\" } }\n[[journey.step]]\nexec = [\"test\", \"{{ sent }}\", \"=\", \"3\"]";
        let (code, report) = report(&scratch, &main("good"), &probe(exec, expect)).await;
        assert_eq!((code, &report["outcome"]["outcome"]), (0, &json!("good")), "{report:#}");
        assert_eq!((&report["steps"][0]["status"], &report["steps"][0]["ack"]), (&json!("passed"), &json!("sent 3")));
        assert!(report["steps"][0]["excerpt"].as_str().unwrap().contains("\"key\": \"•••\""), "{report:#}");
        assert!(!report.to_string().contains("CANARY"), "{report:#}");

        // A warning is seen, and is no failure; a failure is one, and names what it was.
        let (code, report) = self::report(&scratch, &main("warning"), &probe(exec, "")).await;
        assert_eq!((code, &report["steps"][0]["status"]), (0, &json!("warned")), "{report:#}");
        assert_eq!(report["steps"][0]["detail"], "by its own report a warning: sent 3");
        let (code, report) = self::report(&scratch, &main("failed"), &probe(exec, "")).await;
        assert_eq!((code, &report["outcome"]["cause"]), (2, &json!("exec")), "{report:#}");
        assert_eq!(report["steps"][0]["detail"], "by its own report failed: sent 3");
    });
}

#[test]
fn an_expectation_on_the_status_judges_the_code_itself() {
    block_on(async {
        let scratch = Scratch::new("exec-status");
        let outcome = async |script: &str, expect: &str| {
            let exec = format!("[\"sh\", \"-c\", \"{script}\"]");
            let (code, report) = report(&scratch, MAIN, &probe(&exec, expect)).await;
            (code, report["steps"][0]["status"].as_str().unwrap().to_owned(), report["outcome"]["cause"].clone())
        };
        let expected = |code, status: &str, cause| (code, status.to_owned(), cause);
        let any = "expect = [{ status = { one_of = [0, 3] } }]";
        assert_eq!(outcome("exit 3", any).await, expected(0, "passed", json!(null)));
        assert_eq!(outcome("exit 2", any).await, expected(2, "failed", json!("exec")));
        let warns = "echo WARNING; exit 1";
        assert_eq!(outcome(warns, "expect = [{ status = 0 }]").await, expected(2, "failed", json!("exec")));
        assert_eq!(outcome(warns, "budget = \"9s\"").await, expected(0, "warned", json!(null)));
        assert_eq!(
            outcome(&format!("sleep 0.1; {warns}"), "budget = \"50ms\"").await,
            expected(1, "slow", json!(null))
        );
        assert_eq!(outcome("exit 2", "soft = true").await, expected(0, "warned", json!(null)));
        assert_eq!(outcome("echo 7", "expect = [{ body = \"8\" }]").await, expected(2, "failed", json!("mismatch")));
    });
}

#[test]
fn without_allow_exec_nothing_is_run() {
    block_on(async {
        let scratch = Scratch::new("exec-refused");
        let touched = scratch.path().join("touched");
        let exec = format!("[\"touch\", \"{}\"]", touched.display());
        let ended = once(&scratch, "probes = [\"probe.toml\"]\n", &probe(&exec, ""), &[]).await;
        assert_eq!(ended.code, 3, "{ended:#?}");
        assert!(ended.stderr.contains("`journeyman check` shows what is meant"), "{ended:#?}");
        assert!(
            ended.stdout.contains("the daemon does not allow that (`allow_exec`)") && !touched.exists(),
            "{ended:#?}"
        );
        assert_eq!(once(&scratch, MAIN, &probe(&exec, ""), &[]).await.code, 0);
        assert!(touched.exists());
    });
}

#[test]
fn a_flood_is_read_to_its_end_and_fills_no_memory() {
    block_on(async {
        let scratch = Scratch::new("exec-flood");
        // 100 MB on each output; its last line is what we took at most, as the kernel knows it, with the program itself: without
        // optimisation that is some 60 MiB.
        scratch.write(
            "flood.sh",
            "#!/bin/sh\nhead -c 100000000 /dev/zero | tr '\\0' x\nhead -c 100000000 /dev/zero | tr '\\0' e >&2\n\
             echo; echo \"{\\\"value\\\": $(grep VmHWM /proc/$PPID/status | tr -dc 0-9)}\"\n",
        );
        let expect = "expect = [{ value = { less_than = 98304 }, message = \"KiB at most\" }, { size = { at_most = 66000 } }]\ncapture = { peak = { value = true } }\n[[journey.step]]\nexec = [\"echo\", \"{{ peak }}\"]";
        let (code, report) = report(&scratch, MAIN, &probe("[\"sh\", \"flood.sh\"]", expect)).await;
        assert_eq!(code, 0, "{report:#}");
        let peak: u64 = report["steps"][1]["ack"].as_str().unwrap().parse().unwrap();
        assert!(peak > 5_000, "{peak} KiB is too little to be true");
        eprintln!("peak with 200 MB of output: {peak} KiB");
    });
}

#[test]
fn an_interrupted_once_leaves_nothing_running() {
    block_on(async {
        let (scratch, mark) = (Scratch::new("exec-interrupted"), mark());
        let main = format!("{MAIN}[channels.exec]\ntype = \"exec\"\nenv = {{ MARK = \"{mark}\" }}\n");
        scratch.write("journeyman.toml", &main);
        let exec = format!("[\"sh\", \"-c\", \"trap '' TERM INT; {FOREVER} & wait; {FOREVER}\"]");
        scratch.write("probe.toml", &probe(&exec, ""));
        let mut command = Command::new(env!("CARGO_BIN_EXE_journeyman"));
        command.args(["once", "script", "--config", "journeyman.toml"]).current_dir(scratch.path());
        let mut process = Process::start("journeyman", &mut command, &scratch.path().join("log"));
        wait_until_alive(&mark, 2).await;
        process.signal("INT");
        assert_eq!(process.wait_for_exit(BOUND).await, 3);
        wait_until_alive(&mark, 0).await;
    });
}

#[test]
fn what_the_page_shows_runs() {
    block_on(async {
        let blocks = toml_blocks("docs/channels/exec.md");
        let [main, journey] = &blocks[..] else { panic!("the page has {} TOML blocks", blocks.len()) };
        let scratch = Scratch::new("exec-page");
        std::fs::create_dir_all(scratch.path().join("checks")).unwrap();
        scratch.write("secrets/sms-key", "a key of ours");
        let script = "import os\nassert os.environ['SMS_KEY'] == 'a key of ours' and os.environ['REGION'] == 'eu'\n\
                      print('SMS OK - there and back in 1.9 s | round_trip=1.9s;3;10;0;')\n";
        scratch.write("checks/sms_round_trip.py", script);
        let main = format!("probes = [\"probe.toml\"]\n{main}");
        let ended = once(&scratch, &main, journey, &[]).await;
        assert_eq!(ended.code, 0, "{ended:#?}");
        assert!(ended.stdout.contains("SMS OK - there and back in 1.9 s"), "{ended:#?}");
        assert!(Path::new("probes/matrix.toml").exists(), "the example with an `exec` step ships");
    });
}

#[test]
fn the_script_among_the_probes_loads_as_it_is() {
    let text = std::fs::read_to_string("probes/matrix.toml").unwrap();
    let main = "allow_exec = true\n[defaults]\nmuted = true\n";
    let loaded = journeyman::config::load_text("main.toml", main, &[("matrix.toml", &text)], Path::new("."));
    let (plan, _) = loaded.unwrap_or_else(|problems| panic!("{}", journeyman::config::render(&problems, false)));
    let script = plan.journeys.iter().find(|journey| &*journey.name == "legacy-script").expect("it is there");
    assert_eq!((script.unavailable.as_ref(), script.steps[0].timeout), (None, Some(Duration::from_secs(90))));
    let Settings::Exec(settings) = &plan.channels["exec"].settings else { panic!() };
    assert_eq!((settings.max_output, settings.grace), (64 << 10, Duration::from_secs(5)));
    assert!(settings.env.iter().any(|(name, _)| name == "PATH"));
}

#[test]
fn the_example_loads_with_the_channel_that_it_shows() {
    let (main, example) = example("probes/examples/exec.toml");
    let main = format!("{main}\n[defaults]\nmuted = true\n");
    let loaded = journeyman::config::load_text("main.toml", &main, &[("exec.toml", &example)], Path::new("."));
    let (plan, _) = loaded.unwrap_or_else(|problems| panic!("{}", journeyman::config::render(&problems, false)));
    assert!(plan.journeys.len() == 2 && plan.journeys.iter().all(|journey| journey.unavailable.is_none()));
    let Settings::Exec(settings) = &plan.channels["exec"].settings else { panic!() };
    assert_eq!(settings.grace, Duration::from_secs(2));
    assert!(settings.env.iter().any(|(name, _)| name == "LC_ALL"));
    let limits: Vec<_> = plan.journeys[1].steps.iter().map(|step| step.timeout.unwrap().as_secs()).collect();
    assert_eq!(limits, [240, 300], "its own, and the deadline");
}
