//! The `journeyman` command: arguments, configuration, log, runtime, and the exit code.
//!
//! In the library and not in `main.rs`, because a future is compiled where it is polled: the whole daemon was compiled a second time
//! for the program.

mod check;
mod experiment;
mod once;
mod write;

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::app::Source;
use crate::cli::ask::Daemon;
use crate::cli::dashboards::dashboards;
use crate::cli::drill::drill;
use crate::cli::explain::{self, Telling};
use crate::cli::proxy::proxy;
use crate::cli::reload::reload;
use crate::cli::replay::print_replay;
use crate::cli::rerun::rerun;
use crate::cli::{
    Arguments, AskArguments, Command, ConfigArgument, Format, Notify, SchemaOf, breaker, cluster, control, pause,
    print_objectives, print_slo, progress, runs, status,
};
use crate::clock::Clock;
use crate::config::places::Places;
use crate::config::{Plan, Problem, schema};
use crate::exit::{self, Failure};
use crate::text::{takes_colour, visible};
use crate::{app, config, health, log, tls};
use clap::Parser;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Does what the arguments of the process say.
pub fn main() -> ExitCode {
    tls::init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors, and go to where they were asked for.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match act(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("journeyman: {}", visible(&failure.to_string()));
            ExitCode::from(failure.code)
        }
    }
}

