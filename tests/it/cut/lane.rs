//! One fault on one way: its five cells, one after another.

use std::any::Any;
use std::time::Duration;

use futures_util::join;
use journeyman::channel::Readiness;
use journeyman::journey::outcome::{Cause, Outcome};
use journeyman::journey::report::{Report, StepStatus, waterfall};
use journeyman::journey::token::Token;
use journeyman::ledger;
use journeyman::proxy::{Fault, What};

use super::rule::{GOOD, Kind, Moment, Wanted, Way, wanted};
use super::system::System;
use crate::conformance::BOUND;
use crate::conformance::cases::{AMPLE, Scene};
use crate::conformance::rig::{Relay, Rig};
use crate::conformance::world::{World, shown};
use crate::support::proxy::{Direction, Proxy};
use crate::support::wait_for;

/// A deadline for what must not come.
const SHORT: Duration = Duration::from_secs(10);
/// How long what is on its way takes at most to reach the proxy. Only protocols in which that cannot be seen wait for it.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// No message is shorter, and what keeps a connection alive or ends an exchange before it is.
const MESSAGE: u64 = 40;
/// A run lasts this much longer than its message, for what happens after that.
const AFTERWARDS: Duration = Duration::from_millis(400);

/// What a cell came to.
#[derive(Debug)]
pub(super) enum Found {
    /// It was tried; what was wrong with it.
    Tried(Result<(), String>),
    /// There is no such cell, and why.
    None(&'static str),
}

impl Found {
    pub(super) fn tried(&self) -> Option<&Result<(), String>> {
        match self {
            Found::Tried(held) => Some(held),
            Found::None(_) => None,
        }
    }

    pub(super) fn why_not(&self) -> Option<&'static str> {
        match self {
            Found::Tried(_) => None,
            Found::None(why) => Some(why),
        }
    }
}

/// A lane that could not be gone to its end.
pub(super) fn panicked(kind: Kind, way: Way, panic: &(dyn Any + Send)) -> Vec<Found> {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    Moment::ALL.map(|moment| Found::Tried(Err(format!("{kind:?} {way:?} {moment:?}: no end: {words}")))).into()
}

/// Goes through a lane's cells.
pub(super) async fn run<R: Rig>(rig: &R, kind: Kind, way: Way) -> Vec<Found> {
    let is_none = |moment| matches!(wanted(kind, way, moment, &rig.promises()), Wanted::None(_));
    let mut lane = match Moment::ALL.into_iter().all(is_none) {
        true => None,
        false => Some(Lane::start(rig, kind, way).await),
    };
    let mut found = Vec::new();
    for moment in Moment::ALL {
        found.push(match (wanted(kind, way, moment, &rig.promises()), &mut lane) {
            (Wanted::None(why), _) => Found::None(why),
            (wanted, Some(lane)) => {
                let held = lane.cell(moment, wanted).await;
                Found::Tried(held.map_err(|wrong| format!("{}: {kind:?} {way:?} {moment:?}: {wrong}", rig.name())))
            }
            (wanted, None) => unreachable!("{wanted:?} without a lane"),
        });
    }
    if let Some(lane) = lane {
        lane.world.stop().await;
    }
    found
}

struct Lane<'a, R> {
    scene: Scene<'a, R>,
    world: World,
    system: System,
    kind: Kind,
    way: Way,
    /// So many bytes a message takes to the server, where each has a connection of its own.
    session: u64,
}

