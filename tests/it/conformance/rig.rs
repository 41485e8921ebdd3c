//! What the suite needs to know of a protocol: where its server is, how its channels are configured, what it promises.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use journeyman::channel::{Channel, Listener, Opening, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::message::{Arrival, Message};
use journeyman::journey::token::{Mint, Token};
use journeyman::journey::{Name, Outgoing};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::conformance::world::Proxies;

/// What a protocol promises, which decides what some cases must come to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promises {
    /// The sender is told when the system has taken the message; without that a message cut on its way is just lost.
    pub(crate) acknowledges: bool,
    /// What comes while the reader's connection is away is there when it is back.
    pub(crate) keeps: bool,
    /// What was handed to the reader and not acknowledged is handed out again.
    pub(crate) redelivers: bool,
    /// What is handed out again is known by its id, and is no second arrival.
    pub(crate) recognises: bool,
    /// Messages and what we declared are there after the server was killed.
    pub(crate) survives: bool,
    /// The reader connects to the system. A webhook is called instead: being reached is the caller's business.
    pub(crate) reader_connects: bool,
    /// Headers of a message arrive.
    pub(crate) carries_headers: bool,
    /// Each message has a connection of its own, on which the server speaks first: where its words are held, nothing is sent.
    pub(crate) connects_for_each: bool,
    /// A confirmation may send over a connection of its own beside the one that is held.
    pub(crate) binds_anew: bool,
    /// A message leaves only after both sides have spoken on its connection: where one of them is not heard, nothing is sent.
    pub(crate) shakes_hands: bool,
    /// The reader gets what it asks for, and must ask again for what came after it asked.
    pub(crate) asks: bool,
}

impl Default for Promises {
    /// A broker with a durable queue.
    fn default() -> Self {
        Promises {
            acknowledges: true,
            keeps: true,
            redelivers: true,
            recognises: false,
            survives: true,
            reader_connects: true,
            carries_headers: true,
            connects_for_each: false,
            binds_anew: true,
            shakes_hands: true,
            asks: false,
        }
    }
}

/// One protocol with its real server. Each case has a tag of its own, which names the queues, topics or mailboxes that it uses.
pub(crate) trait Rig {
    /// As the table shows it: `amqp`, `redis streams`.
    fn name(&self) -> &'static str;

    /// What it promises.
    fn promises(&self) -> Promises;

    /// Where the sending and the receiving side of the server listen.
    fn server(&self) -> (SocketAddr, SocketAddr);

    /// Creates what production would have created: exchanges, topics, mailboxes.
    async fn prepare(&self, _tag: &str) {}

    /// The proxies in front of the server for a case of this tag.
    async fn proxies(&self, _tag: &str) -> Proxies {
        let (out, back) = self.server();
        Proxies::before(out, back).await
    }

    /// `[channels.out]`, which sends to the place `TAG.work`, and `[channels.in]`, which receives at the place `TAG.back`,
    /// for a server at these addresses.
    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String;

    /// `[channels.work]`, which receives at the place `TAG.work`, and `[channels.back]`, which sends to the place `TAG.back`.
    fn relay_channels(&self, _tag: &str) -> String {
        String::new()
    }

    /// The system under watch: takes what came to `TAG.work`, and hands on what a case wants to `TAG.back`.
    async fn relay(&self, tag: &str) -> Relay {
        Relay::over_channels(&self.relay_channels(tag)).await
    }

    /// More keys of the `send` step.
    fn send_keys(&self) -> &'static str {
        ""
    }

    /// `[channels.out]` with credentials that the server does not take; `None` if it takes everybody.
    fn wrong_credentials(&self, _tag: &str, _out: SocketAddr) -> Option<String> {
        None
    }

    /// `[channels.out]` over TLS that begins at once, trusting `ca_file`; `None` if the protocol begins TLS otherwise.
    fn over_tls(&self, _tag: &str, _out: SocketAddr, _ca_file: &Path) -> Option<String> {
        None
    }

    /// Plants messages of strangers where our channels could wrongly take them. `None`: there is no such place.
    async fn plant(&self, _tag: &str, _count: usize) -> Option<()> {
        None
    }

    /// How many of them are left.
    async fn strangers(&self, _tag: &str) -> usize {
        0
    }

    /// Kills the server with SIGKILL. `false`: it cannot be.
    async fn kill(&mut self) -> bool {
        false
    }

    /// Starts it again at the same address, with the same data.
    async fn revive(&mut self) {}
}

/// What a relay hands on.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    /// Whose it claims to be.
    pub(crate) token: Token,
    /// The payload.
    pub(crate) body: Vec<u8>,
    /// Header fields.
    pub(crate) headers: Vec<(String, String)>,
}

