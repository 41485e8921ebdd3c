//! What a network can do to connections, and how people write it: `latency=200ms`, `to-client:reset=0.1`.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use crate::time::parse_duration;

/// A direction through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

    fn as_str(self) -> &'static str {
        match self {
            Direction::ToServer => "to-server",
            Direction::ToClient => "to-client",
        }
    }
}

/// What happens to bytes, or to their connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes go on this long after they came, more or less by up to `jitter`; in their order.
    Latency {
        /// How long.
        delay: Duration,
        /// How much more or less.
        jitter: Duration,
    },
    /// At most so many bytes a second go on.
    Bandwidth(NonZeroU64),
    /// They go on in pieces of at most so many bytes.
    Slicer {
        /// How many.
        size: NonZeroUsize,
        /// So long before each.
        pause: Duration,
    },
    /// That one side has closed is passed on only after this long.
    SlowClose(Duration),
    /// Nothing goes on, and after this long the connection is ended.
    Timeout(Duration),
    /// The connection is reset, after this long: for the side to which the direction leads, and just ended for the other.
    Reset {
        /// How long.
        after: Duration,
    },
    /// After so many bytes the connection is ended.
    Limit(u64),
    /// Nothing goes on, and nobody is told.
    Hold,
    /// Nobody listens, and every connection is ended.
    Down,
}

/// A fault: what happens, in which direction, on what share of the connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// What happens.
    pub what: What,
    /// To bytes of which direction; `None` is both.
    pub direction: Option<Direction>,
    /// Which share of the connections it strikes, from 0 to 1.
    pub share: f64,
}

impl Fault {
    /// In both directions, on every connection.
    pub fn new(what: What) -> Fault {
        Fault { what, direction: None, share: 1.0 }
    }

    /// The same in one direction only.
    pub fn on(self, direction: Direction) -> Fault {
        Fault { direction: Some(direction), ..self }
    }

    /// Whether it happens to this direction.
    pub fn is_on(&self, direction: Direction) -> bool {
        self.direction.is_none_or(|own| own == direction)
    }
}

/// Every name with what it takes, for who has mistyped one.
const NAMES: &str = "latency=200ms, latency=200ms±50ms, bandwidth=10kB/s, slicer=64, slicer=64/1ms, slow_close=1s, timeout=5s, \
                     reset, reset=0.1, reset=5s, limit=1kB, hold, down";

impl FromStr for Fault {
    type Err = String;

    /// `[to-server:|to-client:]NAME[=VALUE][@SHARE]`
    fn from_str(text: &str) -> Result<Fault, String> {
        let (direction, rest) = match text.split_once(':') {
            None => (None, text),
            Some((name, rest)) => match Direction::ALL.iter().find(|direction| direction.as_str() == name) {
                Some(direction) => (Some(*direction), rest),
                None => {
                    return Err(format!("`{name}` is no direction: write to-server or to-client, or none for both"));
                }
            },
        };
        let (rest, share) = match rest.split_once('@') {
            Some((rest, share)) => (rest, Some(read_share(share)?)),
            None => (rest, None),
        };
        let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
        let needs = |example: &str| value.ok_or_else(|| format!("`{name}` needs a value, as in `{example}`"));
        let alone = |what| match value {
            Some(_) => Err(format!("`{name}` takes no value")),
            None => Ok(what),
        };
        let mut own_share = None;
        let what = match name {
            "latency" => read_latency(needs("latency=200ms")?)?,
            "bandwidth" => What::Bandwidth(read_rate(needs("bandwidth=10kB/s")?)?),
            "slicer" => read_slicer(needs("slicer=64")?)?,
            "slow_close" => What::SlowClose(parse_duration(needs("slow_close=1s")?)?),
            "timeout" => What::Timeout(parse_duration(needs("timeout=5s")?)?),
            "reset" => match value.map(|value| (value, parse_duration(value))) {
                None => What::Reset { after: Duration::ZERO },
                Some((_, Ok(after))) => What::Reset { after },
                Some((value, Err(_))) => {
                    own_share = Some(read_share(value)?);
                    What::Reset { after: Duration::ZERO }
                }
            },
            "limit" => What::Limit(read_bytes(needs("limit=1kB")?)?),
            "hold" => alone(What::Hold)?,
            "down" => alone(What::Down)?,
            _ => return Err(format!("no fault is called `{name}`; there are {NAMES}")),
        };
        if what == What::Down && (direction.is_some() || share.is_some()) {
            return Err("`down` is the whole proxy's: it has no direction and no share".to_owned());
        }
        let share = match (own_share, share) {
            (Some(_), Some(_)) => return Err(format!("`{text}` says twice how many connections it strikes")),
            (own, other) => own.or(other).unwrap_or(1.0),
        };
        Ok(Fault { what, direction, share })
    }
}

