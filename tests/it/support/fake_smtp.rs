//! An SMTP server that does as it is told: takes mail, refuses it, stalls, hangs up, at any point of the conversation.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use journeyman::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::mail::{Mail, unbase64};
use super::wait_for;

/// The longest that anything is waited for.
const BOUND: Duration = Duration::from_secs(30);

/// A point of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The greeting.
    Connect,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The final dot.
    Dot,
}

/// What to do there instead of the usual.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answer this; one line, or several joined by CRLF.
    Say(&'static str),
    /// Answer as usual, one byte a second.
    Drip,
    /// Answer with lines that promise another, as long as anybody reads.
    Flood,
    /// Never answer.
    Hang,
    /// Close the connection.
    Close,
    /// At the dot: keep the mail, and never answer.
    TakeAndHang,
    /// At the dot: keep the mail, and close the connection.
    TakeAndClose,
}

/// What to do at one point.
#[derive(Clone, Debug)]
pub struct Rule {
    at: At,
    act: Act,
    to: Option<&'static str>,
    left: u32,
}

impl Rule {
    /// The next time only.
    pub fn once(at: At, act: Act) -> Rule {
        Rule { at, act, to: None, left: 1 }
    }

    /// Every time.
    pub fn always(at: At, act: Act) -> Rule {
        Rule { at, act, to: None, left: u32::MAX }
    }

    /// Only in the conversation about this recipient; for points from `Rcpt` on.
    pub fn to(self, recipient: &'static str) -> Rule {
        Rule { to: Some(recipient), ..self }
    }
}

/// A mail that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The sender in the envelope.
    pub from: String,
    /// The recipients in the envelope.
    pub to: Vec<String>,
    /// Whether it came under TLS.
    pub is_encrypted: bool,
    /// User name and password with which it came.
    pub credentials: Option<(String, String)>,
    /// As it came.
    pub raw: String,
    /// The same, parsed.
    pub mail: Mail,
    /// When it was whole.
    pub at: Timestamp,
}

/// What the server offers beyond the plain protocol.
#[derive(Clone, Default)]
pub struct Offer {
    /// With STARTTLS, under this certificate.
    pub start_tls: Option<Arc<rustls::ServerConfig>>,
    /// TLS from the first byte.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// `AUTH PLAIN`.
    pub auth: bool,
}

#[derive(Default)]
struct Seen {
    rules: Vec<Rule>,
    mails: Vec<Taken>,
    commands: Vec<String>,
    connected: Vec<Timestamp>,
    stalled: usize,
}

/// The server; it ends with its owner.
pub struct FakeSmtp {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl FakeSmtp {
    /// A server that takes everything, on a loopback port of its own.
    pub async fn start() -> FakeSmtp {
        FakeSmtp::start_with(Offer::default()).await
    }

    /// The same with TLS or authentication.
    pub async fn start_with(offer: Offer) -> FakeSmtp {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        #[expect(clippy::disallowed_methods, reason = "the fake's task ends with its owner")]
        let accepting = tokio::spawn(async move {
            let mut conversations = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let wire = Wire { stream, tls: None, read: Vec::new() };
                shared.lock().expect("no panic while held").connected.push(now());
                let conversation =
                    Conversation { wire, offer: offer.clone(), seen: shared.clone(), to: Vec::new(), user: None };
                conversations.spawn(conversation.run());
            }
        });
        FakeSmtp { port, seen, accepting }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Adds rules. The first that fits is followed.
    pub fn script(&self, rules: impl IntoIterator<Item = Rule>) {
        self.seen.lock().expect("no panic while held").rules.extend(rules);
    }

    /// The mails taken so far.
    pub fn mails(&self) -> Vec<Taken> {
        self.seen.lock().expect("no panic while held").mails.clone()
    }

    /// The commands read so far, of all connections.
    pub fn commands(&self) -> Vec<String> {
        self.seen.lock().expect("no panic while held").commands.clone()
    }

    /// When somebody connected.
    pub fn connected(&self) -> Vec<Timestamp> {
        self.seen.lock().expect("no panic while held").connected.clone()
    }

