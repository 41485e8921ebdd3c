//! Connections to a server: made within a deadline, step by step, so that each failure has its own cause.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream as Replies, StreamExt, stream};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisResult, Value, parse_redis_value_async};
use rustls::ClientConfig;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout_at;
use zeroize::Zeroizing;

use super::message::{member, text};
use super::refusal;
use crate::channel::address::{decoded, host};
use crate::channel::dial::{Dialed, Dialer, Limit, Stream};
use crate::channel::refusal::Refusal;
use crate::channel::seen::note;
use crate::journey::outcome::Cause;
use crate::journey::seen::What;
use crate::secret::Secret;

/// Registered for Redis by IANA's list and by every client.
const PORT: u16 = 6_379;

/// Where the server is, and how to speak with it.
#[derive(Clone)]
pub(super) struct Endpoint {
    url: Secret,
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// The endpoint behind `url`.
    pub(super) fn new(url: &Secret, ca_file: Option<&Path>) -> Result<Endpoint, String> {
        let is_tls = Address::parse(&url.reveal()).is_ok_and(|address| address.is_tls);
        let tls = if is_tls { Some(Arc::new(crate::channel::seen::tls_client(ca_file)?)) } else { None };
        Ok(Endpoint { url: url.clone(), tls })
    }

    /// Connects, and says who we are under `name`.
    async fn connect(&self, name: &str, limit: Limit) -> Result<Dialed, Refusal> {
        // Read again each time: a file with a rotated password needs no restart.
        let address = Address::parse(&self.url.reveal()).map_err(|why| {
            Refusal::new(Cause::Unreachable, format!("the channel's `url` is not a Redis URL: {why}; {FORM}"))
        })?;
        let tls = match (address.is_tls, &self.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.clone()),
            (true, None) => {
                let why = "the channel's `url` has changed to `rediss`; restart or reload Journeyman for TLS";
                return Err(Refusal::new(Cause::Tls, why));
            }
        };
        let dialer = Dialer { host: address.host.clone(), port: address.port, tls };
        let mut dialed = dialer.connect(limit).await?;
        match timeout_at(limit.instant(), address.greet(&mut dialed.stream, name, &dialed.peer)).await {
            Ok(greeted) => greeted?,
            Err(_) => return Err(Refusal::silence("greeting it in RESP", &dialed.peer, limit.length())),
        }
        Ok(dialed)
    }
}

/// A connection that many callers share: their commands go out and their replies come back in one order.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// `host:port`, for messages.
    pub(super) peer: String,
    ended: AbortHandle,
    _driver: JoinSet<()>,
}

impl Link {
    /// Connects, and says who we are under `name`.
    pub(super) async fn open(endpoint: &Endpoint, name: &str, limit: Limit) -> Result<Link, Refusal> {
        let Dialed { stream, peer, .. } = endpoint.connect(name, limit).await?;
        // Who we are is said already; and how long an answer may take is each message's own affair.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = connection.map_err(|error| refusal::of(&error, &peer))?;
        let mut running = JoinSet::new();
        let ended = running.spawn(driver);
        Ok(Link { connection, peer, ended, _driver: running })
    }

    /// Whether it still stands, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.ended.is_finished()
    }

    /// The reply to `command`; an error reply is a refusal.
    pub(super) async fn call(&self, command: &Cmd) -> Result<Value, Refusal> {
        let reply = self.connection.clone().send_packed_command(command).await;
        reply.and_then(Value::extract_error).map_err(|error| refusal::of(&error, &self.peer))
    }
}

/// A connection of one caller, who may also read what nobody asked for: the messages of a subscription.
pub(super) struct Wire {
    replies: Pin<Box<dyn Replies<Item = RedisResult<Value>> + Send>>,
    writer: WriteHalf<Stream>,
    /// `host:port`, for messages.
    pub(super) peer: String,
}

impl Wire {
    /// Connects, and says who we are under `name`.
    pub(super) async fn open(endpoint: &Endpoint, name: &str, limit: Limit) -> Result<Wire, Refusal> {
        let Dialed { stream, peer, .. } = endpoint.connect(name, limit).await?;
        let (reader, writer) = tokio::io::split(stream);
        // The stream holds what was read in part, so that a caller who stops waiting loses nothing.
        let replies = stream::try_unfold((reader, Default::default()), |(mut reader, mut decoder)| async move {
            let value = parse_redis_value_async(&mut decoder, &mut reader).await?;
            Ok(Some((value, (reader, decoder))))
        });
        Ok(Wire { replies: Box::pin(replies), writer, peer })
    }

    /// Sends a command.
    pub(super) async fn write(&mut self, command: &Cmd) -> Result<(), Refusal> {
        let written = self.writer.write_all(&command.get_packed_command()).await;
        written.map_err(|error| Refusal::lost(&self.peer, error))
    }

    /// The next reply or message; an error reply is a refusal. May be cancelled.
    pub(super) async fn reply(&mut self) -> Result<Value, Refusal> {
        match self.replies.next().await {
            Some(reply) => reply.and_then(Value::extract_error).map_err(|error| refusal::of(&error, &self.peer)),
            None => Err(Refusal::lost(&self.peer, "it ended")),
        }
    }

