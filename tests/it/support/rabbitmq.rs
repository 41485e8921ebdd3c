//! RabbitMQ from Debian's package, unprivileged, on free ports of the loopback, with a port mapper (`epmd`) of its own.
//!
//! A broker must not outlive the tests, and a static is never dropped. So a shell stands between: it starts broker and port
//! mapper, waits on a pipe that we hold, and when the pipe closes, however we ended, it kills them both by their pids.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{START, free_port, server_binary, wait_for};

/// Debian's own wrapper in `sbin` runs only as root or rabbitmq; this is what it calls.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// `nobody`, as whom a broker runs that root starts.
const NOBODY: u32 = 65_534;
/// With the word `keep` on the pipe the data stays, for a restart.
const KEEPER: &str = r#"
set -e
mkdir -p "$HOME"
cd "$HOME"
printf '%s' "$CONF" > rabbitmq.conf
printf '%s' "$CERTIFICATE" > certificate.pem
printf '%s' "$KEY" > key.pem
printf '[rabbitmq_management].' > enabled_plugins
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >/dev/null 2>&1 &
mapper=$!
for _ in $(seq 200); do
    epmd -names >/dev/null 2>&1 && break
    sleep 0.02
done
"$SERVER" -noinput </dev/null >>broker.log 2>&1 &
broker=$!
echo "$broker"
read -r word || word=
kill -KILL "$broker" "$mapper" 2>/dev/null || true
wait || true
cd /
[ "$word" = keep ] || rm -rf "$HOME"
"#;

/// A broker.
pub(crate) struct RabbitMq {
    home: PathBuf,
    ports: Ports,
    certificate: String,
    key: String,
    keeper: Option<Keeper>,
    vhosts: AtomicU32,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    amqps: u16,
    management: u16,
    distribution: u16,
    mapper: u16,
}

struct Keeper {
    shell: Child,
    broker: u32,
}

impl RabbitMq {
    /// The broker that all tests of this process share; give each test a [`Vhost`] of its own. `None`: not installed.
    pub(crate) async fn shared() -> Option<&'static RabbitMq> {
        static SHARED: OnceCell<Option<RabbitMq>> = OnceCell::const_new();
        SHARED.get_or_init(RabbitMq::private).await.as_ref()
    }

    /// A broker of the caller's own, that it may kill, stop and starve. `None`: not installed.
    pub(crate) async fn private() -> Option<RabbitMq> {
        server_binary("rabbitmq-server", "rabbitmq-server")?;
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("journeyman-it-{}-rabbitmq-{serial}", std::process::id()));
        let ports = Ports {
            amqp: free_port(),
            amqps: free_port(),
            management: free_port(),
            distribution: free_port(),
            mapper: free_port(),
        };
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        let mut broker = RabbitMq { home, ports, certificate, key, keeper: None, vhosts: AtomicU32::new(0) };
        broker.start().await;
        Some(broker)
    }

    /// Starts it, again after [`kill`](Self::kill), with the same ports and data; returns when it takes connections.
    pub(crate) async fn start(&mut self) {
        assert!(self.keeper.is_none(), "it runs already");
        let mut shell = self
            .command("sh")
            .args(["-c", KEEPER])
            // A Ctrl-C at the terminal is for the tests; the keeper is to outlive them by a moment.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("sh can be started");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("it is piped")).read_line(&mut line).expect("the pipe can be read");
        let broker = line.trim().parse().expect("the keeper tells the broker's pid");
        self.keeper = Some(Keeper { shell, broker });
        let up = wait_for("RabbitMQ to start", START, async || {
            let is_up =
                self.try_api(reqwest::Method::GET, "/overview", None).await.is_some_and(|(status, _)| status == 200);
            let alive = Path::new(&format!("/proc/{broker}")).exists();
            if is_up { Some(true) } else { (!alive).then_some(false) }
        })
        .await;
        let log = || std::fs::read_to_string(self.home.join("broker.log")).unwrap_or_default();
        assert!(up, "RabbitMQ ended at its start:\n{}", log());
        super::wait_for_listener(self.address()).await;
    }

    /// Kills it with SIGKILL; its data stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let mut pipe = keeper.shell.stdin.take().expect("it is piped");
            pipe.write_all(b"keep\n").expect("the keeper reads");
            keeper.shell.wait().expect("the keeper ends");
        }
    }

    /// Sends it a signal by name: `STOP` makes it hang with its sockets open, `CONT` goes on.
    pub(crate) fn signal(&self, signal: &str) {
        let keeper = self.keeper.as_ref().expect("it runs");
        let status = Command::new("kill").arg(format!("-{signal}")).arg(keeper.broker.to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "RabbitMQ cannot be sent {signal}");
    }

    /// Raises or clears the memory alarm, in which it takes nothing more from publishers.
    pub(crate) fn set_memory_alarm(&self, on: bool) {
        let watermark = if on { "0.00001" } else { "0.9" };
        let output = self
            .command(CONTROL)
            .args(["--quiet", "set_vm_memory_high_watermark", watermark])
            .output()
            .expect("rabbitmqctl can be started");
        assert!(output.status.success(), "rabbitmqctl: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Where it takes AMQP.
    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.amqp).into()
    }

    /// Where it takes AMQP over TLS, with a certificate that nobody trusts.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.amqps).into()
    }

    /// That certificate, in PEM: it is for `localhost`.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The management API's base URL, for `guest:guest`.
    pub(crate) fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}/api", self.ports.management)
    }

    /// A new vhost.
    pub(crate) async fn vhost(&self) -> Vhost<'_> {
        let name = format!("test-{}", self.vhosts.fetch_add(1, Ordering::Relaxed));
        self.api(reqwest::Method::PUT, &format!("/vhosts/{name}"), None).await;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.api(reqwest::Method::PUT, &format!("/permissions/{name}/guest"), Some(all)).await;
        Vhost { broker: self, name }
    }

    /// Calls the management API; gives the JSON of the answer, or null. Panics unless it is a 2xx.
    pub(crate) async fn api(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.try_api(method.clone(), path, body).await.expect("the management API answers");
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    async fn try_api(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let url = format!("{}{path}", self.management_url());
        let request = reqwest::Client::new().request(method, url).basic_auth("guest", Some("guest"));
        let response = request.header("content-type", "application/json").body(body).send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// A command with the broker's environment, as `nobody` if we are root.
    fn command(&self, program: &str) -> Command {
        let Ports { amqp, amqps, management, distribution, mapper } = self.ports;
        let home = self.home.display();
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             listeners.ssl.1 = 127.0.0.1:{amqps}\n\
             ssl_options.cacertfile = {home}/certificate.pem\n\
             ssl_options.certfile = {home}/certificate.pem\n\
             ssl_options.keyfile = {home}/key.pem\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             collect_statistics_interval = 1000\n\
             vm_memory_high_watermark.relative = 0.9\n\
             disk_free_limit.absolute = 1MB\n"
        );
        // Idle schedulers sleep instead of spinning; no second port mapper; Erlang's distribution stays on the loopback.
        let erlang = "+sbwt none +sbwtdcpu none +sbwtdio none +S 2:2 -start_epmd false \
                      -kernel inet_dist_use_interface {127,0,0,1}";
        let mut command = Command::new(program);
        command
            .env("HOME", &self.home)
            .env("SERVER", SERVER)
            .env("CONF", conf)
            .env("CERTIFICATE", &self.certificate)
            .env("KEY", &self.key)
            .env("ERL_EPMD_PORT", mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("journeyman-{amqp}@localhost"))
            .env("RABBITMQ_NODE_PORT", amqp.to_string())
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", self.home.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.home.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", self.home.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.home.join("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", self.home.join("pid"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang)
            // Its script then becomes the broker instead of waiting for it, so the pid that we know is the broker's.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .current_dir("/");
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.shell.stdin.take());
            let _ = keeper.shell.wait();
        } else {
            let _ = std::fs::remove_dir_all(&self.home);
        }
    }
}

