//! Several journeys at once, what CI systems read, and the picture on a terminal.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::command::{journeyman, run};
use crate::support::target::{Mode, Target};
use crate::support::{Scratch, block_on, server_binary};

/// A journey that is well, one whose expectation fails, one that cannot be reached, one that waits, and one that may not run.
fn configured(scratch: &Scratch, target: &Target) {
    let text = format!(
        r#"
        [channels.system]
        type = "http"
        url  = "{}"
        [channels.nobody]
        type = "http"
        url  = "http://127.0.0.1:1"
        [defaults]
        every = "1m"
        muted = true

        [[journey]]
        name = "well"
        step = [{{ name = "ask", request = "system", path = "/0", expect = [{{ status = 204 }}] }}]
        [[journey]]
        name = "fails"
        step = [
            {{ name = "ask", request = "system", path = "/1", expect = [{{ status = 204, message = "<a> & \"b\"" }}] }},
            {{ name = "after", pause = "1ms" }},
        ]
        [[journey]]
        name = "away"
        step = [{{ name = "ask", request = "nobody" }}]
        [[journey]]
        name = "waits"
        step = [{{ name = "ask", request = "system", path = "/0" }}, {{ name = "wait", pause = "1s" }}]
        [[journey]]
        name = "cannot"
        step = [{{ exec = ["true"] }}]
        "#,
        target.url()
    );
    scratch.write("journeyman.toml", &text);
}

async fn once(directory: &Path, arguments: &[&str]) -> crate::support::command::Ended {
    journeyman(directory, &[&["once", "--config", "journeyman.toml"], arguments].concat()).await
}

#[test]
fn several_run_at_once_and_the_worst_decides() {
    block_on(async {
        let target = Target::start(2).await;
        target.set(1, Mode::Fails);
        let scratch = Scratch::new("once-several");
        configured(&scratch, &target);
        let both = once(scratch.path(), &["well", "fails", "well"]).await;
        assert_eq!(both.code, 2, "{both:#?}");
        assert!(
            both.stdout.contains("well  good in ") && both.stdout.contains("fails  failed (rejected)"),
            "{both:#?}"
        );
        assert!(both.stdout.ends_with("1 good, 1 failed\n"), "{both:#?}");
        assert!(!both.stdout.contains('\u{1b}'), "this is no terminal: {both:#?}");

        assert_eq!(once(scratch.path(), &["well", "cannot"]).await.code, 3, "nobody can tell");
        assert_eq!(once(scratch.path(), &["fails", "cannot"]).await.code, 2, "that something failed says more");

        let all = once(scratch.path(), &["--all", "--format", "json"]).await;
        let list: Value = serde_json::from_str(&all.stdout).unwrap();
        let verdicts: Vec<_> =
            list.as_array().unwrap().iter().map(|run| (&run["journey"], &run["outcome"]["outcome"])).collect();
        let expected = ["well", "fails", "away", "waits", "cannot"].map(|name| json!(name));
        assert_eq!(
            verdicts.iter().map(|(journey, _)| (*journey).clone()).collect::<Vec<_>>(),
            expected,
            "in their order"
        );
        assert_eq!((verdicts[0].1, verdicts[1].1), (&json!("good"), &json!("failed")));
        let one = once(scratch.path(), &["well", "--format", "json"]).await;
        let one: Value = serde_json::from_str(&one.stdout).unwrap();
        assert_eq!(one["journey"], "well", "who names one gets one");

        for (arguments, why) in [
            (&[][..], "name a journey, or say --all; there are: well, fails, away, waits, cannot"),
            (&["wel"][..], "no journey is named `wel`; did you mean `well`?"),
            (&["well", "--all"][..], "cannot be used with"),
            (&["well", "--output", "x.xml"][..], "`--output` is for `--format json` and `--format junit`"),
        ] {
            let refused = once(scratch.path(), arguments).await;
            assert!(refused.code == 64 && refused.stderr.contains(why), "{arguments:?}: {refused:#?}");
        }
    });
}

/// What a parser of XML makes of a report: for each case its class, name, and what is in it.
const READ: &str = "
import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
print(root.tag, *(root.get(key) for key in ('tests', 'failures', 'errors', 'skipped')))
for suite in root:
    print(suite.tag, *(suite.get(key) for key in ('name', 'tests', 'failures', 'errors', 'skipped')))
    for case in suite.iter('testcase'):
        ends = ['%s %s' % (end.tag, end.get('type') or '') for end in case]
        print(' ', case.get('classname'), '|', case.get('name'), '|', *ends)
";

#[test]
fn ci_systems_read_the_report() {
    block_on(async {
        let target = Target::start(2).await;
        target.set(1, Mode::Fails);
        let scratch = Scratch::new("once-junit");
        configured(&scratch, &target);
        let ended =
            once(scratch.path(), &["well", "fails", "away", "--format", "junit", "--output", "report.xml"]).await;
        assert_eq!(ended.code, 2, "{ended:#?}");
        assert!(ended.stdout.contains("well  good in "), "people read the waterfalls all the same: {ended:#?}");
        let mut python = Command::new("python3");
        python.args(["-c", READ, "report.xml"]).current_dir(scratch.path());
        let read = run(python).await;
        let expected = "\
testsuites 6 2 0 1
testsuite well 2 0 0 0
  well | ask |
  well.ask | status equals 204 |
testsuite fails 3 1 0 1
  fails | ask |
  fails.ask | <a> & \"b\" (status equals 204) | failure rejected
  fails | after | skipped 
testsuite away 1 1 0 0
  away | ask | failure unreachable
";
        assert_eq!(read.stdout.replace(" \n", "\n"), expected.replace(" \n", "\n"), "{}", read.stderr);
        let piped = once(scratch.path(), &["well", "--format", "junit"]).await;
        assert!(
            piped.code == 0 && piped.stdout.starts_with("<?xml ") && piped.stdout.ends_with("</testsuites>\n"),
            "{piped:#?}"
        );
    });
}

#[test]
fn on_a_terminal_the_waterfall_grows() {
    let Some(script) = server_binary("script", "bsdutils") else { return };
    block_on(async {
        let target = Target::start(1).await;
        let scratch = Scratch::new("once-live");
        configured(&scratch, &target);
        let mut command = Command::new(script);
        let program = format!("{} once waits --config journeyman.toml", env!("CARGO_BIN_EXE_journeyman"));
        command.args(["--quiet", "--return", "--command", &program, "/dev/null"]).current_dir(scratch.path());
        let shown = run(command).await;
        assert_eq!(shown.code, 0, "{shown:#?}");
        let grown = shown.stdout.matches("▸ wait ").count();
        assert!(grown >= 3, "drawn {grown} times: {shown:#?}");
        let (_, last) = shown.stdout.rsplit_once("\u{1b}[J").expect("what was drawn is wiped off");
        assert!(
            last.contains("waits  \u{1b}[32mgood in ") && last.contains("✓\u{1b}[0m wait ") && !last.contains('▸'),
            "{last:?}"
        );
    });
}