fn read_share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    let is_share = |share: &f64| *share > 0.0 && *share <= 1.0;
    share.ok().filter(is_share).ok_or_else(|| format!("`{text}` is no share of connections: write 0.1, or 10%"))
}

fn read_latency(text: &str) -> Result<What, String> {
    // The second for keyboards that have no ±.
    let parts = text.split_once('±').or_else(|| text.split_once("+-"));
    let (delay, jitter) = parts.unwrap_or((text, "0s"));
    Ok(What::Latency { delay: parse_duration(delay)?, jitter: parse_duration(jitter)? })
}

fn read_rate(text: &str) -> Result<NonZeroU64, String> {
    let bytes = read_bytes(text.strip_suffix("/s").unwrap_or(text))?;
    NonZeroU64::new(bytes).ok_or_else(|| "a bandwidth of nothing is `hold`".to_owned())
}

fn read_slicer(text: &str) -> Result<What, String> {
    let (size, pause) = text.split_once('/').unwrap_or((text, "0s"));
    let bytes = read_bytes(size)?;
    let size = usize::try_from(bytes).ok().and_then(NonZeroUsize::new);
    let size = size.ok_or_else(|| format!("pieces of {bytes} bytes cannot be cut"))?;
    Ok(What::Slicer { size, pause: parse_duration(pause)? })
}

const UNITS: &[(&str, u64)] =
    &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];

/// `64`, `64B`, `10kB`, `1MiB`
fn read_bytes(text: &str) -> Result<u64, String> {
    let with_unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (number, size) = with_unit.unwrap_or_else(|| (text.strip_suffix('B').unwrap_or(text), 1));
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(size));
    bytes.ok_or_else(|| format!("`{text}` is no number of bytes: write 64, 10kB or 1MiB"))
}

impl fmt::Display for Fault {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(direction) = self.direction {
            write!(f, "{}:", direction.as_str())?;
        }
        write!(f, "{}", self.what)?;
        if self.share < 1.0 { write!(f, "@{}", self.share) } else { Ok(()) }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            What::Latency { delay, jitter } if jitter.is_zero() => write!(f, "latency={}", Exact(delay)),
            What::Latency { delay, jitter } => write!(f, "latency={}±{}", Exact(delay), Exact(jitter)),
            What::Bandwidth(rate) => write!(f, "bandwidth={}/s", Bytes(rate.get())),
            What::Slicer { size, pause } if pause.is_zero() => write!(f, "slicer={size}"),
            What::Slicer { size, pause } => write!(f, "slicer={size}/{}", Exact(pause)),
            What::SlowClose(delay) => write!(f, "slow_close={}", Exact(delay)),
            What::Timeout(after) => write!(f, "timeout={}", Exact(after)),
            What::Reset { after } if after.is_zero() => f.write_str("reset"),
            What::Reset { after } => write!(f, "reset={}", Exact(after)),
            What::Limit(bytes) => write!(f, "limit={}", Bytes(bytes)),
            What::Hold => f.write_str("hold"),
            What::Down => f.write_str("down"),
        }
    }
}

/// A duration as it is read, to the millisecond.
struct Exact(Duration);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1_000) { write!(f, "{}s", millis / 1_000) } else { write!(f, "{millis}ms") }
    }
}

