//! HTTP: every verb, every phase timed. A status is an answer, not a fault: the run judges it.

mod fault;
mod guard;
mod phases;
mod request;

#[cfg(any(test, fuzzing))]
pub(crate) use request::fuzz;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{HeaderMap, LOCATION, SERVER};
use reqwest::{Client, Response, StatusCode};
use rustls::ClientConfig;
use rustls::client::Resumption;
use url::Url;

use crate::channel::http::fault::{Reached, Signs, Verdict};
use crate::channel::http::guard::Chosen;
use crate::channel::http::phases::{Laps, NoSessions, Resolver, Stage, Timing, Watch};
use crate::channel::http::request::Request;
use crate::channel::seen::LastPeer;
use crate::channel::{Channel, Listener, cannot, certificate, seen};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::seen::What;
use crate::journey::value::Value;
use crate::secret::HeaderText;

/// Settings of an `http` channel.
#[derive(Clone, Default)]
pub struct HttpSettings {
    /// What a step's `path` is appended to. The channel behind a step that names a whole URL has none.
    pub url: Option<Url>,
    /// Sent with every request to the origin of `url`; to every origin if there is no `url`.
    pub headers: Vec<(String, HeaderText)>,
    /// How many redirects are followed; none unless configured.
    pub redirects: usize,
    /// Hosts that a redirect may lead to wherever they are, beside the one that was asked; others must be public.
    pub redirect_hosts: Vec<String>,
    /// Whether each request opens a connection of its own, so that DNS, connect and TLS are measured every time.
    pub new_connection: bool,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Without the password that `url` may hold.
impl fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.as_ref().and_then(Url::host_str);
        f.debug_struct("HttpSettings").field("host", &host).field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// An `http` channel.
pub struct Http {
    settings: HttpSettings,
    clock: Clock,
    client: Client,
    /// Never reuses a connection.
    fresh: Client,
    /// The same, and goes only to public addresses.
    guarded: Client,
    peer: LastPeer,
}

impl Http {
    /// Opens the channel. Reads `ca_file` and the system's certificates; touches no network.
    ///
    /// # Errors
    /// In words: certificates that cannot be read.
    pub fn open(settings: HttpSettings, clock: Clock) -> Result<Http, String> {
        crate::tls::init();
        let tls = tls_config(&settings)?;
        let client = |idle_connections, chosen| {
            Client::builder()
                .user_agent(concat!("journeyman/", env!("CARGO_PKG_VERSION")))
                .tls_backend_preconfigured(tls.clone())
                .tls_info(true)
                .dns_resolver(Resolver(chosen))
                .connector_layer(Timing)
                // A proxy from the environment would be measured instead of the system.
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(idle_connections)
                .pool_idle_timeout(IDLE)
                .build()
                .map_err(|error| format!("the HTTP client cannot be built: {}", Signs::read(&error).words()))
        };
        let (fresh, guarded) = (client(0, Chosen::ByUs)?, client(0, Chosen::ByThem)?);
        let client = if settings.new_connection { fresh.clone() } else { client(usize::MAX, Chosen::ByUs)? };
        Ok(Http { settings, clock, client, fresh, guarded, peer: LastPeer::default() })
    }

    async fn exchange(&self, outgoing: &Outgoing, is_request: bool) -> Result<Reply, Fault> {
        let request = Request::prepare(&self.settings, outgoing, is_request).map_err(|detail| {
            let now = self.clock.now();
            let cause = Cause::Mismatch;
            Fault { started: now, finished: now, cause, detail, uncertain: false, phases: Vec::new() }
        })?;
        let limit = outgoing.timeout;
        // The pool does not tell how old its connections are, so what must not be old has one of its own.
        let client = if outgoing.connected_since.is_some() { &self.fresh } else { &self.client };
        let mut course = Course { target: request.target(), was_redirected: false };
        let started = self.clock.now();
        let watch = Watch::begin(self.clock, started.mono);
        let answer = tokio::time::timeout(limit, watch.over(self.follow(client, request, &watch, &mut course))).await;
        let finished = self.clock.now();
        let laps = watch.laps();
        let reached = Reached { stage: laps.stage(), was_redirected: course.was_redirected };
        let phases = laps.phases(finished.mono);
        let verdict = match answer {
            Ok(Ok(answer)) => return Ok(answer.reply(started, finished, phases)),
            Ok(Err(Broken::Transport(error))) => fault::judge(&Signs::read(&error), reached, &course.target),
            Ok(Err(Broken::Redirect(detail))) => Verdict { cause: Cause::Refused, uncertain: false, detail },
            Err(_) => fault::judge_timeout(reached, limit, &course.target),
        };
        let Verdict { cause, uncertain, detail } = verdict;
        Err(Fault { started, finished, cause, detail, uncertain, phases })
    }

    async fn follow(
        &self,
        client: &Client,
        mut request: Request,
        watch: &Watch,
        course: &mut Course,
    ) -> Result<Answer, Broken> {
        let mut followed = 0;
        loop {
            let response = self.attempt(client, &request, watch).await?;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = match self.settings.redirects {
                0 => None,
                _ => {
                    let hosts = &self.settings.redirect_hosts;
                    request.redirected(response.status(), location, hosts).map_err(Broken::Redirect)?
                }
            };
            let Some(next) = next else {
                if let Some(peer) = response.remote_addr() {
                    self.peer.note(peer);
                }
                return Answer::read(response, watch).await;
            };
            if followed == self.settings.redirects {
                return Err(Broken::Redirect(format!(
                    "{} redirected once more after {followed} redirects, which is as many as the channel follows",
                    course.target
                )));
            }
            followed += 1;
            *course = Course { target: next.target(), was_redirected: true };
            watch.mark(Laps::again);
            if let Err(forbidden) = next.chosen.judge_literal(&next.url) {
                return Err(Broken::Redirect(format!("redirected to an address where we do not go: {forbidden}")));
            }
            request = next;
        }
    }

