//! The SMS path through the real gateway Kannel: out through its HTTP API, back as the callback that our webhook receives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::journey::token::{Mint, Token};
use tokio::task::JoinSet;
use url::Url;

use crate::support::kannel::{Fakesmsc, Handset, Kannel};
use crate::support::{block_on, wait_for};

const OURS: &str = "12345";
const HANDSET: &str = "+447700900123";
/// Loopback takes milliseconds; this is what a busy machine is given.
const BOUND: Duration = Duration::from_secs(30);

#[test]
fn a_text_comes_back_unaltered_and_its_delivery_is_reported() {
    block_on(async {
        let callbacks = Callbacks::listen().await;
        let Some(kannel) = Kannel::start(&callbacks.url("/kannel/mo"), &callbacks.url("/kannel/dlr")).await else {
            return;
        };
        let _handset = Handset::answering(kannel.smsc).await;

        let token = token();
        // Two spaces, what URLs escape, and letters that are two bytes in UTF-8 and one septet on the air.
        let text = format!("probe  {token} 100% & \"ok\" @_{{}} £ü+€");
        let reports = format!("{}?token={token}&status=%d", callbacks.url("/kannel/dlr"));
        let before = now().as_second();
        let (status, said) = get(kannel.sendsms_url(OURS, HANDSET, &text, Some(&reports))).await;
        assert_eq!((status, said.as_str()), (202, "0: Accepted for delivery"));

        let arrival = callbacks.wait("/kannel/mo", |_| true).await;
        assert_eq!(arrival["text"], text);
        assert_eq!((&*arrival["from"], &*arrival["to"]), (HANDSET, OURS));
        let sent: i64 = arrival["sent"].parse().unwrap();
        assert!((before..=now().as_second()).contains(&sent), "{sent} is not since {before}");

        for status in ["8", "1"] {
            let report = callbacks.wait("/kannel/dlr", |report| report["status"] == status).await;
            assert_eq!(Token::parse(&report["token"]), Some(token));
        }
    });
}

#[test]
fn the_real_fake_sms_centre_gets_what_is_sent_and_what_it_sends_arrives() {
    block_on(async {
        let callbacks = Callbacks::listen().await;
        let hook = callbacks.url("/kannel/mo?secret=s3cr3t");
        let Some(kannel) = Kannel::start(&hook, &callbacks.url("/kannel/dlr")).await else { return };
        let token = token();
        let Some(centre) = Fakesmsc::sending(&kannel, HANDSET, OURS, &format!("hello {token}")) else { return };

        let arrival = callbacks.wait("/kannel/mo", |_| true).await;
        assert_eq!(arrival["text"], format!("hello {token}"));
        assert_eq!(arrival["secret"], "s3cr3t");

        let (status, _) = get(kannel.sendsms_url(OURS, HANDSET, &format!("probe {token}"), None)).await;
        assert_eq!(status, 202);
        centre.wait_for_message(OURS, HANDSET, &format!("probe {token}"), BOUND).await;
        // The user's own `dlr-url`, which cannot say whose report it is.
        let report = callbacks.wait("/kannel/dlr", |report| report["status"] == "1").await;
        assert_eq!(report.get("token"), None);
    });
}

/// Why a journey waits for the far end: the gateway's 202 says nothing about it.
#[test]
fn a_gateway_without_its_sms_centre_accepts_and_delivers_when_it_is_back() {
    block_on(async {
        let callbacks = Callbacks::listen().await;
        let Some(kannel) = Kannel::start(&callbacks.url("/kannel/mo"), &callbacks.url("/kannel/dlr")).await else {
            return;
        };
        let token = token().to_string();
        let (status, said) = get(kannel.sendsms_url(OURS, HANDSET, &token, None)).await;
        assert_eq!((status, said.as_str()), (202, "3: Queued for later delivery"));
        assert_eq!(callbacks.seen(), []);

        let _handset = Handset::answering(kannel.smsc).await;
        assert_eq!(callbacks.wait("/kannel/mo", |_| true).await["text"], token);
    });
}

/// The way that the worked example takes: the password is in a header and in no URL, and only final reports are asked for.
#[test]
fn a_post_with_the_password_in_a_header_is_sent_and_reported_once() {
    block_on(async {
        let callbacks = Callbacks::listen().await;
        let Some(kannel) = Kannel::start(&callbacks.url("/kannel/mo"), &callbacks.url("/unused")).await else { return };
        let _handset = Handset::answering(kannel.smsc).await;
        let text = format!("probe {} £", token());
        let request = client()
            .post(format!("http://{}/cgi-bin/sendsms", kannel.sendsms))
            .header("x-kannel-username", Kannel::USERNAME)
            .header("x-kannel-password", Kannel::PASSWORD)
            .header("x-kannel-from", OURS)
            .header("x-kannel-to", HANDSET)
            .header("x-kannel-dlr-mask", "19")
            .header("x-kannel-dlr-url", format!("{}?status=%d", callbacks.url("/kannel/dlr")))
            .header("content-type", "text/plain; charset=utf-8")
            .body(text.clone());
        assert_eq!(request.send().await.expect("Kannel answers").status(), 202);
        assert_eq!(callbacks.wait("/kannel/mo", |_| true).await["text"], text);
        // Reports are made in order: had 8 been asked for, it would have been sent before 1.
        assert_eq!(callbacks.wait("/kannel/dlr", |_| true).await["status"], "1");
    });
}

#[test]
fn a_wrong_password_is_refused() {
    block_on(async {
        let callbacks = Callbacks::listen().await;
        let Some(kannel) = Kannel::start(&callbacks.url("/kannel/mo"), &callbacks.url("/kannel/dlr")).await else {
            return;
        };
        let url = kannel.sendsms_url(OURS, HANDSET, "probe", None);
        let url = Url::parse(&url.as_str().replace(Kannel::PASSWORD, "wrong")).unwrap();
        assert_eq!(get(url).await, (403, "Authorization failed for sendsms".to_owned()));
    });
}

fn now() -> Timestamp {
    Clock::system().now().wall
}

fn token() -> Token {
    Mint::new([7; 32], 0).issue(now())
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(BOUND).build().expect("a client can be built")
}

async fn get(url: Url) -> (u16, String) {
    let response = client().get(url).send().await.expect("Kannel answers");
    (response.status().as_u16(), response.text().await.expect("an answer has a body"))
}

type Query = BTreeMap<String, String>;

/// A plain HTTP listener that answers every call with an empty 200 and keeps its path and query.
struct Callbacks {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, Query)>>>,
    _server: JoinSet<()>,
}

impl Callbacks {
    async fn listen() -> Callbacks {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = seen.clone();
        let routes = Router::new().fallback(async move |uri: Uri| {
            let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
            keep.lock().unwrap_or_else(PoisonError::into_inner).push((uri.path().to_owned(), query));
        });
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.expect("it serves until dropped") });
        Callbacks { address, seen, _server: server }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<(String, Query)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait(&self, path: &str, is_wanted: impl Fn(&Query) -> bool) -> Query {
        wait_for(&format!("a call of {path}"), BOUND, async || {
            self.seen().into_iter().find(|(p, query)| p == path && is_wanted(query)).map(|(_, query)| query)
        })
        .await
    }
}
