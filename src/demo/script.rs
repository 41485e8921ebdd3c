//! What the demo does and when, and the board that tells it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::gateway::{Fault, Gateway};
use crate::clock::Clock;
use crate::time::{Mono, Now};

/// A part of the demo.
#[derive(Debug)]
pub struct Act {
    /// When it begins, after the demo's start.
    pub at: Duration,
    /// How the gateway behaves in it.
    pub fault: Fault,
    /// In a few words.
    pub name: &'static str,
    /// What is so in it, as a sentence that goes on with "since 12s".
    pub now: &'static str,
    /// What to expect.
    pub expect: &'static str,
}

/// The demo, in order. Told within two minutes: the journey that it is about runs every 2 s and gives up after 1.8 s, so two bad runs
/// in a row need at most 6 s, and two good ones at most 5 s. Each fault lasts long enough to read what was told before it is over.
pub const ACTS: &[Act] = &[
    Act {
        // Fifteen good runs: enough for a last good one to compare with, and for the pages to show something.
        at: Duration::ZERO,
        fault: Fault::None,
        name: "All is well",
        now: "Every message arrives",
        expect: "Three journeys run every few seconds. Nobody is told anything but a DRILL by mail, once a minute.",
    },
    Act {
        at: Duration::from_secs(30),
        fault: Fault::Drop,
        name: "Messages vanish",
        now: "The gateway accepts every SMS and delivers none",
        expect: "Its API still answers 202, so a health check would see nothing. Within 6 s: DOWN, in #alerts and by mail, \
                 with the step that failed.",
    },
    Act {
        // Twenty seconds: six until people are told, the rest to read it.
        at: Duration::from_secs(50),
        fault: Fault::None,
        name: "It heals",
        now: "The gateway delivers again",
        expect: "Within 6 s: WELL AGAIN. The same message in #alerts is edited, its thread tells the story.",
    },
    Act {
        // Twenty-five seconds after the healing, so that nobody takes the two incidents for one.
        at: Duration::from_secs(75),
        fault: Fault::Slow(SLOW),
        name: "Messages dawdle",
        now: "The gateway takes 1.4 s for each SMS",
        expect: "Everything arrives, but over the budget of 1 s. Within 7 s: SLOW, which is not DOWN.",
    },
    Act {
        at: Duration::from_secs(95),
        fault: Fault::None,
        name: "It is quick again",
        now: "The gateway is as quick as before",
        expect: "Within 6 s: WELL AGAIN.",
    },
    Act {
        at: Duration::from_secs(110),
        fault: Fault::None,
        name: "Over to you",
        now: "The script is over and everything goes on",
        expect: "Look around in the status pages. Ctrl-C ends the demo.",
    },
];

/// Over the budget of 1 s, and far enough from the deadline of 1.8 s that a busy machine does not make it a failure.
const SLOW: Duration = Duration::from_millis(1400);

/// Says what the demo does now and next.
#[derive(Debug)]
pub(super) struct Board {
    began: Mono,
    act: Mutex<usize>,
}

/// What the board says at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scene {
    /// Which act it is, as an index in [`ACTS`].
    pub(super) act: usize,
    /// How long it has been on.
    pub(super) since: Duration,
    /// How long until the next one.
    pub(super) next_in: Option<Duration>,
}

impl Board {
    /// A board at the beginning of the first act.
    pub(super) fn new(now: Now) -> Board {
        Board { began: now.mono, act: Mutex::new(0) }
    }

    /// What it says now.
    pub(super) fn scene(&self, now: Now) -> Scene {
        let act = *self.act.lock().unwrap_or_else(PoisonError::into_inner);
        let played = now.mono.since(self.began);
        let next_in = ACTS.get(act + 1).map(|next| next.at.saturating_sub(played));
        Scene { act, since: played.saturating_sub(ACTS[act].at), next_in }
    }

    fn enter(&self, act: usize) {
        *self.act.lock().unwrap_or_else(PoisonError::into_inner) = act;
    }
}

/// Plays the acts on `gateway`, from the board's beginning, and tells each through `say`. Returns after the last, or at `stop`.
pub(super) async fn play(gateway: &Gateway, board: &Board, clock: Clock, stop: CancellationToken, say: impl Fn(&str)) {
    for (index, act) in ACTS.iter().enumerate() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock.sleep_until(board.began + act.at) => {}
        }
        gateway.set_fault(act.fault);
        board.enter(index);
        let at = act.at.as_secs();
        say(&format!("{}:{:02}  {}. {}", at / 60, at % 60, act.now, act.expect));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use tokio_util::task::TaskTracker;

    use super::*;

    fn gateway() -> Arc<Gateway> {
        crate::tls::init();
        let keys = ["a".to_owned(), "b".to_owned()];
        Gateway::new(String::new(), keys, reqwest::Client::new(), TaskTracker::new(), CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn the_script_keeps_its_times_and_sets_its_faults() {
        let (gateway, clock) = (gateway(), Clock::derived(Timestamp::UNIX_EPOCH));
        let board = Board::new(clock.now());
        let told = Mutex::new(Vec::new());
        play(&gateway, &board, clock, CancellationToken::new(), |text| {
            let scene = board.scene(clock.now());
            told.lock().unwrap().push((clock.now().mono.0.as_secs(), gateway.fault(), scene.act));
            assert!(text.contains(ACTS[scene.act].now), "{text}");
        })
        .await;
        let expected = [
            (0, Fault::None, 0),
            (30, Fault::Drop, 1),
            (50, Fault::None, 2),
            (75, Fault::Slow(SLOW), 3),
            (95, Fault::None, 4),
            (110, Fault::None, 5),
        ];
        assert_eq!(*told.lock().unwrap(), expected);
        assert!(ACTS.last().unwrap().at < Duration::from_secs(120));
    }

    #[tokio::test(start_paused = true)]
    async fn the_board_counts_up_and_down_and_the_script_stops_when_told() {
        let (gateway, clock) = (gateway(), Clock::derived(Timestamp::UNIX_EPOCH));
        let board = Board::new(clock.now());
        let stop = CancellationToken::new();
        let playing = play(&gateway, &board, clock, stop.clone(), |_| {});
        let watching = async {
            clock.sleep_until(Mono(Duration::from_secs(42))).await;
            let seconds = Duration::from_secs;
            let scene = Scene { act: 1, since: seconds(12), next_in: Some(seconds(8)) };
            assert_eq!(board.scene(clock.now()), scene);
            stop.cancel();
        };
        tokio::join!(playing, watching);
        assert_eq!(clock.now().mono.0.as_secs(), 42);
        assert_eq!(gateway.fault(), Fault::Drop);
    }
}