impl Parcel {
    /// The parcel of a message that came; headers that the protocol itself sets are left behind.
    pub(crate) fn of(message: &Message) -> Parcel {
        let headers = message.headers.iter().filter(|(name, _)| name.starts_with("x-")).cloned().collect();
        let token = Token::find_all(&message.body).next().unwrap_or(Token::from_bits(0));
        Parcel { token, body: message.body.clone(), headers }
    }

    /// The same with another payload.
    pub(crate) fn with_body(&self, body: impl Into<Vec<u8>>) -> Parcel {
        Parcel { body: body.into(), ..self.clone() }
    }

    /// The same, by somebody else: every trace of the token is replaced.
    pub(crate) fn claiming(&self, token: Token) -> Parcel {
        let body = String::from_utf8_lossy(&self.body).replace(&self.token.to_string(), &token.to_string());
        Parcel { token, body: body.into_bytes(), headers: self.headers.clone() }
    }
}

/// Hands a message on; an error says why nobody took it.
type Put = Box<dyn Fn(Parcel) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The system under watch, in the hands of a case.
pub(crate) struct Relay {
    taken: mpsc::Receiver<Message>,
    put: Put,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Relay {
    /// A relay from what it takes and how it puts; `tasks` end with it.
    pub(crate) fn new(taken: mpsc::Receiver<Message>, put: Put, stop: CancellationToken, tasks: JoinSet<()>) -> Relay {
        Relay { taken, put, stop, _tasks: tasks }
    }

    /// One that nobody can send to.
    pub(crate) fn nobody() -> Relay {
        let put: Put = Box::new(|_| Box::pin(std::future::ready(Err("nobody is there".to_owned()))));
        Relay::new(mpsc::channel(1).1, put, CancellationToken::new(), JoinSet::new())
    }

    /// A relay of two channels of the protocol itself, `work` and `back`, straight to the server. Ready when `work` is.
    pub(crate) async fn over_channels(toml: &str) -> Relay {
        let clock = Clock::system();
        let open = |name: &str| -> Arc<dyn Channel> {
            let plan = super::world::plan(toml, "");
            let planned = plan.channels.get(name).unwrap_or_else(|| panic!("the relay has no channel `{name}`"));
            planned
                .settings
                .open(&Opening { clock, hooks: None, alarms: Default::default() })
                .expect("it opens")
                .expect("this build has it")
        };
        let (work, back) = (open("work"), open("back"));
        let (sender, mut arrivals) = mpsc::channel::<Arrival>(64);
        let (readiness, mut ready) = watch::channel(Readiness::Starting);
        let stop = CancellationToken::new();
        let listener = Listener {
            channel: Name::from("work"),
            clock,
            arrivals: sender,
            journal: Default::default(),
            since: None,
            readiness,
            // Nobody's: the relay cleans nothing up.
            mint: Arc::new(Mint::new([0xee; 32], 0)),
            nudge: Default::default(),
            awaited: Default::default(),
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { work.listen(listener).await });
        let (take, taken) = mpsc::channel(64);
        tasks.spawn(async move {
            while let Some(arrival) = arrivals.recv().await {
                let _ = take.send(arrival.message).await;
            }
        });
        let is_ready = async { ready.wait_for(|readiness| *readiness == Readiness::Ready).await.is_ok() };
        let is_ready = tokio::time::timeout(super::BOUND, is_ready).await.unwrap_or(false);
        assert!(is_ready, "the relay cannot receive: {:?}", *ready.borrow());
        let put: Put = Box::new(move |parcel: Parcel| {
            let back = back.clone();
            Box::pin(async move {
                let outgoing = Outgoing {
                    token: parcel.token,
                    body: parcel.body,
                    headers: parcel.headers,
                    content_type: Some("application/json"),
                    ..Outgoing::empty(super::BOUND)
                };
                back.send(&outgoing).await.map(drop).map_err(|fault| format!("the relay cannot send: {fault:?}"))
            })
        });
        Relay { taken, put, stop, _tasks: tasks }
    }

    /// The next message that our side sent.
    pub(crate) async fn take(&mut self) -> Parcel {
        let taken = tokio::time::timeout(super::BOUND, self.next()).await.expect("a message in time");
        taken.expect("the relay lives")
    }

    /// The same, however long that takes; `None` when nobody can send it anything any more.
    pub(crate) async fn next(&mut self) -> Option<Parcel> {
        self.taken.recv().await.as_ref().map(Parcel::of)
    }

    /// Whether nothing was sent to it.
    pub(crate) fn took_nothing(&mut self) -> bool {
        self.taken.try_recv().is_err()
    }

    /// Hands a message on to where our side receives.
    pub(crate) async fn put(&self, parcel: &Parcel) {
        self.try_put(parcel).await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// The same, where it may well not be taken; says why.
    pub(crate) fn try_put(&self, parcel: &Parcel) -> BoxFuture<'static, Result<(), String>> {
        (self.put)(parcel.clone())
    }
}
