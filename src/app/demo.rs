//! `journeyman demo`: the daemon as it always is, on a sandbox instead of the world, with its story told in the terminal.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::app::{self, Started};
use crate::board::{Board, JourneyStatus};
use crate::clock::Clock;
use crate::config;
use crate::demo::{Sandbox, script};
use crate::exit::{self, Failure};
use crate::journey::Name;
use crate::journey::outcome::Outcome;
use crate::journey::report::waterfall;
use crate::journey::token::Token;
use crate::text::takes_colour;

/// Where the demo listens if nobody else does: the daemon's usual ports.
const USUAL: [u16; 2] = [9464, 9465];
/// Width of the bars in the terminal.
const BAR: usize = 28;

/// Runs the demo until `stop`, or with `ends` until its script has.
///
/// # Errors
/// No port, no temporary directory, or whatever keeps a daemon from running.
pub async fn run(stop: CancellationToken, ends: bool) -> Result<(), Failure> {
    let clock = Clock::system();
    let [http, hooks] = ports()?;
    let status = format!("http://127.0.0.1:{http}/");
    let sandbox = Sandbox::start(&format!("http://127.0.0.1:{hooks}"), Some(&status), clock)
        .await
        .map_err(|error| Failure::new(exit::UNAVAILABLE, format!("the sandbox cannot start: {error}")))?;
    let directory = Directory::new()?;
    let written = sandbox.configuration(&directory.0.join("state"), http, hooks).write(&directory.0);
    let main =
        written.map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("{}: {error}", directory.0.display())))?;
    let (plan, _) = config::load(&main).map_err(|problems| {
        Failure::new(exit::SOFTWARE, format!("the demo's own configuration:\n{}", config::render(&problems, false)))
    })?;
    crate::log::init("journeyman=warn,error", false, &plan.redactor);
    println!("{}", welcome(&status, &sandbox.inbox_url(), &main));
    let (board_out, board_in) = tokio::sync::oneshot::channel();
    let daemon_stop = stop.child_token();
    let daemon = app::run(plan, None, clock, daemon_stop.clone(), |started: Started| {
        // Whoever waits for it is the story below; it goes only when the demo does.
        let _ = board_out.send(started.board);
    });
    let story = async {
        let Ok(board) = board_in.await else { return };
        let told = tell(&board, clock);
        let acts = async {
            script(&sandbox, daemon_stop.clone(), |line| println!("\n── {line}\n")).await;
            if !ends {
                daemon_stop.cancelled().await;
            }
        };
        tokio::select! {
            () = told => {}
            () = acts => {}
        }
        daemon_stop.cancel();
    };
    let (result, ()) = tokio::join!(daemon, story);
    sandbox.stop().await;
    if result.is_ok() {
        println!("\nThat was the demo. The README's ten minutes lead to an alert about a path of your own.");
    }
    result
}

fn ports() -> Result<[u16; 2], Failure> {
    let port = |usual| {
        let bound =
            TcpListener::bind((Ipv4Addr::LOCALHOST, usual)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        bound.and_then(|listener| listener.local_addr()).map(|address| address.port())
    };
    match (port(USUAL[0]), port(USUAL[1])) {
        (Ok(http), Ok(hooks)) => Ok([http, hooks]),
        (Err(error), _) | (_, Err(error)) => {
            Err(Failure::new(exit::UNAVAILABLE, format!("no port is free on 127.0.0.1: {error}")))
        }
    }
}

fn welcome(status: &str, inbox: &str, main: &Path) -> String {
    format!(
        "Journeyman's demo: a sandbox SMS gateway, a shop, a mailbox and a chat workspace, all in this process,
spoken to over real HTTP and SMTP on this machine. The daemon is the one that `journeyman run` starts.

  status page    {status}
  alert inbox    {inbox}
  drills         {status}drills
  configuration  {}

Every run is one line below. In half a minute the gateway begins to lose messages. Once a minute an outage of the
order pipeline is rehearsed: within two minutes the page of drills has one that passed, and its mails say DRILL.
",
        main.display()
    )
}

/// Prints every run, and what people are told when an incident begins and ends.
async fn tell(board: &Arc<Board>, clock: Clock) {
    let mut changes = board.watch();
    let mut printed: HashMap<Name, (Option<Token>, bool)> = HashMap::new();
    loop {
        for status in board.journeys() {
            let before = printed.entry(status.journey.name.clone()).or_default();
            if let Some(last) = &status.last
                && before.0 != Some(last.token)
            {
                before.0 = Some(last.token);
                println!("{}  {}", clock.now().wall.strftime("%H:%M:%S"), run_line(&status));
            }
            let fires = status.phase.is_firing();
            if fires != before.1 {
                before.1 = fires;
                println!("{}", incident_text(&status, fires));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn run_line(status: &JourneyStatus) -> String {
    let Some(last) = &status.last else { return String::new() };
    let (mark, color) = match last.outcome {
        Outcome::Good { .. } => ("✓", "32"),
        Outcome::Slow { .. } => ("◔", "33"),
        Outcome::Failed { .. } => ("✗", "31"),
        Outcome::Unknown { .. } | Outcome::Excluded { .. } => ("?", "90"),
    };
    format!("{} {:<16} {}", paint(mark, color), status.journey.name, last.verdict_line())
}

fn incident_text(status: &JourneyStatus, fires: bool) -> String {
    let name = &status.journey.name;
    if !fires {
        let line = format!("▼ WELL AGAIN  {name}: told in the same message and thread, and by mail");
        return format!("\n{}\n", paint(&line, "1;32"));
    }
    let why = status.last.as_ref().map(|last| last.verdict_line()).unwrap_or_default();
    let line = format!("▲ ALERT  {name}: {why}");
    let drawn = status.last.as_ref().map(|last| waterfall(last, status.last_good.as_deref(), BAR)).unwrap_or_default();
    let drawn: String = drawn.lines().map(|line| format!("    {line}\n")).collect();
    format!("\n{}\n{drawn}    told by chat and by mail: see the alert inbox\n", paint(&line, "1;31"))
}

fn paint(text: &str, color: &str) -> String {
    if takes_colour(&std::io::stdout()) { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A directory for the demo's files, gone when the demo is.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Result<Directory, Failure> {
        let path = std::env::temp_dir().join(format!("journeyman-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("cannot make {}: {error}", path.display())))?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind, it is a few files in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
