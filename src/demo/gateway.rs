//! A sandbox SMS gateway: takes messages by its API, "delivers" each a little later by a signed call to a webhook, tells how far
//! it got, and can be told to misbehave as gateways do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ring::Ring;
use super::server::{answer, has_bearer};

/// The header in which the gateway signs what it sends: `sha256=` and the HMAC-SHA-256 of the body in hexadecimal.
pub const SIGNATURE_HEADER: &str = "x-gateway-signature";

/// How the gateway misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    #[default]
    None,
    /// It accepts every message and delivers none: the failure that a health check does not see.
    Drop,
    /// It takes this long to deliver.
    Slow(Duration),
    /// It answers 503.
    Refuse,
}

/// How many messages went which way since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered with 202.
    pub accepted: u64,
    /// Handed to the webhook, which took them.
    pub delivered: u64,
    /// Accepted and dropped.
    pub dropped: u64,
    /// Answered with 503.
    pub refused: u64,
}

/// The gateway.
pub struct Gateway {
    hook: String,
    client: reqwest::Client,
    key: String,
    signing_key: String,
    in_flight: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    state: Mutex<Inner>,
}

struct Inner {
    fault: Fault,
    counts: Counts,
    messages: Ring<Sms>,
}

struct Sms {
    sid: String,
    status: &'static str,
}

/// What becomes of an accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered { after: Duration },
    Dropped,
}

impl Gateway {
    /// A gateway that calls `hook` for each delivery, expects `key` as its callers' bearer token and signs with `signing_key`.
    /// Its deliveries run in `tasks`, until `stop`.
    pub fn new(
        hook: String,
        [key, signing_key]: [String; 2],
        client: reqwest::Client,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Gateway> {
        let state = Inner { fault: Fault::None, counts: Counts::default(), messages: Ring::new(REMEMBERED) };
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Arc::new(Gateway { hook, client, key, signing_key, in_flight, tasks, stop, state: Mutex::new(state) })
    }

    /// Its API.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/v1/messages", post(submit))
            .route("/v1/messages/{sid}", get(status).delete(forget))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self.clone())
    }

    /// Makes it misbehave, from the next message on; messages accepted before keep their fate.
    pub fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// How it misbehaves.
    pub fn fault(&self) -> Fault {
        self.lock().fault
    }

    /// How many messages went which way.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_status(&self, sid: &str, status: &'static str) {
        if let Some(sms) = self.lock().messages.find_mut(|sms| sms.sid == sid) {
            sms.status = status;
        }
    }

    async fn carry(self: Arc<Self>, sid: String, to: String, text: String, fate: Fate, _permit: OwnedSemaphorePermit) {
        let arrives = async {
            tokio::time::sleep(HANDOVER).await;
            self.set_status(&sid, "sent");
            match fate {
                Fate::Dropped => {}
                Fate::Delivered { after } => {
                    tokio::time::sleep(after.saturating_sub(HANDOVER)).await;
                    self.call_hook(&sid, &to, &text).await;
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = arrives => {}
        }
    }

    async fn call_hook(&self, sid: &str, to: &str, text: &str) {
        let fields = [("From", SENDER), ("To", to), ("Body", text), ("MessageSid", sid)];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let call = self
            .client
            .post(&self.hook)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(SIGNATURE_HEADER, sign(&self.signing_key, body.as_bytes()))
            .body(body);
        match call.send().await {
            Ok(taken) if taken.status().is_success() => {
                self.set_status(sid, "delivered");
                self.lock().counts.delivered += 1;
            }
            Ok(refused) => {
                tracing::warn!(status = refused.status().as_u16(), "the webhook refused an SMS of the sandbox")
            }
            Err(error) => tracing::warn!(%error, "the webhook could not be called by the sandbox"),
        }
    }
}

/// `sha256=` and the HMAC-SHA-256 (RFC 2104) of `body` in hexadecimal.
pub fn sign(key: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    digest.iter().fold("sha256=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

async fn submit(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Bytes) -> Response {
    if !has_bearer(&headers, &gateway.key) {
        return refuse(StatusCode::UNAUTHORIZED, "no or wrong bearer token");
    }
    let Some((to, text)) = read(&body) else {
        return refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            "`to` must be a number like +447700900123, `text` 1 to 1600 characters",
        );
    };
    let Ok(permit) = gateway.in_flight.clone().try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many messages under way");
    };
    let sid = format!("SM{:032x}", fastrand::u128(..));
    let fate = {
        let mut state = gateway.lock();
        let Some(fate) = fate(state.fault, fastrand::f64()) else {
            state.counts.refused += 1;
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "the gateway is out of service");
        };
        state.counts.accepted += 1;
        state.counts.dropped += u64::from(fate == Fate::Dropped);
        state.messages.push(Sms { sid: sid.clone(), status: "queued" });
        fate
    };
    gateway.tasks.spawn(gateway.clone().carry(sid.clone(), to, text, fate, permit));
    answer(StatusCode::ACCEPTED, &json!({ "sid": sid, "status": "queued" }))
}

