//! The cases. Each has a world, proxies and a relay of its own, under a tag of its own.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::join;
use journeyman::channel::Readiness;
use journeyman::journey::token::{Mint, Token};
use journeyman::ledger::Kind;
use journeyman::time::later;
use tokio_util::sync::CancellationToken;

use super::rig::{Parcel, Promises, Relay, Rig};
use super::world::{Proxies, Scratch, World, shown};
use super::{BOUND, Cell};
use crate::support::proxy::{Direction, Flow};
use crate::support::tls_front::{Shown, TlsFront};

/// A deadline that nothing reaches on a machine that is alive.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

/// How long a message takes at most, also on a machine that is busy. Cases in which nothing must come wait this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Every case that can run beside the others.
pub(super) fn all<R: Rig>(rig: &R) -> Vec<(&'static str, LocalBoxFuture<'_, Vec<Cell>>)> {
    vec![
        ("on time", Box::pin(on_time(rig))),
        ("early", Box::pin(early(rig))),
        ("at the deadline", Box::pin(at_the_deadline(rig))),
        ("slow", Box::pin(slow(rig))),
        ("late", Box::pin(late(rig))),
        ("twice", Box::pin(twice(rig))),
        ("out of order", Box::pin(out_of_order(rig))),
        ("altered", Box::pin(altered(rig))),
        ("somebody elses", Box::pin(somebody_elses(rig))),
        ("of a previous run", Box::pin(of_a_previous_run(rig))),
        ("restarted between", Box::pin(restarted_between(rig))),
        ("receiver not ready", Box::pin(receiver_not_ready(rig))),
        ("receiver lost", Box::pin(receiver_lost(rig))),
        ("cut before connect", Box::pin(cut_before_connect(rig))),
        ("cut connected", Box::pin(cut_connected(rig))),
        ("cut unconfirmed", Box::pin(cut_unconfirmed(rig))),
        ("cut unconsumed", Box::pin(cut_unconsumed(rig))),
        ("cut unacknowledged", Box::pin(cut_unacknowledged(rig))),
        ("half open", Box::pin(half_open(rig))),
        ("bad networks", Box::pin(bad_networks(rig))),
        ("wrong credentials", Box::pin(wrong_credentials(rig))),
        ("tls", Box::pin(tls(rig))),
        ("strangers", Box::pin(strangers(rig))),
    ]
}

/// What a case works with.
pub(crate) struct Scene<'a, R> {
    rig: &'a R,
    tag: String,
    pub(crate) promises: Promises,
    pub(crate) proxies: Proxies,
    pub(crate) relay: Relay,
    scratch: Scratch,
}

