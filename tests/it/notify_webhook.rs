//! The webhook notifier against a scripted HTTP server; the document against `golden/webhook.json`.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use journeyman::clock::Clock;
use journeyman::incident::NotifyReason;
use journeyman::notifier::webhook::{Webhook, WebhookSettings, open};
use journeyman::notifier::{Delivery, Notifier as _, NotifyError};
use journeyman::secret::{HeaderText, Redactor, Secret};
use serde_json::Value;

use crate::support::hook::{Answer, Hook, status};
use crate::support::notices::{delivery, noon};
use crate::support::{block_on, free_port, wait_for};

/// A path that is a secret, in two parts.
const SECRET: &str = "/in/s3cr3t-path?key=s3cr3t-key";

fn webhook_to(url: String) -> Webhook {
    let redactor = Redactor::new();
    let headers = vec![
        ("Authorization".to_owned(), HeaderText::Secret(Secret::new("Bearer s3cr3t-token".to_owned(), &redactor))),
        ("X-Team".to_owned(), HeaderText::Plain("messaging".to_owned())),
    ];
    let signing_key = Some(Secret::new("s3cr3t-signing".to_owned(), &redactor));
    let settings = WebhookSettings { url: Secret::new(url, &redactor), headers, signing_key };
    open(settings, redactor, Clock::derived(noon())).expect("sound settings")
}

fn first() -> Delivery {
    delivery(NotifyReason::First, 1)
}

#[test]
fn the_document_is_the_documented_one_and_is_signed() {
    block_on(async {
        let hook = Hook::start([]).await;
        let receipt = webhook_to(hook.url(SECRET)).notify(&first()).await.unwrap();
        assert_eq!((receipt.id.as_str(), receipt.place.as_str()), ("7f3a2c01d2e4.1.ops-mail", "127.0.0.1"));
        assert_eq!(receipt.said, "200 OK");
        let request = hook.requests().remove(0);
        assert!(request.head.starts_with("POST /in/s3cr3t-path?key=s3cr3t-key HTTP/1.1"), "{}", request.head);
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("x-journeyman-delivery"), Some("7f3a2c01d2e4.1.ops-mail"));
        assert_eq!(request.header("authorization"), Some("Bearer s3cr3t-token"));
        assert_eq!(request.header("x-team"), Some("messaging"));
        assert!(request.header("user-agent").unwrap().starts_with("journeyman/"));

        // As a receiver checks it: over the bytes, before they are parsed.
        let signature = request.header("x-journeyman-signature").unwrap().strip_prefix("sha256=").unwrap();
        let signature: Vec<u8> =
            (0..signature.len()).step_by(2).map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap()).collect();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cr3t-signing").unwrap();
        mac.update(&request.body);
        mac.verify_slice(&signature).unwrap();

        let golden: Value = serde_json::from_str(include_str!("golden/webhook.json")).unwrap();
        let found = serde_json::to_string_pretty(&request.json()).unwrap();
        assert_eq!(
            request.json(),
            golden,
            "if this is meant, the documented version may have to change; found:\n{found}"
        );
    });
}

#[test]
fn without_a_key_there_is_no_signature_and_a_resolution_says_so() {
    block_on(async {
        let hook = Hook::start([]).await;
        let redactor = Redactor::new();
        let url = Secret::new(hook.url(SECRET), &redactor);
        let settings = WebhookSettings { url, headers: Vec::new(), signing_key: None };
        let mut delivery = Delivery { attempt: 3, ..delivery(NotifyReason::Resolved, 2) };
        delivery.instead_of = Some(("oncall".to_owned(), "invalid_auth".to_owned()));
        open(settings, redactor, Clock::derived(noon())).unwrap().notify(&delivery).await.unwrap();
        let request = hook.requests().remove(0);
        assert_eq!(request.header("x-journeyman-signature"), None);
        let document = request.json();
        assert_eq!(document["reason"], "resolved");
        assert_eq!(document["state"], "WELL AGAIN");
        assert_eq!(document["attempt"], 3);
        assert_eq!(document["instead_of"]["notifier"], "oncall");
        assert_eq!(document["instead_of"]["said"], "invalid_auth");
    });
}