async fn status(State(gateway): State<Arc<Gateway>>, Path(sid): Path<String>, headers: HeaderMap) -> Response {
    if !has_bearer(&headers, &gateway.key) {
        return refuse(StatusCode::UNAUTHORIZED, "no or wrong bearer token");
    }
    match gateway.lock().messages.iter().find(|sms| sms.sid == sid) {
        Some(sms) => answer(StatusCode::OK, &json!({ "sid": sms.sid, "status": sms.status })),
        None => refuse(StatusCode::NOT_FOUND, "no such message"),
    }
}

async fn forget(State(gateway): State<Arc<Gateway>>, Path(sid): Path<String>, headers: HeaderMap) -> Response {
    if !has_bearer(&headers, &gateway.key) {
        return refuse(StatusCode::UNAUTHORIZED, "no or wrong bearer token");
    }
    match gateway.lock().messages.remove(|sms| sms.sid == sid) {
        true => StatusCode::NO_CONTENT.into_response(),
        false => refuse(StatusCode::NOT_FOUND, "no such message"),
    }
}

fn refuse(status: StatusCode, why: &str) -> Response {
    answer(status, &json!({ "error": why }))
}

fn read(body: &[u8]) -> Option<(String, String)> {
    let message: Value = serde_json::from_slice(body).ok()?;
    let (to, text) = (message["to"].as_str()?, message["text"].as_str()?);
    let digits = to.strip_prefix('+')?;
    let is_number = (7..=15).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    let is_text = (1..=MAX_TEXT).contains(&text.chars().count());
    (is_number && is_text).then(|| (to.to_owned(), text.to_owned()))
}

/// What becomes of a message that comes now; `None` if it is refused. `chance` is in `0..1`.
fn fate(fault: Fault, chance: f64) -> Option<Fate> {
    match fault {
        Fault::None => Some(Fate::Delivered { after: FASTEST + (SLOWEST - FASTEST).mul_f64(chance) }),
        Fault::Drop => Some(Fate::Dropped),
        Fault::Slow(after) => Some(Fate::Delivered { after }),
        Fault::Refuse => None,
    }
}

/// Within a country an SMS takes between a sixth of a second and rather more than half of one.
const FASTEST: Duration = Duration::from_millis(150);
const SLOWEST: Duration = Duration::from_millis(600);
/// From `queued` to `sent`.
const HANDOVER: Duration = Duration::from_millis(40);
/// From a range that Ofcom keeps for drama, so that it is nobody's.
const SENDER: &str = "+447700900001";
/// What gateways take in one request, in ten segments.
const MAX_TEXT: usize = 1600;
const MAX_BODY: usize = 16 * 1024;
const MAX_IN_FLIGHT: usize = 256;
const REMEMBERED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_decides_what_becomes_of_a_message() {
        let after = |millis| Some(Fate::Delivered { after: Duration::from_millis(millis) });
        assert_eq!(fate(Fault::None, 0.0), after(150));
        assert_eq!(fate(Fault::None, 0.5), after(375));
        assert_eq!(fate(Fault::Drop, 0.5), Some(Fate::Dropped));
        assert_eq!(fate(Fault::Slow(Duration::from_secs(2)), 0.5), after(2000));
        assert_eq!(fate(Fault::Refuse, 0.5), None);
    }

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        // Test case 2 of section 4.3.
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign("Jefe", b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn only_a_number_and_a_text_make_a_message() {
        assert_eq!(read(br#"{"to":"+447700900123","text":"hi"}"#), Some(("+447700900123".to_owned(), "hi".to_owned())));
        for bad in [
            r#"{"to":"447700900123","text":"hi"}"#,
            r#"{"to":"+4477<b>","text":"hi"}"#,
            r#"{"to":"+447700900123","text":""}"#,
            r#"{"to":"+447700900123"}"#,
            "[]",
            "",
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        let long = json!({ "to": "+447700900123", "text": "x".repeat(MAX_TEXT + 1) }).to_string();
        assert_eq!(read(long.as_bytes()), None);
    }
}
