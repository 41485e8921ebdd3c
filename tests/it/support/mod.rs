//! What the integration tests share: child processes that end with their owner, free ports, bounded waiting.
#![allow(dead_code, unreachable_pub, reason = "each theme uses a part of it, and nothing outside imports it")]
#![allow(clippy::allow_attributes, reason = "`expect` would complain in the themes that use all of it")]

pub(crate) mod alertmanager;
pub(crate) mod browser;
pub mod certificate;
#[cfg(feature = "postgres")]
pub(crate) mod cluster;
pub mod command;
pub mod daemon;
pub mod document;
pub mod dovecot;
pub(crate) mod fake_pagerduty;
pub(crate) mod fake_slack;
pub mod fake_smtp;
pub(crate) mod hook;
pub mod kannel;
pub(crate) mod listening;
pub mod mail;
pub(crate) mod met;
pub(crate) mod mosquitto;
#[cfg(feature = "sqs")]
pub(crate) mod moto;
pub(crate) mod nats;
pub(crate) mod network;
pub mod notices;
pub(crate) mod nsd;
pub(crate) mod pipeline;
pub mod postfix;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub mod prometheus;
pub(crate) mod proxy;
pub(crate) mod rabbitmq;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "websocket")]
pub(crate) mod rooms;
pub(crate) mod scram_listener;
#[cfg(feature = "smpp")]
pub(crate) mod smsc;
pub(crate) mod table;
#[cfg(feature = "kafka")]
pub(crate) mod tansu;
pub mod target;
pub(crate) mod tls_front;

use std::future::Future;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Once};
use std::time::Duration;

/// Under `tests/run` a missing server is a failure; elsewhere its tests say loudly that they tested nothing.
const REQUIRED: &str = "JOURNEYMAN_TESTS_REQUIRE_SERVERS";

/// With this set, tests that go through a great many cases go through all of them: docs/testing.md.
const LONG: &str = "JOURNEYMAN_TESTS_LONG";

/// Whether all cases are wanted, however long that takes.
pub fn is_long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// From the start of a server to its first answer, on a machine that is busy with other tests.
pub const START: Duration = Duration::from_secs(90);

/// How often a daemon is killed; `JOURNEYMAN_TESTS_KILLS` says more than a change needs.
pub fn kills_wanted() -> usize {
    let told = std::env::var_os("JOURNEYMAN_TESTS_KILLS");
    told.and_then(|told| told.to_str()?.parse().ok()).unwrap_or(30)
}

/// The path of a server's program, looked up in `PATH` and the places where Debian puts servers.
/// Without it: a panic under `tests/run`, otherwise a loud line and `None`, for the test to return on.
pub fn server_binary(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/usr/lib/kannel/test"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|program| program.is_file());
    if found.is_none() {
        not_tested(&format!("`{name}` is missing; install the Debian package `{package}`, or use tests/run"));
    }
    found
}

/// Says loudly that a test tests nothing, and why; a panic under `tests/run`.
pub fn not_tested(why: &str) {
    assert!(std::env::var_os(REQUIRED).is_none(), "NOT TESTED: {why}");
    eprintln!("\n{}\nNOT TESTED: {why}\n{}\n", "!".repeat(80), "!".repeat(80));
}

/// The path of a server that is written in Python: from the environment that tests/run makes of tests/requirements.txt, or from
/// `PATH`. Without it as [`server_binary`].
pub fn python_server(name: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/bin").join(name);
    if own.is_file() { Some(own) } else { server_binary(name, "python3-venv") }
}

/// The path of a file that a package of tests/requirements.txt carries. Without it as [`server_binary`].
pub fn python_file(name: &str) -> Option<PathBuf> {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/lib");
    let versions = std::fs::read_dir(libraries).into_iter().flatten().filter_map(Result::ok);
    let found = versions.map(|version| version.path().join("site-packages").join(name)).find(|file| file.is_file());
    found.or_else(|| server_binary(name, "python3-venv"))
}

/// A child process that is killed, and waited for, when its owner goes.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Process {
        let output = std::fs::File::options().create(true).append(true).open(log).expect("the log can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle can be cloned"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Process { child, name: name.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name: `TERM`, `KILL`, `STOP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "{} cannot be sent {signal}", self.name);
    }

    /// Its exit code, if it has ended; 128 + n if signal n ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.try_wait().expect("a child can be waited for")?;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal))
    }

    /// Waits until it ends; its exit code.
    pub async fn wait_for_exit(&mut self, bound: Duration) -> i32 {
        let name = self.name.clone();
        wait_for(&format!("{name} to end"), bound, async || self.exit_code()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback port that nobody listens on, for a server that is started on it later, killed and started again, or for nobody. It is
/// below those that the kernel gives away, to listeners on port 0 and to each connection, so none of them takes it meanwhile; and
/// no other test of this process is given it.
pub fn free_port() -> u16 {
    const OURS: std::ops::Range<u16> = 10_000..32_768;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(fastrand::u32(..1 << 16)));
    (0..OURS.len())
        .map(|_| OURS.start + (NEXT.fetch_add(1, Ordering::Relaxed) % OURS.len() as u32) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("loopback has a free port")
}

/// Polls `condition` until it gives something; panics with `what` when `bound` has passed.
pub async fn wait_for<T>(what: &str, bound: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(bound, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("waited {bound:?} for {what}"),
    }
}

/// Waits until something listens at `address`.
pub async fn wait_for_listener(address: SocketAddr) {
    wait_for(&format!("a listener at {address}"), START, async || {
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok().map(drop)
    })
    .await;
}

/// A directory that goes with its owner, unless the test panics: then it stays and is named.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory below the system's temporary one; anyone may enter it, so that servers can drop privileges.
    pub fn new(name: &str) -> Scratch {
        use std::os::unix::fs::PermissionsExt;
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("journeyman-it-{}-{serial}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("its mode can be set");
        Scratch(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it; gives its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory can be made");
        }
        std::fs::write(&path, content).expect("a file can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Tells of a panic at once, beside the harness, which keeps what a test wrote until all others are through: who ends a run
/// early, or keeps only a part of what it wrote, knows what happened all the same.
fn tell_panics() {
    const ENOUGH: usize = 2_000;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let words: String = panic.payload_as_str().unwrap_or_default().chars().take(ENOUGH).collect();
            let thread = std::thread::current();
            let _ = writeln!(std::io::stderr(), "PANIC {}: {words}", thread.name().unwrap_or_default());
            usual(panic);
        }));
    });
}

/// Runs `future` on a runtime of its own with two workers, as the daemon has.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tell_panics();
    journeyman::tls::init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be built").block_on(future)
}
