//! PostgreSQL from Debian's package, unprivileged, on a free port of the loopback.
//!
//! A server must not outlive the tests, and a static is never dropped. So a shell stands between: it starts the server, waits on a
//! pipe that we hold, and when the pipe closes, however we ended, it ends the server by its pid.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use super::{START, free_port, server_binary, wait_for};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// `nobody`, as whom a server runs that root starts: it refuses root.
const NOBODY: u32 = 65_534;
/// Everybody is let in without a password but `probe`. With the word `keep` on the pipe the data stays, for a restart.
const KEEPER: &str = r#"
set -e
mkdir -p "$HOME"
cd "$HOME"
if [ -n "$PRIMARY" ] && [ ! -d data ]; then
    "$PROGRAMS/pg_basebackup" -D data -h 127.0.0.1 -p "$PRIMARY" -U postgres -R -X stream --no-sync -c fast >copy.log 2>&1
elif [ ! -d data ]; then
    "$PROGRAMS/initdb" -D data -U postgres -A trust --no-sync --no-locale -E UTF8 >initdb.log 2>&1
    printf 'host all probe 127.0.0.1/32 scram-sha-256\nhost all,replication all 127.0.0.1/32 trust\n' >data/pg_hba.conf
    [ -z "$ALSO" ] || printf 'host all all %s/24 trust\n' "$ALSO" >>data/pg_hba.conf
fi
umask 077
printf '%s' "$CERTIFICATE" >data/server.crt
printf '%s' "$KEY" >data/server.key
"$PROGRAMS/postgres" -D data -p "$PORT" -k "$HOME" -c listen_addresses="127.0.0.1${ALSO:+,$ALSO}" -c fsync=off \
    -c shared_buffers=16MB -c max_connections="$CONNECTIONS" -c ssl=on </dev/null >>server.log 2>&1 &
server=$!
echo "$server"
read -r word || word=
# Immediate: as if it were killed, and its children with it.
kill -QUIT "$server" 2>/dev/null || true
wait || true
cd /
[ "$word" = keep ] || rm -rf "$HOME"
"#;

/// A server.
pub(crate) struct Postgres {
    home: PathBuf,
    port: u16,
    connections: u32,
    /// Its certificate and key, in PEM.
    certificate: (String, String),
    /// The port of the server that it follows, if it is a standby.
    primary: Option<u16>,
    /// Another address of this machine where it listens; those with the same first three bytes are let in.
    also: Option<IpAddr>,
    keeper: Option<Keeper>,
}

struct Keeper {
    shell: Child,
    server: u32,
}

