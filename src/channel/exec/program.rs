//! A program under way, and everything that it starts: read while it runs, ended when its time is over, and never left behind.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::output::Kept;
use crate::clock::Clock;
use crate::time::Now;

/// How long output may still come after the program has ended: what it wrote is in the pipe by then, and only a child of its
/// own that goes on can keep the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How often we look whether a group that was told to end has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long the kernel may take to end what was killed.
const BURIAL: Duration = Duration::from_secs(1);
/// Read at once.
const PIECE: usize = 16 * 1024;

/// A program that was started.
pub(crate) struct Program {
    // Dropped first: what is left of the group must not outlive us.
    group: Group,
    child: Child,
    out: Reading<ChildStdout>,
    err: Reading<ChildStderr>,
}

/// What became of a program.
pub(crate) struct Told {
    /// How it ended; `None` if it has not, and its time is over.
    pub(crate) status: Option<ExitStatus>,
    /// When.
    pub(crate) at: Now,
    /// What it printed.
    pub(crate) stdout: Vec<u8>,
    /// And complained.
    pub(crate) stderr: Vec<u8>,
    /// Whether some of that was left out.
    pub(crate) is_cut: bool,
}

impl Program {
    /// Starts it in a process group of its own, and keeps at most `most` bytes of each of its outputs.
    pub(crate) fn start(command: &mut Command, most: usize) -> io::Result<Program> {
        let mut child = command.process_group(0).spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = Group { id: id.ok_or_else(|| io::Error::other("it has no process id"))?, is_gone: false };
        let out = Reading { from: child.stdout.take(), kept: Kept::new(most) };
        let err = Reading { from: child.stderr.take(), kept: Kept::new(most) };
        Ok(Program { group, child, out, err })
    }

    /// Stays with it to its end: answers when it has ended or at `until`, and sees to it that nothing of it goes on after that,
    /// or after nobody wants the answer any more.
    pub(crate) async fn supervise(
        mut self,
        until: Instant,
        grace: Duration,
        clock: Clock,
        mut answer: oneshot::Sender<io::Result<Told>>,
    ) {
        let ended = tokio::select! {
            biased;
            ended = self.run(clock) => Some(ended.map(|(status, at)| self.told(Some(status), at))),
            () = sleep_until(until) => Some(Ok(self.told(None, clock.now()))),
            () = answer.closed() => None,
        };
        if let Some(told) = ended {
            // Nobody waits for it if the run was cut at this very moment.
            let _ = answer.send(told);
        }
        self.end(grace).await;
    }

    /// Reads until it has ended.
    async fn run(&mut self, clock: Clock) -> io::Result<(ExitStatus, Now)> {
        let Program { child, out, err, .. } = self;
        let mut reading = std::pin::pin!(async { tokio::join!(out.read(), err.read()) });
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status?,
                _ = &mut reading, if !is_read => is_read = true,
            }
        };
        let at = clock.now();
        if !is_read {
            let _ = timeout(LAST_WORDS, reading).await;
        }
        Ok((status, at))
    }

    fn told(&self, status: Option<ExitStatus>, at: Now) -> Told {
        let (stdout, stderr) = (self.out.kept.bytes(), self.err.kept.bytes());
        Told { status, at, stdout, stderr, is_cut: self.out.kept.is_cut() || self.err.kept.is_cut() }
    }

    /// Asks whatever is left of the group to end, and ends it if it has not after `grace`. Its output is read on, so that no
    /// last word blocks it.
    async fn end(mut self, grace: Duration) {
        let Program { group, child, out, err } = &mut self;
        group.signal(Signal::TERM);
        let gone = async {
            loop {
                // Until it is waited for, a dead child still counts as one of its group.
                let _ = child.try_wait();
                if group.is_gone() {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        let reading = async {
            tokio::join!(out.read(), err.read());
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = gone => return,
            () = sleep(grace) => {}
            () = reading => {}
        }
        group.signal(Signal::KILL);
        let _ = timeout(BURIAL, child.wait()).await;
    }
}

/// One of its outputs.
struct Reading<R> {
    /// `None` from its end on.
    from: Option<R>,
    kept: Kept,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    /// Up to its end.
    async fn read(&mut self) {
        let mut piece = vec![0; PIECE];
        while let Some(from) = &mut self.from {
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => self.from = None,
                Ok(length) => self.kept.push(&piece[..length]),
            }
        }
    }
}

/// A process group. Whatever is in it when this goes is killed.
struct Group {
    id: Pid,
    /// Nobody is in it any more, so that its number may become somebody else's.
    is_gone: bool,
}

impl Group {
    fn signal(&mut self, signal: Signal) {
        if self.is_gone {
            return;
        }
        match kill_process_group(self.id, signal) {
            Ok(()) => {}
            Err(Errno::SRCH) => self.is_gone = true,
            // Another user's: a program that changed its user is out of our reach.
            Err(error) => tracing::warn!(group = self.id.as_raw_pid(), %error, "a program cannot be ended"),
        }
    }

    fn is_gone(&mut self) -> bool {
        self.is_gone = self.is_gone || test_kill_process_group(self.id) == Err(Errno::SRCH);
        self.is_gone
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
