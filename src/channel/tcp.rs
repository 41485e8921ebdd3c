//! TCP: does something listen, and what does it answer. One connection for each step, so that every part is measured.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;

use crate::channel::dial::{Dialed, Dialer, Limit, Stream};
use crate::channel::refusal::Refusal;
use crate::channel::seen::note;
use crate::channel::{Channel, Listener, certificate};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::expect::cut;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::seen::What;
use crate::journey::value::Value;
use crate::time::{Human, Now};

/// Settings of a `tcp` channel.
#[derive(Clone, Debug)]
pub struct TcpSettings {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS begins at once.
    pub tls: bool,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// An answer is complete when this occurs in it; without it, at the end of its first line.
    pub until: Option<Regex>,
    /// An answer is read this far.
    pub max_answer: usize,
}

/// A `tcp` channel.
pub struct Tcp {
    dialer: Dialer,
    until: Option<Regex>,
    max_answer: usize,
    clock: Clock,
}

/// An answer as far as it came.
struct Answer {
    bytes: Vec<u8>,
    end: End,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it is to end.
    Complete,
    /// More than is read.
    Limit,
    /// The other side closed the connection before.
    Closed,
}

impl Tcp {
    /// Opens the channel. Reads `ca_file`; touches no network.
    ///
    /// # Errors
    /// In words: certificates that cannot be read.
    pub fn open(settings: TcpSettings, clock: Clock) -> Result<Tcp, String> {
        let TcpSettings { host, port, tls, ca_file, until, max_answer } = settings;
        let tls = if tls { Some(crate::channel::seen::tls_client(ca_file.as_deref())?.into()) } else { None };
        Ok(Tcp { dialer: Dialer { host, port, tls }, until, max_answer, clock })
    }

    async fn connect(&self, started: Now, limit: Limit) -> Result<Dialed, Fault> {
        let dialed = self.dialer.connect(limit).await;
        dialed.map_err(|refusal| refusal.before_sending().into_fault(started, self.clock.now(), Vec::new()))
    }

    /// Says what is to be said, and reads the answer.
    async fn ask(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let started = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let Dialed { mut stream, peer, mut phases } = self.connect(started, limit).await?;
        let connected = self.clock.now();
        let mut bytes = Vec::new();
        let exchange = timeout_at(limit.instant(), self.exchange(&mut stream, &outgoing.body, &mut bytes)).await;
        let finished = self.clock.now();
        if outgoing.body.is_empty() {
            // Nobody was asked anything: it is a greeting.
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            note(What::Banner, &String::from_utf8_lossy(line));
        }
        phases.push(Phase { name: "answer".to_owned(), took: finished.mono.since(connected.mono) });
        let end = match exchange {
            Ok(Ok(end)) => Ok(end),
            Ok(Err(error)) => Err(Refusal::lost(&peer, error)),
            Err(_) => Err(self.unfinished(&peer, &bytes, limit.length())),
        };
        let refusal = match end {
            Ok(End::Closed) if bytes.is_empty() => {
                let detail = format!("{peer} closed the connection without an answer");
                Refusal { cause: Cause::Unreachable, detail, is_verdict: false }
            }
            Ok(End::Closed) if self.until.is_some() => {
                let detail = format!("{peer} closed the connection before its answer was complete: {}", shown(&bytes));
                Refusal { cause: Cause::Mismatch, detail, is_verdict: false }
            }
            Ok(end) => {
                let ack = format!("answered {} bytes", bytes.len());
                let message = message(&stream, Answer { bytes, end });
                return Ok(Reply { started, finished, ack, message: Some(message), phases });
            }
            Err(refusal) => refusal,
        };
        Err(refusal.into_fault(started, finished, phases))
    }

    async fn exchange(&self, stream: &mut Stream, said: &[u8], answer: &mut Vec<u8>) -> std::io::Result<End> {
        stream.write_all(said).await?;
        stream.flush().await?;
        let mut piece = vec![0; PIECE];
        loop {
            let length = stream.read(&mut piece).await?;
            if length == 0 {
                return Ok(End::Closed);
            }
            let room = self.max_answer - answer.len();
            answer.extend_from_slice(&piece[..length.min(room)]);
            if is_complete(answer, self.until.as_ref()) {
                return Ok(End::Complete);
            }
            if length >= room {
                return Ok(End::Limit);
            }
        }
    }

    /// What there is to say when the time is over.
    fn unfinished(&self, peer: &str, bytes: &[u8], waited: Duration) -> Refusal {
        if bytes.is_empty() {
            return Refusal::silence("waiting for its answer", peer, waited);
        }
        let end = if self.until.is_some() { "what `until` waits for" } else { "the end of a line" };
        let detail = format!("{peer} answered, and {end} did not come within {}: {}", Human(waited), shown(bytes));
        Refusal { cause: Cause::Mismatch, detail, is_verdict: false }
    }
}

fn is_complete(answer: &[u8], until: Option<&Regex>) -> bool {
    match until {
        Some(until) => until.is_match(answer),
        None => answer.contains(&b'\n'),
    }
}

fn shown(bytes: &[u8]) -> String {
    cut(&format!("{:?}", String::from_utf8_lossy(bytes)))
}

fn message(stream: &Stream, answer: Answer) -> Message {
    let mut message = Message::new(answer.bytes);
    if let Some(at) = stream.certificate().and_then(certificate::not_after) {
        message.facts.insert("certificate_expires", Value::Text(at.to_string()));
    }
    if answer.end == End::Limit {
        message.facts.insert("truncated", Value::Bool(true));
    }
    message
}

impl Channel for Tcp {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        self.request(outgoing)
    }

    fn request<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.ask(outgoing))
    }

    /// Connects, agrees on TLS if it is to, and goes.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            let started = self.clock.now();
            let Dialed { stream, phases, .. } = self.connect(started, Limit::new(self.clock, outgoing.timeout)).await?;
            let message = message(&stream, Answer { bytes: Vec::new(), end: End::Complete });
            let finished = self.clock.now();
            Ok(Reply { started, finished, ack: "connected".to_owned(), message: Some(message), phases })
        })
    }

    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let dialed = self.connect(self.clock.now(), Limit::new(self.clock, limit)).await?;
            Ok(format!("{} takes connections{}", dialed.peer, if self.dialer.tls.is_some() { " with TLS" } else { "" }))
        })
    }

    /// Nothing arrives here.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { listener.stop.cancelled().await })
    }
}

/// Read at once.
const PIECE: usize = 4 * 1024;