    /// The first mail that `is_it`, waiting for it if need be.
    pub async fn wait_for_mail(&self, what: &str, mut is_it: impl FnMut(&Taken) -> bool) -> Taken {
        wait_for(what, BOUND, async || self.mails().into_iter().find(&mut is_it)).await
    }

    /// Waits until a conversation hangs or drips, as told.
    pub async fn wait_for_stall(&self) {
        let is_stalled = async || (self.seen.lock().expect("no panic while held").stalled > 0).then_some(());
        wait_for("the fake SMTP server to stall", BOUND, is_stalled).await;
    }
}

impl Drop for FakeSmtp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A self-signed certificate for 127.0.0.1 and localhost: the server's side of it, and the certificate in PEM.
pub fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![cert.der().clone()], key.into()).expect("the key fits the certificate");
    (Arc::new(config), cert.pem())
}

fn now() -> Timestamp {
    Clock::system().now().wall
}

/// The connection is over, for whatever reason.
struct Over;

/// A connection that may become encrypted.
struct Wire {
    stream: TcpStream,
    tls: Option<rustls::ServerConnection>,
    read: Vec<u8>,
}

impl Wire {
    async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return String::from_utf8(line)
                    .map(|line| line.trim_end_matches(['\r', '\n']).to_owned())
                    .map_err(|_| Over);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Over> {
        let mut bytes = [0; 4_096];
        let length = self.stream.read(&mut bytes).await.map_err(|_| Over)?;
        if length == 0 {
            return Err(Over);
        }
        let Some(tls) = &mut self.tls else {
            self.read.extend_from_slice(&bytes[..length]);
            return Ok(());
        };
        let mut rest = &bytes[..length];
        let mut is_sound = true;
        while !rest.is_empty() && is_sound {
            tls.read_tls(&mut rest).map_err(|_| Over)?;
            is_sound = tls.process_new_packets().is_ok();
        }
        let mut plain = [0; 4_096];
        while let Ok(length @ 1..) = tls.reader().read(&mut plain) {
            self.read.extend_from_slice(&plain[..length]);
        }
        // Alerts go out even if the handshake failed.
        self.flush().await?;
        if is_sound { Ok(()) } else { Err(Over) }
    }

    async fn flush(&mut self) -> Result<(), Over> {
        let mut out = Vec::new();
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut out).map_err(|_| Over)?;
            }
        }
        self.stream.write_all(&out).await.map_err(|_| Over)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Over> {
        match &mut self.tls {
            None => self.stream.write_all(bytes).await.map_err(|_| Over),
            Some(tls) => {
                tls.writer().write_all(bytes).map_err(|_| Over)?;
                self.flush().await
            }
        }
    }

    fn encrypt(&mut self, config: Arc<rustls::ServerConfig>) {
        self.tls = Some(rustls::ServerConnection::new(config).expect("the configuration is sound"));
    }
}

struct Conversation {
    wire: Wire,
    offer: Offer,
    seen: Arc<Mutex<Seen>>,
    to: Vec<String>,
    user: Option<(String, String)>,
}

impl Conversation {
    async fn run(mut self) {
        let _ = self.converse().await;
    }