impl<'a, R: Rig> Scene<'a, R> {
    pub(crate) async fn new(rig: &'a R, case: &str) -> Scene<'a, R> {
        let tag = format!("{}-{case}", rig.name().replace([' ', '/', '.', ','], "-"));
        rig.prepare(&tag).await;
        let proxies = rig.proxies(&tag).await;
        let relay = rig.relay(&tag).await;
        let scratch = Scratch::new(&tag);
        Scene { rig, promises: rig.promises(), proxies, relay, scratch, tag }
    }

    pub(crate) async fn world(&self) -> World {
        World::ready(self.rig, &self.tag, &self.proxies, &self.scratch.0).await
    }

    /// A send and a receive.
    pub(crate) fn journey(&self, deadline: Duration, more: &str) -> String {
        journey(self.rig, None, deadline, more)
    }

    /// Waits until the reader has nothing more to say: what it acknowledges is with the server and, if it asks for messages,
    /// so is its next question.
    pub(crate) async fn reader_is_quiet(&self) {
        let (mut seen, mut quiet) = (0, 0);
        let is_quiet = async || {
            let now = self.proxies.back.seen(Direction::ToServer);
            quiet = if now == seen { quiet + 1 } else { 0 };
            seen = now;
            (quiet >= 25).then_some(())
        };
        crate::support::wait_for("the reader to be quiet", BOUND, is_quiet).await;
    }

    /// A run in which the relay hands everything on at once: connections stand afterwards.
    async fn warm(&mut self, world: &World) {
        let journey = self.journey(AMPLE, "");
        let (report, ()) = join!(world.run(&journey), async {
            let parcel = self.relay.take().await;
            self.relay.put(&parcel).await;
        });
        assert_eq!(shown(&report), "good", "{}: the case could not begin: {report:?}", self.tag);
    }
}

fn millis(duration: Duration) -> String {
    format!("\"{}ms\"", duration.as_millis())
}

fn journey<R: Rig>(rig: &R, budget: Option<Duration>, deadline: Duration, more: &str) -> String {
    let budget = budget.map(|budget| format!("budget = {}\n", millis(budget))).unwrap_or_default();
    format!(
        r#"
[[journey]]
name     = "probe"
every    = "1h"
deadline = {}
{budget}
  [[journey.step]]
  name = "submit"
  send = "out"
  json = {{ id = "{{{{ token }}}}", text = "grüße, Welt", n = 1 }}
  {}

  [[journey.step]]
  name    = "arrive"
  receive = "in"
  {more}
"#,
        millis(deadline),
        rig.send_keys()
    )
}

async fn on_time<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "on-time").await;
    let world = scene.world().await;
    let headers = if scene.promises.carries_headers { "headers = { \"x-kind\" = \"probe\" }" } else { "" };
    let expect = if scene.promises.carries_headers { ", { header = \"x-kind\", equals = \"probe\" }" } else { "" };
    let more = format!(
        "expect = [{{ json = \"$.id\", equals = \"{{{{ token }}}}\" }}, {{ json = \"$.text\", equals = \"grüße, Welt\" }}{expect}]"
    );
    let journey = scene.journey(AMPLE, &more).replace(
        "  [[journey.step]]\n  name    = \"arrive\"",
        &format!("  {headers}\n\n  [[journey.step]]\n  name    = \"arrive\""),
    );
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        scene.relay.put(&parcel).await;
    });
    let ready = world.ready_in.unwrap_or_default();
    let ready = Cell::figure("ready in", format!("{:.1} ms", ready.as_secs_f64() * 1_000.0));
    world.stop().await;
    vec![ready, Cell::of("on time", "good", &report)]
}

/// The message is there before its sender knows that it was taken.
async fn early<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "early";
    if !rig.promises().acknowledges {
        return vec![Cell::none(CASE, "no acknowledgement that could be held up")];
    }
    if rig.promises().connects_for_each {
        return vec![Cell::none(CASE, "see its own tests")];
    }
    let mut scene = Scene::new(rig, CASE).await;
    let world = scene.world().await;
    scene.warm(&world).await;
    scene.proxies.out.set(Direction::ToClient, Flow::Hold);
    let journey = scene.journey(AMPLE, "");
    let before = world.count(Kind::Expected);
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        scene.relay.put(&parcel).await;
        let is_there = async || (world.count(Kind::Expected) > before).then_some(());
        crate::support::wait_for("the early arrival", BOUND, is_there).await;
        scene.proxies.out.set(Direction::ToClient, Flow::Pass);
    });
    world.stop().await;
    vec![Cell::of(CASE, "good", &report)]
}

/// A message whose reader stamped it at the very end of its time is in time, and a nanosecond later it is not.
async fn at_the_deadline<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut cells = Vec::new();
    let wanted = [("at the deadline", "good", 0), ("just after it", "failed(not_received)", 1)];
    for (case, wanted, nanos) in wanted {
        let mut scene = Scene::new(rig, &case.replace(' ', "-")).await;
        let world = scene.world().await;
        scene.warm(&world).await;
        let deadline = PATIENCE + Duration::from_secs(3);
        let after = deadline + Duration::from_nanos(nanos);
        let journey = scene.journey(deadline, "");
        let mut acknowledged = world.acknowledgements();
        let (report, ()) = join!(world.run(&journey), async {
            let parcel = scene.relay.take().await;
            let reply = acknowledged.next().await;
            world.tap(move |arrival| {
                arrival.at.mono = reply.started.mono + after;
                arrival.at.wall = later(reply.started.wall, after);
            });
            scene.relay.put(&parcel).await;
        });
        world.stop().await;
        cells.push(Cell::of(case, wanted, &report));
    }
    cells
}

