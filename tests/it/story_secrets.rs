//! No secret gets out: every kind that can be configured, in a daemon that logs everything it can, with systems that repeat what
//! they are told in every answer. Then every way out is searched: log, metrics, pages, API, store, alerts.

#[cfg(feature = "full")] // it has channels of every type
mod positions;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use journeyman::http::table;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::fake_smtp::{Act, At, FakeSmtp, Offer, Rule};
use crate::support::{block_on, free_port, wait_for};

/// What waits for something that takes a second on an idle machine.
const BOUND: Duration = Duration::from_secs(25);
/// So many characters of a secret are too many: what a cut leaves of it counts as well.
const TELLING: usize = 12;
/// Of an answer, this much is kept: of a step's, of Slack's, of a webhook's.
const KEPT: [usize; 3] = [1_024, 120, 200];

const LITERAL: &str = "canary0-a4c123b1612dd272d1371c17";
const ENVIRONMENT: &str = "canary1-149d439536b3216fdaeeb975";
const CREDENTIAL: &str = "canary2-729fae923d5a4fd12aabfe22";
/// Quotes and backslashes are written otherwise in JSON, and in what Rust prints for debugging.
const HEADER: &str = "canary3-eee65f53e942\"1ce50211670e\\ae679f02e8d2";
const BASIC_USER: &str = "monitor";
/// In a URL an `@` is written otherwise.
const BASIC_PASSWORD: &str = "canary4-8a79023c39c200@661fccd268a29a";
/// Of `monitor:` and the password, as a request carries them (RFC 7617).
const BASIC_ENCODED: &str = "bW9uaXRvcjpjYW5hcnk0LThhNzkwMjNjMzljMjAwQDY2MWZjY2QyNjhhMjlh";
const HOOK_TOKEN: &str = "canary5-dba41ecccc3fc1626e53a130";
const HOOK_KEY: &str = "canary6-43b026c48bbf33feff9243a8";
const AMQP_PASSWORD: &str = "canary7-f506b40928b5b7a767c76fb0";
const ADMIN: &str = "canary8-08f86bebb2737f6a6f0fb23c";
const SMTP_PASSWORD: &str = "canary9-6f5da2cec255404e4fb44003";
const WEBHOOK_PATH: &str = "canaryA-4d6608697a8d41bed440e504";
const WEBHOOK_HEADER: &str = "canaryB-54f31af3176813e02ea68ef7";
const SIGNING_KEY: &str = "canaryC-86e4d3cea27d26934b484e73";
const SLACK_WEBHOOK: &str = "canaryD-cf575dcad6ba2b0aee0ca923";

const SECRETS: [&str; 17] = [
    LITERAL,
    ENVIRONMENT,
    CREDENTIAL,
    HEADER,
    BASIC_PASSWORD,
    BASIC_ENCODED,
    HOOK_TOKEN,
    HOOK_KEY,
    AMQP_PASSWORD,
    ADMIN,
    SMTP_PASSWORD,
    WEBHOOK_PATH,
    WEBHOOK_HEADER,
    SIGNING_KEY,
    SLACK_WEBHOOK,
    TOKEN,
    "s3cr3tbottoken",
];