    /// One request, one response's head.
    async fn attempt(&self, client: &Client, request: &Request, watch: &Watch) -> Result<Response, Broken> {
        let client = match request.chosen {
            Chosen::ByUs => client,
            Chosen::ByThem => &self.guarded,
        };
        let error = match submit(client, request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        // A server may close a kept-alive connection at the very moment that we write to it. That says nothing about the
        // system, and RFC 9112 section 9.3.1 lets a request without side effects be repeated. Others are told as uncertain.
        let is_stale = watch.mark(|laps, _| laps.stage() == Stage::FirstByte && !laps.has_connected())
            && Signs::read(&error).is_closed();
        if !(is_stale && request.is_safe()) {
            return Err(Broken::Transport(error));
        }
        watch.mark(Laps::again);
        submit(&self.fresh, request).await.map_err(Broken::Transport)
    }
}

impl Channel for Http {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.exchange(outgoing, false))
    }

    fn request<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.exchange(outgoing, true))
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "there is nothing to check here; use a `request`"))))
    }

    /// Any answer proves that it is there; what a request may do is the journey's business, so we ask `OPTIONS`, which is safe
    /// and which nobody counts (RFC 9110 section 9.3.7). Credentials that are refused are told.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            if self.settings.url.is_none() {
                return Ok("nothing to prove: each request has an address of its own".to_owned());
            }
            let outgoing = Outgoing { method: Some("OPTIONS".to_owned()), ..Outgoing::empty(limit) };
            let reply = self.exchange(&outgoing, true).await?;
            let status = reply.message.as_ref().and_then(|message| message.status).unwrap_or_default();
            let Reply { started, finished, ack, phases, .. } = reply;
            match Cause::of_status(status) {
                Some(cause @ Cause::Auth) => {
                    let detail = format!("it is there, and answers {ack}: the credentials in `headers` are not taken");
                    Err(Fault { started, finished, cause, detail, uncertain: false, phases })
                }
                _ => Ok(format!("it is there, and answers OPTIONS with {ack}")),
            }
        })
    }

    /// HTTP is asked, it does not call: nothing arrives here.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { listener.stop.cancelled().await })
    }
}

/// Whom an exchange is with by now.
struct Course {
    target: String,
    was_redirected: bool,
}

/// Why there is no answer.
enum Broken {
    Transport(reqwest::Error),
    Redirect(String),
}

async fn submit(client: &Client, request: &Request) -> Result<Response, reqwest::Error> {
    let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
    if !request.body.is_empty() {
        builder = builder.body(request.body.clone());
    }
    builder.send().await
}

/// A response, read.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    is_truncated: bool,
    certificate_expires: Option<jiff::Timestamp>,
}

impl Answer {
    async fn read(mut response: Response, watch: &Watch) -> Result<Answer, Broken> {
        watch.mark(|laps, at| laps.go_on(Stage::Body, at));
        let peer = response.extensions().get::<reqwest::tls::TlsInfo>().and_then(|info| info.peer_certificate());
        if let Some(der) = peer {
            seen::note_certificate(der);
        }
        let certificate_expires = peer.and_then(certificate::not_after);
        let server = response.headers().get(SERVER).map(|value| String::from_utf8_lossy(value.as_bytes()));
        seen::note(What::Server, &server.unwrap_or_default());
        let mut body = Vec::new();
        let mut is_truncated = false;
        while let Some(chunk) = response.chunk().await.map_err(Broken::Transport)? {
            let room = MAX_BODY - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                is_truncated = true;
                break;
            }
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(Answer { status: response.status(), headers, body, is_truncated, certificate_expires })
    }

    fn reply(
        self,
        started: crate::time::Now,
        finished: crate::time::Now,
        phases: Vec<crate::journey::report::Phase>,
    ) -> Reply {
        let mut message = Message::new(self.body);
        message.status = Some(self.status.as_u16());
        message.headers = (self.headers.iter())
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        if self.is_truncated {
            message.facts.insert("truncated", Value::Bool(true));
        }
        if let Some(at) = self.certificate_expires {
            message.facts.insert("certificate_expires", Value::Text(at.to_string()));
        }
        let ack = match self.status.canonical_reason() {
            Some(reason) => format!("{} {reason}", self.status.as_u16()),
            None => self.status.as_u16().to_string(),
        };
        Reply { started, finished, ack, message: Some(message), phases }
    }
}

fn tls_config(settings: &HttpSettings) -> Result<ClientConfig, String> {
    let needs_roots = settings.url.as_ref().is_none_or(|url| url.scheme() == "https");
    let mut config = match crate::channel::seen::tls_client(settings.ca_file.as_deref()) {
        Err(_) if !needs_roots => crate::tls::client_without_roots()?,
        config => config?,
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::store(Arc::new(NoSessions));
    Ok(config)
}

/// A response body is read this far.
const MAX_BODY: usize = 1 << 20;
/// A connection is reused only this long after its last response: one second less than Node.js and Apache httpd keep one,
/// the shortest of the usual servers, so that ours is never the request that meets a closing connection.
const IDLE: Duration = Duration::from_secs(4);
