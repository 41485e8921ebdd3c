//! A run, drawn while it goes: its bars grow in place, and make room for the result when it is there.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::journey::report::{StepReport, StepStatus, draw_steps};
use crate::journey::run::Sight;
use crate::text::visible;
use crate::time::{Mono, Now};

/// Often enough to look alive.
const EVERY: Duration = Duration::from_millis(100);
const BAR: usize = 32;
/// A line that is too long for the terminal must not become two: we count on how many there are. (DECAWM)
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";

/// Waits for `work`, and draws what is seen of it meanwhile.
pub async fn beside<T>(
    work: impl Future<Output = T>,
    seen: watch::Receiver<Option<Sight>>,
    budget: Duration,
    clock: Clock,
) -> T {
    let over = CancellationToken::new();
    let work = async {
        let result = work.await;
        over.cancel();
        result
    };
    tokio::join!(work, draw(seen, budget, clock, std::io::stdout(), &over)).0
}

/// Draws what is seen until it is over, and wipes it off. the bars keep
/// their scale while the run stays within `budget`.
async fn draw(
    mut seen: watch::Receiver<Option<Sight>>,
    budget: Duration,
    clock: Clock,
    mut out: impl Write,
    over: &CancellationToken,
) {
    let mut lines = 0;
    while !over.is_cancelled() {
        let now = clock.now();
        let frame = seen.borrow_and_update().as_ref().map(|sight| frame(sight, budget, now)).unwrap_or_default();
        // A terminal that is gone needs no picture.
        let _ = out.write_all((back(lines) + NO_WRAP + &frame + WRAP).as_bytes());
        let _ = out.flush();
        lines = frame.lines().count();
        tokio::select! {
            () = clock.sleep_until(now.mono + EVERY) => {}
            () = over.cancelled() => {}
            Ok(()) = seen.changed() => {}
        }
    }
    let _ = out.write_all(back(lines).as_bytes());
    let _ = out.flush();
}

/// To the beginning of what was drawn, and nothing below it any more.
fn back(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\u{1b}[{lines}A\u{1b}[J") }
}

/// One picture. What servers say is left for the result: there it is redacted.
fn frame(sight: &Sight, budget: Duration, now: Now) -> String {
    let mut steps = sight.steps.clone();
    let working = sight.working.and_then(|(index, began)| Some((index, steps.get_mut(index)?, began)));
    let index = working.map(|(index, step, began)| {
        grow(step, began, now);
        index
    });
    let reach = steps.iter().map(|step| step.at + step.took).max().unwrap_or_default().max(budget);
    let mut text = format!("{}\n\n", sight.journey);
    for (at, line) in draw_steps(&steps, reach, BAR).lines().enumerate() {
        let line = match line.strip_prefix('✓') {
            Some(rest) if Some(at) == index => format!("▸{rest}"),
            _ => line.to_owned(),
        };
        let _ = writeln!(text, "{line}");
    }
    visible(&text).into_owned()
}

/// A step under way takes as long as it has until now.
fn grow(step: &mut StepReport, began: Mono, now: Now) {
    step.took = now.mono.since(began);
    step.status = StepStatus::Passed;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(millis: u64) -> Now {
        Now { wall: jiff::Timestamp::UNIX_EPOCH, mono: Mono(Duration::from_millis(millis)) }
    }

    fn sight() -> Sight {
        let step = |name: &str, status, took| StepReport {
            took: Duration::from_millis(took),
            ..StepReport::new(name, "pause", status)
        };
        let mut waits = step("wait", StepStatus::Skipped, 0);
        waits.at = Duration::from_millis(100);
        let steps = vec![step("send", StepStatus::Passed, 100), waits, step("after", StepStatus::Skipped, 0)];
        Sight {
            journey: "orders".into(),
            steps,
            working: Some((1, Mono(Duration::from_millis(1_100)))),
            sends: Vec::new(),
        }
    }

    #[test]
    fn the_step_in_hand_grows_and_the_scale_stays() {
        let lines =
            |at| frame(&sight(), Duration::from_secs(1), now(at)).lines().map(str::to_owned).collect::<Vec<_>>();
        let early = lines(1_200);
        assert_eq!(early[0], "orders");
        assert!(early[2].starts_with("✓ send ") && early[4].starts_with("· after "), "{early:#?}");
        assert!(early[3].starts_with("▸ wait ") && early[3].ends_with(" 100ms"), "{early:#?}");
        let late = lines(1_900);
        let cells = |line: &str| line.chars().filter(|c| *c == '█').count();
        assert_eq!((cells(&early[3]), cells(&late[3])), (3, 26), "{late:#?}");
        assert_eq!(cells(&early[2]), cells(&late[2]), "what is done stays as it is");
        assert_eq!(cells(&lines(20_000)[2]), 1, "beyond the budget, all of it shrinks");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_drawn_is_wiped_off() {
        let (_show, seen) = watch::channel(Some(sight()));
        let over = CancellationToken::new();
        let mut out = Vec::new();
        let clock = Clock::derived(jiff::Timestamp::UNIX_EPOCH);
        let end = async {
            tokio::time::sleep(EVERY * 3).await;
            over.cancel();
        };
        tokio::join!(draw(seen, Duration::ZERO, clock, &mut out, &over), end);
        let text = String::from_utf8(out).unwrap();
        assert!(text.matches("orders").count() >= 3, "{text:?}");
        assert!(text.ends_with("\u{1b}[5A\u{1b}[J"), "{text:?}");
        assert_eq!(text.matches("\u{1b}[5A").count(), text.matches("orders").count(), "{text:?}");
    }
}
