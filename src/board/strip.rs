//! A journey's last 24 hours in half hours, in few bytes: there is one for each of thousands of journeys, and most of its cells hold
//! one verdict.

use crate::journey::outcome::Verdict;
use crate::slo::Counts;

/// The cells of the strip of a journey's last 24 hours: half an hour each.
pub const STRIP_CELLS: usize = 48;

/// How many slots had each verdict, a cell for each half hour, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strip(Box<[Entry]>);

/// What of a cell is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    cell: u8,
    verdict: Verdict,
    count: u32,
}

impl Strip {
    /// Of [`STRIP_CELLS`] cells; more are left out.
    pub fn new(cells: impl Iterator<Item = Counts>) -> Strip {
        // Most cells hold one verdict.
        let mut entries = Vec::with_capacity(STRIP_CELLS);
        for (counts, cell) in cells.zip(0u8..).take(STRIP_CELLS) {
            for verdict in Verdict::ALL.iter().copied().filter(|verdict| counts.of(*verdict) > 0) {
                let count = u32::try_from(counts.of(verdict)).unwrap_or(u32::MAX);
                entries.push(Entry { cell, verdict, count });
            }
        }
        Strip(entries.into())
    }

    /// All cells, oldest first.
    pub fn cells(&self) -> [Counts; STRIP_CELLS] {
        let mut cells = [Counts::default(); STRIP_CELLS];
        for entry in &self.0 {
            cells[usize::from(entry.cell)].add(entry.verdict, u64::from(entry.count));
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_there_again_and_nothing_else() {
        let cell = |n: u64| Counts { good: n % 31, slow: n % 2, late: n / 40, excluded: n % 3, ..Counts::default() };
        let cells: Vec<_> = (0..48).map(cell).collect();
        assert_eq!(Strip::new(cells.iter().copied()).cells().as_slice(), cells);
        assert_eq!(Strip::default().cells(), [Counts::default(); STRIP_CELLS]);
        assert_eq!(Strip::new((0..60).map(cell)).cells().as_slice(), cells);
        assert_eq!(size_of::<Entry>(), 8);
    }
}
