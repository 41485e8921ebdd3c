//! Dead man's switches: services outside that call people when we stop calling them.
//!
//! What is said when is decided here and nowhere else: that all is well only from the tail of the monitor's own journey, that
//! something is wrong at any time. No attempt is repeated; the next tail is another one.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use url::Url;

use crate::journey::Name;
use crate::secret::{Redactor, Secret};
use crate::time::Mono;

/// Settings of `[dead_man]`.
#[derive(Clone, Debug)]
pub struct DeadManSettings {
    /// Where each is called. The address is the credential.
    pub switches: Vec<Secret>,
    /// How often.
    pub every: Duration,
    /// Journeys without whose last run having passed nobody is told that all is well.
    pub requires: Vec<Name>,
}

/// A call takes no longer.
const WITHIN: Duration = Duration::from_secs(8);
/// A tail that comes this much of the interval early counts: runs start on their slots, and end a little later or sooner.
const EARLY: u32 = 10;

/// What a switch is told: <https://healthchecks.io/docs/http_api/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The process has started. A service that knows this waits for the first success from then on.
    Start,
    /// Everything went all the way.
    Success,
    /// Something is wrong that nobody else may be able to tell.
    Fail,
}

/// When to tell what.
#[derive(Clone, Debug)]
pub struct Pace {
    every: Duration,
    said: Option<(Signal, Mono)>,
}

impl Pace {
    /// Nothing was said yet.
    pub fn new(every: Duration) -> Pace {
        Pace { every, said: None }
    }

    /// What to say now. `is_tail`: the own journey has just gone all the way.
    pub fn next(&self, is_tail: bool, is_wrong: bool, now: Mono) -> Option<Signal> {
        let signal = match (self.said, is_tail, is_wrong) {
            (_, _, true) => Signal::Fail,
            (_, true, false) => Signal::Success,
            (None, false, false) => Signal::Start,
            (Some(_), false, false) => return None,
        };
        match self.said {
            Some((before, at)) if before == signal && now.since(at) < self.every - self.every / EARLY => None,
            _ => Some(signal),
        }
    }

    /// It was said, whether or not it was heard.
    pub fn said(&mut self, signal: Signal, now: Mono) {
        self.said = Some((signal, now));
    }
}

/// Calls switches.
pub struct Caller {
    client: reqwest::Client,
    redactor: Redactor,
    /// Which run of the daemon it is: the services pair a start with the end of the same.
    run: String,
}

impl Caller {
    /// A caller for one life of the daemon.
    ///
    /// # Errors
    /// No usable trust store; in words.
    pub fn new(redactor: Redactor, run: String) -> Result<Caller, String> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("journeyman/", env!("CARGO_PKG_VERSION")))
            .timeout(WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            // A connection that was made before says nothing about the way there.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| format!("cannot prepare HTTPS: {error}"))?;
        Ok(Caller { client, redactor, run })
    }

    /// Calls one switch, once.
    ///
    /// # Errors
    /// What came of it, without the address.
    pub async fn call(&self, switch: &Secret, signal: Signal, body: String) -> Result<(), String> {
        let url = address(&switch.reveal(), signal, &self.run)?;
        let request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        let answer = request.send().await.map_err(|error| {
            let error = error.without_url();
            let cause = std::iter::successors(std::error::Error::source(&error), |error| error.source()).last();
            let said = cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"));
            self.redactor.clean(&said)
        })?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND if signal != Signal::Success => {
                Err(format!("it answered 404 to `{}`: it may know only the plain address", suffix(signal)))
            }
            status => Err(format!("it answered {status}")),
        }
    }
}

fn suffix(signal: Signal) -> &'static str {
    match signal {
        Signal::Start => "/start",
        Signal::Success => "",
        Signal::Fail => "/fail",
    }
}

/// The switch's address for a signal of this run.
fn address(switch: &str, signal: Signal, run: &str) -> Result<Url, String> {
    let mut url =
        Url::parse(switch).map_err(|error| format!("its address is no URL ({error}); it is not shown here"))?;
    let path = format!("{}{}", url.path().trim_end_matches('/'), suffix(signal));
    url.set_path(&path);
    url.query_pairs_mut().append_pair("rid", run);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    fn at(second: u64) -> Mono {
        Mono(Duration::from_secs(second))
    }

    /// What is said over a minute and a half in which every five seconds something may have happened.
    fn told(pace: &mut Pace, ticks: impl IntoIterator<Item = (u64, bool, bool)>) -> Vec<(u64, Signal)> {
        let mut told = Vec::new();
        for (second, is_tail, is_wrong) in ticks {
            if let Some(signal) = pace.next(is_tail, is_wrong, at(second)) {
                pace.said(signal, at(second));
                told.push((second, signal));
            }
        }
        told
    }

    #[test]
    fn success_is_told_from_the_tail_and_by_no_timer() {
        let mut pace = Pace::new(EVERY);
        let timer = (0..600).step_by(5).map(|second| (second, false, false));
        assert_eq!(told(&mut pace, timer), [(0, Signal::Start)], "that it has started, and never that it is well");
        let tails = (600..900).step_by(30).map(|second| (second, true, false));
        let expected: Vec<_> = (600..900).step_by(60).map(|second| (second, Signal::Success)).collect();
        assert_eq!(told(&mut pace, tails), expected);
    }

    #[test]
    fn a_tail_a_little_early_counts() {
        let mut pace = Pace::new(EVERY);
        let tails = [(0, true, false), (53, true, false), (55, true, false), (114, true, false)];
        let success = [0, 55, 114].map(|second| (second, Signal::Success));
        assert_eq!(told(&mut pace, tails), success);
    }

    #[test]
    fn trouble_is_told_at_once_again_at_its_pace_and_its_end_only_from_the_tail() {
        let mut pace = Pace::new(EVERY);
        let ticks = [
            (0, true, false),
            (5, false, true),
            (10, false, true),
            (30, true, true),
            (65, false, true),
            (70, false, false),
            (75, true, false),
            (80, true, false),
        ];
        let expected = [(0, Signal::Success), (5, Signal::Fail), (65, Signal::Fail), (75, Signal::Success)];
        assert_eq!(told(&mut pace, ticks), expected);
        let mut pace = Pace::new(EVERY);
        assert_eq!(told(&mut pace, [(0, false, true)]), [(0, Signal::Fail)], "a start after a crash loop");
    }

    #[test]
    fn signals_go_behind_the_address_and_the_run_into_the_query() {
        let url = |switch, signal| address(switch, signal, "r-1").unwrap().to_string();
        assert_eq!(url("https://hc.example/ping/key", Signal::Success), "https://hc.example/ping/key?rid=r-1");
        assert_eq!(url("https://hc.example/ping/key/", Signal::Start), "https://hc.example/ping/key/start?rid=r-1");
        assert_eq!(url("https://hc.example/p?k=1", Signal::Fail), "https://hc.example/p/fail?k=1&rid=r-1");
        let error = address("no url with s3cret", Signal::Fail, "r-1").unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
