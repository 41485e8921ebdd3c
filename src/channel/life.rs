//! How long what we leave in a system stays there.

use std::time::Duration;

/// How long a message of ours may lie about before the system drops it, where the protocol lets us say so: long enough to be
/// seen late, short enough that nothing is left of a daemon that died.
pub(crate) fn time_to_live(timeout: Duration) -> Duration {
    timeout.saturating_mul(TIMEOUTS_OF_LIFE).max(SHORTEST_LIFE)
}

/// Messages of ours that nobody takes vanish after at least this long.
const SHORTEST_LIFE: Duration = Duration::from_secs(3_600);
/// And not before this many timeouts of their send.
const TIMEOUTS_OF_LIFE: u32 = 10;
