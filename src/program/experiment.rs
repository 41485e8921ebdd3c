//! `journeyman experiment`: what is asked of a person, what is seen while it goes, and where its report goes.

use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::app::experiment::{Onlooker, Standing, Wanted, annotate, experiment, left_cut, undo};
use crate::cli::Format;
use crate::cli::experiment::live::{self, Sight};
use crate::cli::experiment::{ExperimentArguments, html, print_report};
use crate::clock::Clock;
use crate::config::{self, Plan};
use crate::exit::{self, Failure};
use crate::experiment::report::Report;
use crate::log;
use crate::program::{block_on, quietly, refused, say, tell_problems};
use crate::text::visible_line;

/// Does the experiment; the exit code says what it came to.
pub(super) fn run(asked: &ExperimentArguments) -> Result<u8, Failure> {
    let plan = quietly(&asked.config)?;
    log::init("warn", false, &plan.redactor);
    let clock = Clock::system();
    let watcher = Watcher::new(asked.yes);
    let Some(file) = &asked.file else {
        let count = block_on(async |_| undo(&plan, &asked.config.config, &watcher, clock).await)?;
        if count == 0 {
            eprintln!("nothing was left cut");
        }
        return Ok(0);
    };
    let loaded = config::experiment::load(file, &plan);
    let (wanted, warnings) = loaded.map_err(|problems| refused(&problems, file))?;
    tell_problems(&warnings);
    let target = wanted.target(asked.target.as_deref()).map_err(|why| Failure::new(exit::USAGE, why))?;
    let asks = wanted.script.phases.iter().any(|phase| phase.asks);
    if asks && !asked.yes && !std::io::stdin().is_terminal() {
        let why = "a phase waits for a hand on the switch, and nobody is at a terminal: --yes goes on without";
        return Err(Failure::new(exit::USAGE, why));
    }
    // That it cannot be read is better known before anything is cut.
    let before = asked.compare.as_deref().map(read).transpose()?;
    let grafana = asked.grafana.as_ref();
    if grafana.is_some() && wanted.grafana_token.is_none() {
        let why = "`--grafana` needs `[grafana]` with `token = { file = \"…\" }` in the experiment; nothing was done";
        return Err(Failure::new(exit::CONFIG, why));
    }
    let (report, noted) = block_on(async |stop| {
        let around = Wanted { config: &asked.config.config, file, target, onlooker: &watcher };
        let report = experiment(plan, &wanted, around, clock, stop).await?;
        let noted = match grafana {
            Some(url) => annotate(&wanted, url, &report).await.map(Some),
            None => Ok(None),
        };
        Ok((report, noted))
    })?;
    watcher.wipe();
    say(&print_report(&report, before.as_ref(), asked.format))?;
    if let Some(path) = &asked.json {
        write(path, &print_report(&report, before.as_ref(), Format::Json))?;
    }
    if let Some(path) = &asked.html {
        write(path, &html::page(&report, before.as_ref()))?;
    }
    if let (Some(count), Some(url)) = (noted?, grafana) {
        eprintln!("{count} parts are noted in {url}");
    }
    Ok(report.ending.exit_code())
}

/// Says that an experiment was left cut, if one was: whoever starts the daemon would take that for an outage.
pub(super) fn warn_of_cuts(plan: &Plan, config: &Path) {
    for cut in left_cut(plan, config) {
        tracing::warn!(cut, "an experiment was left cut");
    }
}

fn read(path: &Path) -> Result<Report, Failure> {
    let no = |code, why: String| Failure::new(code, format!("cannot compare with {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| no(exit::NO_INPUT, error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| no(exit::DATA, format!("it is no report of an experiment: {error}")))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}", path.display())))
}

/// Shows the experiment on standard error: drawn in place on a terminal, a line for each thing that happens elsewhere.
struct Watcher {
    says_yes: bool,
    is_terminal: bool,
    /// How many lines are drawn.
    drawn: Mutex<usize>,
}

impl Watcher {
    fn new(says_yes: bool) -> Watcher {
        Watcher { says_yes, is_terminal: std::io::stderr().is_terminal(), drawn: Mutex::new(0) }
    }

    /// A terminal that is gone needs no picture.
    fn print(&self, drawn: usize, text: &str) {
        let mut lines = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        *lines = drawn;
    }

    fn lines(&self) -> usize {
        *self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wipe(&self) {
        self.print(0, &live::wipe(self.lines()));
    }
}

/// A line that somebody types; `None` if nobody will. Its thread waits for that even if nobody wants it any more, which must keep
/// nothing else from ending.
async fn line() -> Option<String> {
    let (typed, heard) = oneshot::channel();
    let read = move || {
        let line = std::io::stdin().lines().next().and_then(Result::ok);
        // It may not be wanted any more.
        let _ = typed.send(line);
    };
    let thread = std::thread::Builder::new().name("switch".to_owned()).spawn(read);
    if thread.is_err() { None } else { heard.await.ok().flatten() }
}

impl Onlooker for Watcher {
    fn told(&self, line: &str) {
        self.print(0, &format!("{}{}\n", live::wipe(self.lines()), visible_line(line)));
    }

    fn seen(&self, standing: &Standing) {
        if self.is_terminal {
            let Standing { stage, since, in_stage, tally, lately } = standing;
            let sight = Sight { stage, since: *since, in_stage: *in_stage, tally, lately };
            let (text, lines) = live::draw(&sight, self.lines());
            self.print(lines, &text);
        }
    }

    fn ask<'a>(&'a self, what: &'a str) -> BoxFuture<'a, bool> {
        async move {
            if self.says_yes {
                self.told(&format!("{what} (--yes)"));
                return true;
            }
            self.told(&format!("{what}  [y, or n to end the experiment]"));
            loop {
                match line().await.as_deref().map(str::trim) {
                    Some("y" | "Y" | "yes") => return true,
                    Some("n" | "N" | "no") | None => return false,
                    Some(_) => self.told("y or n?"),
                }
            }
        }
        .boxed()
    }
}