#[test]
fn no_secret_occurs_in_anything_that_the_daemon_says_shows_or_stores() {
    block_on(async {
        let parrot = Parrot::listen().await;
        let slack = FakeSlack::start().await;
        let mail = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        let strict = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        strict.script([Rule::always(At::Auth, Act::Say("535 5.7.8 canary9-6f5da2cec255404e4fb44003 is wrong"))]);
        let setup = Setup::new("secrets");
        let credentials = setup.write("credentials/header", CREDENTIAL);
        let directory = credentials.parent().expect("it is in a directory").display().to_string();
        let setup =
            setup.environment("JOURNEYMAN_IT_HEADER", ENVIRONMENT).environment("CREDENTIALS_DIRECTORY", &directory);
        let amqp = format!("amqp://monitor:{AMQP_PASSWORD}@127.0.0.1:{}/%2f", free_port());
        let slack_webhook = format!("http://{}/services/T0/B0/{SLACK_WEBHOOK}", parrot.address);
        let webhook = format!("http://{}/{WEBHOOK_PATH}/notices", parrot.address);
        for (name, secret) in [
            ("header", HEADER),
            ("hook-token", HOOK_TOKEN),
            ("hook-key", HOOK_KEY),
            ("amqp-url", &amqp),
            ("admin", ADMIN),
            ("smtp-password", SMTP_PASSWORD),
            ("webhook-url", &webhook),
            ("webhook-header", WEBHOOK_HEADER),
            ("signing-key", SIGNING_KEY),
            ("slack-token", TOKEN),
            ("slack-webhook", &slack_webhook),
        ] {
            setup.write(name, secret);
        }
        let config = config(&parrot, &slack, [&mail, &strict]);
        let mut daemon = setup.start(&config, PROBES).await;
        misbehave(&daemon).await;

        for journey in ["parrot", "straddle", "found", "nobody"] {
            let headline = format!("DOWN {journey} ");
            wait_for(&format!("an alert for {journey}, in Slack and by mail"), BOUND, async || {
                let is_posted = slack.messages(CHANNEL).iter().any(|message| message.text.contains(&headline));
                let is_mailed =
                    mail.mails().iter().any(|taken| taken.mail.part("text/plain").text().contains(&headline));
                (is_posted && is_mailed).then_some(())
            })
            .await;
        }
        wait_for("a posted notice", BOUND, async || (parrot.calls("/notices").len() >= 2).then_some(())).await;
        wait_for("a post to Slack's webhook", BOUND, async || (parrot.calls("/services").len() >= 2).then_some(()))
            .await;
        for notifier in ["strict-mail", "hooked", "slack-hook"] {
            let labels = [("notifier", notifier)];
            wait_for(&format!("{notifier} to fail"), BOUND, async || {
                let attempts = daemon.metric("journeyman_notifications_total", &labels).await?;
                (attempts >= 1.0).then_some(())
            })
            .await;
        }
        let unknown = [("journey", "broker"), ("outcome", "unknown"), ("cause", "not_ready")];
        wait_for("a run without its broker", BOUND, async || {
            daemon.metric("journeyman_run_causes_total", &unknown).await.filter(|runs| *runs >= 1.0)
        })
        .await;

        let mut said = Said::default();
        said.pages(&daemon).await;
        for request in slack.requests() {
            said.add(&format!("Slack's {}", request.method), request.arguments.to_string().into_bytes());
        }
        for taken in mail.mails() {
            said.add("a mail", taken.raw.into_bytes());
            said.add("a mail's text", taken.mail.part("text/plain").text().into_bytes());
            said.add("a mail's page", taken.mail.part("text/html").text().into_bytes());
        }
        for call in parrot.calls("/notices").into_iter().chain(parrot.calls("/services")) {
            said.add("a posted notice", call.body);
        }
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        said.add("the log", daemon.log().into_bytes());
        for end in ["", "-wal"] {
            let path = format!("{}{end}", daemon.store_path().display());
            said.add(&path, std::fs::read(&path).unwrap_or_default());
        }
        said.check();
    });
}