fn act(arguments: Arguments) -> Result<u8, Failure> {
    match arguments.command.unwrap_or(Command::Run(ConfigArgument::default())) {
        Command::Run(from) => {
            let plan = load(&from)?;
            log::init(&plan.log.level, plan.log.json, &plan.redactor);
            experiment::warn_of_cuts(&plan, &from.config);
            let source = Some(Source { path: from.config, is_watched: plan.reload_on_change });
            block_on(async |stop| Box::pin(app::run(plan, source, Clock::system(), stop, |_| {})).await.map(|()| 0))
        }
        Command::Check { config: from, connect, strict, format } => check::check(&from, connect, strict, format),
        Command::Status(asked) => {
            let daemon = running(&asked.asking.config)?;
            block_on(async |stop| status::status(&daemon, &asked, Clock::system(), stop).await)?;
            Ok(0)
        }
        Command::Runs(asked) => {
            let plan = quietly(&asked.config)?;
            let (verdicts, now) = (asked.outcome.clone(), Clock::system().now().wall);
            let rows = app::runs::find(&plan, &asked.journey, verdicts, asked.since, asked.limit, now)?;
            say(&runs::print_runs(&asked.journey, &rows, asked.format))?;
            Ok(0)
        }
        Command::Cluster { config: from, format } => {
            let plan = quietly(&from)?;
            say(&cluster::print_cluster(&app::cluster::look(&plan)?, format))?;
            Ok(0)
        }
        Command::Init(asked) => write::init(&asked),
        Command::Import { what, format } => write::import(what, format),
        Command::Completions { shell } => write::completions(shell),
        Command::Man { dir } => write::man(dir.as_deref()),
        Command::Schema { of } => {
            say(if of == SchemaOf::Daemon { schema::DAEMON } else { schema::PROBES })?;
            Ok(0)
        }
        Command::Once(asked) => once::once(&asked),
        Command::Slo { journeys, config: from, format } => {
            let plan = quietly(&from)?;
            log::init("warn", false, &plan.redactor);
            let chosen = app::slo::chosen(&plan, &journeys)?;
            let text = match print_objectives(chosen.iter().copied(), format) {
                Some(text) => text,
                None => {
                    let now = Clock::system().now().wall;
                    let read = |seen: &mut dyn FnMut(f64)| app::slo::read(&plan, &chosen, now, seen);
                    print_slo(&progress::beside("reading runs", Clock::system(), read)?, format, now)
                }
            };
            say(&text)?;
            Ok(0)
        }
        Command::Explain { run, config: from, format } => {
            let (plan, places) = with_places(&from)?;
            let story = app::explain::find(&plan, &run)?;
            let color = takes_colour(&std::io::stdout());
            let telling = Telling { plan: &plan, places: &places, now: Clock::system().now().wall, color };
            say(&explain::explain(&story, &telling, format))?;
            Ok(0)
        }
        Command::Dashboards { folder, format } => say(&write::list(&dashboards(&folder)?, format)).map(|()| 0),
        Command::Demo { exit } => block_on(async |stop| Box::pin(app::demo::run(stop, exit)).await.map(|()| 0)),
        Command::Incidents { all, asking } => tell(&asking, async |daemon| {
            control::incidents(daemon, all, asking.format, Clock::system().now().wall).await
        }),
        Command::Ack(asked) => tell(&asked.asking, async |daemon| {
            control::acknowledge(daemon, &asked, &who(&asked.by), asked.asking.format).await
        }),
        Command::Unack { incident, by, asking } => {
            tell(&asking, async |daemon| control::unacknowledge(daemon, &incident, &who(&by), asking.format).await)
        }
        Command::Silence(asked) => tell(&asked.asking, async |daemon| {
            control::silence(daemon, &asked, &who(&asked.by), asked.asking.format).await
        }),
        Command::Pause(asked) => {
            tell(&asked.asking, async |daemon| pause::pause(daemon, &asked, &who(&asked.by), asked.asking.format).await)
        }
        Command::Resume { journeys, asking } => {
            tell(&asking, async |daemon| pause::resume(daemon, &journeys, asking.format).await)
        }
        Command::Silences(asking) => tell(&asking, async |daemon| control::silences(daemon, asking.format).await),
        Command::Unsilence { id, asking } => {
            tell(&asking, async |daemon| control::unsilence(daemon, &id, asking.format).await)
        }
        Command::Reload(asking) => {
            // Where the daemon is, is said by the files that it is to read: one look shows whether they are in order.
            if let Err(failure) = load(&asking.config) {
                let file = asking.config.config.display();
                let said = format!("{file} was not accepted; the daemon was not asked, and goes on as it was");
                return Err(Failure::new(failure.code, said));
            }
            tell(&asking, async |daemon| reload(daemon, asking.format).await)
        }
        Command::Breaker(asked) => tell(&asked.asking, async |daemon| {
            breaker::breaker(daemon, &asked, &who(&asked.by), asked.asking.format).await
        }),
        Command::Rerun(asked) => {
            ask(&asked.asking, async |daemon| rerun(daemon, &asked, &who(&asked.by), Clock::system()).await)
        }
        Command::Drill(asked) => ask(&asked.asking, async |daemon| {
            let seen = |said: &str| eprintln!("{}", visible(said));
            drill(daemon, &asked, &who(&asked.by), Clock::system(), seen).await
        }),
        Command::Notify(what) => notify(what),
        Command::Replay { config: from, policy, from: length, journey, format } => {
            let plan = quietly(&from)?;
            let changed =
                policy.map(|policy| report(config::load_instead(&from.config, &policy), &policy)).transpose()?;
            let changed = changed.as_ref().map(|plan| &*plan.journeys);
            let clock = Clock::system();
            let now = clock.now().wall;
            let work = |seen: &mut dyn FnMut(f64)| app::replay::replay(&plan, changed, &journey, length, now, seen);
            say(&print_replay(&progress::beside("replaying", clock, work)?, format))?;
            Ok(0)
        }
        Command::Proxy(asked) => block_on(async |stop| proxy(&asked, Clock::system(), stop).await.map(|()| 0)),
        Command::Experiment(asked) => experiment::run(&asked),
        Command::Health { config: from, format } => is_ready(&from, format),
    }
}

/// Asks the running daemon for what works or fails.
fn tell(asking: &AskArguments, question: impl AsyncFnOnce(&Daemon) -> Result<String, Failure>) -> Result<u8, Failure> {
    ask(asking, async |daemon| Ok((question(daemon).await?, 0)))
}

/// Asks the running daemon, and prints what came of it; gives the exit code for that.
fn ask(
    asking: &AskArguments,
    question: impl AsyncFnOnce(&Daemon) -> Result<(String, u8), Failure>,
) -> Result<u8, Failure> {
    let daemon = running(&asking.config)?;
    block_on(async |_| {
        let (text, code) = question(&daemon).await?;
        say(&text)?;
        Ok(code)
    })
}

/// The daemon that runs on this configuration.
fn running(from: &ConfigArgument) -> Result<Daemon, Failure> {
    Daemon::of(&quietly(from)?.http)
}

/// Prints. Nobody misses what a pipe does not take that its reader has closed; a disk that is full is another matter.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(exit::CANNOT_CREATE, format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

