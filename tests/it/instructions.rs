//! What a run costs in instructions, everything included: its slot, its messages, matching, its verdict, objective, alert, metrics and
//! commit. Times are noise on a busy machine; instructions are nearly the same each time.
//!
//! They are counted by [callgrind](https://valgrind.org/docs/manual/cl-manual.html) in the build of the tests, which is not optimised, over
//! two simulated worlds of which one lives longer: what both pay for at their beginning is no run's.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::simulation::{Accounts, Profile, simulate};
use crate::support::table::Table;
use crate::support::{Scratch, server_binary};

/// Instructions of a run. A change that makes it less lowers this, and whoever makes it more says why.
const RUN: u64 = 3_550_000;
/// So much more is no accident.
const PERCENT: u64 = 5;

/// Set for this program as a child of itself.
const CHILD: &str = "JOURNEYMAN_TEST_INSTRUCTIONS";
const LIFE: &str = "instructions::a_child_lives_three_lives";
/// Journeys, each of which runs every minute.
const JOURNEYS: u64 = 10;
/// Of the lives, in virtual minutes. The first is for what is done but once.
const MINUTES: [u64; 3] = [1, 2, 8];

#[test]
fn a_child_lives_three_lives() {
    if std::env::var_os(CHILD).is_some() {
        journeyman::tls::init();
        MINUTES.into_iter().for_each(live);
    }
}

/// Its name is known to callgrind.
#[inline(never)]
fn live(minutes: u64) {
    let world = Profile::calm(JOURNEYS as usize, Duration::from_secs(minutes * 60));
    let _told = simulate(&Profile { accounts: Accounts::None, ..world });
}

#[test]
fn a_run_costs_no_more_instructions_than_it_did() {
    if server_binary("valgrind", "valgrind").is_none() {
        return;
    }
    let scratch = Scratch::new("instructions");
    let out = scratch.path().join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--dump-after=it::instructions::live"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(std::env::current_exe().unwrap());
    valgrind.args(["--exact", LIFE, "--test-threads=1"]).env(CHILD, "1").stdin(Stdio::null());
    let output = valgrind.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    let [_, short, long] = [1, 2, 3].map(|part| {
        let text = std::fs::read_to_string(out.with_extension(part.to_string())).unwrap();
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
        totals.parse::<u64>().unwrap()
    });
    let each = (long - short) / (JOURNEYS * (MINUTES[2] - MINUTES[1]));
    let mut table = Table::new("performance", "instructions", &["what", "figure", "bound"]);
    table.row(&[&"instructions of a run, not optimised", &each, &format!("{RUN} and {PERCENT} % more")]);
    assert!(each <= RUN + RUN * PERCENT / 100, "{each} instructions a run, {RUN} before");
}
