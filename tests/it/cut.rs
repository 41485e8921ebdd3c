//! T5: eight faults of a network, in each direction, at five moments of a message's way, for each protocol with its real server. The
//! verdict must be the truth: good only if the message was there in time, lost only if it was not, uncertain only if nobody can
//! say. Nothing is sent twice, and the run after the fault is good.
//!
//! What a cell must come to is worked out (`cut/rule.rs`) from the fault, the way, the moment and what the protocol promises; what
//! it came to is held against that, and against what the relay took and what our reader saw (`cut/lane.rs`). A *lane* is one fault
//! on one way: its cells come one after another, so that each also shows that those before it left nothing behind. All lanes of a
//! protocol go at once, on one server.

mod lane;
mod rule;
mod system;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::join_all;

use self::lane::Found;
use self::rule::{ALL_WAYS, Kind};
use crate::conformance::rig::Rig;
use crate::conformance::rigs;
use crate::support::block_on;
use crate::support::table::Table;

/// Every cell of a protocol; a row of the table, and a panic if one is not what it must be.
async fn matrix<R: Rig>(rig: R) {
    let name = rig.name().replace([' ', ',', '/'], "-").replace("--", "-");
    let mut table = Table::new("robustness", &format!("t5-{name}"), &["test", "tried", "held"]);
    let lanes = Kind::ALL.iter().flat_map(|kind| ALL_WAYS.map(|way| (*kind, way)));
    let lanes = lanes.map(|(kind, way)| {
        let lane = AssertUnwindSafe(Box::pin(lane::run(&rig, kind, way)));
        async move { lane.catch_unwind().await.unwrap_or_else(|panic| lane::panicked(kind, way, &*panic)) }
    });
    let found: Vec<Found> = join_all(lanes).await.into_iter().flatten().collect();
    let tried: Vec<_> = found.iter().filter_map(Found::tried).collect();
    let wrong: Vec<_> = tried.iter().filter_map(|held| held.as_ref().err()).map(String::as_str).collect();
    let mut none: Vec<(&str, usize)> = Vec::new();
    for why in found.iter().filter_map(Found::why_not) {
        match none.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => none.push((why, 1)),
        }
    }
    let none: String = none.iter().map(|(why, count)| format!("; {count} cannot be: {why}")).collect();
    let cells = format!("{} cells of 8 faults, 2 ways and 5 moments{none}", tried.len());
    let held = if wrong.is_empty() { "held".to_owned() } else { format!("{} WRONG", wrong.len()) };
    table.row(&[&format!("T5 {}", rig.name()), &cells, &held]);
    drop(table);
    assert_eq!(found.len(), 80, "a cell is missing");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[cfg(feature = "amqp")]
#[test]
fn amqp() {
    block_on(async {
        let Some(rig) = rigs::amqp::start().await else { return };
        matrix(rig).await;
    });
}

#[cfg(feature = "nats")]
#[test]
fn jetstream() {
    block_on(async {
        let Some(rig) = rigs::nats::with_streams().await else { return };
        matrix(rig).await;
    });
}

#[cfg(feature = "mqtt")]
#[test]
fn mqtt() {
    block_on(async {
        let Some(rig) = rigs::mqtt::version_5().await else { return };
        matrix(rig).await;
    });
}

#[cfg(feature = "kafka")]
#[test]
fn kafka() {
    block_on(async {
        let Some(rig) = rigs::kafka::start().await else { return };
        matrix(rig).await;
    });
}

#[test]
fn http_and_webhook() {
    block_on(async { matrix(rigs::http_webhook::start().await).await });
}

#[cfg(all(feature = "imap", feature = "smtp"))]
#[test]
fn mail() {
    block_on(async {
        let Some(rig) = rigs::mail::start().await else { return };
        matrix(rig).await;
    });
}
