//! One connection to one broker: made step by step, so that each failure has its own cause; then one request at a time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;

use super::SaslSettings;
use super::wire::{
    ApiKey, ApiVersionRange, ApiVersionsResponse, ChallengeResponse, ErrorCode, Greeting, KrafkaError, RequestHeader,
    ResponseHeader, SASL_AUTHENTICATE, SASL_HANDSHAKE, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslAuthenticator, SaslHandshakeRequest, SaslHandshakeResponse, VersionedDecode, VersionedEncode, Versions,
};
use crate::channel::dial::{Dialed, Dialer, Limit, Stream};
use crate::channel::refusal::Refusal;
use crate::channel::seen::Notes;
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::seen::Seen;
use crate::time::{Mono, Now};

/// A longer answer is not one: we ask for at most a megabyte at a time, and one batch may be larger than that.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// An answer is read in pieces of this size, so that a length alone makes us allocate nothing.
const PIECE: usize = 64 * 1024;
/// The newest `ApiVersions` that we speak; a broker that does not, answers in version 0 (KIP-511).
const API_VERSIONS: i16 = 3;
/// The first byte of a TLS alert record, which is what a TLS listener says to plain bytes (RFC 8446 section 5.1).
const TLS_ALERT: u8 = 0x15;
/// How much of its session's life a connection is used; then it says again who we are (KIP-368).
const SESSION_SHARE: f64 = 0.8;

/// A connection that stands. Requests go one after another: a call that is not awaited to its end leaves it unusable.
pub(super) struct Connection {
    stream: Stream,
    /// `host:port`, for messages.
    pub(super) peer: String,
    /// When it was begun to be made.
    pub(super) since: Mono,
    /// What was met when it was made.
    pub(super) seen: Vec<Seen>,
    client_id: String,
    versions: Vec<ApiVersionRange>,
    correlation: i32,
    /// When the last byte of the last answer was there.
    answered: Now,
    /// Until then the broker wants to hear nothing (KIP-219).
    quiet_until: Mono,
    /// Until then the broker believes who we are.
    session_until: Option<Mono>,
    clock: Clock,
}

