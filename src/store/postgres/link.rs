//! Sessions with the server: where it is, how one is made within a time, and what its errors mean for us.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::secret::Secret;
use crate::store::StoreError;

/// One address has so long to take a connection; a URL may name several.
const CONNECT_ONE: Duration = Duration::from_secs(2);
/// All of them, with the greeting.
const CONNECT: Duration = Duration::from_secs(6);
/// A transaction of ours waits for nobody but the server. One whose client was stopped in it holds others up for so long.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(3);
/// A server that has gone without a word is noticed after so long, and then every so often.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));
/// What was sent to a server that has gone without a word is given up after so long.
const USER_TIMEOUT: Duration = Duration::from_secs(8);
/// A goodbye may take this long; then the socket is ended without one.
const GOODBYE: Duration = Duration::from_secs(1);

/// How the URL must look, for people.
const FORM: &str = "write postgres://user:password@host:port/database, with special characters percent-encoded; several \
                    `host:port` stand beside each other with commas; `?sslmode=disable` does without TLS";

/// Where the server is, and how to speak with it.
#[derive(Clone)]
pub struct Endpoint {
    url: Secret,
    tls: Option<ClientConfig>,
    /// Why the server is not to be asked yet.
    shut: Option<watch::Receiver<Option<String>>>,
}

impl Endpoint {
    /// The endpoint behind `url`.
    ///
    /// # Errors
    /// In words, without a part of the URL: certificates that cannot be read, or a URL that is none.
    pub fn new(url: &Secret) -> Result<Endpoint, String> {
        let address = Address::parse(&url.reveal())?;
        let tls = match address.is_tls {
            true => Some(crate::tls::client(address.ca_file.as_deref())?),
            false => None,
        };
        Ok(Endpoint { url: url.clone(), tls, shut: None })
    }

    /// The same, which is away for whoever asks while this says why it is: sessions are to be had once it says nothing.
    #[must_use]
    pub fn behind(&self, shut: watch::Receiver<Option<String>>) -> Endpoint {
        Endpoint { shut: Some(shut), ..self.clone() }
    }

    /// Why nobody answers, where nobody does: the way or the server is down, or it does not take anybody at the
    /// moment. One that says no - to our password, our certificate, our database - answers. It takes as long as a
    /// session may take to be made.
    pub async fn silence(&self) -> Option<String> {
        let address = Address::parse(&self.url.reveal()).ok()?;
        let place = address.place();
        match timeout(CONNECT, self.greet(&address, &place)).await {
            Ok(Ok(session)) => {
                session.close().await;
                None
            }
            Ok(Err(Ungreeted { fault: Fault::Lost(why), is_silence: true })) => Some(format!("{place}: {why}")),
            Ok(Err(_)) => None,
            Err(_) => Some(format!("{place}: no answer within {} s", CONNECT.as_secs())),
        }
    }

    /// Where the server is, for people: without user and password.
    pub fn place(&self) -> String {
        place_of(&self.url.reveal())
    }

    /// A session of this name, as `pg_stat_activity` shows it, whose statements take at most this long.
    pub(super) async fn connect(&self, name: &str, longest: Duration) -> Result<Session, Fault> {
        if let Some(why) = self.shut.as_ref().and_then(|shut| shut.borrow().clone()) {
            return Err(Fault::Lost(why));
        }
        // Read again each time: a file with a rotated password needs no restart.
        let mut address = Address::parse(&self.url.reveal()).map_err(Fault::Lost)?;
        let place = address.place();
        if address.config.get_application_name().is_none() {
            address.config.application_name(name);
        }
        let lost = |why: String| Fault::Lost(format!("{place}: {why}"));
        let made = timeout(CONNECT, async {
            let session = self.greet(&address, &place).await.map_err(|ungreeted| ungreeted.fault)?;
            let settings = format!(
                "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}",
                longest.as_millis(),
                IDLE_IN_TRANSACTION.as_millis()
            );
            session.batch(&settings).await?;
            Ok(session)
        });
        match made.await {
            Ok(Err(Fault::Lost(why) | Fault::Again(why) | Fault::Refused(why) | Fault::Data(why))) => Err(lost(why)),
            Ok(made) => made,
            Err(_) => Err(lost(format!("no answer within {} s", CONNECT.as_secs()))),
        }
    }