impl<'a, R: Rig> Lane<'a, R> {
    async fn start(rig: &'a R, kind: Kind, way: Way) -> Lane<'a, R> {
        let mut scene = Scene::new(rig, &format!("{kind:?}-{way:?}").to_lowercase()).await;
        let relay = std::mem::replace(&mut scene.relay, Relay::nobody());
        let world = scene.world().await;
        let mut lane = Lane { scene, world, system: System::start(relay), kind, way, session: 0 };
        if lane.scene.promises.connects_for_each {
            lane.measure().await;
        }
        lane
    }

    /// How long a message's own connection is.
    async fn measure(&mut self) {
        let before = self.scene.proxies.out.seen(Direction::ToServer);
        let report = self.world.run(&self.scene.journey(AMPLE, "")).await;
        assert_eq!(shown(&report), "good", "the lane could not begin: {report:?}");
        self.session = self.scene.proxies.out.seen(Direction::ToServer) - before;
    }

    async fn cell(&mut self, moment: Moment, wanted: Wanted) -> Result<(), String> {
        let deadline = if matches!(wanted, GOOD | Wanted::Noted) { AMPLE } else { SHORT };
        let report = match moment {
            Moment::BeforeConnect => self.before_connect(deadline).await,
            Moment::Idle => self.idle(deadline).await,
            Moment::Unconfirmed => self.unconfirmed(deadline, wanted).await,
            Moment::Unconsumed => self.unconsumed(deadline).await,
            Moment::Unacknowledged => self.unacknowledged(deadline).await,
        };
        let tally = match moment {
            Moment::BeforeConnect | Moment::Idle | Moment::Unconfirmed => self.scene.proxies.out.tally(),
            Moment::Unconsumed | Moment::Unacknowledged => self.scene.proxies.back.tally(),
        };
        let mut wrong = Vec::new();
        wrong.extend(self.lie(&report));
        wrong.extend(is_wrong(wanted, &report));
        for proxy in [&self.scene.proxies.out, &self.scene.proxies.back] {
            proxy.reopen().await;
            proxy.impose(Vec::new());
        }
        if !self.scene.promises.keeps {
            // What it lost only just now, it may not know of yet, and nothing would be kept for it.
            self.scene.reader_is_quiet().await;
        }
        self.world.nudge();
        self.world.until(|readiness| *readiness == Readiness::Ready).await;
        let next = self.world.run(&self.scene.journey(AMPLE, "")).await;
        if shown(&next) != "good" {
            wrong.push(format!("the run after it is {}\n{}", shown(&next), told(&next)));
        }
        wrong.extend(self.lie(&next));
        wrong.extend(self.system.sent_twice().iter().map(|token| format!("{token} was sent twice")));
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("{}\n{}{tally:?}\n{:?}", wrong.join("; "), told(&report), self.system.troubles()))
    }

    /// What the run says against what happened.
    fn lie(&self, report: &Report) -> Option<String> {
        let has_arrived = self.sightings(report.token, ledger::Kind::Expected) > 0;
        let taken = self.system.taken(report.token);
        let lie = match &report.outcome {
            Outcome::Good { .. } | Outcome::Slow { .. } if !has_arrived => "good, and the message was not there",
            Outcome::Good { .. } | Outcome::Slow { .. } => return None,
            _ if has_arrived => "not good, and the message was there in time",
            Outcome::Failed { cause: Cause::Unreachable, .. } if taken > 0 => "unreachable, and the system has it",
            Outcome::Failed { cause: Cause::NotReceived, .. } if taken == 0 => "lost, and the system never had it",
            _ => return None,
        };
        Some(format!("a lie: {lie}"))
    }

    async fn before_connect(&mut self, deadline: Duration) -> Report {
        let out = &self.scene.proxies.out;
        out.impose(vec![self.fault(out)]);
        self.world.run(&self.scene.journey(deadline, "")).await
    }

    async fn idle(&mut self, deadline: Duration) -> Report {
        let out = &self.scene.proxies.out;
        wait_for("a connection that stands", BOUND, async || (out.tally().open > 0).then_some(())).await;
        out.impose(vec![self.fault(out)]);
        if self.kind.ends_idle() {
            wait_for("no connection to stand", BOUND, async || (out.tally().open == 0).then_some(())).await;
        }
        self.world.run(&self.scene.journey(deadline, "")).await
    }

    async fn unconfirmed(&mut self, deadline: Duration, wanted: Wanted) -> Report {
        let out = &self.scene.proxies.out;
        let hold = || out.impose(vec![Fault::new(What::Hold).on(Direction::ToClient)]);
        let has_its_own = self.scene.promises.connects_for_each;
        match has_its_own {
            // Every answer takes its time: when the message is out, the word on it is still under way.
            true => out.impose(vec!["to-client:latency=300ms".parse().expect("a fault")]),
            // The connection stands. Begun before, the run could have its answer already.
            false => hold(),
        }
        let (taken, before) = (self.system.count(), out.seen(Direction::ToServer));
        self.system.hands_on(false);
        let journey = self.scene.journey(deadline, "");
        let (report, ()) = join!(self.world.run(&journey), async {
            if has_its_own {
                // The goodbye comes after that word.
                let said = before + self.session - 16;
                wait_for("the message to be out", BOUND, async || {
                    (out.seen(Direction::ToServer) >= said).then_some(())
                })
                .await;
                hold();
            }
            self.system.until_taken(taken).await;
            // What is held would race with a reset, which wants nothing to be let go of first.
            let held = (self.kind == Kind::Reset).then(|| Fault::new(What::Hold).on(Direction::ToClient));
            out.impose(held.into_iter().chain([self.fault(out)]).collect());
            if wanted == Wanted::Noted {
                // It is over before the message comes: whoever sends once more what was taken gets through.
                wait_for("the connection to end", BOUND, async || (out.tally().open == 0).then_some(())).await;
                out.reopen().await;
                out.impose(Vec::new());
            }
            self.system.hands_on(true);
        });
        report
    }