impl Connection {
    /// Connects, agrees on versions, and says who we are.
    ///
    /// # Errors
    /// Name not resolved, nothing listening, TLS, not a Kafka broker, credentials, or `limit` passed: each in its own words.
    pub(super) async fn open(
        dialer: &Dialer,
        client_id: &str,
        sasl: Option<&SaslSettings>,
        clock: Clock,
        limit: Limit,
    ) -> Result<Connection, Refusal> {
        let (since, notes) = (limit.now(), Notes::of_a_part());
        let Dialed { stream, peer, .. } = notes.over(dialer.connect(limit)).await?;
        let mut connection = Connection {
            stream,
            peer,
            since,
            seen: notes.seen(),
            client_id: client_id.to_owned(),
            versions: Vec::new(),
            correlation: 0,
            answered: clock.now(),
            quiet_until: Mono::default(),
            session_until: None,
            clock,
        };
        let greeting = async {
            connection.agree_on_versions().await?;
            match sasl {
                Some(sasl) => connection.authenticate(sasl).await,
                None => Ok(()),
            }
        };
        match timeout_at(limit.instant(), greeting).await {
            Ok(done) => done.map_err(Refusal::before_sending)?,
            Err(_) => {
                let silence = Refusal::silence("greeting it in Kafka's protocol", &connection.peer, limit.length());
                return Err(silence.before_sending());
            }
        }
        Ok(connection)
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// A broker that does not know the request, a connection that ends, an answer that is none.
    pub(super) async fn call<Q: VersionedEncode, A: VersionedDecode>(
        &mut self,
        api: ApiKey,
        versions: Versions,
        request: &Q,
    ) -> Result<A, Refusal> {
        let version = self.version(api, versions)?;
        self.ask(api, version, request).await?;
        self.answer(api, version).await
    }

    /// Sends a request that is not answered: with `acks=0` a broker says nothing.
    pub(super) async fn tell<Q: VersionedEncode>(
        &mut self,
        api: ApiKey,
        versions: Versions,
        request: &Q,
    ) -> Result<(), Refusal> {
        let version = self.version(api, versions)?;
        self.ask(api, version, request).await
    }

    /// The broker wants to hear nothing for so long. Kept to: whatever is sent before that waits unread at the broker.
    pub(super) fn quieten(&mut self, throttle_ms: i32) -> Option<Duration> {
        let quiet = Duration::from_millis(u64::try_from(throttle_ms).ok().filter(|ms| *ms > 0)?);
        self.quiet_until = self.quiet_until.max(self.clock.now().mono + quiet);
        Some(quiet)
    }

    /// Until when the broker wants to hear nothing; in the past as a rule.
    pub(super) fn quiet_until(&self) -> Mono {
        self.quiet_until
    }

    /// When the last byte of the last answer was there.
    pub(super) fn answered(&self) -> Now {
        self.answered
    }

    /// Whether the broker speaks a version of this request that we speak.
    pub(super) fn speaks(&self, api: ApiKey, versions: Versions) -> bool {
        self.version(api, versions).is_ok()
    }

    /// Whether it still stands, as far as is known, with nothing in flight: then nothing may come, not even an end.
    pub(super) fn is_open(&mut self) -> bool {
        let is_current = self.session_until.is_none_or(|until| self.clock.now().mono < until);
        is_current && self.stream.read_u8().now_or_never().is_none()
    }

    /// Says again who we are, if it is time to (KIP-368).
    pub(super) async fn refresh_session(&mut self, sasl: Option<&SaslSettings>) -> Result<(), Refusal> {
        match (sasl, self.session_until) {
            (Some(sasl), Some(until)) if self.clock.now().mono >= until => self.authenticate(sasl).await,
            _ => Ok(()),
        }
    }

    fn version(&self, api: ApiKey, (lowest, highest): Versions) -> Result<i16, Refusal> {
        let known = self.versions.iter().find(|range| range.api_key == api);
        known.and_then(|range| range.negotiate(highest, lowest)).ok_or_else(|| {
            let detail = format!("{} does not know the request {api:?}, versions {lowest} to {highest}", self.peer);
            Refusal::new(Cause::Refused, detail)
        })
    }

    async fn ask<Q: VersionedEncode>(&mut self, api: ApiKey, version: i16, request: &Q) -> Result<(), Refusal> {
        self.correlation = self.correlation.wrapping_add(1);
        let mut frame = BytesMut::zeroed(4);
        RequestHeader::new(api, version, self.correlation)
            .with_client_id(self.client_id.as_str())
            .encode(&mut frame)
            .and_then(|()| request.encode_versioned(version, &mut frame))
            .map_err(|error| {
                Refusal::new(Cause::Refused, format!("it cannot be written in Kafka's protocol: {error}"))
            })?;
        let length = i32::try_from(frame.len() - 4)
            .map_err(|_| Refusal::new(Cause::Refused, "it is larger than Kafka's protocol allows"))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.clock.sleep_until(self.quiet_until).await;
        let written = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        written.await.map_err(|error| Refusal::lost(&self.peer, error))
    }

    async fn answer<A: VersionedDecode>(&mut self, api: ApiKey, version: i16) -> Result<A, Refusal> {
        let mut frame = self.frame().await?;
        ResponseHeader::decode(&mut frame, api, version)
            .and_then(|header| self.check_order(header.correlation_id))
            .and_then(|()| A::decode_versioned(version, &mut frame))
            .map_err(|error| Refusal::garbled(&self.peer, &error))
    }

    fn check_order(&self, correlation: i32) -> Result<(), KrafkaError> {
        if correlation == self.correlation {
            return Ok(());
        }
        Err(KrafkaError::config(format!("answer {correlation} to request {}", self.correlation)))
    }

    async fn frame(&mut self) -> Result<Bytes, Refusal> {
        let lost = |peer: &str, error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Refusal::lost(peer, "the broker ended it"),
            _ => Refusal::lost(peer, error),
        };
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await.map_err(|error| lost(&self.peer, error))?;
        let length = usize::try_from(i32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if length > MAX_ANSWER {
            let detail = match head[0] {
                TLS_ALERT => format!("{} speaks TLS; write `tls = true`", self.peer),
                _ => format!("{} does not speak Kafka's protocol: an answer of {length} bytes", self.peer),
            };
            let cause = if head[0] == TLS_ALERT { Cause::Tls } else { Cause::Unreachable };
            return Err(Refusal { cause, detail, is_verdict: false });
        }
        let mut frame = BytesMut::with_capacity(length.min(PIECE));
        while frame.len() < length {
            let rest = length - frame.len();
            frame.reserve(rest.min(PIECE));
            let read = (&mut self.stream).take(rest as u64).read_buf(&mut frame).await;
            match read.map_err(|error| lost(&self.peer, error))? {
                0 => return Err(Refusal::lost(&self.peer, "the broker ended it")),
                _ => continue,
            }
        }
        self.answered = self.clock.now();
        Ok(frame.freeze())
    }

    /// The one request whose answer has a version of its own: a broker too old for ours answers in version 0 (KIP-511).
    async fn agree_on_versions(&mut self) -> Result<(), Refusal> {
        let mut version = API_VERSIONS;
        let answer = loop {
            self.ask(ApiKey::ApiVersions, version, &Greeting).await?;
            let mut frame = self.frame().await?;
            let decoded = ResponseHeader::decode(&mut frame, ApiKey::ApiVersions, version)
                .and_then(|header| self.check_order(header.correlation_id));
            decoded.map_err(|error| Refusal::garbled(&self.peer, &error))?;
            let code = frame.get(..2).map(|code| i16::from_be_bytes([code[0], code[1]])).unwrap_or_default();
            if version > 0 && code == ErrorCode::UnsupportedVersion.to_i16() {
                version = 0;
                continue;
            }
            let decoded = match version {
                0 => ApiVersionsResponse::decode_v0(&mut frame),
                _ => ApiVersionsResponse::decode_v3(&mut frame),
            };
            break decoded.map_err(|error| Refusal::garbled(&self.peer, &error))?;
        };
        match ErrorCode::from_i16(answer.error_code) {
            ErrorCode::None => self.versions = answer.api_keys,
            code => return Err(Refusal::coded(code, &self.peer, None)),
        }
        Ok(())
    }

    /// SASL: the mechanism, then its messages until both sides are content.
    async fn authenticate(&mut self, sasl: &SaslSettings) -> Result<(), Refusal> {
        let refused = |detail: String| Refusal::new(Cause::Auth, detail);
        let mechanism = sasl.mechanism.as_str();
        let answer: SaslHandshakeResponse =
            self.call(ApiKey::SaslHandshake, SASL_HANDSHAKE, &SaslHandshakeRequest::new(mechanism)).await?;
        if answer.error_code != ErrorCode::None {
            let offered = format!("it offers {}", answer.enabled_mechanisms.join(", "));
            return Err(Refusal::coded(answer.error_code, &format!("{}: {mechanism}", self.peer), Some(&offered)));
        }
        // The library's own words may repeat what it was given; ours do not.
        let failed = |peer: &str| refused(format!("{peer}: {mechanism} failed: the broker does not know our password"));
        let authenticator = SaslAuthenticator::new(&sasl.credentials()).ok().flatten();
        let mut authenticator = authenticator.ok_or_else(|| failed(&self.peer))?;
        let mut next = authenticator.initial_response().map_err(|_| failed(&self.peer))?;
        loop {
            let request = SaslAuthenticateRequest::new(next.to_vec());
            let answer: SaslAuthenticateResponse =
                self.call(ApiKey::SaslAuthenticate, SASL_AUTHENTICATE, &request).await?;
            if answer.error_code != ErrorCode::None {
                let place = format!("{}: user `{}`", self.peer, sasl.user);
                return Err(Refusal::coded(answer.error_code, &place, answer.error_message.as_deref()));
            }
            if answer.session_lifetime_ms > 0 {
                let life = Duration::from_millis(answer.session_lifetime_ms.unsigned_abs()).mul_f64(SESSION_SHARE);
                self.session_until = Some(self.clock.now().mono + life);
            }
            match authenticator.process_challenge(&answer.auth_bytes).await {
                Ok(ChallengeResponse::Continue(bytes)) => next = bytes,
                Ok(ChallengeResponse::Done) => return Ok(()),
                _ => return Err(failed(&self.peer)),
            }
        }
    }
}