async fn slow<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "slow").await;
    let world = scene.world().await;
    let budget = Duration::from_millis(100);
    let journey = journey(rig, Some(budget), AMPLE, "");
    let clock = world.clock();
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        // The passing of time is the case itself.
        clock.sleep_until(clock.now().mono + budget).await;
        scene.relay.put(&parcel).await;
    });
    world.stop().await;
    vec![Cell::of("over the budget", "slow", &report)]
}

async fn late<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "late").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    let journey = scene.journey(PATIENCE, "");
    let (report, parcel) = join!(world.run(&journey), scene.relay.take());
    scene.relay.put(&parcel).await;
    let sighting = world.sighted(Kind::Late).await;
    let settled = (sighting.journey.as_deref(), sighting.slot) == (Some("probe"), Some(report.slot));
    scene.relay.put(&parcel).await;
    world.sighted(Kind::Duplicate).await;
    world.stop().await;
    vec![
        Cell::of("lost", "failed(not_received)", &report),
        Cell::new("late", "late, of its run", if settled { "late, of its run" } else { "late, of no run" }),
        Cell::new("late twice", "duplicate", "duplicate"),
    ]
}

async fn twice<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "twice").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    let wait = PATIENCE + Duration::from_secs(1);
    let more = format!("expect = [{{ copies = 1 }}]\n\n  [[journey.step]]\n  pause = {}", millis(wait));
    let journey = scene.journey(AMPLE, &more);
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        scene.relay.put(&parcel).await;
        scene.relay.put(&parcel).await;
    });
    world.stop().await;
    vec![Cell::of("twice", "failed(duplicate)", &report)]
}

async fn out_of_order<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "order").await;
    let world = scene.world().await;
    let journey = format!(
        r#"
[[journey]]
name     = "probe"
every    = "1h"
deadline = {deadline}

  [[journey.step]]
  name = "one"
  send = "out"
  json = {{ id = "{{{{ token }}}}", n = 1 }}
  {keys}

  [[journey.step]]
  name = "two"
  send = "out"
  json = {{ id = "{{{{ token }}}}", n = 2 }}
  {keys}

  [[journey.step]]
  receive = "in"
  since   = "one"
  filter  = [{{ json = "$.n", equals = 1 }}]

  [[journey.step]]
  receive = "in"
  since   = "two"
  filter  = [{{ json = "$.n", equals = 2 }}]
  expect  = [{{ order = true }}]
"#,
        deadline = millis(AMPLE),
        keys = rig.send_keys(),
    );
    let run = async |scene: &mut Scene<'_, R>, reversed: bool| {
        let (report, ()) = join!(world.run(&journey), async {
            let (first, second) = (scene.relay.take().await, scene.relay.take().await);
            let is_first = |parcel: &Parcel| String::from_utf8_lossy(&parcel.body).contains("\"n\":1");
            let (one, two) = if is_first(&first) { (first, second) } else { (second, first) };
            let (a, b) = if reversed { (two, one) } else { (one, two) };
            let before = world.count(Kind::Expected);
            scene.relay.put(&a).await;
            // A system that keeps no order of its own must not decide the case.
            let is_there = async || (world.count(Kind::Expected) > before).then_some(());
            crate::support::wait_for("the first of two", BOUND, is_there).await;
            scene.relay.put(&b).await;
        });
        report
    };
    let (in_order, reversed) = (run(&mut scene, false).await, run(&mut scene, true).await);
    world.stop().await;
    vec![Cell::of("in order", "good", &in_order), Cell::of("out of order", "failed(reordered)", &reversed)]
}

async fn altered<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "altered").await;
    let world = scene.world().await;
    let journey = scene.journey(AMPLE, "expect = [{ intact = true }]");
    let (intact, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        scene.relay.put(&parcel).await;
    });
    let (altered, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        let text = String::from_utf8_lossy(&parcel.body).replace("Welt", "Wel?");
        scene.relay.put(&parcel.with_body(text)).await;
    });
    world.stop().await;
    vec![Cell::of("intact", "good", &intact), Cell::of("altered", "failed(altered)", &altered)]
}

