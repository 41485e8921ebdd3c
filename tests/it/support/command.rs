//! The real program, run to its end: exit code, what it prints, what it says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The longest that one invocation may take.
const BOUND: Duration = Duration::from_secs(120);

/// What an invocation came to.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; 128 + n if signal n ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `journeyman` with these arguments in `directory`.
pub async fn journeyman(directory: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_journeyman"));
    command.args(arguments).current_dir(directory);
    run(command).await
}

/// Runs `command` to its end; panics, and ends it, if it does not end by itself.
pub async fn run(mut command: Command) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(BOUND, command.output()).await {
        Ok(output) => output.unwrap_or_else(|error| panic!("{command:?} does not start: {error}")),
        Err(_) => panic!("{command:?} did not end within {BOUND:?}"),
    };
    let status = output.status;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ended {
        code: code.expect("it has ended"),
        stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("it says UTF-8"),
    }
}