    async fn unconsumed(&mut self, deadline: Duration) -> Report {
        let back = &self.scene.proxies.back;
        let to_us = self.direction(back, Way::ToUs);
        back.impose(vec![Fault::new(What::Hold).on(to_us)]);
        let (taken, before) = (self.system.count(), back.seen(to_us));
        let journey = self.scene.journey(deadline, "");
        let (report, ()) = join!(self.world.run(&journey), async {
            self.system.until_taken(taken).await;
            let held = wait_for("the message to be held", BOUND, async || {
                (back.seen(to_us) >= before + MESSAGE).then_some(())
            });
            let _ = tokio::time::timeout(UNDER_WAY, held).await;
            back.impose(vec![self.fault(back)]);
        });
        report
    }

    async fn unacknowledged(&mut self, deadline: Duration) -> Report {
        let back = &self.scene.proxies.back;
        // A reader that asks would get nothing.
        if !self.scene.promises.asks {
            self.scene.reader_is_quiet().await;
            back.impose(vec![Fault::new(What::Hold).on(self.direction(back, Way::ToSystem))]);
        }
        let before = self.world.count(ledger::Kind::Expected);
        let pause = format!("\n\n  [[journey.step]]\n  pause = \"{}ms\"", AFTERWARDS.as_millis());
        let journey = self.scene.journey(deadline, &pause);
        let (report, ()) = join!(self.world.run(&journey), async {
            let is_there = async || (self.world.count(ledger::Kind::Expected) > before).then_some(());
            wait_for("the message to be there", BOUND, is_there).await;
            back.impose(vec![self.fault(back)]);
        });
        report
    }

    /// The lane's fault, as it is for this proxy.
    fn fault(&self, proxy: &Proxy) -> Fault {
        match self.kind {
            Kind::Down => self.kind.fault(),
            _ => self.kind.fault().on(self.direction(proxy, self.way)),
        }
    }

    /// A way, by who is the server of this proxy: it is ours where we are called.
    fn direction(&self, proxy: &Proxy, way: Way) -> Direction {
        let is_ours = !self.scene.promises.reader_connects && std::ptr::eq(proxy, &self.scene.proxies.back);
        if (way == Way::ToUs) == is_ours { Direction::ToServer } else { Direction::ToClient }
    }

    fn sightings(&self, token: Token, kind: ledger::Kind) -> usize {
        let is_it = |sighting: &&ledger::Sighting| sighting.token == Some(token) && sighting.kind == kind;
        self.world.sightings().iter().filter(is_it).count()
    }
}

/// Why a report is not what is wanted.
fn is_wrong(wanted: Wanted, report: &Report) -> Option<String> {
    let found = shown(report);
    let has_note = |step: &journeyman::journey::report::StepReport| {
        step.status == StepStatus::Warned && step.detail.as_deref().is_some_and(|said| said.starts_with("uncertain: "))
    };
    let is_noted = report.steps.first().is_some_and(has_note);
    match wanted {
        Wanted::Of(outcomes) if !outcomes.contains(&&*found) => {
            Some(format!("it must be {}, and is {found}", outcomes.join(" or ")))
        }
        Wanted::Of(_) if found == "good" && is_noted => Some("good, with a note that it does not need".to_owned()),
        Wanted::Noted if found != "good" || !is_noted => {
            Some(format!("it must be good with a note, and is {found}{}", if is_noted { " with one" } else { "" }))
        }
        Wanted::Of(_) | Wanted::Noted | Wanted::None(_) => None,
    }
}

fn told(report: &Report) -> String {
    format!("{}\n{:?}\n", waterfall(report, None, 32), report.note)
}
