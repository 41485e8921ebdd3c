//! How far long work is, in a line on the terminal while it goes: nothing where nobody looks, and nothing of it stays.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::clock::Clock;
use crate::time::Mono;

/// What is over by then needs no picture.
const PATIENCE: Duration = Duration::from_millis(300);
/// Often enough to look alive.
const EVERY: Duration = Duration::from_millis(100);
const BAR: usize = 32;

/// Does this work, which says from time to time which share of it is done, and shows that on standard error if that is a terminal.
pub fn beside<T>(what: &str, clock: Clock, work: impl FnOnce(&mut dyn FnMut(f64)) -> T) -> T {
    let out = std::io::stderr();
    let is_seen = out.is_terminal();
    draw(what, || clock.now().mono, is_seen.then_some(out), work)
}

fn draw<T>(
    what: &str,
    now: impl Fn() -> Mono,
    out: Option<impl Write>,
    work: impl FnOnce(&mut dyn FnMut(f64)) -> T,
) -> T {
    let Some(mut out) = out else { return work(&mut |_| {}) };
    let (began, mut drawn) = (now(), None::<Mono>);
    let done = work(&mut |share| {
        let now = now();
        let is_time = drawn.map_or(now.since(began) >= PATIENCE, |drawn| now.since(drawn) >= EVERY);
        if is_time {
            drawn = Some(now);
            // A terminal that is gone needs no picture.
            let _ = out.write_all(line(what, share).as_bytes()).and_then(|()| out.flush());
        }
    });
    if drawn.is_some() {
        let _ = out.write_all(b"\r\x1b[K").and_then(|()| out.flush());
    }
    done
}

fn line(what: &str, share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    let cells = (share * BAR as f64) as usize;
    format!("\r{what}  ▕{}{}▏ {:3} %", "█".repeat(cells), " ".repeat(BAR - cells), (share * 100.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is drawn of work that says a hundred times how far it is, this long after each other.
    fn drawn(pace: Duration) -> String {
        let now = std::cell::Cell::new(Mono(Duration::ZERO));
        let mut out = Vec::new();
        let steps = |seen: &mut dyn FnMut(f64)| {
            for step in 0..100 {
                seen(f64::from(step) / 100.0);
                now.set(now.get() + pace);
            }
        };
        draw("replaying", || now.get(), Some(&mut out), steps);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn long_work_is_drawn_sparingly_and_wiped_off() {
        assert_eq!(drawn(Duration::from_millis(2)), "", "it is over before anybody wonders");
        let text = drawn(Duration::from_millis(20));
        let lines: Vec<_> = text.split('\r').filter(|line| line.starts_with("replaying")).collect();
        assert!((10..=20).contains(&lines.len()), "{text:?}");
        assert!(lines[0].ends_with("▏  15 %") && lines[0].matches('█').count() == 4, "{text:?}");
        assert!(text.ends_with("\r\u{1b}[K"), "{text:?}");
    }

    #[test]
    fn a_share_that_cannot_be_is_no_longer_than_the_bar() {
        for (share, end) in [(-1.0, "▏   0 %"), (0.5, "▏  50 %"), (7.0, "▏ 100 %"), (f64::NAN, "▏   0 %")] {
            let line = line("x", share);
            assert!(line.ends_with(end) && line.chars().count() == line.find('▕').unwrap() + BAR + 8, "{line:?}");
        }
    }
}
