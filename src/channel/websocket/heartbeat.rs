//! Whether the other side still lives: a ping now and then, and a bound on its silence after it. Pure.

use std::time::Duration;

use crate::time::Mono;

/// A ping this often: more often than proxies close connections that are idle (nginx after 60 s, load balancers after 30 s).
const EVERY: Duration = Duration::from_secs(20);
/// After a ping, anything must be heard within this.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// When to ping, and when to give up.
pub(super) struct Heartbeat {
    ping_at: Mono,
    /// Set from a ping on until something is heard.
    dead_at: Option<Mono>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a ping.
    Ping,
    /// The other side is gone.
    Dead,
}

impl Heartbeat {
    /// Of a connection that was heard of just now.
    pub(super) fn new(now: Mono) -> Heartbeat {
        Heartbeat { ping_at: now + EVERY, dead_at: None }
    }

    /// When to ask next what to do.
    pub(super) fn next(&self) -> Mono {
        self.dead_at.map_or(self.ping_at, |at| at.min(self.ping_at))
    }

    /// What to do now.
    pub(super) fn due(&mut self, now: Mono) -> Option<Beat> {
        if self.dead_at.is_some_and(|at| at <= now) {
            return Some(Beat::Dead);
        }
        if self.ping_at > now {
            return None;
        }
        self.ping_at = now + EVERY;
        self.dead_at.get_or_insert(now + SILENCE);
        Some(Beat::Ping)
    }

    /// Something was heard. It need not be the pong: whoever speaks is alive.
    pub(super) fn heard(&mut self) {
        self.dead_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn it_pings_every_20_seconds_and_gives_up_after_10_of_silence() {
        let mut heartbeat = Heartbeat::new(at(0));
        assert_eq!((heartbeat.next(), heartbeat.due(at(19))), (at(20), None));
        assert_eq!((heartbeat.due(at(20)), heartbeat.next()), (Some(Beat::Ping), at(30)));
        heartbeat.heard();
        assert_eq!((heartbeat.due(at(30)), heartbeat.next()), (None, at(40)));
        assert_eq!(heartbeat.due(at(41)), Some(Beat::Ping));
        assert_eq!((heartbeat.due(at(50)), heartbeat.next()), (None, at(51)));
        assert_eq!(heartbeat.due(at(51)), Some(Beat::Dead));
    }
}
