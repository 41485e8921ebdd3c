//! The SMS gateway Kannel with a fake SMS centre, and the handset behind it.
//!
//! A text message's way: `sendsms` → smsbox → bearerbox → SMS centre → handset, whose answer goes
//! SMS centre → bearerbox → smsbox → `get-url`, our webhook. Delivery reports go to `dlr-url`.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use super::{Process, START, Scratch, free_port, server_binary, wait_for, wait_for_listener};

/// What the admin port shows its status for; no message is sent with it.
const STATUS_PASSWORD: &str = "only-looking";

/// A gateway of our own: bearerbox and smsbox, unprivileged, on free ports. Ends with its owner.
pub struct Kannel {
    /// Where `GET /cgi-bin/sendsms` is answered.
    pub sendsms: SocketAddr,
    /// Where the SMS centre is expected to connect; what is sent before that waits here.
    pub smsc: SocketAddr,
    smsbox: Process,
    bearerbox: Process,
    scratch: Scratch,
}

impl Kannel {
    /// The user who may send.
    pub const USERNAME: &str = "journeyman";
    /// The user's password.
    pub const PASSWORD: &str = "correct-horse";

    /// Starts a gateway and waits until it can send. It calls `hook_url` with `from`, `to`, `text` and `sent` for each text message
    /// that a handset sends, and `dlr_url` with `status` for each delivery report of a message that asks for them and names no other
    /// URL. Both may carry a query of their own. `None`, loudly, where Kannel is not installed.
    pub async fn start(hook_url: &str, dlr_url: &str) -> Option<Kannel> {
        let programs = (server_binary("bearerbox", "kannel")?, server_binary("smsbox", "kannel")?);
        let scratch = Scratch::new("kannel");
        let [admin, boxes, smsc, sendsms] = [(); 4].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let config = config([admin, boxes, smsc, sendsms], hook_url, dlr_url);
        let config = scratch.write("kannel.conf", &config);

        let status_url = format!("http://{admin}/status.txt?password={STATUS_PASSWORD}");
        let mut bearerbox = start_box(&programs.0, &config, &scratch);
        wait_for_status(&mut bearerbox, &status_url, "Status: running").await;
        wait_for_listener(boxes).await;
        let mut smsbox = start_box(&programs.1, &config, &scratch);
        // It opens its own port before it finds the bearerbox, so the bearerbox is asked.
        wait_for_status(&mut smsbox, &status_url, "smsbox:journeyman").await;
        wait_for_listener(sendsms).await;
        Some(Kannel { sendsms, smsc, smsbox, bearerbox, scratch })
    }

    /// The URL that sends `text` from one number to another and asks for every delivery report at `dlr_url`, in which Kannel
    /// replaces `%d` by the status (1 delivered, 2 not, 4 queued, 8 taken by the SMS centre, 16 refused by it).
    pub fn sendsms_url(&self, from: &str, to: &str, text: &str, dlr_url: Option<&str>) -> Url {
        let mut url = Url::parse(&format!("http://{}/cgi-bin/sendsms", self.sendsms)).expect("an address makes a URL");
        url.query_pairs_mut()
            .extend_pairs([("username", Self::USERNAME), ("password", Self::PASSWORD)])
            .extend_pairs([("from", from), ("to", to), ("text", text), ("dlr-mask", "31")])
            .extend_pairs(dlr_url.map(|url| ("dlr-url", url)));
        url
    }
}

fn start_box(program: &Path, config: &Path, scratch: &Scratch) -> Process {
    let name = program.file_name().expect("a program has a name").to_string_lossy().into_owned();
    let log = scratch.path().join(format!("{name}.log"));
    let mut command = unprivileged(program);
    // Verbosity 0 is everything; the log is of use only when a test has failed.
    Process::start(&name, command.args(["-v", "0"]).arg(config).current_dir(scratch.path()), &log)
}

/// `program` as nobody, if we are root; as ourselves otherwise.
fn unprivileged(program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
    command
}

async fn wait_for_status(process: &mut Process, status_url: &str, sign: &str) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client can be built");
    wait_for(&format!("Kannel's status to have `{sign}`"), START, async || {
        if let Some(code) = process.exit_code() {
            panic!("{} ended with {code} before it was ready; its log is in the scratch directory", process.name);
        }
        let status = client.get(status_url).send().await.ok()?.text().await.ok()?;
        status.contains(sign).then_some(())
    })
    .await;
}