    async fn greet(&self, address: &Address, place: &str) -> Result<Session, Ungreeted> {
        let mut driver = JoinSet::new();
        let client = match &self.tls {
            Some(tls) if address.is_tls => {
                let connector = MakeRustlsConnect::new(tls.clone());
                let (client, connection) = address.config.connect(connector).await.map_err(|e| Ungreeted::of(&e))?;
                driver.spawn(async move { drop(connection.await) });
                client
            }
            None if address.is_tls => {
                let fault = Fault::Lost("`store.url` has changed to TLS; restart Journeyman".to_owned());
                return Err(Ungreeted { fault, is_silence: false });
            }
            _ => {
                let (client, connection) = address.config.connect(NoTls).await.map_err(|e| Ungreeted::of(&e))?;
                driver.spawn(async move { drop(connection.await) });
                client
            }
        };
        Ok(Session { client, prepared: Mutex::default(), driver, place: place.to_owned() })
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place())
    }
}

/// What is wrong with a `url`, and how it must look.
///
/// # Errors
/// In words, without a part of the URL: it holds the password.
pub fn check_url(url: &str) -> Result<(), (String, &'static str)> {
    Address::parse(url).map(drop).map_err(|why| (why, FORM))
}

/// Where a URL leads, for people: without user and password.
pub(in crate::store) fn place_of(url: &str) -> String {
    Address::parse(url).map_or_else(|_| "PostgreSQL".to_owned(), |address| address.place())
}

/// The user and the password of a URL, if it has one: what must not be shown.
pub fn password_of(url: &str) -> Option<(String, String)> {
    let config = Address::parse(url).ok()?.config;
    let password = String::from_utf8_lossy(config.get_password()?).into_owned();
    Some((config.get_user().unwrap_or_default().to_owned(), password))
}

/// A URL, read.
struct Address {
    config: Config,
    is_tls: bool,
    ca_file: Option<PathBuf>,
}

impl Address {
    /// Nothing of the URL is repeated in an error: it holds the password.
    fn parse(url: &str) -> Result<Address, String> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("its scheme is neither `postgres` nor `postgresql`".to_owned());
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut is_tls, mut ca_file, mut rest) = (true, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (name, value) {
                ("sslmode", "disable") => is_tls = false,
                // The certificate is always verified: what does less protects from nobody who can listen.
                ("sslmode", "require" | "verify-ca" | "verify-full") => is_tls = true,
                ("sslmode", "allow" | "prefer") => {
                    return Err("`sslmode` leaves open whether there is TLS; say `verify-full` or `disable`".to_owned());
                }
                ("sslmode", _) => return Err("`sslmode` is neither `verify-full` nor `disable`".to_owned()),
                ("sslrootcert", _) => {
                    let pair = pair.replace('+', "%2B");
                    let path = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, path)| path.into_owned());
                    ca_file = path.filter(|path| !path.is_empty()).map(PathBuf::from);
                }
                ("target_session_attrs", "any" | "read-write")
                | ("application_name" | "options" | "host" | "port", _) => {
                    rest.push(pair);
                }
                ("target_session_attrs", _) => {
                    return Err("`target_session_attrs` is neither `read-write` nor `any`: state is written".to_owned());
                }
                _ => {
                    let known = "`sslmode`, `sslrootcert`, `target_session_attrs`, `application_name`, `options`, `host` and `port`";
                    return Err(format!("it has a parameter that is not known; there are {known}"));
                }
            }
        }
        let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let mut config = Config::from_str(&url).map_err(|_| "it cannot be taken apart".to_owned())?;
        if config.get_user().is_none_or(str::is_empty) {
            return Err("it has no user".to_owned());
        }
        let hosts = config.get_hosts();
        if hosts.is_empty() || hosts.iter().any(|host| matches!(host, Host::Tcp(name) if name.is_empty())) {
            return Err("it has no host".to_owned());
        }
        let ports = config.get_ports().len();
        if ports > 1 && ports != hosts.len() {
            return Err("it has not as many ports as hosts".to_owned());
        }
        // On a socket of this machine nobody can listen.
        is_tls &= hosts.iter().any(|host| matches!(host, Host::Tcp(_)));
        config.ssl_mode(if is_tls { SslMode::Require } else { SslMode::Disable });
        if !rest.iter().any(|pair| pair.starts_with("target_session_attrs=")) {
            // A standby takes connections, and no writes.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.connect_timeout(CONNECT_ONE).tcp_user_timeout(USER_TIMEOUT);
        config.keepalives(true).keepalives_idle(KEEPALIVE.0).keepalives_interval(KEEPALIVE.1).keepalives_retries(3);
        Ok(Address { config, is_tls, ca_file })
    }

    fn place(&self) -> String {
        let mut place = "PostgreSQL at ".to_owned();
        let ports = self.config.get_ports();
        for (nth, host) in self.config.get_hosts().iter().enumerate() {
            let port = ports.get(nth).or(ports.first()).copied().unwrap_or(5_432);
            let comma = if nth > 0 { "," } else { "" };
            let _ = match host {
                Host::Tcp(name) => write!(place, "{comma}{name}:{port}"),
                Host::Unix(path) => write!(place, "{comma}{}:{port}", path.display()),
            };
        }
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        let _ = write!(place, "/{database}");
        place
    }
}

