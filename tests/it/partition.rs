//! Daemons that share a store, when the network between them and the store is cut: both ways, one way, again and again;
//! and when they are stopped, or their clocks disagree.
//!
//! Of each scenario the same must hold: whoever fails is told of in time, by each side of the cut at most once; whoever
//! is gone is followed; soon after the end one decides, each has its part, and nothing waits; each slot is in the books
//! once; and the last word about each journey is the truth.

mod stage;

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use tokio::join;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use self::stage::{Event, JOURNEYS, Pace, Site, Stage};
use crate::support::network::{Cut, Network};
use crate::support::{Process, START, Scratch, block_on, is_long, server_binary, wait_for};

const PACE: Pace = Pace { every: Duration::from_secs(2), deadline: Duration::from_millis(1_500) };
/// Of what takes many slots.
const BRISK: Pace = Pace { every: Duration::from_secs(1), deadline: Duration::from_millis(900) };

/// Plays a scenario on daemons whose clocks are so many seconds ahead, and checks it.
async fn scenario(site: &Site, name: &str, clocks: &[i64], script: &[(u64, Event)]) {
    let mut stage = Stage::start(site, name, clocks, PACE).await;
    stage.play(script.iter().copied()).await;
    stage.converge().await;
    stage.told().await;
    stage.end().await;
}

/// Parts of each daemon fail before the fault, and some of them get well while it lasts; others fail while it lasts;
/// all that are left get well after it.
fn around(fault: Event, lasts: u64, end: Event) -> [(u64, Event); 5] {
    [
        (0, Event::Break(&[0, 1, 5])),
        (7_000, fault),
        (8_500, Event::Break(&[2, 3, 4])),
        (17_000, Event::Mend(&[0, 1])),
        (7_000 + lasts, end),
    ]
}

#[test]
fn a_leader_is_cut_off_and_so_is_one_that_only_runs() {
    // For longer than it takes until what is not heard of would be stale.
    let leader = around(Event::Cut(0, Cut::Both), 45_000, Event::Heal(0));
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

/// One thing that happens to one of three daemons, and to some of what they watch meanwhile.
fn any_outage(chance: &mut Rng) -> Vec<(u64, Event)> {
    let node = chance.usize(..3);
    // Who leads and hears nothing of others' journeys for 18 s would think them stale.
    let lasts = chance.u64(1_000..15_000);
    let cut = |cut| vec![(0, Event::Cut(node, cut)), (lasts, Event::Heal(node))];
    let mut script = match chance.u8(..5) {
        0 => cut(Cut::Both),
        1 => cut(Cut::Outgoing),
        2 => cut(Cut::Incoming),
        3 => vec![(0, Event::Stop(node)), (2 * lasts, Event::Continue(node))],
        _ => (0..3)
            .flat_map(|nth| [(nth * 5_000, Event::Cut(node, Cut::Both)), (nth * 5_000 + 2_000, Event::Heal(node))])
            .collect(),
    };
    // Each part at most once: of one that fails for a moment only nobody need be told.
    let parts: BTreeSet<usize> = (0..chance.usize(1..6)).map(|_| chance.usize(..JOURNEYS)).collect();
    script.extend(parts.into_iter().map(|part| (chance.u64(..lasts + 2_000), Event::Turn(part))));
    script.sort_by_key(|(at, _)| *at);
    script
}

#[test]
fn whatever_happens_in_whatever_order() {
    let seed = if is_long() { fastrand::u64(..1 << 32) } else { 20 };
    // A moment, or ten hours of a journey that runs every minute.
    let slots = if is_long() { 600 } else { 30 };
    let mut chance = Rng::with_seed(seed);
    block_on(async {
        let Some(site) = Site::shared().await else { return };
        let mut stage = Stage::start(&site, &format!("seed-{seed}"), &[0; 3], BRISK).await;
        while stage.lasted() < BRISK.every * slots {
            stage.play(any_outage(&mut chance)).await;
            stage.converge().await;
            stage.told().await;
        }
        stage.end().await;
    });
}

/// Says and sends back what it is sent.
const ECHO: &str = "
import socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind((sys.argv[1], 7))
while True:
    word, sender = own.recvfrom(100)
    print(word.decode(), flush=True)
    own.sendto(word, sender)
";

#[test]
fn a_cut_is_what_it_says_and_nothing_is_left_of_it() {
    const NOTHING_COMES: Duration = Duration::from_millis(500);
    block_on(async {
        let (Some(network), Some(_)) = (Network::new(), server_binary("python3", "python3")) else { return };
        let (host, scratch) = (network.host(), Scratch::new("echo"));
        let (log, address) = (scratch.path().join("heard"), host.at_the_store());
        let mut echo = host.command("python3", &[]);
        let _echo = Process::start("echo", echo.args(["-c", ECHO, &address.to_string()]), &log);
        let socket = UdpSocket::bind((network.store(), 0)).await.expect("the address is ours");
        // Whether it is heard, and whether the echo comes back.
        let said = async |word: &str| {
            let mut heard = [0; 100];
            // That nobody is there yet, or any more, may be said.
            let _ = socket.send_to(word.as_bytes(), (address, 7)).await;
            let echoed = async {
                loop {
                    if let Ok((length, _)) = socket.recv_from(&mut heard).await
                        && heard[..length] == *word.as_bytes()
                    {
                        break;
                    }
                }
            };
            let is_echoed = timeout(NOTHING_COMES, echoed).await.is_ok();
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            (log.lines().any(|line| line == word), is_echoed)
        };
        for (cut, expected) in
            [(Cut::Both, (false, false)), (Cut::Incoming, (false, false)), (Cut::Outgoing, (true, false))]
        {
            wait_for("an echo", START, async || (said("whole").await == (true, true)).then_some(())).await;
            host.cut(cut);
            assert_eq!(said(&format!("{cut:?}")).await, expected, "{cut:?}");
            host.heal();
        }
        wait_for("an echo", START, async || (said("whole").await == (true, true)).then_some(())).await;
    });
}