/// What another installation sent, and what somebody made up, settle nothing.
async fn somebody_elses<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "foreign").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    let journey = scene.journey(PATIENCE, "");
    let now = world.clock().now().wall;
    let foreign = Mint::new([0xaa; 32], 7).issue(now);
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        let forged = Token::from_bits(parcel.token.bits() ^ (1 << 41));
        scene.relay.put(&parcel.claiming(foreign)).await;
        scene.relay.put(&parcel.claiming(forged)).await;
    });
    let (foreign, forged) = (world.sighted(Kind::Foreign).await, world.sighted(Kind::Forged).await);
    world.stop().await;
    vec![
        Cell::new("foreign", "foreign", foreign.kind.to_string()),
        Cell::new("forged", "forged", forged.kind.to_string()),
        Cell::of("neither is ours", "failed(not_received)", &report),
    ]
}

async fn of_a_previous_run<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "previous").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    let short = scene.journey(PATIENCE, "");
    let (_lost, old) = join!(world.run(&short), scene.relay.take());
    let journey = scene.journey(AMPLE, "expect = [{ copies = 1 }]");
    let (report, ()) = join!(world.run(&journey), async {
        let new = scene.relay.take().await;
        scene.relay.put(&old).await;
        world.sighted(Kind::Late).await;
        scene.relay.put(&new).await;
    });
    world.stop().await;
    vec![Cell::of("beside a previous run's", "good", &report)]
}

/// The process ends between send and arrival; the one after it still knows whose the message is.
async fn restarted_between<R: Rig>(rig: &R) -> Vec<Cell> {
    let mut scene = Scene::new(rig, "restart").await;
    let world = scene.world().await;
    let journey = scene.journey(AMPLE, "");
    let stop = CancellationToken::new();
    let (report, parcel) = join!(world.run_until(&journey, &stop), async {
        let parcel = scene.relay.take().await;
        stop.cancel();
        parcel
    });
    world.stop().await;
    let world = scene.world().await;
    scene.relay.put(&parcel).await;
    let sighting = world.sighted(Kind::Late).await;
    let is_settled = sighting.journey.as_deref() == Some("probe") && sighting.slot == Some(report.slot);
    world.stop().await;
    vec![
        Cell::of("we stop before it arrives", "unknown(shutdown)", &report),
        Cell::new(
            "and it arrives after",
            "late, of its run",
            if is_settled { "late, of its run" } else { "unsettled" },
        ),
    ]
}

async fn receiver_not_ready<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "receiver not ready";
    if !rig.promises().reader_connects {
        return vec![Cell::none(CASE, "it is called, and connects to nothing")];
    }
    let mut scene = Scene::new(rig, "not-ready").await;
    scene.proxies.back.shut().await;
    let channels = rig.channels(&scene.tag, scene.proxies.out.address(), scene.proxies.back.address());
    let world = World::start(&channels, &scene.scratch.0).await;
    let report = world.run(&scene.journey(AMPLE, "")).await;
    let sent = scene.relay.took_nothing();
    scene.proxies.back.reopen().await;
    world.until(|readiness| *readiness == Readiness::Ready).await;
    world.stop().await;
    vec![
        Cell::of(CASE, "unknown(not_ready)", &report),
        Cell::new("and nothing was sent", "nothing", if sent { "nothing" } else { "a message" }),
    ]
}

async fn receiver_lost<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "receiver lost in mid-run";
    if !rig.promises().reader_connects {
        return vec![Cell::none(CASE, "it is called, and connects to nothing")];
    }
    let mut scene = Scene::new(rig, "lost").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    let (deadline, wanted) = match scene.promises.keeps {
        true => (AMPLE, "good"),
        false => (PATIENCE + Duration::from_secs(3), "unknown(not_ready)"),
    };
    let journey = scene.journey(deadline, "");
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        scene.proxies.back.shut().await;
        world.until_away().await;
        scene.relay.put(&parcel).await;
        scene.proxies.back.reopen().await;
    });
    world.stop().await;
    vec![Cell::of(CASE, wanted, &report)]
}

