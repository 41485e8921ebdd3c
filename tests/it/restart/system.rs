//! A system under watch that the test has in its hand: it takes what is sent to it over HTTP, and hands it on when, where and as
//! often as it is told. It never dies, and remembers what it did.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use journeyman::channel::{Channel, Opening};
use journeyman::clock::Clock;
use journeyman::config;
use journeyman::journey::Outgoing;
use journeyman::journey::token::Token;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::support::block_on;

/// Any answer over loopback.
const ANSWER: Duration = Duration::from_secs(20);

/// What was sent to the system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) part: usize,
    pub(super) token: Token,
}

/// The system. It ends with its owner.
pub(super) struct System {
    url: String,
    taken: mpsc::UnboundedReceiver<Taken>,
    holds: watch::Sender<bool>,
    caller: Caller,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Door {
    taken: mpsc::UnboundedSender<Taken>,
    holds: watch::Receiver<bool>,
}

async fn take(State(mut door): State<Door>, Path(part): Path<usize>, body: String) -> StatusCode {
    let token = Token::find_all(body.as_bytes()).next().expect("it carries a token");
    let _ = door.taken.send(Taken { part, token });
    // The message is taken; only its sender does not hear of it yet.
    let _ = door.holds.wait_for(|holds| !holds).await;
    StatusCode::ACCEPTED
}

impl System {
    /// One that answers at once.
    pub(super) async fn start() -> System {
        let (sender, taken) = mpsc::unbounded_channel();
        let (holds, held) = watch::channel(false);
        let router = axum::Router::new().route("/{part}", axum::routing::post(take));
        let router = router.with_state(Door { taken: sender, holds: held });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it is not told to stop") });
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().expect("a client can be built");
        System { url, taken, holds, caller: Caller(client), _server: server }
    }

    /// Where it takes messages, without a slash at the end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// From now on whoever sends does not hear that the message was taken, or does again.
    pub(super) fn hold_answers(&self, holds: bool) {
        self.holds.send_replace(holds);
    }

    /// The next message.
    pub(super) async fn take(&mut self) -> Taken {
        tokio::time::timeout(ANSWER, self.taken.recv()).await.expect("a message in time").expect("the system lives")
    }

    /// The next message, if there is one already.
    pub(super) fn try_take(&mut self) -> Option<Taken> {
        self.taken.try_recv().ok()
    }

    /// Calls back; whether that was answered with success.
    pub(super) async fn call(&self, hook: &str, text: &str) -> bool {
        self.caller.call(hook, text).await
    }

    /// Somebody who calls in its name.
    pub(super) fn caller(&self) -> Caller {
        self.caller.clone()
    }
}

/// Calls back.
#[derive(Clone)]
pub(super) struct Caller(reqwest::Client);

impl Caller {
    /// Calls; whether that was answered with success.
    pub(super) async fn call(&self, hook: &str, text: &str) -> bool {
        let called = self.0.post(hook).body(text.to_owned()).send().await;
        called.is_ok_and(|answer| answer.status().is_success())
    }
}

/// A place where the system leaves messages: a channel of the product's own, opened for sending.
pub(super) struct Place(Arc<dyn Channel>);

impl Place {
    /// The channel `name` of this configuration.
    pub(super) fn open(toml: &str, name: &str) -> Place {
        let base = std::env::temp_dir();
        let (plan, _) = config::load_text("system.toml", toml, &[("probes.toml", "")], &base)
            .unwrap_or_else(|problems| panic!("{}", config::render(&problems, false)));
        let planned = plan.channels.get(name).expect("it is configured");
        let opening = Opening { clock: Clock::system(), hooks: None, alarms: Default::default() };
        Place(planned.settings.open(&opening).expect("it opens").expect("this build has it"))
    }

    /// Leaves a message with this token.
    pub(super) async fn put(&self, token: Token) {
        let outgoing = Outgoing {
            token,
            body: format!("hello {token}").into_bytes(),
            content_type: Some("text/plain"),
            ..Outgoing::empty(ANSWER)
        };
        self.0.send(&outgoing).await.unwrap_or_else(|fault| panic!("the system cannot send: {fault:?}"));
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It is on its way.
    Coming,
    /// The system lost it.
    Lost,
    /// It lies where we receive, and stays there until somebody takes it.
    Queued,
    /// We were called, and said yes.
    Heard,
    /// We were called, and did not say yes. It is not tried again.
    TurnedAway,
}

/// What became of every message, for tasks that write and a test that reads.
#[derive(Clone, Default)]
pub(super) struct Fates(Arc<Mutex<Vec<(Taken, Fate)>>>);

impl Fates {
    /// A message on its way; what to note its end by.
    pub(super) fn begin(&self, taken: Taken) -> usize {
        let mut all = self.lock();
        all.push((taken, Fate::Coming));
        all.len() - 1
    }

    /// It ended so.
    pub(super) fn end(&self, at: usize, fate: Fate) {
        self.lock()[at].1 = fate;
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(Taken, Fate)> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Taken, Fate)>> {
        self.0.lock().expect("no panic while held")
    }
}

#[test]
fn the_system_says_truly_what_it_took() {
    block_on(async {
        let mut system = System::start().await;
        let token = Token::from_bits(77);
        assert!(system.call(&format!("{}/3", system.url()), &format!("hello {token}")).await);
        let taken = system.take().await;
        assert_eq!((taken.part, taken.token), (3, token));
        assert!(system.try_take().is_none());
    });
}
