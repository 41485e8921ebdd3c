//! One connection to a server: made within a deadline, step by step; then one task reads it and one writes it.
//!
//! The protocol is spoken here and not by a client library, for what a monitor must know and a library is made to hide: a PING
//! behind every message whose PONG proves that the server has dealt with it, an error that belongs to one message, and the
//! end of a connection that nobody makes up for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::login::Login;
use super::wire::{self, Delivery, Info, Said};
use super::{NatsSettings, SCHEMES, refusal};
use crate::channel::dial::{Dialer, Limit, Stream, agree_on_tls};
use crate::channel::refusal::Refusal;
use crate::channel::seen::note;
use crate::channel::server::Server;
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::seen::What;
use crate::time::Now;

/// Writes that wait for the socket.
const WRITES: usize = 64;
/// Messages, stamped, that wait to be handed over.
const ARRIVALS: usize = 1_024;
/// A goodbye may take this long.
const GOODBYE: Duration = Duration::from_secs(1);
/// Requests whose answers are still of interest; the oldest are forgotten.
const ANSWERS: usize = 1_024;
/// The subscription to our own inbox.
const INBOX: u64 = 1;
/// The subscription that is received on.
pub(super) const RECEIVING: u64 = 2;

/// A message, stamped.
pub(super) type Incoming = (Now, Delivery);

/// A connection that stands, as far as is known. It ends with this value.
pub(super) struct Link {
    /// `host:port`, for messages.
    pub(super) peer: String,
    /// What the server says of itself.
    pub(super) info: Info,
    /// Begins every subject of ours for answers.
    inbox: String,
    /// Whether the server lets us have answers, or why not.
    answers: Result<(), String>,
    serial: AtomicU64,
    writes: mpsc::Sender<Write>,
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Refusal>>,
    tasks: JoinSet<()>,
}

/// Something to write, and who waits for the PONG behind it, if it has a PING behind it.
struct Write {
    bytes: Vec<u8>,
    pong: Option<Waiter>,
}

/// Waits for a PONG; gets the errors that the server sent before it and after the PONG before. A server does what a client
/// says in order, so they are about what was said between the two PINGs. `None` waits for nothing.
type Waiter = Option<oneshot::Sender<Vec<String>>>;

#[derive(Default)]
struct Shared {
    /// Who waits for the next PONGs, in order.
    pongs: Mutex<VecDeque<Waiter>>,
    /// Who waits for an answer, by its serial, the oldest first.
    answers: Mutex<VecDeque<(u64, oneshot::Sender<Delivery>)>>,
}

impl Link {
    /// Connects, says who we are under `name`, and waits for the server's word on it. Messages of the subscription
    /// [`RECEIVING`] come out of the second half.
    ///
    /// # Errors
    /// Name not resolved, nothing listening, TLS, credentials, or `limit` passed: each with its own words.
    pub(super) async fn open(
        settings: &NatsSettings,
        tls: Option<&Arc<ClientConfig>>,
        name: &str,
        clock: Clock,
        limit: Limit,
    ) -> Result<(Link, mpsc::Receiver<Incoming>), Refusal> {
        let server = Server::of(&settings.url, SCHEMES)?;
        let dialer = Dialer { host: server.host.clone(), port: server.port, tls: None };
        let dialed = dialer.connect(limit).await?;
        let peer = dialed.peer;
        let silence = |doing: &str| Refusal::silence(doing, &peer, limit.length());
        let mut wire = Wire { stream: dialed.stream, buffer: BytesMut::new() };
        let info = match timeout_at(limit.instant(), wire.next()).await.map_err(|_| silence("waiting for its INFO"))? {
            Ok(Said::Info(info)) => {
                note_server(&info);
                *info
            }
            Ok(Said::Error(words)) => return Err(refusal::ended(&peer, "", Some(&words))),
            Ok(_) => return Err(Refusal::lost(&peer, "it does not speak NATS")),
            Err(why) => return Err(Refusal::lost(&peer, why)),
        };
        if server.is_tls || tls.is_some() || info.tls_required {
            wire = wire.secured(&server.host, &peer, tls, &info, limit).await?;
        }
        let login = Login::new(settings, &server).connect(&info, name).map_err(|why| Refusal::new(Cause::Auth, why))?;
        let greeting = async {
            wire.write(&login).await?;
            loop {
                match wire.next().await? {
                    Said::Pong => return Ok::<_, String>(None),
                    Said::Error(words) => return Ok(Some(words)),
                    Said::Ping => wire.write(b"PONG\r\n").await?,
                    Said::Info(_) | Said::Message(_) | Said::Ok => {}
                }
            }
        };
        match timeout_at(limit.instant(), greeting).await.map_err(|_| silence("greeting it in NATS"))? {
            Ok(None) => {}
            Ok(Some(words)) => {
                let detail = format!("{peer} did not let us in: {words}");
                return Err(Refusal::new(refusal::cause(&words), detail));
            }
            Err(why) => return Err(Refusal::lost(&peer, why)),
        }

        let (link, incoming) = Link::begin(wire, info, peer, settings, clock);
        Ok((link.with_inbox(limit).await?, incoming))
    }

