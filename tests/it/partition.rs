//! Daemons that share a store, when the network between them and the store is cut: both ways, one way, again and again; and when
//! they are stopped, or their clocks disagree.
//!
//! Of each scenario the same must hold: whoever fails is told of in time, by each side of the cut at most once; whoever is gone is
//! followed; soon after the end one decides, each has its part, and nothing waits; each slot is in the books once; and the last word
//! about each journey is the truth.

mod stage;

use tokio::join;

use self::stage::{Event, Site, Stage};
use crate::support::network::Cut;
use crate::support::{block_on, server_binary};

/// Plays a scenario on daemons whose clocks are so many seconds ahead, and checks it.
async fn scenario(site: &Site, name: &str, clocks: &[i64], script: &[(u64, Event)]) {
    let mut stage = Stage::start(site, name, clocks).await;
    stage.play(script.iter().copied()).await;
    stage.converge().await;
    stage.told().await;
    stage.end().await;
}

/// Parts of each daemon fail before the fault, and some of them get well while it lasts; others fail while it lasts; all that are
/// left get well after it.
fn around(fault: Event, lasts: u64, end: Event) -> [(u64, Event); 5] {
    [
        (0, Event::Break(&[0, 1, 5])),
        (7_000, fault),
        (8_500, Event::Break(&[2, 3, 4])),
        (11_000, Event::Mend(&[0, 1])),
        (7_000 + lasts, end),
    ]
}

#[test]
fn a_leader_is_cut_off_and_so_is_one_that_only_runs() {
    let leader = around(Event::Cut(0, Cut::Both), 20_000, Event::Heal(0));
    let runner = around(Event::Cut(1, Cut::Both), 15_000, Event::Heal(1));
    block_on(async {
        let Some(site) = Site::shared().await else { return };
        join!(scenario(&site, "leader-cut-off", &[0; 3], &leader), scenario(&site, "runner-cut-off", &[0; 3], &runner));
    });
}

#[test]
fn what_a_leader_sends_vanishes_or_what_is_sent_to_it() {
    let unheard = around(Event::Cut(0, Cut::Outgoing), 15_000, Event::Heal(0));
    let deaf = around(Event::Cut(0, Cut::Incoming), 15_000, Event::Heal(0));
    block_on(async {
        let Some(site) = Site::shared().await else { return };
        join!(scenario(&site, "leader-unheard", &[0; 2], &unheard), scenario(&site, "leader-deaf", &[0; 2], &deaf));
    });
}

#[test]
fn a_leaders_network_comes_and_goes_and_a_leader_is_stopped_and_comes_back() {
    let mut flapping = vec![(0, Event::Break(&[0, 1, 5]))];
    for away in 0..6 {
        let at = 5_000 + away * 5_000;
        flapping.push((at, Event::Cut(0, Cut::Both)));
        match away {
            1 => flapping.push((at + 1_000, Event::Break(&[2, 3, 4]))),
            3 => flapping.push((at + 1_000, Event::Mend(&[0, 1, 2]))),
            _ => {}
        }
        flapping.push((at + 2_000, Event::Heal(0)));
    }
    let stopped = around(Event::Stop(0), 30_000, Event::Continue(0));
    block_on(async {
        let Some(site) = Site::shared().await else { return };
        join!(
            scenario(&site, "leader-flapping", &[0; 2], &flapping),
            scenario(&site, "leader-stopped", &[0; 2], &stopped)
        );
    });
}

#[test]
fn clocks_disagree_and_a_leader_is_cut_off() {
    if server_binary("faketime", "faketime").is_none() {
        return;
    }
    let script = around(Event::Cut(0, Cut::Both), 15_000, Event::Heal(0));
    block_on(async {
        let Some(site) = Site::shared().await else { return };
        scenario(&site, "clocks", &[0, 5, -5], &script).await;
    });
}