    /// The reply to `command`.
    pub(super) async fn call(&mut self, command: &Cmd) -> Result<Value, Refusal> {
        self.write(command).await?;
        self.reply().await
    }
}

/// How the URL must look, for people.
const FORM: &str = "write redis://user:password@host:port/database, with rediss:// for TLS, and special characters \
                    percent-encoded";

/// What is wrong with a `url`, and how it must look.
///
/// # Errors
/// In words, without a part of the URL: it holds the password.
pub fn check_url(url: &str) -> Result<(), (String, &'static str)> {
    Address::parse(url).map(drop).map_err(|why| (why, FORM))
}

/// The parts of a URL.
struct Address {
    host: String,
    port: u16,
    is_tls: bool,
    user: String,
    password: Option<Zeroizing<String>>,
    database: u32,
}

impl Address {
    /// Nothing of the URL is repeated in an error: it holds the password.
    fn parse(url: &str) -> Result<Address, String> {
        let url = url::Url::parse(url).map_err(|reason| reason.to_string())?;
        let is_tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err("its scheme is neither `redis` nor `rediss`".to_owned()),
        };
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            digits => digits.parse().map_err(|_| "its path is not the number of a database".to_owned())?,
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it has parameters, and none are known".to_owned());
        }
        Ok(Address {
            host: host(&url)?,
            port: url.port().unwrap_or(PORT),
            is_tls,
            user: decoded(url.username())?.to_string(),
            password: url.password().map(decoded).transpose()?,
            database,
        })
    }

    /// Authenticates, gives the connection a name that `CLIENT LIST` shows, and chooses the database.
    async fn greet(&self, stream: &mut Stream, name: &str, peer: &str) -> Result<(), Refusal> {
        // One for all: it may hold the beginning of the next reply.
        let mut decoder = Default::default();
        // What is said first goes out before the replies to it are read.
        let mut say = async |commands: &[&Cmd]| {
            let packed: Vec<u8> = commands.iter().flat_map(|command| command.get_packed_command()).collect();
            stream.write_all(&packed).await.map_err(|error| Refusal::lost(peer, error))?;
            let mut replies = Vec::new();
            for _ in commands {
                let reply = parse_redis_value_async(&mut decoder, stream).await;
                replies.push(reply.and_then(Value::extract_error).map_err(|error| refusal::of(&error, peer)));
            }
            Ok::<_, Refusal>(replies)
        };
        if let Some(password) = &self.password {
            let mut auth = redis::cmd("AUTH");
            if !self.user.is_empty() {
                auth.arg(&self.user);
            }
            one(say(&[auth.arg(password.as_str())]).await?)?;
        }
        // Together: to know who answers costs no round trip.
        let mut replies = say(&[redis::cmd("CLIENT").arg("SETNAME").arg(name), &redis::cmd("HELLO")]).await?;
        // Before Redis 6.2 it does not tell, and some are not allowed to ask.
        if let Some(Ok(Value::Array(told))) = replies.pop() {
            note_server(&told);
        }
        match one(replies) {
            Ok(_) => {}
            // A name is a courtesy, and some are not allowed to give one.
            Err(refusal) if refusal.detail.contains("NOPERM") || refusal.detail.contains("unknown") => {}
            Err(refusal) => return Err(refusal),
        }
        if self.database != 0 {
            one(say(&[redis::cmd("SELECT").arg(self.database)]).await?)?;
        }
        Ok(())
    }
}

fn one(mut replies: Vec<Result<Value, Refusal>>) -> Result<Value, Refusal> {
    replies.pop().unwrap_or(Ok(Value::Nil))
}

/// Notes what the server says of itself.
fn note_server(told: &[Value]) {
    let said = |name: &str| member(told, name).and_then(text).unwrap_or_default();
    note(What::Server, format!("{} {}", said("server"), said("version")).trim());
    note(What::Role, &said("role"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address = Address::parse("rediss://probe:p%40ss@redis.example.net/7").unwrap();
        let Address { host, port, is_tls, user, password, database } = address;
        assert_eq!((host.as_str(), port, is_tls, database), ("redis.example.net", 6_379, true, 7));
        assert_eq!((user.as_str(), password.unwrap().as_str()), ("probe", "p@ss"));
        let address = Address::parse("redis://:secret@[::1]:7000").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.is_tls), ("::1", 7_000, false));
        assert_eq!((address.user.as_str(), address.password.unwrap().as_str()), ("", "secret"));
        assert!(Address::parse("redis://127.0.0.1").is_ok_and(|address| address.password.is_none()));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for url in [
            "amqp://u:hunter2@host",
            "redis://u:hunter2@host/orders",
            "redis://u:hunter2@host/0?protocol=resp3",
            "redis://u:hunter2%zz@host",
            "redis:u:hunter2",
        ] {
            let (why, _) = check_url(url).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
