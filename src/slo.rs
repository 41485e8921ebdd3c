//! Objectives over windows, exact to the run.
//!
//! Every slot has one verdict. Equal verdicts at equal spacing are kept as one [`Span`], so a healthy month is one row, a window
//! is exact, and observing a run costs the same whatever the window's length. Formulas: an SLI is good ÷ valid, the budget is
//! (1 − objective) × slots of the window, burn is (bad ÷ valid) ÷ (1 − objective) (Google SRE workbook, "Alerting on SLOs").

mod composition;
mod counts;
mod curve;
mod history;
mod interval;
mod span;
mod status;
#[cfg(test)]
mod tests;
mod view;

pub use composition::{Composition, Hop, Reading, compose, delivered};
pub use counts::{Counts, Sli};
pub use curve::spending;
pub use history::{BURN_NAMES, BURN_WINDOWS, History};
pub use interval::{clopper_pearson, gate, is_above, wilson};
pub use span::{Span, SpanChange};
pub use status::{BURNS, Budget, SUFFICIENT_COVERAGE, Score, SloStatus, Standing, status};
pub use view::{JourneySlo, SloView};