    /// Gives the connection to its two tasks.
    fn begin(
        wire: Wire,
        info: Info,
        peer: String,
        settings: &NatsSettings,
        clock: Clock,
    ) -> (Link, mpsc::Receiver<Incoming>) {
        let (writes, to_write) = mpsc::channel(WRITES);
        let (arrivals, incoming) = mpsc::channel(ARRIVALS);
        let (ending, ended) = watch::channel(None);
        let shared = Arc::new(Shared::default());
        let (reading, writing) = tokio::io::split(wire.stream);
        let reader = Reader {
            stream: reading,
            buffer: wire.buffer,
            writes: writes.clone(),
            shared: Arc::clone(&shared),
            arrivals,
            clock,
            keep_alive: settings.keep_alive,
            last_error: None,
        };
        let mut tasks = JoinSet::new();
        let told = ending.clone();
        let peers = (peer.clone(), peer.clone());
        tasks.spawn(async move {
            let (why, last_error) = reader.read().await;
            tell(&told, refusal::ended(&peers.0, &why, last_error.as_deref()));
        });
        let (queue, keep_alive) = (Arc::clone(&shared), settings.keep_alive);
        tasks.spawn(async move {
            let why = write(writing, to_write, queue, keep_alive).await;
            // A server says why before it hangs up, and the reader has yet to hear it.
            tokio::time::sleep(GOODBYE).await;
            tell(&ending, Refusal::lost(&peers.1, why));
        });
        let chance: String = std::iter::repeat_with(fastrand::alphanumeric).take(22).collect();
        let inbox = format!("{}.{chance}", settings.inbox_prefix);
        let serial = AtomicU64::new(0);
        (Link { peer, info, inbox, answers: Ok(()), serial, writes, shared, ended, tasks }, incoming)
    }

    /// Subscribes to the inbox. A server that does not let us is remembered: only who needs answers needs it.
    async fn with_inbox(mut self, limit: Limit) -> Result<Link, Refusal> {
        let inbox = format!("{}.*", self.inbox);
        let errors = timeout_at(limit.instant(), self.say(wire::subscription(&inbox, INBOX)))
            .await
            .unwrap_or_else(|_| Err(Refusal::silence("subscribing to our inbox", &self.peer, limit.length())))?;
        self.answers = match errors.into_iter().next() {
            None => Ok(()),
            Some(words) => Err(words),
        };
        Ok(self)
    }