/// Who asks: who says so, or who is logged in.
#[expect(clippy::disallowed_methods, reason = "whose terminal it is, is no part of the configuration")]
fn who(by: &Option<String>) -> String {
    let login = || std::env::var("USER").ok().filter(|name| !name.trim().is_empty());
    by.clone().or_else(login).unwrap_or_else(|| "somebody at a terminal".to_owned())
}

fn notify(what: Notify) -> Result<u8, Failure> {
    match what {
        Notify::Preview { run, notifier, reason, out, config: from, format } => {
            let needs_plan = notifier.is_some() || run.is_some();
            let plan = needs_plan.then(|| quietly(&from)).transpose()?;
            let notification = app::preview::notice(plan.as_ref().zip(run.as_deref()), reason)?;
            let files = app::preview::preview(plan.as_ref().zip(notifier.as_deref()), notification, &out)?;
            say(&write::list(&files, format)).map(|()| 0)
        }
        Notify::Test { notifier, config: from, format } => {
            let plan = quietly(&from)?;
            log::init("error", false, &plan.redactor);
            let took = block_on(async |_| app::notify::test(&plan, &notifier, Clock::system()).await)?;
            say(&match format {
                Format::Json => format!("{:#}\n", json!(took)),
                Format::Text => visible(&took.to_string()).into_owned(),
            })?;
            Ok(0)
        }
    }
}

/// Whether the running daemon is ready: exits 0 or 1.
fn is_ready(from: &ConfigArgument, format: Format) -> Result<u8, Failure> {
    let http = quietly(from)?.http;
    let ask = async |_| Ok(health::ready(http.listen, http.web_config.as_deref(), http.admin_token.as_ref()).await);
    let ready = block_on(ask)?;
    match (format, &ready) {
        (Format::Json, _) => say(&format!("{:#}\n", json!({ "ready": ready.is_ok(), "why": ready.as_ref().err() })))?,
        (Format::Text, Err(why)) => eprintln!("not ready: {}", visible(why)),
        (Format::Text, Ok(())) => {}
    }
    Ok(u8::from(ready.is_err()))
}

/// Loads the plan; warnings go to the terminal, and errors are the failure.
fn load(from: &ConfigArgument) -> Result<Plan, Failure> {
    report(config::load(&from.config), &from.config)
}

/// As [`load`], without the warnings: they were told when the daemon started.
fn quietly(from: &ConfigArgument) -> Result<Plan, Failure> {
    config::load(&from.config).map(|(plan, _)| plan).map_err(|problems| refused(&problems, &from.config))
}

/// As [`quietly`], with where journeys were written.
fn with_places(from: &ConfigArgument) -> Result<(Plan, Places), Failure> {
    let loaded = config::places::load_with_places(&from.config);
    loaded.map(|(plan, places, _)| (plan, places)).map_err(|problems| refused(&problems, &from.config))
}

/// The plan of a load from this file, as [`load`] gives it.
fn report(loaded: Result<(Plan, Vec<Problem>), Vec<Problem>>, file: &Path) -> Result<Plan, Failure> {
    let (plan, warnings) = loaded.map_err(|problems| refused(&problems, file))?;
    tell_problems(&warnings);
    Ok(plan)
}

fn refused(problems: &[Problem], file: &Path) -> Failure {
    tell_problems(problems);
    Failure::new(exit::CONFIG, format!("{} was not accepted; nothing was done", file.display()))
}

fn tell_problems(problems: &[Problem]) {
    if !problems.is_empty() {
        eprint!("{}", config::render(problems, takes_colour(&std::io::stderr())));
    }
}

/// Runs on a runtime of its own, with a token that the first SIGTERM or SIGINT cancels. The second ends the process at once.
fn block_on<T>(work: impl AsyncFnOnce(CancellationToken) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the signal handler lives as long as the process")]
        tokio::spawn(heed_signals(stop.clone()));
        work(stop).await
    })
}

async fn heed_signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        tracing::error!("signals cannot be heeded; only SIGKILL will stop this process");
        return;
    };
    let mut next = async || {
        loop {
            tokio::select! {
                _ = terminate.recv() => return 128 + 15,
                _ = interrupt.recv() => return 128 + 2,
                // Its default is to end the process, and who sends it means anything but that. The daemon heeds it by itself.
                _ = hangup.recv() => {}
            }
        }
    };
    next().await;
    stop.cancel();
    let code = next().await;
    #[expect(clippy::disallowed_methods, reason = "a second signal means at once")]
    std::process::exit(code);
}
