//! docs/command-line.md: what it shows is what is printed, but for times, numbers and names that are made up anew.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use tokio::process::Command;

use crate::support::command::run;
use crate::support::daemon::Setup;
use crate::support::document::{adapt, toml_blocks};
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const PAGE: &str = "docs/command-line.md";
const BOUND: Duration = Duration::from_secs(25);

/// What differs from one run to the next, and what stands for it.
static VOLATILE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let list = [
        (r"jm[0-9a-z]{26}", "RUN"),
        (r"\b[0-9a-f]{32}\b", "TRACE"),
        (r"\b(test)?[0-9a-f]{8}([0-9a-f]{4})?\b", "ID"),
        (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b", "DAY"),
        (r"▕[^▏]*▏", "BAR"),
        (r"\d+(\.\d+)?(µs|ms|s|m|h|d)\b( ?\d+(ms|s|m|h)\b)*", "TIME"),
        // A connection that is there already is not made.
        (r"\(((connect|first_byte|body|dns) TIME(, )?)+\)", "(PARTS)"),
        (r"; it shows this run", ""),
        (r"\d+([.:]\d+)*", "N"),
        (r"\s+", " "),
    ];
    list.into_iter().map(|(pattern, stands)| (Regex::new(pattern).expect("a valid pattern"), stands)).collect()
});

fn steady(line: &str) -> String {
    let steady =
        VOLATILE.iter().fold(line.to_owned(), |line, (pattern, to)| pattern.replace_all(&line, *to).into_owned());
    steady.trim_end().to_owned()
}

/// The files that the page shows, by the name in their first line.
fn files(page: &str) -> Vec<(String, String)> {
    page.split("```yaml\n# ")
        .skip(1)
        .filter_map(|block| {
            let (name, rest) = block.split_once('\n')?;
            Some((name.to_owned(), rest.split_once("```")?.0.to_owned()))
        })
        .collect()
}

/// Runs a command of the page with what the shell makes of it.
async fn shell(directory: &Path, command: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_journeyman")).parent().expect("it is in a directory");
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(program.to_owned()).chain(std::env::split_paths(&others)));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{{ {command}; }} 2>&1")])
        .current_dir(directory)
        .env("PATH", path.expect("no colon in it"));
    run(shell).await.stdout
}

#[test]
fn every_command_of_the_page_prints_what_the_page_shows() {
    block_on(async {
        let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
        let target = Target::start(3).await;
        let setup = Setup::new("command-line");
        let blocks = toml_blocks(PAGE);
        let listen = setup.http_address().to_string();
        let people = format!("{}/2", target.url().replace("127.0.0.1", "localhost"));
        let real = [
            ("127.0.0.1:9464", listen.as_str()),
            ("http://127.0.0.1:8080", target.url()),
            ("http://localhost:8081/alerts", people.as_str()),
        ];
        setup.write("journeyman.toml", &adapt(&blocks[0], &real));
        setup.write(
            "shop.toml",
            &adapt(&blocks[1], &[("\"1m\"", "\"1s\""), ("\"30s\"", "\"1s\""), ("\"2s\"", "\"900ms\"")]),
        );
        setup.write("admin-token", "an-admin-token\n");
        for (name, text) in files(&page) {
            setup.write(&name, &text);
        }
        let directory = setup.directory().to_owned();
        std::os::unix::fs::symlink(".", directory.join("config")).unwrap();
        let daemon = setup.start_as_written().await;
        for journey in ["orders", "checkout"] {
            let good = [("journey", journey), ("outcome", "good")];
            wait_for("a good run", BOUND, async || {
                daemon.metric("journeyman_runs_total", &good).await.filter(|runs| *runs >= 1.0)
            })
            .await;
        }
        target.set(1, Mode::Fails);
        wait_for("a notice", BOUND, async || {
            let (_, told) = daemon.get("/api/v1/outbox?status=sent").await;
            told.contains("\"reason\":\"first\"").then_some(())
        })
        .await;

        let (mut made, mut faults, mut commands) = (String::new(), Vec::new(), 0);
        let mut lines = page.lines().peekable();
        let mut is_console = false;
        while let Some(line) = lines.next() {
            made += &format!("{line}\n");
            is_console = if is_console { line != "```" } else { line == "```console" };
            let Some(command) = line.strip_prefix("$ ").filter(|_| is_console) else { continue };
            commands += 1;
            let real = command.replace("http://127.0.0.1:8080", target.url());
            let printed = shell(&directory, &real).await.replace(target.url(), "http://127.0.0.1:8080");
            let mut shown = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ") && *line != "```") {
                shown.push(steady(line));
            }
            let steadily: Vec<_> = printed.lines().map(steady).collect();
            if steadily != shown {
                faults.push(format!("$ {command}\n{printed}"));
            }
            // What stays the same is not written anew for the sake of another duration.
            let is_same = steadily == shown;
            let keep = page.split_once(&format!("{line}\n")).filter(|_| is_same).map(|(_, rest)| rest);
            match keep {
                Some(rest) => rest.lines().take(shown.len()).for_each(|line| made += &format!("{line}\n")),
                None => printed.lines().for_each(|line| made += &format!("{}\n", line.trim_end())),
            }
        }
        assert!(commands >= 25, "{commands}");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), made).unwrap();
            return;
        }
        assert!(faults.is_empty(), "UPDATE_EXPECT=1 writes the page anew; it does not show\n{}", faults.join("\n"));
    });
}

/// Every verb has a row, and every exit code that the program has is in the table.
#[test]
fn every_verb_and_every_exit_code_is_on_the_page() {
    use clap::CommandFactory;
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let command = journeyman::cli::Arguments::command();
    for verb in command.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help") {
        assert!(page.contains(&format!("[`{verb}`](")), "{verb} has no row");
    }
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/exit.rs")).unwrap();
    let codes: Vec<_> = source.lines().filter_map(|line| line.split_once(": u8 = ")?.1.strip_suffix(';')).collect();
    assert!(codes.len() >= 10, "{codes:?}");
    for code in codes {
        assert!(page.contains(&format!("\n| {code} |")), "exit code {code} has no row");
    }
}
