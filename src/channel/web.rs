//! Calls to a web API that a message path is made of. Rides on the `http` channel: its phases, its limits and its words for what
//! broke are the same here.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::channel::Channel;
use crate::channel::http::{Http, HttpSettings};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::token::Token;
use crate::time::{Mono, Now, later};

/// Connections to one API, kept for a moment between calls. Follows no redirect.
pub(crate) struct Web(Http);

/// One call.
pub(crate) struct Call {
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    /// Appended to the API's root.
    pub(crate) path: Option<String>,
    /// Query parameters, not yet encoded.
    pub(crate) query: Vec<(String, String)>,
    /// Header fields.
    pub(crate) headers: Vec<(String, String)>,
    /// The payload.
    pub(crate) body: Vec<u8>,
    /// What it is made for.
    pub(crate) errand: Errand,
}

/// What a call is made for.
#[derive(Clone, Copy)]
pub(crate) struct Errand {
    token: Token,
    timeout: Duration,
    connected_since: Option<Mono>,
}

impl Errand {
    /// For a run's message.
    pub(crate) fn of(outgoing: &Outgoing) -> Errand {
        let Outgoing { token, timeout, connected_since, .. } = *outgoing;
        Errand { token, timeout, connected_since }
    }

    /// On the channel's own account: no run's trace, and any connection. The timeout is from the first packet to the last
    /// byte of the answer.
    pub(crate) fn own(timeout: Duration) -> Errand {
        Errand::of(&Outgoing::empty(timeout))
    }
}

impl Web {
    /// An API at this root. Reads certificates; touches no network.
    ///
    /// # Errors
    /// In words: certificates that cannot be read.
    pub(crate) fn open(root: Url, ca_file: Option<PathBuf>, clock: Clock) -> Result<Web, String> {
        let settings = HttpSettings { url: Some(root), ca_file, ..HttpSettings::default() };
        Http::open(settings, clock).map(Web)
    }

    /// Makes the call once. Whatever was answered is an answer; its message has status, headers and body. Counts from the
    /// moment when the connection stood, as every message path does.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, Fault> {
        let Call { method, path, query, headers, body, errand: Errand { token, timeout, connected_since } } = call;
        let method = Some(method.to_owned());
        let base = Outgoing { token, connected_since, ..Outgoing::empty(timeout) };
        let outgoing = Outgoing { method, path, query, headers, body, ..base };
        match self.0.request(&outgoing).await {
            Ok(reply) => Ok(Reply { started: connected(reply.started, &reply.phases), ..reply }),
            Err(fault) => Err(Fault { started: connected(fault.started, &fault.phases), ..fault }),
        }
    }
}

/// When the connection stood. An exchange that never came so far counts from its beginning.
fn connected(started: Now, phases: &[Phase]) -> Now {
    let Some(at) = phases.iter().position(|phase| phase.name == "first_byte") else { return started };
    let before: Duration = phases[..at].iter().map(|phase| phase.took).sum();
    Now { wall: later(started.wall, before), mono: started.mono + before }
}

/// The first line of what a server says, and not more of it than people read.
pub(crate) fn words(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default().trim();
    let mut cut: String = line.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().nth(LONGEST).is_some() {
        // The mark says that it goes on, and the redactor where half a secret may stand.
        cut.push('…');
    }
    cut
}

/// As many characters of a server's own words are told.
const LONGEST: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_from_when_its_connection_stood() {
        let started = Now { wall: "2026-01-02T03:04:05Z".parse().unwrap(), mono: Mono(Duration::from_secs(9)) };
        let phase = |name: &str, millis| Phase { name: name.to_owned(), took: Duration::from_millis(millis) };
        let all = [phase("dns", 1), phase("connect", 2), phase("tls", 30), phase("first_byte", 400), phase("body", 5)];
        assert_eq!(connected(started, &all).mono, Mono(Duration::from_millis(9_033)));
        assert_eq!(connected(started, &all).wall, "2026-01-02T03:04:05.033Z".parse().unwrap());
        assert_eq!(connected(started, &all[3..]), started, "a kept connection");
        assert_eq!(connected(started, &all[..2]), started, "it never stood");
    }

    #[test]
    fn a_servers_words_are_one_line_of_bearable_length() {
        assert_eq!(words(" fi\u{7}rst \nsecond"), "fi rst");
        let long = words(&"ä".repeat(1_000));
        assert_eq!((long.chars().count(), long.ends_with("ä…")), (301, true));
    }
}