impl Postgres {
    /// The server that all tests of this process share; give each test a [`Database`] of its own. `None`: not installed.
    pub(crate) async fn shared() -> Option<&'static Postgres> {
        static SHARED: OnceCell<Option<Postgres>> = OnceCell::const_new();
        SHARED.get_or_init(Postgres::private).await.as_ref()
    }

    /// A server of the caller's own, that it may kill, stop and starve. `None`: not installed.
    pub(crate) async fn private() -> Option<Postgres> {
        Postgres::with_connections(100).await
    }

    /// A server that takes only so many connections. `None`: not installed.
    pub(crate) async fn with_connections(connections: u32) -> Option<Postgres> {
        Postgres::make(connections, None, None).await
    }

    /// A server that listens at this address, too, and lets everybody there in. `None`: not installed.
    pub(crate) async fn also_at(address: IpAddr, connections: u32) -> Option<Postgres> {
        Postgres::make(connections, None, Some(address)).await
    }

    /// A standby that follows this server.
    pub(crate) async fn standby(&self) -> Postgres {
        Postgres::make(self.connections, Some(self.port), None).await.expect("it is installed")
    }

    async fn make(connections: u32, primary: Option<u16>, also: Option<IpAddr>) -> Option<Postgres> {
        if !Path::new(PROGRAMS).join("postgres").is_file() {
            server_binary("postgres", "postgresql-15")?;
        }
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("journeyman-it-{}-pg-{serial}", std::process::id()));
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = (certified.cert.pem(), certified.signing_key.serialize_pem());
        let mut server = Postgres { home, port: free_port(), connections, certificate, primary, also, keeper: None };
        server.start().await;
        Some(server)
    }

    /// Starts it, again after [`kill`](Self::kill), with the same port and data; returns when it takes connections.
    pub(crate) async fn start(&mut self) {
        assert!(self.keeper.is_none(), "it runs already");
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEPER])
            .env("HOME", &self.home)
            .env("PROGRAMS", PROGRAMS)
            .env("PORT", self.port.to_string())
            .env("PRIMARY", self.primary.map(|port| port.to_string()).unwrap_or_default())
            .env("ALSO", self.also.map(|address| address.to_string()).unwrap_or_default())
            .env("CONNECTIONS", self.connections.to_string())
            .env("CERTIFICATE", &self.certificate.0)
            .env("KEY", &self.certificate.1)
            .current_dir("/")
            // A Ctrl-C at the terminal is for the tests; the keeper is to outlive them by a moment.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut shell = command.spawn().expect("sh can be started");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("it is piped")).read_line(&mut line).expect("the pipe can be read");
        let log = || std::fs::read_to_string(self.home.join("server.log")).unwrap_or_default();
        let server = line.trim().parse().unwrap_or_else(|_| panic!("the keeper tells no pid: {}", log()));
        self.keeper = Some(Keeper { shell, server });
        let up = wait_for("PostgreSQL to start", START, async || {
            if tokio_postgres::connect(&self.url("postgres"), NoTls).await.is_ok() {
                return Some(true);
            }
            (!Path::new(&format!("/proc/{server}")).exists()).then_some(false)
        })
        .await;
        assert!(up, "PostgreSQL ended at its start:\n{}", log());
    }

    /// Ends it at once, its sessions with it; its data stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let mut pipe = keeper.shell.stdin.take().expect("it is piped");
            pipe.write_all(b"keep\n").expect("the keeper reads");
            keeper.shell.wait().expect("the keeper ends");
        }
    }

    /// Shows this certificate, in PEM, from the next start on.
    pub(crate) fn show(&mut self, certificate: String, key: String) {
        self.certificate = (certificate, key);
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The URL of a database for the superuser, without TLS.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}?sslmode=disable", self.address())
    }

    /// A new database.
    pub(crate) async fn database(&self) -> Database<'_> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("create database {name}")).await;
        let (client, driver) = self.session(&name).await;
        Database { server: self, name, client, _driver: driver }
    }

    /// Runs statements in a database.
    pub(crate) async fn run(&self, database: &str, statements: &str) {
        let (client, _driver) = self.session(database).await;
        client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// A session of an ordinary client.
    pub(crate) async fn session(&self, database: &str) -> (Client, JoinSet<()>) {
        let session = tokio_postgres::connect(&self.url(database), NoTls).await;
        let (client, connection) = session.expect("it takes connections");
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        (client, driver)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.shell.stdin.take());
            let _ = keeper.shell.wait();
        } else {
            let _ = std::fs::remove_dir_all(&self.home);
        }
    }
}

/// A database: tables and notifications of one test.
pub(crate) struct Database<'a> {
    server: &'a Postgres,
    /// Its name.
    pub(crate) name: String,
    /// An ordinary client in it.
    pub(crate) client: Client,
    _driver: JoinSet<()>,
}

impl Database<'_> {
    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The URL for clients at the server's other address.
    pub(crate) fn url_elsewhere(&self) -> String {
        let address = self.server.also.expect("it has another address");
        self.url_at(SocketAddr::new(address, self.server.port))
    }

    /// The URL for clients that go through something at `address`.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        format!("postgres://postgres@{address}/{}?sslmode=disable", self.name)
    }

    /// Runs statements in it.
    pub(crate) async fn run(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The first column of the first row, a number.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.client.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
    }
}
