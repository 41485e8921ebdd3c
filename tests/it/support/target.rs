//! The system that is watched: parts that are well, fail, or hang, as the test says. It remembers what it did.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use jiff::Timestamp;
use journeyman::clock::Clock;
use tokio::task::JoinSet;

/// How long a callback may take.
const CALLBACK: Duration = Duration::from_secs(5);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How a part answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// 204; what was posted is posted on to the callback.
    #[default]
    Well,
    /// 500 to a GET; what was posted is taken with 204, and lost.
    Fails,
    /// Never.
    Hangs,
    /// 429, to everything.
    Throttles,
}

/// One request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub part: usize,
    pub mode: Mode,
    pub at: Timestamp,
}

/// The target; it ends with its owner.
pub struct Target {
    url: String,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

struct State {
    modes: Vec<Mode>,
    answered: Vec<Answered>,
    clock: Clock,
}

impl State {
    fn answer(&mut self, part: usize) -> Mode {
        let mode = self.modes[part];
        self.answered.push(Answered { part, mode, at: self.clock.now().wall });
        mode
    }
}

impl Target {
    /// A target whose `parts` are all well, on a loopback port of its own. Part `n` is at `/n`.
    pub async fn start(parts: usize) -> Target {
        Target::start_with(parts, String::new()).await
    }

    /// The same; what is posted to a part is posted on to `callback`.
    pub async fn start_with(parts: usize, callback: String) -> Target {
        Target::start_at(LOOPBACK, parts, callback).await
    }

    /// The same, at another address of this machine.
    pub async fn start_at(address: IpAddr, parts: usize, callback: String) -> Target {
        let modes = vec![Mode::default(); parts];
        let state = Arc::new(Mutex::new(State { modes, answered: Vec::new(), clock: Clock::system() }));
        let (asked, posted) = (state.clone(), state.clone());
        let get = async move |Path(part): Path<usize>| {
            let mode = asked.lock().expect("no panic while held").answer(part);
            match mode {
                Mode::Well => StatusCode::NO_CONTENT,
                Mode::Fails => StatusCode::INTERNAL_SERVER_ERROR,
                Mode::Throttles => StatusCode::TOO_MANY_REQUESTS,
                Mode::Hangs => std::future::pending().await,
            }
        };
        let client = reqwest::Client::builder().no_proxy().timeout(CALLBACK).build().expect("a client can be built");
        let post = async move |Path(part): Path<usize>, body: String| {
            let mode = posted.lock().expect("no panic while held").answer(part);
            match mode {
                // Nobody may be there to hear it: then it is lost.
                Mode::Well => drop(client.post(&callback).body(body).send().await),
                Mode::Fails => {}
                Mode::Throttles => return StatusCode::TOO_MANY_REQUESTS,
                Mode::Hangs => std::future::pending().await,
            }
            StatusCode::NO_CONTENT
        };
        let listener = tokio::net::TcpListener::bind((address, 0)).await.expect("it has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        let router = axum::Router::new().route("/{part}", axum::routing::get(get).post(post));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it is not told to stop") });
        Target { url, state, _server: server }
    }

    /// Its root, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on `part` answers like this.
    pub fn set(&self, part: usize, mode: Mode) {
        self.state().modes[part] = mode;
    }

    /// From now on all parts answer like this.
    pub fn set_all(&self, mode: Mode) {
        self.state().modes.fill(mode);
    }

    /// How often `part` was asked.
    pub fn requests(&self, part: usize) -> usize {
        self.state().answered.iter().filter(|answered| answered.part == part).count()
    }

    /// Every request so far, in order.
    pub fn answered(&self) -> Vec<Answered> {
        self.state().answered.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}