/// A vhost: exchanges, queues and users of one test.
pub(crate) struct Vhost<'a> {
    broker: &'a RabbitMq,
    /// Its name.
    pub(crate) name: String,
}

impl Vhost<'_> {
    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.broker.address())
    }

    /// The URL for clients that go through something at `address`.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        format!("amqp://guest:guest@{address}/{}", self.name)
    }

    /// Declares a durable exchange of `kind`: `topic`, `fanout`, …
    pub(crate) async fn declare_exchange(&self, exchange: &str, kind: &str) {
        let body = json!({"type": kind, "durable": true});
        self.call(reqwest::Method::PUT, "exchanges", exchange, Some(body)).await;
    }

    /// Declares a durable queue with these arguments.
    pub(crate) async fn declare_queue(&self, queue: &str, arguments: Value) {
        let body = json!({"durable": true, "arguments": arguments});
        self.call(reqwest::Method::PUT, "queues", queue, Some(body)).await;
    }

    /// Binds a queue to an exchange.
    pub(crate) async fn bind(&self, exchange: &str, queue: &str, routing_key: &str) {
        let path = format!("e/{exchange}/q/{queue}");
        self.call(reqwest::Method::POST, "bindings", &path, Some(json!({"routing_key": routing_key}))).await;
    }

    /// Deletes a queue, whoever uses it.
    pub(crate) async fn delete_queue(&self, queue: &str) {
        self.call(reqwest::Method::DELETE, "queues", queue, None).await;
    }

    /// Adds a user who may do what `permissions` say in this vhost.
    pub(crate) async fn add_user(&self, user: &str, password: &str, permissions: Value) {
        let body = json!({"password": password, "tags": ""});
        self.broker.api(reqwest::Method::PUT, &format!("/users/{user}"), Some(body)).await;
        self.broker.api(reqwest::Method::PUT, &format!("/permissions/{}/{user}", self.name), Some(permissions)).await;
    }

    /// What the management API knows of a queue.
    pub(crate) async fn queue(&self, queue: &str) -> Value {
        self.call(reqwest::Method::GET, "queues", queue, None).await
    }

    async fn call(&self, method: reqwest::Method, kind: &str, path: &str, body: Option<Value>) -> Value {
        self.broker.api(method, &format!("/{kind}/{}/{path}", self.name), body).await
    }
}
