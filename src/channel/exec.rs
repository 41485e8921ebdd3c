//! Programs: existing scripts and plug-ins as steps. No shell, an environment of their own, and nothing of them left behind.
//!
//! Each program runs in a process group of its own, with a task beside it that this channel owns: when its time is over, or
//! the run that wanted it is, the group is told to end (TERM), and ended (KILL) if it has not after the grace.

mod output;
pub(crate) mod program;
mod verdict;

#[cfg(any(test, fuzzing))]
pub(crate) use verdict::fuzz;

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::channel::exec::program::{Program, Told};
use crate::channel::exec::verdict::Verdict;
use crate::channel::refusal::Refusal;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;
use crate::secret::HeaderText;
use crate::time::{Human, Now, later};

/// Settings of the `exec` channel.
#[derive(Clone, Debug)]
pub struct ExecSettings {
    /// Where programs run; relative names of programs and files are meant from here.
    pub directory: PathBuf,
    /// The environment that programs have beside the `JOURNEYMAN_…` variables, and no other.
    pub env: Vec<(String, HeaderText)>,
    /// So many bytes of standard output, and of standard error, are kept: one half from the beginning, one from the end.
    pub max_output: usize,
    /// From TERM to KILL.
    pub grace: Duration,
}

/// The `exec` channel.
pub struct Exec {
    settings: ExecSettings,
    clock: Clock,
    /// One task beside each program; what is left of them ends with the channel.
    programs: Mutex<JoinSet<()>>,
}

impl Exec {
    /// Opens the channel. Nothing is run before a step asks for it.
    pub fn open(settings: ExecSettings, clock: Clock) -> Exec {
        Exec { settings, clock, programs: Mutex::default() }
    }

    /// Runs a program to its end, or to the end of its time.
    async fn run(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let name = outgoing.command.first().map_or("", String::as_str);
        let started = self.clock.now();
        let mut command = self.command(name, outgoing, started);
        let program = Program::start(&mut command, self.settings.max_output).map_err(|error| {
            let refusal = Refusal::new(Cause::Exec, self.why_not(name, &error));
            refusal.into_fault(started, self.clock.now(), Vec::new())
        })?;
        let running = self.clock.now();
        let until = self.clock.instant(started.mono + outgoing.timeout);
        let (answer, answered) = oneshot::channel();
        {
            let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
            while programs.try_join_next().is_some() {}
            programs.spawn(program.supervise(until, self.settings.grace, self.clock, answer));
        }
        let lost = |why: &dyn std::fmt::Display| {
            let refusal = Refusal::new(Cause::Exec, format!("`{name}` was started, and lost sight of: {why}"));
            refusal.into_fault(started, self.clock.now(), Vec::new())
        };
        let told = answered.await.map_err(|error| lost(&error))?.map_err(|error| lost(&error))?;
        let phases = vec![
            Phase { name: "start".to_owned(), took: running.mono.since(started.mono) },
            Phase { name: "run".to_owned(), took: told.at.mono.since(running.mono) },
        ];
        match told.status {
            Some(_) => Ok(reply(told, started, phases)),
            None => Err(out_of_time(name, &told, outgoing.timeout).into_fault(started, told.at, phases)),
        }
    }

    fn command(&self, name: &str, outgoing: &Outgoing, now: Now) -> Command {
        let deadline = later(now.wall, outgoing.timeout);
        let seconds = outgoing.timeout.as_secs().max(1);
        let mut command = Command::new(name);
        command
            .args(outgoing.command.iter().skip(1))
            .current_dir(&self.settings.directory)
            .env_clear()
            .envs(self.settings.env.iter().map(|(name, value)| (name, value.reveal().to_string())))
            .env("JOURNEYMAN_TOKEN", outgoing.token.to_string())
            .env("JOURNEYMAN_TRACEPARENT", outgoing.token.traceparent())
            .env("JOURNEYMAN_DEADLINE", format!("{deadline:.3}"))
            .env("JOURNEYMAN_TIMEOUT_SECONDS", seconds.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Why a program did not start.
    fn why_not(&self, name: &str, error: &io::Error) -> String {
        let directory = self.settings.directory.display();
        match error.kind() {
            io::ErrorKind::NotFound if !self.settings.directory.is_dir() => {
                format!("cannot start `{name}`: there is no directory {directory} to run it in")
            }
            io::ErrorKind::NotFound if name.contains('/') => {
                format!(
                    "cannot start `{name}`: there is no such program, seen from {directory}, or none that its first line names"
                )
            }
            io::ErrorKind::NotFound => {
                format!("cannot start `{name}`: no directory in PATH has a program of this name")
            }
            io::ErrorKind::PermissionDenied => {
                format!("cannot start `{name}`: we may not run it; is it executable (`chmod +x`), for our user too?")
            }
            _ => format!("cannot start `{name}`: {error}"),
        }
    }
}

fn reply(told: Told, started: Now, phases: Vec<Phase>) -> Reply {
    let Told { status, at, stdout, stderr, is_cut } = told;
    let Verdict { mut message, words, latency } = verdict::read(status.unwrap_or_default(), stdout, &stderr);
    if is_cut {
        message.facts.insert("truncated", Value::Bool(true));
    }
    // What a program measured itself is the end of the time that it took, and never more than that.
    let took = at.mono.since(started.mono);
    let started = match latency.filter(|latency| *latency < took) {
        Some(latency) => Now { wall: started.wall_at(at.mono - latency), mono: at.mono - latency },
        None => started,
    };
    Reply { started, finished: at, ack: words, message: Some(message), phases }
}

/// It may have done what it was to do.
fn out_of_time(name: &str, told: &Told, limit: Duration) -> Refusal {
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(crate::journey::expect::cut)
    };
    let said = last(&told.stdout).or_else(|| last(&told.stderr));
    let said = said.map_or_else(|| "it had printed nothing".to_owned(), |said| format!("its last line was: {said}"));
    let detail = format!("`{name}` did not end within {} and was told to; {said}", Human(limit));
    Refusal { cause: Cause::Exec, detail, is_verdict: false }
}

impl Channel for Exec {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.run(outgoing))
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "there is nothing to check here; use an `exec`"))))
    }

    /// Which programs there are is the steps' business; here is where they run.
    fn prove<'a>(&'a self, _limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        let directory = self.settings.directory.display();
        Box::pin(std::future::ready(if self.settings.directory.is_dir() {
            Ok(format!("programs run in {directory}"))
        } else {
            Err(cannot(self.clock, &format!("there is no directory {directory} to run programs in")))
        }))
    }

    /// A program is asked, it does not call: nothing arrives here.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { listener.stop.cancelled().await })
    }
}
