//! What a cell must come to: a function of the fault, the way, the moment, and what the protocol promises.

use journeyman::proxy::Fault;

use crate::conformance::rig::Promises;

/// The faults of Toxiproxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Latency,
    Bandwidth,
    Slicer,
    SlowClose,
    Down,
    Reset,
    Timeout,
    Limit,
}

/// To the system under watch, or from it to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToSystem,
    ToUs,
}

pub(super) const ALL_WAYS: [Way; 2] = [Way::ToSystem, Way::ToUs];

/// Where a message is on its way when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Nobody is connected to send it.
    BeforeConnect,
    /// The connection stands, and nothing is sent.
    Idle,
    /// The system has it, and we do not know.
    Unconfirmed,
    /// We know, and it is on its way back.
    Unconsumed,
    /// We have it, and the system does not know.
    Unacknowledged,
}

impl Kind {
    pub(super) const ALL: [Kind; 8] = [
        Kind::Latency,
        Kind::Bandwidth,
        Kind::Slicer,
        Kind::SlowClose,
        Kind::Down,
        Kind::Reset,
        Kind::Timeout,
        Kind::Limit,
    ];

    /// One that is short enough for a test, and long enough for all that is under way when it begins.
    pub(super) fn fault(self) -> Fault {
        let text = match self {
            Kind::Latency => "latency=100ms±30ms",
            Kind::Bandwidth => "bandwidth=20kB/s",
            Kind::Slicer => "slicer=16/1ms",
            Kind::SlowClose => "slow_close=1s",
            Kind::Down => "down",
            Kind::Reset => "reset",
            Kind::Timeout => "timeout=700ms",
            // Less than anything that is said in any protocol.
            Kind::Limit => "limit=1B",
        };
        text.parse().expect("a fault")
    }

    /// Whether every byte of `way` gets through a fault that is on `on`.
    fn lets_through(self, on: Way, way: Way) -> bool {
        match self {
            Kind::Latency | Kind::Bandwidth | Kind::Slicer | Kind::SlowClose => true,
            Kind::Down | Kind::Reset => false,
            Kind::Timeout | Kind::Limit => on != way,
        }
    }

    /// Whether it ends a connection on which nothing is said.
    pub(super) fn ends_idle(self) -> bool {
        matches!(self, Kind::Down | Kind::Reset | Kind::Timeout)
    }
}

impl Moment {
    pub(super) const ALL: [Moment; 5] =
        [Moment::BeforeConnect, Moment::Idle, Moment::Unconfirmed, Moment::Unconsumed, Moment::Unacknowledged];
}

/// What a cell must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One of these outcomes.
    Of(&'static [&'static str]),
    /// Good, with a note that the send had no clear answer.
    Noted,
    /// There is no such cell, and why.
    None(&'static str),
}

pub(super) const GOOD: Wanted = Wanted::Of(&["good"]);
const UNREACHABLE: Wanted = Wanted::Of(&["failed(unreachable)"]);
const UNCERTAIN: Wanted = Wanted::Of(&["failed(uncertain)"]);
/// Nothing was sent. Whether we know that, or only that nobody answered, depends on whether we wrote before we heard of the end.
const NOT_SENT: Wanted = Wanted::Of(&["failed(unreachable)", "failed(uncertain)"]);

/// The rule.
pub(super) fn wanted(kind: Kind, on: Way, moment: Moment, promises: &Promises) -> Wanted {
    let [to_system, to_us] = ALL_WAYS.map(|way| kind.lets_through(on, way));
    if kind == Kind::Down && on == Way::ToUs {
        return Wanted::None("a server that is down is so both ways");
    }
    if moment == Moment::Idle && promises.connects_for_each {
        return Wanted::None("no connection is idle, each message has its own");
    }
    match moment {
        Moment::BeforeConnect => new_connection(kind, to_system, to_us, promises),
        // What stood is ended before the message comes, and the next connection meets the same.
        Moment::Idle if kind.ends_idle() && kind != Kind::Down => {
            match new_connection(kind, to_system, to_us, promises) {
                Wanted::Of(&["failed(unreachable)"]) => NOT_SENT,
                other => other,
            }
        }
        Moment::Idle if kind == Kind::Down => UNREACHABLE,
        // The message goes over what stands.
        Moment::Idle => over_standing(to_system, to_us),
        Moment::Unconfirmed => if_confirmed(to_us),
        Moment::Unconsumed => match (to_system, to_us) {
            (true, true) => GOOD,
            // Everything that is needed is under way already.
            (false, true) if !promises.asks => GOOD,
            // It may have been asked for before.
            (false, true) => Wanted::Of(&["good", "unknown(not_ready)"]),
            // Our reader is away, and nobody knows.
            (_, false) if promises.reader_connects => Wanted::Of(&["unknown(not_ready)"]),
            // We were there all the time, and nobody came.
            (_, false) => Wanted::Of(&["failed(not_received)"]),
        },
        // It has arrived. What becomes of the connection then is no news of the message.
        Moment::Unacknowledged => GOOD,
    }
}

/// A message over a connection that is yet to be made.
fn new_connection(kind: Kind, to_system: bool, to_us: bool, promises: &Promises) -> Wanted {
    match (to_system, to_us) {
        (true, true) => GOOD,
        _ if promises.shakes_hands || kind == Kind::Down => UNREACHABLE,
        // It is ended while the message is being written.
        _ if kind == Kind::Reset => NOT_SENT,
        ways => over_standing(ways.0, ways.1),
    }
}

/// A message over a connection that stands.
fn over_standing(to_system: bool, to_us: bool) -> Wanted {
    if to_system { if_confirmed(to_us) } else { UNCERTAIN }
}

/// A message that the system has.
fn if_confirmed(to_us: bool) -> Wanted {
    if to_us { GOOD } else { Wanted::Noted }
}