#[test]
fn the_answer_decides_what_happens_next() {
    block_on(async {
        let wait = |value: &str| {
            Answer::Raw(format!("HTTP/1.1 429 Slow\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n"))
        };
        let hook = Hook::start([]).await;
        let webhook = webhook_to(hook.url(SECRET));
        let notify = async |answer| {
            hook.then(answer);
            webhook.notify(&first()).await
        };
        assert!(matches!(notify(wait("17")).await, Err(NotifyError::After { wait, .. }) if wait.as_secs() == 17));
        let date = notify(wait("Sat, 14 Mar 2026 12:01:30 GMT")).await;
        assert!(
            matches!(date, Err(NotifyError::After { wait, .. }) if (88..=90).contains(&wait.as_secs())),
            "{date:?}"
        );
        assert!(matches!(notify(wait("soon")).await, Err(NotifyError::Backoff(_))));
        assert!(matches!(notify(status("503 Service Unavailable")).await, Err(NotifyError::Backoff(_))));
        assert!(matches!(notify(status("500 Oops")).await, Err(NotifyError::Backoff(_))));
        assert!(
            matches!(notify(status("403 Forbidden")).await, Err(NotifyError::Never(text)) if text.contains("signing_key"))
        );
        let moved = format!("HTTP/1.1 307 Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", hook.url(SECRET));
        let moved = notify(Answer::Raw(moved)).await;
        assert!(matches!(&moved, Err(NotifyError::Never(text)) if text.contains("not followed")), "{moved:?}");
        let before = hook.requests().len();
        let long = format!("HTTP/1.1 202 Accepted\r\ncontent-length: 1000\r\n\r\n{}", "é\n".repeat(300));
        let receipt = notify(Answer::Raw(long)).await.unwrap();
        assert!(
            receipt.said.starts_with("202 Accepted é é é") && receipt.said.chars().count() < 220,
            "{}",
            receipt.said
        );
        assert_eq!(hook.requests().len(), before + 1);
    });
}

#[test]
fn what_the_other_side_says_is_kept_without_our_secrets() {
    block_on(async {
        let body = "you sent s3cr3t-token, s3cr3t-signing";
        let answer =
            |code: u16| Answer::Raw(format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        let hook = Hook::start([answer(200), answer(400)]).await;
        let webhook = webhook_to(hook.url(SECRET));
        let mut delivery = first();
        delivery.notification.report.as_mut().unwrap().steps[1].detail = Some("not Bearer s3cr3t-token".to_owned());
        delivery.notification.labels.insert("key".to_owned(), "s3cr3t-signing".to_owned());
        let said = webhook.notify(&delivery).await.unwrap().said;
        assert_eq!(said, "200 OK you sent •••, •••");
        assert!(!webhook.notify(&delivery).await.unwrap_err().to_string().contains("s3cr3t"));
        let sent = String::from_utf8(hook.requests().remove(0).body).unwrap();
        assert!(sent.contains("not •••") && !sent.contains("s3cr3t"), "{sent}");
    });
}

#[test]
fn a_lost_connection_is_doubt_only_if_the_request_was_sent() {
    block_on(async {
        let hook = Hook::start([Answer::Close]).await;
        // A redactor that does not know the URL: it stays out of the words all the same.
        let stranger = |url: String| {
            let settings =
                WebhookSettings { url: Secret::new(url, &Redactor::new()), headers: Vec::new(), signing_key: None };
            open(settings, Redactor::new(), Clock::derived(noon())).unwrap()
        };
        let error = stranger(hook.url(SECRET)).notify(&first()).await.unwrap_err();
        assert!(matches!(&error, NotifyError::Ambiguous(_)), "{error}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
        assert_eq!(hook.requests().len(), 1, "one attempt a call");
        let error = stranger(format!("http://127.0.0.1:{}/s3cr3t", free_port())).notify(&first()).await.unwrap_err();
        assert!(matches!(&error, NotifyError::Backoff(text) if text.contains("refused")), "{error}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    });
}

#[test]
fn a_certificate_of_nobody_we_trust_gets_nothing() {
    block_on(async {
        let (config, _) = crate::support::fake_smtp::certificate();
        let offer = crate::support::fake_smtp::Offer { tls: Some(config), ..Default::default() };
        let server = crate::support::fake_smtp::FakeSmtp::start_with(offer).await;
        let error =
            webhook_to(format!("https://127.0.0.1:{}/s3cr3t", server.port())).notify(&first()).await.unwrap_err();
        assert!(matches!(&error, NotifyError::Never(text) if text.contains("TLS failed, nothing was sent")), "{error}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
        assert_eq!(server.commands(), Vec::<String>::new());
    });
}

#[tokio::test]
async fn a_hook_that_never_answers_is_doubt_after_ten_seconds() {
    journeyman::tls::init();
    let hook = Hook::start([Answer::Hang]).await;
    let clock = Clock::system();
    let webhook = webhook_to(hook.url(SECRET));
    let delivery = first();
    let pausing = async {
        let has_read = async || (!hook.requests().is_empty()).then_some(());
        wait_for("the request", Duration::from_secs(10), has_read).await;
        tokio::time::pause();
    };
    let (answer, ()) = tokio::join!(webhook.notify(&delivery), pausing);
    assert!(
        matches!(&answer, Err(NotifyError::Ambiguous(text)) if text.contains("no answer within 10s")),
        "{answer:?}"
    );
    assert!((10..12).contains(&clock.now().mono.0.as_secs()));
}