    /// Whether it still stands, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Why it has ended, once it has.
    pub(super) async fn ended(&self) -> Refusal {
        let mut ended = self.ended.clone();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| Refusal::lost(&self.peer, "it ended"))
    }

    /// Says something and waits until the server has dealt with it; the errors that it had about it.
    pub(super) async fn say(&self, mut bytes: Vec<u8>) -> Result<Vec<String>, Refusal> {
        bytes.extend_from_slice(b"PING\r\n");
        let (waiter, pong) = oneshot::channel();
        if self.writes.send(Write { bytes, pong: Some(Some(waiter)) }).await.is_err() {
            return Err(self.ended().await.before_sending());
        }
        self.unless_ended(pong).await
    }

    /// What comes, unless the connection ends before it does.
    pub(super) async fn unless_ended<T>(&self, coming: oneshot::Receiver<T>) -> Result<T, Refusal> {
        tokio::select! {
            biased;
            Ok(come) = coming => Ok(come),
            why = self.ended() => Err(Refusal { is_verdict: false, ..why }),
        }
    }

    /// Says something and waits for nothing.
    pub(super) async fn mention(&self, bytes: Vec<u8>) {
        // Fails only with the connection, and then that tells.
        let _ = self.writes.send(Write { bytes, pong: None }).await;
    }

    /// A subject of our own for one answer, and where it will be; `None` if the server does not let us have answers.
    pub(super) fn expect_answer(&self) -> Option<(String, oneshot::Receiver<Delivery>)> {
        self.answers.as_ref().ok()?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let mut answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(_, waiter)| !waiter.is_closed());
        if answers.len() >= ANSWERS {
            answers.pop_front();
        }
        answers.push_back((serial, sender));
        Some((format!("{}.{serial}", self.inbox), receiver))
    }

    /// What keeps us from having answers: for those who need them.
    pub(super) fn no_answers(&self) -> Refusal {
        let words = self.answers.as_ref().err().map_or("", String::as_str);
        let detail = format!(
            "{} does not let us have answers: {words}; let the user subscribe to `{}.>`, or set `inbox_prefix`",
            self.peer,
            self.inbox.rsplit_once('.').map_or("_INBOX", |(prefix, _)| prefix),
        );
        Refusal::new(Cause::Auth, detail)
    }

    /// A subject of our own to receive on.
    pub(super) fn own_subject(&self) -> String {
        // Two parts longer than the inbox: what answers come on does not match it.
        format!("{}.receive.messages", self.inbox)
    }

    /// Ends the connection. The protocol knows no goodbye: the server has dealt with all that was said once it answers.
    pub(super) async fn close(mut self) {
        let _ = timeout(GOODBYE, self.say(Vec::new())).await;
        self.tasks.shutdown().await;
    }
}

/// Notes who answers: a server that was started anew has another id.
fn note_server(info: &Info) {
    note(What::Server, &format!("nats-server {}", info.version));
    let name = Some(&info.server_name).filter(|name| !name.is_empty() && **name != info.server_id);
    let words: Vec<_> = name.into_iter().chain([&info.server_id]).map(String::as_str).collect();
    note(What::Node, words.join(" ").trim());
    note(What::Cluster, &info.cluster);
}

/// The first reason stays: what follows is only its consequence.
fn tell(ending: &watch::Sender<Option<Refusal>>, why: Refusal) {
    ending.send_if_modified(|ended| {
        let is_first = ended.is_none();
        ended.get_or_insert(why);
        is_first
    });
}

/// A connection before it has tasks.
struct Wire {
    stream: Stream,
    buffer: BytesMut,
}