fn config(parrot: &Parrot, slack: &FakeSlack, [mail, strict]: [&FakeSmtp; 2]) -> String {
    let at = parrot.address;
    let password = BASIC_PASSWORD.replace('@', "%40");
    let nobody = free_port();
    format!(
        r#"
[http]
admin_token = {{ file = "admin" }}

[hooks]

[log]
level = "trace"

[alerting]
group_by = []

[defaults]
every  = "1s"
notify = ["slack", "slack-hook", "mail", "strict-mail", "hooked"]
alert  = {{ down_after = 1 }}

[channels.parrot]
type    = "http"
url     = "http://{BASIC_USER}:{password}@{at}/parrot"
headers = {{ x-one = {{ file = "header" }}, x-token = "{LITERAL}" }}

[channels.bearer]
type    = "http"
url     = "http://{at}/parrot"
headers = {{ authorization = {{ env = "JOURNEYMAN_IT_HEADER" }}, x-two = {{ credential = "header" }}, x-three = {{ file = "hook-key" }} }}

[channels.nobody]
type    = "http"
url     = "http://{BASIC_USER}:{password}@127.0.0.1:{nobody}/"

[channels.hook]
type   = "webhook"
path   = "/hook"
verify = {{ scheme = "bearer", secret = {{ file = "hook-token" }} }}

[channels.signed]
type   = "webhook"
path   = "/signed"
verify = {{ scheme = "hmac", secret = {{ file = "hook-key" }} }}

[channels.broker]
type     = "amqp"
url      = {{ file = "amqp-url" }}
exchange = "orders"
queue    = {{ name = "journeyman.orders" }}

[notifiers.slack]
type    = "slack"
token   = {{ file = "slack-token" }}
channel = "{CHANNEL}"
api_url = "{api}"

[notifiers.slack-hook]
type        = "slack"
webhook_url = {{ file = "slack-webhook" }}

[notifiers.mail]
type     = "email"
smtp     = "smtp://monitor@127.0.0.1:{mail}"
password = {{ file = "smtp-password" }}
from     = "journeyman@example.net"
to       = ["ops@example.net"]

[notifiers.strict-mail]
type     = "email"
smtp     = "smtp://monitor@127.0.0.1:{strict}"
password = {{ file = "smtp-password" }}
from     = "journeyman@example.net"
to       = ["ops@example.net"]

[notifiers.hooked]
type        = "webhook"
url         = {{ file = "webhook-url" }}
headers     = {{ x-key = {{ file = "webhook-header" }} }}
signing_key = {{ file = "signing-key" }}
"#,
        api = slack.url(),
        mail = mail.port(),
        strict = strict.port(),
    )
}

/// What people write, and what then fails with the secret in the answer: as it is, cut in two by the end of what is kept of an
/// answer, as the value that an expectation found, in an error of the connection.
const PROBES: &str = r#"
[[journey]]
name = "parrot"
step = [{ request = "parrot", expect = [{ status = 200 }] }]

[[journey]]
name = "straddle"
step = [{ request = "bearer", path = "/straddle", expect = [{ status = 200 }] }]

[[journey]]
name = "found"
step = [{ request = "bearer", path = "/json", expect = [{ json = "$.headers['x-three']", equals = "else" }] }]

[[journey]]
name = "nobody"
step = [{ request = "nobody" }]

[[journey]]
name = "broker"
step = [{ send = "broker", text = "{{ token }}" }, { receive = "broker" }, { receive = "hook" }, { receive = "signed" }]
"#;

/// Calls that are refused with the secret in them, which a log of refusals could repeat.
async fn misbehave(daemon: &Daemon) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client can be built");
    let retry = format!("{}/api/v1/outbox/slack/retry", daemon.http_url());
    for (request, status) in [
        (client.post(daemon.hook_url("/hook")).bearer_auth(format!("{HOOK_TOKEN}-")).body(HOOK_TOKEN), 401),
        (client.post(daemon.hook_url("/hook")).bearer_auth(HOOK_TOKEN).body(HOOK_TOKEN), 200),
        (client.post(daemon.hook_url("/signed")).header("x-signature", HOOK_KEY).body(HOOK_KEY), 401),
        (client.post(&retry).bearer_auth(format!("{ADMIN}-")), 401),
        (client.post(&retry).bearer_auth(ADMIN), 200),
    ] {
        assert_eq!(request.send().await.expect("it answers").status().as_u16(), status);
    }
}

/// A server that says in every answer what it was told, and that something is wrong.
struct Parrot {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Call {
    path: String,
    body: Vec<u8>,
}

impl Parrot {
    async fn listen() -> Parrot {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let keep = calls.clone();
        let routes = Router::new().fallback(async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let calls = {
                let mut calls = keep.lock().unwrap_or_else(PoisonError::into_inner);
                calls.push(Call { path: uri.path().to_owned(), body: body.to_vec() });
                calls.iter().filter(|call| call.path == uri.path()).count()
            };
            let fields: serde_json::Map<_, _> = (headers.iter())
                .filter(|(name, _)| ["x-", "authorization"].iter().any(|begin| name.as_str().starts_with(begin)))
                .filter(|(name, _)| !name.as_str().starts_with("x-journeyman"))
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
                .collect();
            // The last characters that are kept are the first of the secret.
            let straddling = |kept: usize, secret: &str| format!("{}{secret}", "x".repeat(kept - TELLING));
            let told = match uri.path() {
                "/parrot/straddle" => straddling(KEPT[0], ENVIRONMENT),
                path if path.starts_with("/services") && calls % 2 == 0 => straddling(KEPT[1], SLACK_WEBHOOK),
                path if path.ends_with("/notices") && calls % 2 == 0 => straddling(KEPT[2], WEBHOOK_HEADER),
                "/parrot/json" => json!({ "headers": fields }).to_string(),
                // First of all what people are shown the least of.
                _ => format!("{uri} {}", Value::Object(fields)),
            };
            let status = if uri.path() == "/parrot/json" { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            (status, told)
        });
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.expect("it serves until dropped") });
        Parrot { address, calls, _server: server }
    }

    /// The calls whose path has `part` in it.
    fn calls(&self, part: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|call| call.path.contains(part)).cloned().collect()
    }
}