async fn cut_before_connect<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "cut before connect";
    let scene = Scene::new(rig, "cut-before").await;
    let world = scene.world().await;
    scene.proxies.out.shut().await;
    let report = world.run(&scene.journey(AMPLE, "")).await;
    world.stop().await;
    vec![Cell::of(CASE, "failed(unreachable)", &report)]
}

async fn cut_connected<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "cut while connected";
    let mut scene = Scene::new(rig, "cut-connected").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    scene.proxies.out.shut().await;
    let report = world.run(&scene.journey(PATIENCE + Duration::from_secs(2), "")).await;
    scene.proxies.out.reopen().await;
    scene.warm(&world).await;
    world.stop().await;
    vec![Cell::of(CASE, "failed(unreachable)", &report), Cell::new("and connected again", "good", "good")]
}

/// The bytes are gone, and their acknowledgement never comes: what arrives decides.
async fn cut_unconfirmed<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASES: [&str; 3] = ["cut unconfirmed, arrives", "cut unconfirmed, lost", "reset unconfirmed, lost"];
    if !rig.promises().acknowledges {
        return CASES.map(|case| Cell::none(case, "no acknowledgement to cut")).to_vec();
    }
    if rig.promises().connects_for_each {
        return CASES.map(|case| Cell::none(case, "see its own tests")).to_vec();
    }
    let mut cells = Vec::new();
    for case in CASES {
        let mut scene = Scene::new(rig, &case.replace([' ', ','], "-")).await;
        let world = scene.world().await;
        scene.warm(&world).await;
        let arrives = case.ends_with("arrives");
        let wanted = if arrives { "good" } else { "failed(uncertain)" };
        scene.proxies.out.set(Direction::ToClient, Flow::Hold);
        let deadline = if arrives { AMPLE } else { PATIENCE + Duration::from_secs(1) };
        let journey = scene.journey(deadline, "");
        let (report, ()) = join!(world.run(&journey), async {
            let parcel = scene.relay.take().await;
            if case.starts_with("reset") {
                scene.proxies.out.reset()
            } else {
                scene.proxies.out.cut()
            }
            if arrives {
                scene.relay.put(&parcel).await;
            }
        });
        world.stop().await;
        cells.push(Cell::of(case, wanted, &report));
    }
    cells
}

/// The system has it, and the connection to us goes before it is handed out.
async fn cut_unconsumed<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "cut confirmed, unconsumed";
    if !rig.promises().reader_connects {
        return vec![Cell::none(CASE, "it is called, and connects to nothing")];
    }
    let mut scene = Scene::new(rig, "unconsumed").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    scene.proxies.back.set(Direction::ToClient, Flow::Hold);
    let (deadline, wanted) = match scene.promises.keeps {
        true => (AMPLE, "good"),
        false => (PATIENCE + Duration::from_secs(3), "unknown(not_ready)"),
    };
    let journey = scene.journey(deadline, "");
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        let before = scene.proxies.back.seen(Direction::ToClient);
        scene.relay.put(&parcel).await;
        // It is on its way to us, and held.
        let is_held = async || (scene.proxies.back.seen(Direction::ToClient) > before).then_some(());
        let held = crate::support::wait_for("the message to be held", PATIENCE * 4, is_held);
        let _ = tokio::time::timeout(PATIENCE * 3, held).await;
        scene.proxies.back.cut();
        scene.proxies.back.set(Direction::ToClient, Flow::Pass);
    });
    world.stop().await;
    vec![Cell::of(CASE, wanted, &report)]
}