/// Why the server, or the way to it, said no: by what to do next.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The session is gone, or there never was one. What it was doing may have been done.
    Lost(String),
    /// It was in another's way, and nothing of it was done: the same may go the next time.
    Again(String),
    /// It is not to be, and not because of what was to be written.
    Refused(String),
    /// What was to be written is not to be.
    Data(String),
    /// Another daemon has the lease.
    Fenced(String),
    /// These shards are not ours any more, in these epochs.
    Moved(Vec<(i32, i64)>),
}

/// Why no session was made.
struct Ungreeted {
    fault: Fault,
    /// Nobody answered.
    is_silence: bool,
}

impl Ungreeted {
    fn of(error: &tokio_postgres::Error) -> Ungreeted {
        let is_silence = match error.as_db_error() {
            // It is starting, ending, or full; or it says that the way is gone.
            Some(answer) => {
                matches!(answer.code().code(), "57P01" | "57P02" | "57P03" | "53300")
                    || answer.code().code().starts_with("08")
            }
            None if crate::tls::error_in(error).is_some() => false,
            // A password that is not there is no fault of the way.
            None => error.is_closed() || error.source().is_some_and(|why| why.is::<std::io::Error>()),
        };
        Ungreeted { fault: Fault::of(error), is_silence }
    }
}

impl Fault {
    pub(super) fn of(error: &tokio_postgres::Error) -> Fault {
        let Some(answer) = error.as_db_error() else {
            let words = match (crate::tls::error_in(error), error.source()) {
                (Some(tls), _) => crate::tls::words(tls, "the server"),
                (None, Some(why)) => why.to_string(),
                (None, None) => error.to_string(),
            };
            return Fault::Lost(words);
        };
        let state = answer.code().code();
        let detail = answer.detail().map(|detail| format!("; {detail}")).unwrap_or_default();
        Fault::answered(state, format!("{}{detail} ({state})", answer.message()))
    }

    /// An answer with a SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn answered(state: &str, words: String) -> Fault {
        match (state.get(..2).unwrap_or_default(), state) {
            // A transaction that was in another's way (40001), or in its own (40P01). CockroachDB's `40003` says that it does
            // not know whether it was done: as if the connection had been lost.
            (_, "40001" | "40P01") => Fault::Again(words),
            // A session that has ended, or must: a standby was promoted elsewhere, a pooler forgot what we had prepared.
            ("08" | "28", _) | (_, "40003" | "25006" | "25P03" | "26000" | "53300" | "0A000") => Fault::Lost(words),
            (_, "57P01" | "57P02" | "57P03" | "57P04" | "57P05") => Fault::Lost(words),
            ("21" | "22" | "23" | "54", _) => Fault::Data(words),
            _ => Fault::Refused(words),
        }
    }

    /// What the caller of the store hears who wanted to write.
    pub(super) fn unwritable(self) -> StoreError {
        match self {
            Fault::Lost(why) | Fault::Again(why) | Fault::Refused(why) | Fault::Data(why) => {
                StoreError::Unwritable(why)
            }
            Fault::Fenced(by) => StoreError::Fenced(by),
            Fault::Moved(shards) => moved(&shards),
        }
    }

    /// What the caller of the store hears who wanted to read.
    pub(super) fn unreadable(self) -> StoreError {
        match self {
            Fault::Lost(why) | Fault::Again(why) | Fault::Refused(why) | Fault::Data(why) => {
                StoreError::Unreadable(why)
            }
            Fault::Fenced(by) => StoreError::Fenced(by),
            Fault::Moved(shards) => moved(&shards),
        }
    }
}

fn moved(shards: &[(i32, i64)]) -> StoreError {
    let shards: Vec<String> = shards.iter().map(|(shard, _)| shard.to_string()).collect();
    StoreError::Moved(format!("of shard {}", shards.join(", ")))
}

/// How long to wait before the next attempt: longer with each, and not the same for everybody. `chance` is between 0 and 1.
pub(super) fn pause(attempt: u32, chance: f64) -> Duration {
    let longest = Duration::from_millis(25 << attempt.min(5));
    longest.mul_f64(0.5 + chance / 2.0)
}

/// A session that keeps itself going.
pub(super) struct Session {
    client: Client,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    driver: JoinSet<()>,
    place: String,
}

/// A value of a statement.
pub(super) type Value<'a> = &'a (dyn ToSql + Sync);