fn config([admin, boxes, smsc, sendsms]: [SocketAddr; 4], hook_url: &str, dlr_url: &str) -> String {
    let (username, password) = (Kannel::USERNAME, Kannel::PASSWORD);
    let hook_url = with_query(hook_url, "from=%p&to=%P&text=%A&sent=%T");
    let dlr_url = with_query(dlr_url, "status=%d");
    format!(
        r#"group = core
admin-port = {admin_port}
admin-interface = 127.0.0.1
admin-password = "{STATUS_PASSWORD}-and-more"
status-password = "{STATUS_PASSWORD}"
smsbox-port = {boxes_port}
smsbox-interface = 127.0.0.1
box-deny-ip = "*.*.*.*"
box-allow-ip = 127.0.0.1
dlr-storage = internal

group = smsc
smsc = fake
smsc-id = handset
host = 127.0.0.1
port = {smsc_port}
connect-allow-ip = 127.0.0.1

group = smsbox
smsbox-id = journeyman
bearerbox-host = 127.0.0.1
sendsms-port = {sendsms_port}
sendsms-interface = 127.0.0.1

# A box with a name gets what is routed to it, and nothing else.
group = smsbox-route
smsbox-id = journeyman
smsc-id = handset

group = sendsms-user
username = "{username}"
password = "{password}"
user-allow-ip = 127.0.0.1
dlr-url = "{dlr_url}"

group = sms-service
keyword = default
catch-all = true
get-url = "{hook_url}"
max-messages = 0
omit-empty = true
"#,
        admin_port = admin.port(),
        boxes_port = boxes.port(),
        smsc_port = smsc.port(),
        sendsms_port = sendsms.port(),
    )
}

fn with_query(url: &str, query: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{query}")
}

/// A loop-back number: the SMS centre with one handset that answers every text message with the same text. Leaves with its owner.
///
/// Kannel's fake SMS centre speaks lines, `sender receiver type payload`, the same in both directions.
pub struct Handset {
    is_silent: Arc<AtomicBool>,
    _answering: JoinSet<()>,
}

impl Handset {
    /// Connects to the gateway as its SMS centre.
    pub async fn answering(smsc: SocketAddr) -> Handset {
        let gateway = TcpStream::connect(smsc).await.expect("the gateway waits for its SMS centre");
        let is_silent = Arc::new(AtomicBool::new(false));
        let mut answering = JoinSet::new();
        answering.spawn(answer(gateway, is_silent.clone()));
        Handset { is_silent, _answering: answering }
    }

    /// Takes messages, and the SMS centre reports them as delivered, but answers none of them; or answers again those that come
    /// from now on.
    pub fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Release);
    }
}

async fn answer(gateway: TcpStream, is_silent: Arc<AtomicBool>) {
    let (incoming, mut outgoing) = gateway.into_split();
    let mut lines = BufReader::new(incoming).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        let [sender, receiver, kind, payload] = parts[..] else { panic!("not a message of the fake SMSC: {line}") };
        if is_silent.load(Ordering::Acquire) {
            continue;
        }
        let reply = format!("{receiver} {sender} {kind} {payload}\n");
        if outgoing.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Kannel's own fake SMS centre, the program `fakesmsc`: sends one text message and prints those that it is given.
pub struct Fakesmsc {
    log: std::path::PathBuf,
    process: Process,
}

impl Fakesmsc {
    /// Connects to `gateway` and sends one message. `None`, loudly, where the program is not installed.
    pub fn sending(gateway: &Kannel, from: &str, to: &str, text: &str) -> Option<Fakesmsc> {
        let program = server_binary("fakesmsc", "kannel-extras")?;
        let log = gateway.scratch.path().join("fakesmsc.log");
        let mut command = unprivileged(&program);
        command.args(["-H", "127.0.0.1", "-r", &gateway.smsc.port().to_string(), "-i", "0.01", "-m", "1"]);
        command.arg(format!("{from} {to} text {text}"));
        let process = Process::start("fakesmsc", &mut command, &log);
        Some(Fakesmsc { log, process })
    }

    /// Waits until it has been given this message.
    pub async fn wait_for_message(&self, from: &str, to: &str, text: &str, bound: Duration) {
        let message = format!("<{from} {to} text {text}>");
        wait_for(&format!("fakesmsc to get {message}"), bound, async || {
            std::fs::read_to_string(&self.log).ok()?.contains(&message).then_some(())
        })
        .await;
    }
}