/// We have it, and our acknowledgement is lost: what is handed out again is a copy, not a message.
async fn cut_unacknowledged<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "cut delivered, unacknowledged";
    if !rig.promises().reader_connects || !rig.promises().redelivers {
        return vec![Cell::none(CASE, "nothing is acknowledged")];
    }
    let mut scene = Scene::new(rig, "unacknowledged").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    scene.reader_is_quiet().await;
    scene.proxies.back.set(Direction::ToServer, Flow::Hold);
    let before = scene.proxies.back.seen(Direction::ToServer);
    let journey = scene.journey(AMPLE, "");
    let (report, ()) = join!(world.run(&journey), async {
        let parcel = scene.relay.take().await;
        scene.relay.put(&parcel).await;
    });
    // The acknowledgement is on its way, and held: one that is not sent yet would go over the next connection.
    let is_held = async || (scene.proxies.back.seen(Direction::ToServer) > before).then_some(());
    let held = crate::support::wait_for("the acknowledgement to be held", PATIENCE * 4, is_held);
    let _ = tokio::time::timeout(PATIENCE * 3, held).await;
    scene.proxies.back.cut();
    scene.proxies.back.set(Direction::ToServer, Flow::Pass);
    if scene.promises.recognises {
        // Connected again, whatever was handed out again is there before the next message.
        world.until(|readiness| *readiness == Readiness::Ready).await;
        scene.warm(&world).await;
        let copies = world.count(Kind::Duplicate).to_string();
        world.stop().await;
        return vec![Cell::of(CASE, "good", &report), Cell::new("and is known again", "0", copies)];
    }
    let again = world.sighted(Kind::Duplicate).await;
    world.stop().await;
    vec![Cell::of(CASE, "good", &report), Cell::new("and is handed out again", "duplicate", again.kind.to_string())]
}

/// A network that swallows everything and tells nobody; first on one connection only, which a confirmation does not use.
async fn half_open<R: Rig>(rig: &R) -> Vec<Cell> {
    const CONFIRMED: &str = "confirmed past a half-open connection";
    const CASE: &str = "half-open connection";
    let mut scene = Scene::new(rig, "half-open").await;
    let world = scene.world().await;
    scene.warm(&world).await;
    let confirmed = match scene.promises.binds_anew {
        false => Cell::none(CONFIRMED, "an account may have one bind only"),
        true => {
            scene.proxies.out.stall();
            let (journey, ours) = (scene.journey(AMPLE, ""), async {
                let parcel = scene.relay.take().await;
                scene.relay.put(&parcel).await;
            });
            let (report, ()) = join!(world.confirm(&journey), ours);
            Cell::of(CONFIRMED, "good", &report)
        }
    };
    scene.proxies.out.set(Direction::ToServer, Flow::Hold);
    scene.proxies.out.set(Direction::ToClient, Flow::Hold);
    let wanted = match scene.promises {
        Promises { connects_for_each: true, .. } => "failed(unreachable)",
        Promises { acknowledges: true, .. } => "failed(uncertain)",
        _ => "failed(not_received)",
    };
    let journey = scene.journey(PATIENCE + Duration::from_secs(2), "");
    let journey = journey.replace("name = \"submit\"", "name = \"submit\"\n  timeout = \"1s\"");
    let report = world.run(&journey).await;
    world.stop().await;
    vec![confirmed, Cell::of(CASE, wanted, &report)]
}

/// Slow networks are slow, and no more.
async fn bad_networks<R: Rig>(rig: &R) -> Vec<Cell> {
    let networks = [
        ("latency of 50 ms", Flow::Delay(Duration::from_millis(50))),
        ("cut into single bytes", Flow::Slices(1, Duration::ZERO)),
        ("16 kB a second", Flow::Slices(16, Duration::from_millis(1))),
    ];
    let mut cells = Vec::new();
    for (case, flow) in networks {
        let mut scene = Scene::new(rig, &case.replace(' ', "-")).await;
        for proxy in [&scene.proxies.out, &scene.proxies.back] {
            proxy.set(Direction::ToServer, flow);
            proxy.set(Direction::ToClient, flow);
        }
        let world = scene.world().await;
        let journey = scene.journey(AMPLE, "");
        let (report, ()) = join!(world.run(&journey), async {
            let parcel = scene.relay.take().await;
            scene.relay.put(&parcel).await;
        });
        world.stop().await;
        cells.push(Cell::of(case, "good", &report));
    }
    cells
}

const SEND_ONLY: &str = r#"
[[journey]]
name     = "probe"
every    = "1h"
deadline = "30s"

  [[journey.step]]
  name = "submit"
  send = "out"
  json = { id = "{{ token }}" }