impl Wire {
    async fn next(&mut self) -> Result<Said, String> {
        loop {
            if let Some(said) = wire::take(&mut self.buffer)? {
                return Ok(said);
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(|error| error.to_string())? == 0 {
                return Err("it ended the connection".to_owned());
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).await.map_err(|error| error.to_string())?;
        self.stream.flush().await.map_err(|error| error.to_string())
    }

    /// The same connection, with TLS from here on. Never without it where it was asked for: a password would follow.
    async fn secured(
        self,
        host: &str,
        peer: &str,
        tls: Option<&Arc<ClientConfig>>,
        info: &Info,
        limit: Limit,
    ) -> Result<Wire, Refusal> {
        if !info.tls_required && !info.tls_available {
            let detail = format!("{peer} offers no TLS; write `nats://` and no `ca_file` if it need not");
            return Err(Refusal::new(Cause::Tls, detail));
        }
        let Stream::Plain(plain) = self.stream else { return Ok(self) };
        let config = match tls {
            Some(config) => config.clone(),
            None => Arc::new(crate::channel::seen::tls_client(None).map_err(|why| Refusal::new(Cause::Tls, why))?),
        };
        let stream = agree_on_tls(plain, host, peer, config, limit).await?;
        Ok(Wire { stream: Stream::Tls(Box::new(stream)), buffer: BytesMut::new() })
    }
}

/// The task that reads.
struct Reader {
    stream: ReadHalf<Stream>,
    buffer: BytesMut,
    writes: mpsc::Sender<Write>,
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<Incoming>,
    clock: Clock,
    keep_alive: Duration,
    last_error: Option<String>,
}

impl Reader {
    /// Reads until the connection ends; why it did, and the server's last error.
    async fn read(mut self) -> (String, Option<String>) {
        // Errors since the last PONG.
        let mut errors = Vec::new();
        let mut at = self.clock.now();
        let why = loop {
            match wire::take(&mut self.buffer) {
                Ok(Some(said)) => self.hear(said, at, &mut errors).await,
                Ok(None) => {
                    match timeout(self.keep_alive.saturating_mul(2), self.stream.read_buf(&mut self.buffer)).await {
                        // Before anything is made of the bytes.
                        Ok(Ok(1..)) => at = self.clock.now(),
                        Ok(Ok(0)) => break "it ended the connection".to_owned(),
                        Ok(Err(error)) => break error.to_string(),
                        Err(_) => break "no answer to our PING".to_owned(),
                    }
                }
                Err(why) => break why,
            }
        };
        (why, self.last_error)
    }

    async fn hear(&mut self, said: Said, at: Now, errors: &mut Vec<String>) {
        match said {
            Said::Message(delivery) if delivery.sid == INBOX => self.answer(*delivery),
            Said::Message(delivery) => {
                // Fails only where nobody receives, and then nothing was subscribed to.
                let _ = self.arrivals.send((at, *delivery)).await;
            }
            Said::Ping => {
                // Full only if nothing goes out any more, and then this would not either.
                let _ = self.writes.try_send(Write { bytes: b"PONG\r\n".to_vec(), pong: None });
            }
            Said::Pong => {
                let waiter = self.shared.pongs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let errors = std::mem::take(errors);
                if let Some(Some(waiter)) = waiter {
                    let _ = waiter.send(errors);
                }
                self.last_error = None;
            }
            Said::Error(words) => {
                self.last_error = Some(words.clone());
                errors.push(words);
            }
            Said::Info(_) | Said::Ok => {}
        }
    }

    /// Gives an answer to who waits for it; nobody does for what comes twice, or too late.
    fn answer(&self, delivery: Delivery) {
        let serial = delivery.subject.rsplit_once('.').and_then(|(_, serial)| serial.parse::<u64>().ok());
        let mut answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = answers.iter().position(|(other, _)| Some(*other) == serial);
        if let Some((_, waiter)) = waiting.and_then(|at| answers.remove(at)) {
            let _ = waiter.send(delivery);
        }
    }
}

/// The task that writes: what it is given, and a PING when it is given nothing. Why it ended.
async fn write(
    mut stream: WriteHalf<Stream>,
    mut writes: mpsc::Receiver<Write>,
    shared: Arc<Shared>,
    keep_alive: Duration,
) -> String {
    loop {
        let Write { bytes, pong } = match timeout(keep_alive, writes.recv()).await {
            Ok(Some(write)) => write,
            Ok(None) => return "it was ended here".to_owned(),
            Err(_) => Write { bytes: b"PING\r\n".to_vec(), pong: Some(None) },
        };
        // Before it leaves: the answer may be here before we are back.
        if let Some(waiter) = pong {
            shared.pongs.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiter);
        }
        let written = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return error.to_string();
        }
    }
}
