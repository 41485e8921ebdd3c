//! Other people's policies, as the table in research has them.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::model::{Calls, Policy};

/// A policy of one condition: it calls when that begins to hold.
pub(crate) struct Reference<F> {
    holds: F,
    held: bool,
}

impl<F: FnMut(bool) -> bool> Reference<F> {
    /// Calls when this begins to hold.
    pub(crate) fn new(holds: F) -> Reference<F> {
        Reference { holds, held: false }
    }
}

impl<F: FnMut(bool) -> bool> Policy for Reference<F> {
    fn run(&mut self, _: Timestamp, failed: bool) -> Calls {
        let holds = (self.holds)(failed);
        let held = std::mem::replace(&mut self.held, holds);
        Calls { pages: u32::from(holds && !held), ..Calls::default() }
    }
}

/// So many failures in a row.
pub(crate) fn consecutive(least: u32) -> impl FnMut(bool) -> bool {
    let mut failed_runs = 0;
    move |failed| {
        failed_runs = if failed { failed_runs + 1 } else { 0 };
        failed_runs >= least
    }
}

/// So many of the last so many.
pub(crate) fn of_last(least: usize, length: usize) -> impl FnMut(bool) -> bool {
    let mut window = Window::new(length);
    move |failed| {
        window.take(failed);
        window.bad >= least
    }
}

/// The workbook's page: 14.4 times over one hour and five minutes, or 6 times over six hours and thirty minutes, with at least so
/// many failures in the long window.
pub(crate) fn burn(every: u64, objective: f64, least: usize) -> impl FnMut(bool) -> bool {
    let mut windows = [3_600, 300, 21_600, 1_800].map(|seconds| Window::new((seconds / every).max(1) as usize));
    move |failed| {
        windows.iter_mut().for_each(|window| window.take(failed));
        let [hour, five, six, thirty] = &windows;
        let burns = |window: &Window, factor: f64| {
            !window.runs.is_empty() && window.bad as f64 / window.runs.len() as f64 > factor * (1.0 - objective)
        };
        let pair = |long: &Window, short, factor| burns(long, factor) && burns(short, factor) && long.bad >= least;
        pair(hour, five, 14.4) || pair(six, thirty, 6.0)
    }
}

/// The sequential test alone, begun anew after each call.
pub(crate) fn cusum(p0: f64, p1: f64, threshold: f64) -> impl FnMut(bool) -> bool {
    let (up, down) = ((p1 / p0).ln(), ((1.0 - p1) / (1.0 - p0)).ln());
    let mut score: f64 = 0.0;
    move |failed| {
        score = if score >= threshold { 0.0 } else { score };
        score = (score + if failed { up } else { down }).max(0.0);
        score >= threshold
    }
}

struct Window {
    runs: VecDeque<bool>,
    length: usize,
    bad: usize,
}

impl Window {
    fn new(length: usize) -> Window {
        Window { runs: VecDeque::with_capacity(length + 1), length, bad: 0 }
    }

    fn take(&mut self, failed: bool) {
        self.runs.push_back(failed);
        self.bad += usize::from(failed);
        if self.runs.len() > self.length && self.runs.pop_front() == Some(true) {
            self.bad -= 1;
        }
    }
}