/// Everything that got out, by where.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn add(&mut self, place: &str, bytes: Vec<u8>) {
        self.0.push((place.to_owned(), bytes));
    }

    /// Every route that answers to GET, for every journey and run that there is evidence of.
    async fn pages(&mut self, daemon: &Daemon) {
        let json = async |path: &str| -> Value {
            serde_json::from_str(&daemon.get(path).await.1).expect("the API answers JSON")
        };
        let names = |list: &Value, key: &str| -> Vec<String> {
            let rows = list.as_array().expect("a list");
            rows.iter().filter_map(|row| row[key].as_str()).map(str::to_owned).collect()
        };
        let journeys = names(&json("/api/v1/journeys").await["journeys"], "name");
        assert_eq!(journeys.len(), 5, "{journeys:?}");
        let mut runs = Vec::new();
        for journey in &journeys {
            let list = json(&format!("/api/v1/journeys/{journey}/runs?limit=3")).await;
            runs.extend(names(&list["runs"], "token"));
        }
        assert!(runs.len() >= 4, "{runs:?}");
        let mut paths = Vec::new();
        for route in table().into_iter().filter(|route| route.method == Method::GET) {
            match route.path {
                // An endless stream of version numbers.
                "/events" => {}
                path if path.contains("{name}") => {
                    paths.extend(journeys.iter().map(|name| path.replace("{name}", name)))
                }
                path if path.contains("{token}") => {
                    paths.extend(runs.iter().map(|token| path.replace("{token}", token)))
                }
                path if path.contains("{file}") => paths.push(path.replace("{file}", "style.css")),
                path => paths.push(path.to_owned()),
            }
        }
        assert!(paths.len() > 20, "{paths:?}");
        for path in paths {
            let (_, body) = daemon.get(&path).await;
            self.add(&path, body.into_bytes());
        }
    }

    /// Searches all of it for what is telling of a secret: its beginning, its end, and what lies between.
    fn check(&self) {
        let text = |place: &str| {
            let found = self.0.iter().filter(|(other, _)| other == place);
            found.map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect::<String>()
        };
        // Without these nothing was told that could have had a secret in it.
        for (place, part) in [
            ("the log", "TRACE"),
            ("the log", "a notice was not taken"),
            ("Slack's chat.postMessage", "What came back"),
            ("a mail's text", "DOWN parrot"),
            ("/alerts/outbox", "strict-mail"),
            ("a posted notice", "incident"),
        ] {
            assert!(text(place).contains(part), "`{part}` is not in {place}");
        }
        let mut leaks = String::new();
        for (place, bytes) in &self.0 {
            let text = String::from_utf8_lossy(bytes);
            for secret in SECRETS {
                // What has to be written otherwise in one place or another separates the pieces that are looked for.
                let pieces = secret.split(['"', '\\', '@']).filter(|piece| piece.len() >= TELLING);
                let windows = pieces.flat_map(|piece| (0..=piece.len() - TELLING).map(|at| &piece[at..at + TELLING]));
                let mut hits = windows.filter_map(|window| text.find(window));
                if let Some(at) = hits.next() {
                    let from = text.floor_char_boundary(at.saturating_sub(80));
                    let to = text.ceil_char_boundary(at + 120);
                    leaks.push_str(&format!("{secret} in {place}: …{}…\n", &text[from..to]));
                }
            }
        }
        assert!(leaks.is_empty(), "secrets got out:\n{leaks}");
    }
}
