//! Sessions with a server: made within a deadline, step by step, so that each failure has its own cause.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream as Messages, poll_fn};
use futures_util::{FutureExt, StreamExt};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::refusal;
use crate::channel::address::{decoded, host};
use crate::channel::dial::{Dialed, Dialer, Limit, Stream};
use crate::channel::refusal::Refusal;
use crate::channel::seen::{self, Notes};
use crate::journey::outcome::Cause;
use crate::journey::seen::{Seen, What};
use crate::secret::Secret;
use crate::time::Mono;

/// Registered for PostgreSQL by IANA.
const PORT: u16 = 5_432;
/// A goodbye may take this long; then the socket is ended without one.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the server sends unasked, and the work of the connection itself: it goes on only while this is read.
pub(super) type Incoming = Pin<Box<dyn Messages<Item = Result<AsyncMessage, tokio_postgres::Error>> + Send>>;

/// Where the server is, and how to speak with it.
#[derive(Clone)]
pub(super) struct Endpoint {
    url: Secret,
    tls: Option<Arc<ClientConfig>>,
}

/// A session whose connection the caller keeps going by reading `incoming`.
pub(super) struct Raw {
    /// Asks the server.
    pub(super) client: Client,
    /// What keeps the connection going.
    pub(super) incoming: Incoming,
    /// `host:port`, for messages.
    pub(super) peer: String,
    /// As whom and where, for people.
    pub(super) place: String,
}

impl Endpoint {
    /// The endpoint behind `url`.
    pub(super) fn new(url: &Secret, ca_file: Option<&Path>) -> Result<Endpoint, String> {
        let is_tls = Address::parse(&url.reveal()).is_ok_and(|address| address.is_tls);
        let tls = if is_tls { Some(Arc::new(crate::channel::seen::tls_client(ca_file)?)) } else { None };
        Ok(Endpoint { url: url.clone(), tls })
    }

    /// Connects, and says who we are; `name` is what `pg_stat_activity` shows.
    pub(super) async fn connect(&self, name: &str, limit: Limit) -> Result<Raw, Refusal> {
        // Read again each time: a file with a rotated password needs no restart.
        let address = Address::parse(&self.url.reveal()).map_err(|why| {
            Refusal::new(Cause::Unreachable, format!("the channel's `url` is not one for PostgreSQL: {why}; {FORM}"))
        })?;
        // TLS begins after a request in the server's own protocol, so the connection itself begins without.
        let dialer = Dialer { host: address.host.clone(), port: address.port, tls: None };
        let Dialed { stream, peer, .. } = dialer.connect(limit).await?;
        let greeting = self.greet(&address, stream, name).map(|greeted| match greeted {
            Ok(greeted) => greeted.map_err(|error| refusal::of(&error, &peer)),
            Err(refusal) => Err(refusal),
        });
        let silence = |_| Err(Refusal::silence("greeting it", &peer, limit.length()));
        let greeted = timeout_at(limit.instant(), greeting).await.unwrap_or_else(silence);
        let (client, incoming) = greeted.map_err(Refusal::before_sending)?;
        let place = format!("as `{}` into database `{}`", address.user, address.database);
        Ok(Raw { client, incoming, peer, place })
    }

    async fn greet(
        &self,
        address: &Address,
        stream: Stream,
        name: &str,
    ) -> Result<Result<(Client, Incoming), tokio_postgres::Error>, Refusal> {
        let mut config = Config::new();
        config.user(&address.user).dbname(&address.database).application_name(name);
        if let Some(password) = &address.password {
            config.password(password.as_bytes());
        }
        if !address.is_tls {
            config.ssl_mode(SslMode::Disable);
            return Ok(config.connect_raw(stream, NoTls).await.map(|(client, mut connection)| {
                note_server(&connection);
                (client, poll_fn(move |context| connection.poll_message(context)).boxed())
            }));
        }
        let Some(tls) = &self.tls else {
            let why = "the channel's `url` has changed to TLS; restart or reload Journeyman";
            return Err(Refusal::new(Cause::Tls, why));
        };
        config.ssl_mode(SslMode::Require);
        let mut maker = MakeRustlsConnect::new(ClientConfig::clone(tls));
        let connector = MakeTlsConnect::<Stream>::make_tls_connect(&mut maker, &address.host);
        let connector = connector.map_err(|error| Refusal::new(Cause::Tls, error.to_string()))?;
        Ok(config.connect_raw(stream, connector).await.map(|(client, mut connection)| {
            note_server(&connection);
            (client, poll_fn(move |context| connection.poll_message(context)).boxed())
        }))
    }
}

/// Notes what the server says of itself in its greeting.
fn note_server<T: AsyncRead + AsyncWrite + Unpin>(connection: &Connection<Stream, T>) {
    if let Some(version) = connection.parameter("server_version") {
        seen::note(What::Server, &format!("PostgreSQL {version}"));
    }
    // Told since PostgreSQL 14.
    match connection.parameter("in_hot_standby") {
        Some("on") => seen::note(What::Role, "standby"),
        Some(_) => seen::note(What::Role, "primary"),
        None => {}
    }
}