/// A number of bytes as it is read.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes.is_multiple_of(1_000_000) => write!(f, "{}MB", bytes / 1_000_000),
            bytes if bytes > 0 && bytes.is_multiple_of(1_000) => write!(f, "{}kB", bytes / 1_000),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn read(text: &str) -> Fault {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn faults_are_read_as_people_write_them() {
        let latency = |delay, jitter| What::Latency { delay: millis(delay), jitter: millis(jitter) };
        let slicer = |size, pause| What::Slicer { size: NonZeroUsize::new(size).unwrap(), pause: millis(pause) };
        let rate = |rate| What::Bandwidth(NonZeroU64::new(rate).unwrap());
        let both = [
            ("latency=200ms", latency(200, 0)),
            ("latency=200ms±50ms", latency(200, 50)),
            ("latency=1s+-50ms", latency(1_000, 50)),
            ("bandwidth=10kB/s", rate(10_000)),
            ("bandwidth=1MiB", rate(1 << 20)),
            ("slicer=64", slicer(64, 0)),
            ("slicer=1kB/5ms", slicer(1_000, 5)),
            ("slow_close=1m30s", What::SlowClose(millis(90_000))),
            ("timeout=5s", What::Timeout(millis(5_000))),
            ("reset", What::Reset { after: Duration::ZERO }),
            ("reset=5s", What::Reset { after: millis(5_000) }),
            ("limit=1kB", What::Limit(1_000)),
            ("limit=0", What::Limit(0)),
            ("hold", What::Hold),
            ("down", What::Down),
        ];
        for (text, what) in both {
            assert_eq!(read(text), Fault::new(what), "{text}");
        }
        let reset = Fault { share: 0.1, ..Fault::new(What::Reset { after: Duration::ZERO }) };
        assert_eq!(read("reset=0.1"), reset);
        assert_eq!(read("to-client:reset@10%"), reset.on(Direction::ToClient));
        assert_eq!(read("to-server:hold"), Fault::new(What::Hold).on(Direction::ToServer));
        assert_eq!(read("latency=1s@0.25").share, 0.25);
    }

    #[test]
    fn what_is_no_fault_is_refused_with_what_to_write() {
        let table = [
            ("", "no fault is called ``; there are latency=200ms"),
            ("latncy=1s", "no fault is called `latncy`"),
            ("latency", "`latency` needs a value, as in `latency=200ms`"),
            ("latency=fast", "`fast` is not a duration"),
            ("latency=200ms±", "`` is not a duration"),
            ("up:reset", "`up` is no direction: write to-server or to-client"),
            ("hold=1s", "`hold` takes no value"),
            ("slicer=0", "pieces of 0 bytes cannot be cut"),
            ("bandwidth=0/s", "a bandwidth of nothing is `hold`"),
            ("bandwidth=fast", "`fast` is no number of bytes"),
            ("limit=99999999999GB", "is no number of bytes"),
            ("limit=-1", "is no number of bytes"),
            ("reset=2", "`2` is no share of connections: write 0.1, or 10%"),
            ("reset@0", "`0` is no share"),
            ("hold@NaN", "`NaN` is no share"),
            ("reset=0.1@0.2", "says twice how many"),
            ("to-client:down", "`down` is the whole proxy's"),
            ("down@50%", "`down` is the whole proxy's"),
        ];
        for (text, why) in table {
            let refused = text.parse::<Fault>().expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again_as_the_same() {
        let texts = [
            "latency=200ms",
            "latency=1s±50ms",
            "bandwidth=10kB/s",
            "bandwidth=1048576B/s",
            "slicer=64",
            "slicer=64/1ms",
            "slow_close=90s",
            "timeout=0s",
            "reset",
            "to-client:reset@0.1",
            "to-server:reset=5s",
            "limit=0B",
            "limit=3MB",
            "hold@0.07",
            "down",
        ];
        for text in texts {
            assert_eq!(read(text).to_string(), text);
        }
    }
}