"#;

fn send_only<R: Rig>(rig: &R) -> String {
    format!("{SEND_ONLY}  {}\n", rig.send_keys())
}

async fn wrong_credentials<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "wrong credentials";
    let (out, _) = rig.server();
    let tag = format!("{}-auth", rig.name().replace([' ', '/', '.'], "-"));
    let Some(channels) = rig.wrong_credentials(&tag, out) else {
        return vec![Cell::none(CASE, "it takes everybody")];
    };
    rig.prepare(&tag).await;
    let scratch = Scratch::new(&tag);
    let world = World::start(&channels, &scratch.0).await;
    let report = world.run(&send_only(rig)).await;
    world.stop().await;
    vec![Cell::of(CASE, "failed(auth)", &report)]
}

async fn tls<R: Rig>(rig: &R) -> Vec<Cell> {
    let certificates = [
        ("TLS", Shown::Good, "good"),
        ("TLS for another host", Shown::WrongHost, "failed(tls)"),
        ("TLS that has expired", Shown::Expired, "failed(tls)"),
        ("TLS from an unknown issuer", Shown::Unknown, "failed(tls)"),
    ];
    let mut cells = Vec::new();
    for (case, shown, wanted) in certificates {
        let tag = format!("{}-{shown:?}", rig.name().replace([' ', '/', '.'], "-")).to_lowercase();
        let scratch = Scratch::new(&tag);
        let front = TlsFront::start(rig.server().0, shown, &scratch.0).await;
        let Some(channels) = rig.over_tls(&tag, front.address(), front.ca_file()) else {
            cells.push(Cell::none(case, "see its own tests"));
            continue;
        };
        rig.prepare(&tag).await;
        // Somebody must be there to take it.
        let _relay = rig.relay(&tag).await;
        let world = World::start(&channels, &scratch.0).await;
        let report = world.run(&send_only(rig)).await;
        world.stop().await;
        cells.push(Cell::of(case, wanted, &report));
    }
    cells
}

/// Nothing that is not ours is consumed, deleted or purged.
async fn strangers<R: Rig>(rig: &R) -> Vec<Cell> {
    const CASE: &str = "strangers' messages left";
    const PLANTED: usize = 5;
    let mut scene = Scene::new(rig, "strangers").await;
    if rig.plant(&scene.tag, PLANTED).await.is_none() {
        return vec![Cell::none(CASE, "no place that is shared")];
    }
    let world = scene.world().await;
    scene.warm(&world).await;
    scene.warm(&world).await;
    world.stop().await;
    vec![Cell::new(CASE, "5 of 5", format!("{} of {PLANTED}", rig.strangers(&scene.tag).await))]
}

/// The server itself is killed and comes back.
pub(super) async fn killed<R: Rig>(rig: &mut R) -> Vec<Cell> {
    const CASES: [&str; 2] = ["server killed", "and it comes back"];
    let tag = format!("{}-killed", rig.name().replace([' ', '/', '.'], "-"));
    rig.prepare(&tag).await;
    let scratch = Scratch::new(&tag);
    let (out, back) = rig.server();
    let world = World::start(&rig.channels(&tag, out, back), &scratch.0).await;
    world.until(|readiness| *readiness == Readiness::Ready).await;
    if !rig.kill().await {
        world.stop().await;
        return CASES.map(|case| Cell::none(case, "it is ours, in this process")).to_vec();
    }
    world.until_away().await;
    let down = world.run(&journey(rig, None, AMPLE, "")).await;
    rig.revive().await;
    if !rig.promises().survives {
        rig.prepare(&tag).await;
    }
    world.until(|readiness| *readiness == Readiness::Ready).await;
    let mut relay = rig.relay(&tag).await;
    let again = journey(rig, None, AMPLE, "");
    let (up, ()) = join!(world.run(&again), async {
        let parcel = relay.take().await;
        relay.put(&parcel).await;
    });
    world.stop().await;
    vec![Cell::of(CASES[0], "unknown(not_ready)", &down), Cell::of(CASES[1], "good", &up)]
}