/// A session that keeps itself going.
pub(super) struct Session {
    /// Asks the server.
    pub(super) client: Client,
    /// `host:port`, for messages.
    pub(super) peer: String,
    /// As whom and where, for people.
    pub(super) place: String,
    /// When it was begun to be made.
    pub(super) since: Mono,
    /// What was met when it was made.
    pub(super) seen: Vec<Seen>,
    driver: JoinSet<()>,
}

impl Session {
    /// Connects, and says who we are; `name` is what `pg_stat_activity` shows.
    pub(super) async fn open(endpoint: &Endpoint, name: &str, limit: Limit) -> Result<Session, Refusal> {
        let (since, notes) = (limit.now(), Notes::of_a_part());
        let Raw { client, mut incoming, peer, place } = notes.over(endpoint.connect(name, limit)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { while let Some(Ok(_)) = incoming.next().await {} });
        Ok(Session { client, peer, place, since, seen: notes.seen(), driver })
    }

    /// Says goodbye, so that the server's log shows no client that vanished.
    pub(super) async fn close(self) {
        let Session { client, mut driver, .. } = self;
        drop(client);
        let _ = tokio::time::timeout(GOODBYE, driver.join_next()).await;
    }

    /// The rows of `query` in a read-only transaction, each as one text by `wrap`: a query in a query can be nothing else than
    /// one that reads.
    pub(super) async fn look(&self, wrapped: &str, limit: Limit) -> Result<Vec<tokio_postgres::Row>, Refusal> {
        let begin = format!("begin read only; set local statement_timeout = {}", milliseconds(limit.left()));
        let looking = async {
            self.client.batch_execute(&begin).await?;
            let rows = self.client.query(wrapped, &[]).await?;
            self.client.batch_execute("rollback").await?;
            Ok(rows)
        };
        match timeout_at(limit.instant(), looking).await {
            Ok(rows) => rows.map_err(|error| refusal::of(&error, &self.peer)),
            Err(_) => Err(Refusal::silence("running the query", &self.peer, limit.length())),
        }
    }
}

/// A `statement_timeout` that lets the server say that it gave up, before we stop listening.
pub(super) fn milliseconds(left: Duration) -> u128 {
    (left * 9 / 10).as_millis().max(1)
}

/// How the URL must look, for people.
const FORM: &str = "write postgres://user:password@host:port/database, with special characters percent-encoded; \
                    `?sslmode=disable` does without TLS";

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
    database: String,
}

impl Address {
    /// Nothing of the URL is repeated in an error: it holds the password.
    fn parse(url: &str) -> Result<Address, String> {
        let url = url::Url::parse(url).map_err(|reason| reason.to_string())?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("its scheme is neither `postgres` nor `postgresql`".to_owned());
        }
        let mut is_tls = true;
        for (name, value) in url.query_pairs() {
            is_tls = match (&*name, &*value) {
                ("sslmode", "disable") => false,
                // The certificate is always verified: what does less protects from nobody who can listen.
                ("sslmode", "require" | "verify-ca" | "verify-full") => true,
                ("sslmode", "allow" | "prefer") => {
                    return Err("`sslmode` leaves open whether there is TLS; say `verify-full` or `disable`".to_owned());
                }
                ("sslmode", _) => return Err("`sslmode` is neither `verify-full` nor `disable`".to_owned()),
                _ => return Err("it has a parameter that is not known; there is only `sslmode`".to_owned()),
            };
        }
        let user = decoded(url.username())?.to_string();
        if user.is_empty() {
            return Err("it has no user".to_owned());
        }
        let database = decoded(url.path().trim_start_matches('/'))?.to_string();
        Ok(Address {
            host: host(&url)?,
            port: url.port().unwrap_or(PORT),
            is_tls,
            password: url.password().map(decoded).transpose()?,
            database: if database.is_empty() { user.clone() } else { database },
            user,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_means_tls_unless_it_says_otherwise() {
        let address = Address::parse("postgres://probe:p%40ss@db.example.net/orders").unwrap();
        let Address { host, port, is_tls, user, password, database } = address;
        assert_eq!((host.as_str(), port, is_tls), ("db.example.net", 5_432, true));
        assert_eq!((user.as_str(), password.unwrap().as_str(), database.as_str()), ("probe", "p@ss", "orders"));
        let address = Address::parse("postgresql://probe@[::1]:7000?sslmode=disable").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.is_tls), ("::1", 7_000, false));
        assert_eq!((address.database.as_str(), address.password.is_none()), ("probe", true));
        for mode in ["require", "verify-ca", "verify-full"] {
            assert!(Address::parse(&format!("postgres://u@h/d?sslmode={mode}")).unwrap().is_tls);
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for url in [
            "mysql://u:hunter2@host",
            "postgres://:hunter2@host/orders",
            "postgres://u:hunter2@host/d?sslmode=prefer",
            "postgres://u:hunter2@host/d?sslmode=on",
            "postgres://u:hunter2@host/d?connect_timeout=3",
            "postgres:u:hunter2",
        ] {
            let (why, _) = check_url(url).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn the_server_gives_up_before_we_do() {
        assert_eq!(milliseconds(Duration::from_secs(10)), 9_000);
        assert_eq!(milliseconds(Duration::ZERO), 1, "0 would mean for ever");
    }
}
