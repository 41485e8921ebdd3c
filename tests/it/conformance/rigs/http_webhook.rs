//! HTTP out, a webhook back: the relay is a web service that takes requests and calls us.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use journeyman::journey::message::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::conformance::rig::{Parcel, Promises, Relay, Rig};
use crate::conformance::suite;
use crate::conformance::world::Proxies;
use crate::support::{block_on, free_port};

/// What the callers must show.
const SECRET: &str = "a-shared-secret";

type Routes = Mutex<BTreeMap<String, mpsc::Sender<Message>>>;

/// Where we listen for calls, and where the service calls us: there, or through a proxy.
#[derive(Clone, Copy)]
struct Called {
    listen: SocketAddr,
    at: SocketAddr,
}

struct HttpWebhook {
    service: SocketAddr,
    routes: &'static Routes,
    hooks: Mutex<BTreeMap<String, Called>>,
    _tasks: JoinSet<()>,
}

impl HttpWebhook {
    async fn start() -> HttpWebhook {
        let routes: &'static Routes = Box::leak(Box::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the rig works");
        let service = listener.local_addr().expect("the rig works");
        let router = Router::new().route("/{tag}", post(take)).with_state(routes);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the rig works") });
        HttpWebhook { service, routes, hooks: Mutex::default(), _tasks: tasks }
    }

    fn called(&self, tag: &str) -> Called {
        let free = || {
            let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
            Called { listen, at: listen }
        };
        *self.hooks.lock().expect("no panic while held").entry(tag.to_owned()).or_insert_with(free)
    }
}

async fn take(
    State(routes): State<&'static Routes>,
    axum::extract::Path(tag): axum::extract::Path<String>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> StatusCode {
    let sender = routes.lock().expect("no panic while held").get(&tag).cloned();
    let Some(sender) = sender else { return StatusCode::NOT_FOUND };
    let mut message = Message::new(body.to_vec());
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    message.headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let _ = sender.send(message).await;
    StatusCode::ACCEPTED
}

impl Rig for HttpWebhook {
    fn name(&self) -> &'static str {
        "http, webhook"
    }

    fn promises(&self) -> Promises {
        Promises { reader_connects: false, redelivers: false, shakes_hands: false, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.service, self.service)
    }

    async fn proxies(&self, tag: &str) -> Proxies {
        let called = self.called(tag);
        let proxies = Proxies::before(self.service, called.listen).await;
        let called = Called { at: proxies.back.address(), ..called };
        self.hooks.lock().expect("no panic while held").insert(tag.to_owned(), called);
        proxies
    }

    fn channels(&self, tag: &str, out: SocketAddr, _back: SocketAddr) -> String {
        let listen = self.called(tag).listen;
        format!(
            r#"
[hooks]
listen = "{listen}"

[channels.out]
type = "http"
url  = "http://{out}/{tag}"

[channels.in]
type   = "webhook"
path   = "/{tag}"
verify = {{ scheme = "bearer", secret = "{SECRET}" }}
"#
        )
    }

    async fn relay(&self, tag: &str) -> Relay {
        let (sender, taken) = mpsc::channel(64);
        self.routes.lock().expect("no panic while held").insert(tag.to_owned(), sender);
        let url = format!("http://{}/{tag}", self.called(tag).at);
        let client = reqwest::Client::builder().no_proxy().build().expect("the rig works");
        let put = move |parcel: Parcel| -> futures_util::future::BoxFuture<'static, Result<(), String>> {
            let mut request = client.post(&url).bearer_auth(SECRET).body(parcel.body);
            for (name, value) in parcel.headers {
                request = request.header(name, value);
            }
            Box::pin(async move {
                let answer = request.send().await.map_err(|error| format!("we cannot be called: {error}"))?;
                if answer.status().is_success() { Ok(()) } else { Err(format!("we answered {}", answer.status())) }
            })
        };
        Relay::new(taken, Box::new(put), CancellationToken::new(), JoinSet::new())
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let ca_file = ca_file.display();
        Some(format!("[channels.out]\ntype = \"http\"\nurl = \"https://{out}/{tag}\"\nca_file = \"{ca_file}\"\n"))
    }
}

/// With a service of its own.
pub(crate) async fn start() -> impl Rig {
    journeyman::tls::init();
    HttpWebhook::start().await
}

#[test]
fn http_webhook() {
    block_on(async { suite(start().await).await });
}