impl Session {
    /// Where the server is, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whether nothing can be asked any more.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.client.batch_execute(sql).await.map_err(|error| self.fault(&error))
    }

    /// The rows of a statement, which is prepared once.
    pub(super) async fn rows(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault> {
        let statement = self.prepare(sql).await?;
        self.client.query(&statement, values).await.map_err(|error| self.fault(&error))
    }

    /// Runs a statement; gives the rows that it changed.
    pub(super) async fn execute(&self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, Fault> {
        let statement = self.prepare(sql).await?;
        self.client.execute(&statement, values).await.map_err(|error| self.fault(&error))
    }

    /// The rows of a statement one by one, as they come.
    pub(super) async fn stream(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<tokio_postgres::RowStream, Fault> {
        let statement = self.prepare(sql).await?;
        self.client.query_raw(&statement, values.iter().copied()).await.map_err(|error| self.fault(&error))
    }

    /// Prepares a statement, if it is not. One that is costs no round trip.
    pub(super) async fn prepare(&self, sql: &'static str) -> Result<Statement, Fault> {
        let known = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await.map_err(|error| self.fault(&error))?;
        known().insert(sql, statement.clone());
        Ok(statement)
    }

    /// A transaction begins, and the first things in it are asked in the same breath. It is for the caller to end it.
    pub(super) async fn begin<A, B>(
        &self,
        first: impl Future<Output = Result<A, Fault>>,
        second: impl Future<Output = Result<B, Fault>>,
    ) -> Result<(A, B), Fault> {
        let (begun, first, second) = future::join3(self.batch("BEGIN"), first, second).await;
        begun?;
        Ok((first?, second?))
    }

    fn fault(&self, error: &tokio_postgres::Error) -> Fault {
        match Fault::of(error) {
            Fault::Lost(why) => Fault::Lost(format!("{}: {why}", self.place)),
            fault => fault,
        }
    }

    /// Says goodbye, so that the server's log shows no client that vanished.
    pub(super) async fn close(self) {
        let Session { client, mut driver, .. } = self;
        drop(client);
        let _ = timeout(GOODBYE, driver.join_next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_means_tls_and_a_server_that_takes_writes() {
        let address = Address::parse("postgres://jm:p%40ss@a.example.net:7000,b.example.net:7001/state").unwrap();
        assert_eq!(address.place(), "PostgreSQL at a.example.net:7000,b.example.net:7001/state");
        assert!(address.is_tls);
        assert_eq!(address.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(address.config.get_password(), Some(&b"p@ss"[..]));
        let url = "postgresql://jm@[::1]/d?sslmode=verify-full&sslrootcert=/etc/a%20b+c.pem&target_session_attrs=any";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.ca_file, Some(PathBuf::from("/etc/a b+c.pem")));
        assert_eq!(address.config.get_target_session_attrs(), TargetSessionAttrs::Any);
        let address = Address::parse("postgres://jm@%2Frun%2Fpostgresql/d").unwrap();
        assert!(!address.is_tls, "a socket of this machine");
        assert!(!Address::parse("postgres://jm@h/d?sslmode=disable").unwrap().is_tls);
        assert_eq!(password_of("postgres://jm:p%40ss@h/d"), Some(("jm".to_owned(), "p@ss".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for url in [
            "mysql://u:hunter2@host/d",
            "postgres://:hunter2@host/d",
            "postgres://u:hunter2@/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h1:1,h2:2,h3/d?port=1",
            "postgres://u:hunter2@h/d?sslmode=prefer",
            "postgres://u:hunter2@h/d?sslmode=hunter2",
            "postgres://u:hunter2@h/d?target_session_attrs=read-only",
            "postgres://u:hunter2@h/d?hunter2=1",
        ] {
            let (why, form) = check_url(url).unwrap_err();
            assert!(!why.contains("hunter2") && !form.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn the_sqlstate_says_what_to_do_next() {
        let kind = |state: &str| match Fault::answered(state, String::new()) {
            Fault::Lost(_) => "lost",
            Fault::Again(_) => "again",
            Fault::Refused(_) => "refused",
            Fault::Data(_) => "data",
            Fault::Fenced(_) | Fault::Moved(_) => "nobody's answer",
        };
        for (state, expected) in [
            ("40001", "again"),
            ("40P01", "again"),
            ("40003", "lost"),
            ("57P01", "lost"),
            ("57P03", "lost"),
            ("25006", "lost"),
            ("08006", "lost"),
            ("28P01", "lost"),
            ("22021", "data"),
            ("23505", "data"),
            ("53100", "refused"),
            ("57014", "refused"),
            ("42501", "refused"),
            ("", "refused"),
        ] {
            assert_eq!(kind(state), expected, "{state}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ_by_chance() {
        assert_eq!(pause(0, 1.0), Duration::from_millis(25));
        assert_eq!(pause(0, 0.0), Duration::from_micros(12_500));
        assert!(pause(2, 0.0) > pause(0, 1.0));
        assert_eq!(pause(99, 1.0), Duration::from_millis(800));
    }
}
