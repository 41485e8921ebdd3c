//! One suite for every channel, against its real server: what arrives when, who cuts what, and the outcome that it must yield.
//!
//! A rig (`conformance/rigs/`) says how the protocol's channels are configured and where its server is. The suite stands
//! between: our side sends to a place where a *relay*, the system under watch, takes the message and hands on to where we
//! receive whatever the case wants: at once, late, twice, altered, somebody else's. Proxies between us and the server do what
//! networks do. Each case states the outcome and the cause that it must yield, by what the protocol promises; the outcomes
//! are a part of the table `conformance`, which `tests/run` prints.
//!
//! To add a protocol: implement [`rig::Rig`] in a file of its own below `rigs/`, and call [`suite`] in a test there.

pub(crate) mod cases;
pub(crate) mod rig;
pub(crate) mod rigs;
pub(crate) mod world;

use std::any::Any;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use self::rig::Rig;
use crate::support::table::Table;

/// Whatever is waited for comes within this, or the case fails.
pub(crate) const BOUND: Duration = Duration::from_secs(90);
/// Cases of one protocol under way at once.
const AT_ONCE: usize = 6;

/// One cell of the table.
#[derive(Clone, Debug)]
struct Cell {
    case: &'static str,
    /// What it must come to; `None` if there is nothing to be right or wrong.
    wanted: Option<String>,
    found: String,
    /// More to tell when it is wrong.
    detail: String,
}

impl Cell {
    fn new(case: &'static str, wanted: &str, found: impl Into<String>) -> Cell {
        Cell { case, wanted: Some(wanted.to_owned()), found: found.into(), detail: String::new() }
    }

    /// Of a run: its outcome, with its waterfall for when it is wrong.
    fn of(case: &'static str, wanted: &str, report: &journeyman::journey::report::Report) -> Cell {
        let detail = format!("{}\n{:?}", journeyman::journey::report::waterfall(report, None, 32), report.note);
        Cell { detail, ..Cell::new(case, wanted, world::shown(report)) }
    }

    /// A case that this protocol cannot have, and why.
    fn none(case: &'static str, why: &str) -> Cell {
        Cell { case, wanted: None, found: format!("({why})"), detail: String::new() }
    }

    /// A figure.
    fn figure(case: &'static str, found: impl Into<String>) -> Cell {
        Cell { case, wanted: None, found: found.into(), detail: String::new() }
    }

    /// A case that could not be carried out.
    fn panicked(case: &'static str, panic: &(dyn Any + Send)) -> Cell {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Cell { detail: words.unwrap_or_default(), ..Cell::new(case, "an outcome", "none") }
    }

    fn is_right(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| *wanted == self.found)
    }
}

/// Runs every case, writes the protocol's part of the table, and fails if a cell is not what it must be.
pub(crate) async fn suite<R: Rig>(mut rig: R) {
    let mut cells: Vec<(usize, Vec<Cell>)> = {
        let rig = &rig;
        let all: Vec<(&str, LocalBoxFuture<'_, Vec<Cell>>)> = cases::all(rig);
        let numbered = all.into_iter().enumerate().map(|(number, (name, case))| async move {
            let cells = AssertUnwindSafe(case).catch_unwind().await;
            (number, cells.unwrap_or_else(|panic| vec![Cell::panicked(name, &*panic)]))
        });
        stream::iter(numbered).buffer_unordered(AT_ONCE).collect().await
    };
    cells.sort_by_key(|(number, _)| *number);
    let mut cells: Vec<Cell> = cells.into_iter().flat_map(|(_, cells)| cells).collect();
    // By itself: the server goes away under everybody.
    cells.extend(cases::killed(&mut rig).await);
    write_table(rig.name(), &cells);
    let mut wrong = String::new();
    for cell in cells.iter().filter(|cell| !cell.is_right()) {
        let wanted = cell.wanted.as_deref().unwrap_or_default();
        writeln!(wrong, "{}: {} must be {wanted}, and is {}\n{}", rig.name(), cell.case, cell.found, cell.detail)
            .expect("the rig works");
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The protocol's part of the table: a row for each case with what it came to.
fn write_table(name: &str, cells: &[Cell]) {
    let name = name.replace([' ', '/'], "-").replace(',', "");
    let mut table = Table::new("conformance", &name, &["case", &name]);
    for cell in cells {
        let mark = if cell.is_right() { "" } else { " WRONG" };
        table.row(&[&cell.case, &format!("{}{mark}", cell.found)]);
    }
}
