//! What phases do to the world: commands, each in a process group of its own and with an end, and looks at what came of them.

use std::time::Duration;

use crate::clock::Clock;
use crate::config::experiment::{Look, LookAt};

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// One look takes no longer.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Whose commands they are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Where they run.
    pub(super) directory: std::path::PathBuf,
    /// The target, the experiment and the phase, as `JOURNEYMAN_TARGET` and so on.
    pub(super) target: String,
    pub(super) experiment: String,
    pub(super) phase: String,
}

/// Runs a command to its end: its last line is the answer.
///
/// # Errors
/// It cannot be started, did not end in time, or said no; in words.
#[cfg(feature = "exec")]
pub(super) async fn run(words: &[String], place: &Place, within: Duration, clock: Clock) -> Result<String, String> {
    use std::process::Stdio;

    use tokio::process::Command;
    use tokio::sync::oneshot;

    use crate::channel::exec::program::Program;
    use crate::time::Human;

    /// Of what it prints, so much is kept.
    const OUTPUT: usize = 16 * 1024;
    /// From TERM to KILL, for what is left of it.
    const GRACE: Duration = Duration::from_secs(1);
    let Some((name, arguments)) = words.split_first() else { return Err("there is no command".to_owned()) };
    let mut command = Command::new(name);
    command
        .args(arguments)
        .current_dir(&place.directory)
        .env("JOURNEYMAN_TARGET", &place.target)
        .env("JOURNEYMAN_EXPERIMENT", &place.experiment)
        .env("JOURNEYMAN_PHASE", &place.phase)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let directory = place.directory.display();
    let program = Program::start(&mut command, OUTPUT)
        .map_err(|error| format!("cannot start `{name}` in {directory}: {error}"))?;
    let until = clock.instant(clock.now().mono + within);
    let (answer, answered) = oneshot::channel();
    // Whoever drops this ends the program, and all that it has started.
    let ((), told) = tokio::join!(program.supervise(until, GRACE, clock, answer), answered);
    let told = told.map_err(|error| error.to_string())?.map_err(|error| format!("lost sight of `{name}`: {error}"))?;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(crate::journey::expect::cut);
        line.unwrap_or_default()
    };
    let said = if told.stderr.is_empty() { last(&told.stdout) } else { last(&told.stderr) };
    let with = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
    match told.status {
        Some(status) if status.success() => Ok(last(&told.stdout)),
        Some(status) => Err(with(format!("`{name}` ended with {status}"))),
        None => Err(with(format!("`{name}` did not end within {}", Human(within)))),
    }
}

/// As above, in a build that runs no programs.
///
/// # Errors
/// Always.
#[cfg(not(feature = "exec"))]
pub(super) async fn run(_: &[String], place: &Place, _: Duration, _: Clock) -> Result<String, String> {
    let Place { directory, target, experiment, phase } = place;
    let _ = (directory, target, experiment, phase);
    Err("this build runs no programs: it was built without the feature `exec`".to_owned())
}

/// Looks again and again until it is as wanted.
pub(super) async fn until(look: &Look, place: &Place, clock: Clock) {
    loop {
        if is_so(look, place, clock).await {
            return;
        }
        clock.sleep_until(clock.now().mono + LOOK_EVERY).await;
    }
}

async fn is_so(look: &Look, place: &Place, clock: Clock) -> bool {
    let limit = clock.sleep_until(clock.now().mono + LOOK_WITHIN);
    let is_there = async {
        match &look.at {
            LookAt::Run(words) => run(words, place, LOOK_WITHIN, clock).await.is_ok(),
            LookAt::Tcp(to) => tokio::net::TcpStream::connect(to.as_str()).await.is_ok(),
            LookAt::Http(url) => super::web::is_well(url).await,
        }
    };
    let is_there = tokio::select! {
        is_there = is_there => is_there,
        () = limit => false,
    };
    is_there != look.fails
}