    async fn converse(&mut self) -> Result<(), Over> {
        if let Some(config) = self.offer.tls.clone() {
            self.wire.encrypt(config);
        }
        self.answer(At::Connect, "220 fake ESMTP").await?;
        let mut from = String::new();
        loop {
            let command = self.wire.line().await?;
            self.seen.lock().expect("no panic while held").commands.push(command.clone());
            let upper = command.to_uppercase();
            let address =
                || command.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(a, _)| a.to_owned());
            if upper.starts_with("EHLO") {
                let mut extensions = String::from("250-fake greets you\r\n250-SIZE 1000000");
                if self.offer.start_tls.is_some() && self.wire.tls.is_none() {
                    extensions.push_str("\r\n250-STARTTLS");
                }
                if self.offer.auth {
                    extensions.push_str("\r\n250-AUTH PLAIN");
                }
                self.answer(At::Ehlo, &format!("{extensions}\r\n250 ENHANCEDSTATUSCODES")).await?;
            } else if upper == "STARTTLS" {
                if self.answer(At::StartTls, "220 2.0.0 ready for TLS").await? {
                    let config = self.offer.start_tls.clone().expect("STARTTLS was not offered");
                    self.wire.encrypt(config);
                }
            } else if let Some(secret) = upper.strip_prefix("AUTH PLAIN ").map(|_| &command["AUTH PLAIN ".len()..]) {
                let plain = String::from_utf8(unbase64(secret)).map_err(|_| Over)?;
                let mut parts = plain.split('\0').skip(1).map(str::to_owned);
                let credentials = parts.next().zip(parts.next());
                if self.answer(At::Auth, "235 2.7.0 welcome").await? {
                    self.user = credentials;
                }
            } else if upper.starts_with("MAIL FROM:") {
                (from, self.to) = (address().ok_or(Over)?, Vec::new());
                self.answer(At::Mail, "250 2.1.0 ok").await?;
            } else if upper.starts_with("RCPT TO:") {
                self.to.push(address().ok_or(Over)?);
                if !self.answer(At::Rcpt, "250 2.1.5 ok").await? {
                    self.to.pop();
                }
            } else if upper == "DATA" {
                if self.answer(At::Data, "354 go ahead").await? {
                    self.content(&from).await?;
                }
            } else if upper == "QUIT" {
                return self.wire.write(b"221 2.0.0 bye\r\n").await;
            } else {
                self.wire.write(b"250 2.0.0 ok\r\n").await?;
            }
        }
    }

    async fn content(&mut self, from: &str) -> Result<(), Over> {
        let mut raw = String::new();
        loop {
            let line = self.wire.line().await?;
            if line == "." {
                break;
            }
            // RFC 5321, 4.5.2: a leading dot was doubled.
            raw.push_str(line.strip_prefix('.').unwrap_or(&line));
            raw.push_str("\r\n");
        }
        let taken = Taken {
            from: from.to_owned(),
            to: self.to.clone(),
            is_encrypted: self.wire.tls.is_some(),
            credentials: self.user.clone(),
            mail: Mail::parse(&raw),
            raw,
            at: now(),
        };
        let rule = self.rule(At::Dot);
        let number = {
            let mut seen = self.seen.lock().expect("no panic while held");
            if matches!(rule, None | Some(Act::TakeAndHang | Act::TakeAndClose | Act::Drip)) {
                seen.mails.push(taken);
            }
            seen.mails.len()
        };
        self.perform(rule, &format!("250 2.0.0 queued as FAKE{number}")).await.map(drop)
    }

    fn rule(&self, at: At) -> Option<Act> {
        let mut seen = self.seen.lock().expect("no panic while held");
        let fits = |rule: &&mut Rule| {
            rule.at == at && rule.left > 0 && rule.to.is_none_or(|to| self.to.last().is_some_and(|last| last == to))
        };
        let rule = seen.rules.iter_mut().find(fits)?;
        rule.left = rule.left.saturating_sub(1);
        Some(rule.act.clone())
    }

    /// Answers as scripted, or as `usual`; whether that was a yes.
    async fn answer(&mut self, at: At, usual: &str) -> Result<bool, Over> {
        let rule = self.rule(at);
        self.perform(rule, usual).await
    }

    async fn perform(&mut self, act: Option<Act>, usual: &str) -> Result<bool, Over> {
        match act {
            None => {
                self.wire.write(format!("{usual}\r\n").as_bytes()).await?;
                Ok(true)
            }
            Some(Act::Say(text)) => {
                self.wire.write(format!("{text}\r\n").as_bytes()).await?;
                Ok(text.starts_with(['2', '3']))
            }
            Some(Act::Drip) => {
                self.seen.lock().expect("no panic while held").stalled += 1;
                for byte in format!("{usual}\r\n").bytes() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    self.wire.write(&[byte]).await?;
                }
                Ok(true)
            }
            Some(Act::Flood) => loop {
                self.wire.write("250-and more\r\n".repeat(512).as_bytes()).await?;
            },
            Some(Act::Hang | Act::TakeAndHang) => {
                self.seen.lock().expect("no panic while held").stalled += 1;
                std::future::pending().await
            }
            Some(Act::Close | Act::TakeAndClose) => Err(Over),
        }
    }
}
