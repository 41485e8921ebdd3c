//! The `http` channel against servers of our own that do what servers do: answer, stall, break off, redirect, show certificates.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod egress;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journeyman::channel::Channel;
use journeyman::channel::http::{Http, HttpSettings};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::report::Phase;
use journeyman::journey::run::Reply;
use journeyman::journey::token::Token;
use journeyman::journey::value::Value;
use journeyman::secret::HeaderText;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::support::met::met;
use crate::support::{Scratch, block_on, wait_for};

const BOUND: Duration = Duration::from_secs(20);

/// What a server does once it has read a request.
#[derive(Clone)]
enum Act {
    /// Writes this.
    Say(Vec<u8>),
    /// Writes this if the request is for that path.
    SayAt(&'static str, Vec<u8>),
    /// Waits this long, then goes on.
    Wait(Duration),
    /// Waits as long as the other side does.
    Hang,
    /// Closes in order, and waits until the other side has seen it and done so too.
    Close,
    /// Closes with a reset: the request must have a body, whose last byte is then unread.
    Reset,
}
use Act::{Close, Hang, Reset, Say, SayAt, Wait};

/// A response with this status and body, on a connection that stays.
fn answer(status: &str, body: &str) -> Act {
    Say(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

fn redirect(path: &'static str, status: u16, location: &str) -> Act {
    let head = format!("HTTP/1.1 {status} There\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    SayAt(path, head.into_bytes())
}

/// A server on a port of its own. On connection n it plays the nth script, or the last: for each request its acts, or the last.
struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
    is_over: std::sync::atomic::AtomicBool,
}

impl Target {
    fn start(scripts: Vec<Vec<Vec<Act>>>) -> Target {
        Target::start_with(scripts, None)
    }

    fn always(acts: Vec<Act>) -> Target {
        Target::start(vec![vec![acts]])
    }

    fn start_with(scripts: Vec<Vec<Vec<Act>>>, tls: Option<Arc<rustls::ServerConfig>>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target { address: listener.local_addr().unwrap(), shared: Arc::default() };
        let shared = target.shared.clone();
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let n = shared.connections.fetch_add(1, Ordering::SeqCst);
                let (script, shared, tls) = (scripts[n.min(scripts.len() - 1)].clone(), shared.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => play(&mut tcp.try_clone().unwrap(), &tcp, &script, &shared),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        let socket = tcp.try_clone().unwrap();
                        play(&mut rustls::StreamOwned::new(connection, tcp), &socket, &script, &shared);
                    }
                });
            }
        });
        target
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn play(stream: &mut (impl Read + Write), socket: &TcpStream, script: &[Vec<Act>], shared: &Shared) {
    let mut unread = 0;
    for n in 0.. {
        let Some((request, left)) = read_request(stream, unread) else { return };
        unread = left;
        shared.requests.lock().unwrap().push(request.clone());
        for act in &script[n.min(script.len() - 1)] {
            match act {
                SayAt(path, _) if request.split(' ').nth(1) != Some(path) => {}
                Say(bytes) | SayAt(_, bytes) => {
                    if stream.write_all(bytes).and_then(|()| stream.flush()).is_err() {
                        return;
                    }
                }
                Wait(time) => std::thread::sleep(*time),
                Hang => {
                    let _ = stream.read_to_end(&mut Vec::new());
                    return;
                }
                Close => {
                    let _ = socket.shutdown(Shutdown::Write);
                    let _ = stream.read_to_end(&mut Vec::new());
                    shared.closed.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                // What is unread when a socket is closed makes the kernel answer with a reset.
                Reset => return,
            }
        }
    }
}

/// A request, and how much of it is still in the socket: the last byte of its body, if it has one.
fn read_request(stream: &mut impl Read, skip: usize) -> Option<(String, usize)> {
    stream.read_exact(&mut vec![0; skip]).ok()?;
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let left = usize::from(length > 0);
    let mut body = vec![0; length - left];
    stream.read_exact(&mut body).ok()?;
    Some((format!("{head}{}", String::from_utf8(body).unwrap()), left))
}

fn open(settings: HttpSettings) -> Http {
    journeyman::tls::init();
    Http::open(settings, Clock::system()).unwrap()
}

fn channel(url: &str) -> Http {
    open(HttpSettings { url: Some(url.parse().unwrap()), ..HttpSettings::default() })
}

fn outgoing() -> Outgoing {
    Outgoing {
        token: Token::from_bits(0x1234_5678_9abc_def0),
        url: None,
        method: None,
        path: None,
        query: Vec::new(),
        headers: Vec::new(),
        body: Vec::new(),
        content_type: None,
        fields: BTreeMap::new(),
        command: Vec::new(),
        timeout: BOUND,
        connected_since: None,
    }
}

fn with_body(body: &str) -> Outgoing {
    Outgoing { body: body.into(), content_type: Some("application/json"), ..outgoing() }
}

fn within(timeout: Duration, outgoing: Outgoing) -> Outgoing {
    Outgoing { timeout, ..outgoing }
}

fn names(phases: &[Phase]) -> Vec<&str> {
    phases.iter().map(|phase| phase.name.as_str()).collect()
}

fn took(reply: &Reply, name: &str) -> Duration {
    reply.phases.iter().find(|phase| phase.name == name).map(|phase| phase.took).unwrap()
}

/// The reply of a request that found the connection of the one before it: a moment passes until the pool has it back.
async fn until_reused(http: &Http, outgoing: &Outgoing) -> Reply {
    wait_for("a connection to be reused", BOUND, async || {
        let reply = http.request(outgoing).await.unwrap();
        (names(&reply.phases) == ["first_byte", "body"]).then_some(reply)
    })
    .await
}

#[test]
fn a_message_goes_out_whole_and_its_phases_add_up() {
    block_on(async {
        let target = Target::always(vec![answer("202 Accepted", r#"{"sid":"a1"}"#)]);
        let http = open(HttpSettings {
            url: Some(format!("http://localhost:{}/v1/messages", target.address.port()).parse().unwrap()),
            headers: vec![("Authorization".to_owned(), HeaderText::Plain("Bearer g4te".to_owned()))],
            ..HttpSettings::default()
        });
        let reply = http.send(&with_body(r#"{"text":"jm"}"#)).await.unwrap();
        assert_eq!(reply.ack, "202 Accepted");
        let message = reply.message.as_ref().unwrap();
        assert_eq!((message.status, message.text().as_ref()), (Some(202), r#"{"sid":"a1"}"#));
        assert_eq!(message.header("content-length"), Some("12"));
        assert!(!message.facts.contains_key("certificate_expires") && !message.facts.contains_key("truncated"));
        assert_eq!(names(&reply.phases), ["dns", "connect", "first_byte", "body"]);
        let sum: Duration = reply.phases.iter().map(|phase| phase.took).sum();
        assert_eq!(sum, reply.finished.mono.since(reply.started.mono));

        let path = Some("/a1".to_owned());
        let headers = vec![("x-synthetic".to_owned(), "journeyman".to_owned())];
        until_reused(&http, &Outgoing { path, headers, ..outgoing() }).await;

        let requests = target.requests();
        assert!(requests[0].starts_with("POST /v1/messages HTTP/1.1\r\n"), "{}", requests[0]);
        assert!(requests[1].starts_with("GET /v1/messages/a1 HTTP/1.1\r\n"), "{}", requests[1]);
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            "content-type: application/json",
            "authorization: Bearer g4te",
            "traceparent: 00-0000000000000000123456789abcdef0-123456789abcdef0-01",
            &format!("user-agent: journeyman/{version}"),
            &format!("host: localhost:{}", target.address.port()),
        ] {
            assert!(requests[0].lines().any(|found| found == line), "{line:?} in {}", requests[0]);
        }
        assert!(requests[1].contains("\r\nx-synthetic: journeyman\r\n"));
        assert!(!requests[1].contains("content-type"));
    });
}

#[test]
fn a_new_connection_for_each_request_if_so_configured() {
    block_on(async {
        let target = Target::always(vec![answer("200 OK", "")]);
        let url = Some(target.url().parse().unwrap());
        let http = open(HttpSettings { url, new_connection: true, ..HttpSettings::default() });
        for _ in 0..3 {
            let reply = http.request(&outgoing()).await.unwrap();
            assert_eq!(names(&reply.phases), ["connect", "first_byte", "body"], "an address needs no DNS");
        }
        assert_eq!(target.connections(), 3);
    });
}

#[test]
fn where_the_time_went_is_told_apart() {
    block_on(async {
        // So long that a busy machine does not stall for half of it elsewhere.
        let (pause, half) = (Duration::from_millis(800), Duration::from_millis(400));
        let head = Say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n".to_vec());
        let target = Target::always(vec![Wait(pause), answer("200 OK", "slow")]);
        let slow_head = channel(&target.url()).request(&outgoing()).await.unwrap();
        assert!(took(&slow_head, "first_byte") >= half && took(&slow_head, "body") < half, "{slow_head:?}");
        let target = Target::always(vec![head, Wait(pause), Say(b"body".to_vec())]);
        let slow_body = channel(&target.url()).request(&outgoing()).await.unwrap();
        assert!(took(&slow_body, "first_byte") < half && took(&slow_body, "body") >= half, "{slow_body:?}");
        assert_eq!(slow_body.message.unwrap().text(), "body");
    });
}

#[test]
fn a_status_is_an_answer_and_no_fault() {
    block_on(async {
        for (status, ack) in
            [("204 No Content", "204 No Content"), ("503 Busy", "503 Service Unavailable"), ("299 X", "299")]
        {
            let target = Target::always(vec![answer(status, "")]);
            let reply = channel(&target.url()).send(&with_body("{}")).await.unwrap();
            assert_eq!(reply.ack, ack);
            assert_eq!(reply.message.unwrap().status.unwrap().to_string(), status[..3]);
        }
    });
}

#[test]
fn a_body_is_read_up_to_a_mebibyte() {
    block_on(async {
        for (length, kept, is_cut) in
            [(1 << 20, 1 << 20, false), ((1 << 20) + 1, 1 << 20, true), (5 << 20, 1 << 20, true)]
        {
            let target = Target::always(vec![answer("200 OK", &"x".repeat(length))]);
            let message = channel(&target.url()).request(&outgoing()).await.unwrap().message.unwrap();
            assert_eq!(message.body.len(), kept);
            assert_eq!(message.facts.get("truncated"), is_cut.then_some(&Value::Bool(true)));
        }
    });
}

#[test]
fn a_server_that_hangs_is_waited_for_as_long_as_allowed_and_the_send_is_uncertain() {
    block_on(async {
        let target = Target::always(vec![Hang]);
        let limit = Duration::from_millis(200);
        let http = channel(&target.url());
        let fault = http.send(&within(limit, with_body("{}"))).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true));
        assert!(fault.detail.contains("no response") && fault.detail.contains("within 200ms"), "{}", fault.detail);
        let waited = fault.finished.mono.since(fault.started.mono);
        assert!(waited >= limit && waited < limit * 5, "{waited:?}");
        assert_eq!(names(&fault.phases), ["connect", "first_byte"]);
        let half = Say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec());
        let target = Target::always(vec![half, Hang]);
        let fault = channel(&target.url()).request(&within(limit, outgoing())).await.unwrap_err();
        assert!(fault.uncertain && fault.detail.contains("not complete within"), "{}", fault.detail);
        assert_eq!(names(&fault.phases), ["connect", "first_byte", "body"]);
    });
}

#[test]
fn a_connection_that_breaks_is_uncertain_once_it_stood() {
    block_on(async {
        let half = || Say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec());
        for (acts, words) in [
            (vec![Reset], "without a response"),
            (vec![Close], "without a response"),
            (vec![half(), Reset], "in the middle of its response"),
            (vec![half(), Close], "in the middle of its response"),
        ] {
            let target = Target::always(acts);
            let fault = channel(&target.url()).send(&with_body("{}")).await.unwrap_err();
            assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true), "{}", fault.detail);
            assert!(fault.detail.contains(words), "{}", fault.detail);
            assert!(fault.detail.contains(&target.address.to_string()), "{}", fault.detail);
            assert_eq!(target.requests().len(), 1, "never sent twice");
        }
    });
}

#[test]
fn what_never_left_is_certain() {
    block_on(async {
        let port = crate::support::free_port();
        let fault = channel(&format!("http://127.0.0.1:{port}")).send(&with_body("{}")).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false));
        assert!(fault.detail.contains("refused the connection"), "{}", fault.detail);
        assert_eq!(names(&fault.phases), ["connect"]);

        // A label of more than 63 bytes (RFC 1035 section 2.3.4) fails before any name server is asked.
        let fault = channel(&format!("http://{}/", "a".repeat(64))).send(&with_body("{}")).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false));
        assert!(fault.detail.contains("cannot be resolved"), "{}", fault.detail);
        assert_eq!(names(&fault.phases), ["dns"]);

        let path = Some("/..".to_owned());
        let fault = channel("http://127.0.0.1/x").request(&Outgoing { path, ..outgoing() }).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Mismatch, false));
    });
}

#[test]
fn what_is_not_http_is_a_mismatch() {
    block_on(async {
        let target = Target::always(vec![Say(b"220 mail.example.net ESMTP\r\n".to_vec()), Hang]);
        let fault = channel(&target.url()).request(&outgoing()).await.unwrap_err();
        assert_eq!(fault.cause, Cause::Mismatch, "{}", fault.detail);
        assert!(fault.detail.contains("not HTTP"), "{}", fault.detail);
    });
}

#[test]
fn a_connection_that_the_server_closed_between_runs_is_no_failure() {
    block_on(async {
        let target = Target::always(vec![answer("200 OK", ""), Close]);
        let http = channel(&target.url());
        for n in 0..30 {
            let reply = http.send(&with_body("{}")).await.unwrap();
            assert_eq!(names(&reply.phases), ["connect", "first_byte", "body"]);
            wait_for("the client to see the connection closed", BOUND, async || {
                (target.shared.closed.load(Ordering::SeqCst) > n).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_server_that_closes_as_we_write_is_asked_again_only_if_that_is_safe() {
    block_on(async {
        // Every connection answers once and closes when it has read a second request.
        let target = Target::start(vec![vec![vec![answer("200 OK", "fine")], vec![Close]]]);
        let http = channel(&target.url());
        let stale = || target.shared.closed.load(Ordering::SeqCst);
        wait_for("a request to meet a closing connection", BOUND, async || {
            let reply = http.request(&outgoing()).await.unwrap();
            assert_eq!(reply.message.unwrap().text(), "fine");
            assert_eq!(names(&reply.phases), ["connect", "first_byte", "body"]);
            (stale() > 0).then_some(())
        })
        .await;

        let target = Target::start(vec![vec![vec![answer("200 OK", "fine")], vec![Close]]]);
        let http = channel(&target.url());
        let sent = AtomicUsize::new(0);
        let fault = wait_for("a message to meet a closing connection", BOUND, async || {
            sent.fetch_add(1, Ordering::SeqCst);
            http.send(&with_body("{}")).await.err()
        })
        .await;
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true));
        assert_eq!(names(&fault.phases), ["first_byte"]);
        assert_eq!(target.requests().len(), sent.into_inner(), "a message is never sent twice");

        // On a connection of its own it is no accident of ours, and is told.
        let target = Target::start(vec![vec![vec![Close]], vec![vec![answer("200 OK", "")]]]);
        assert!(channel(&target.url()).request(&outgoing()).await.is_err());
    });
}

#[test]
fn redirects_are_followed_only_as_far_as_configured_and_without_credentials() {
    block_on(async {
        let end = Target::always(vec![answer("200 OK", "end")]);
        let end_url = format!("{}/end", end.url());
        let start = Target::always(vec![redirect("/start", 307, "/next"), redirect("/next", 302, &end_url)]);
        let following = |redirects| {
            open(HttpSettings {
                url: Some(format!("{}/start", start.url()).parse().unwrap()),
                headers: vec![("x-api-key".to_owned(), HeaderText::Plain("k3y".to_owned()))],
                redirects,
                ..HttpSettings::default()
            })
        };
        let reply = following(0).send(&with_body("{}")).await.unwrap();
        assert_eq!(reply.message.unwrap().status, Some(307));
        let reply = following(2).send(&with_body("{}")).await.unwrap();
        assert_eq!(reply.message.unwrap().text(), "end");
        let fault = following(1).send(&with_body("{}")).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Refused, false));
        assert!(fault.detail.contains("1 redirects"), "{}", fault.detail);

        let requests = start.requests();
        assert!(requests[1].starts_with("POST /start ") && requests[2].starts_with("POST /next "), "{requests:?}");
        assert!(requests[2].contains("x-api-key: k3y"));
        let at_end = end.requests();
        assert_eq!(at_end.len(), 1);
        assert!(at_end[0].starts_with("GET /end ") && at_end[0].contains("traceparent: 00-"), "{at_end:?}");
        assert!(!at_end[0].contains("k3y") && !at_end[0].contains("content-type"), "{at_end:?}");

        let gone = format!("http://127.0.0.1:{}/", crate::support::free_port());
        let start = Target::always(vec![redirect("/", 307, &gone)]);
        let url = Some(start.url().parse().unwrap());
        let http = open(HttpSettings { url, redirects: 3, ..HttpSettings::default() });
        let fault = http.send(&with_body("{}")).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true), "{}", fault.detail);
    });
}

/// An authority of our own, and servers with certificates from it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_file: PathBuf,
    _scratch: Scratch,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let scratch = Scratch::new("http-ca");
        let ca_file = scratch.write("ca.pem", &certificate.pem());
        Authority { issuer: Issuer::new(params, key), ca_file, _scratch: scratch }
    }

    /// A certificate for `name` that expires at the beginning of `year`.
    fn certificate(&self, name: &str, year: i32) -> CertifiedKey {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name, year).signed_by(&key, &self.issuer).unwrap();
        certified(certificate.der().clone(), &key)
    }

    fn channel(&self, target: &Target, new_connection: bool) -> Http {
        open(HttpSettings {
            url: Some(format!("https://localhost:{}", target.address.port()).parse().unwrap()),
            ca_file: Some(self.ca_file.clone()),
            new_connection,
            ..HttpSettings::default()
        })
    }
}

fn params(name: &str, year: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    params
}

fn certified(certificate: CertificateDer<'static>, key: &KeyPair) -> CertifiedKey {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::from_der(vec![certificate], key, &rustls::crypto::ring::default_provider()).unwrap()
}

/// Shows the first certificate on the first connection, and so on; the last on all that follow.
#[derive(Debug)]
struct Rotation {
    certificates: Vec<Arc<CertifiedKey>>,
    shown: AtomicUsize,
}

impl ResolvesServerCert for Rotation {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let n = self.shown.fetch_add(1, Ordering::SeqCst);
        self.certificates.get(n).or(self.certificates.last()).cloned()
    }
}

/// A server that answers 200, and hands out sessions to be resumed, as servers do.
fn serve_tls(certificates: Vec<CertifiedKey>) -> Target {
    journeyman::tls::init();
    let certificates = certificates.into_iter().map(Arc::new).collect();
    let rotation = Rotation { certificates, shown: AtomicUsize::new(0) };
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(rotation));
    Target::start_with(vec![vec![vec![answer("200 OK", "safe")]]], Some(Arc::new(config)))
}

#[test]
fn tls_is_timed_and_the_certificate_is_seen_on_every_connection() {
    block_on(async {
        let authority = Authority::new("ours");
        let target = serve_tls(vec![authority.certificate("localhost", 2091)]);
        let http = authority.channel(&target, false);
        let reply = http.request(&outgoing()).await.unwrap();
        assert_eq!(names(&reply.phases), ["dns", "connect", "tls", "first_byte", "body"]);
        let sum: Duration = reply.phases.iter().map(|phase| phase.took).sum();
        assert_eq!(sum, reply.finished.mono.since(reply.started.mono));
        let expires = Value::from("2091-01-01T00:00:00Z");
        assert_eq!(reply.message.unwrap().facts["certificate_expires"], expires);
        let reused = until_reused(&http, &outgoing()).await;
        assert_eq!(reused.message.unwrap().facts["certificate_expires"], expires);
    });
}

#[test]
fn whom_it_met_is_noted_also_where_the_connection_is_kept_and_where_it_is_not_trusted() {
    block_on(async {
        let authority = Authority::new("ours");
        let (first, second) = (authority.certificate("localhost", 2091), authority.certificate("localhost", 2092));
        let target = serve_tls(vec![first, second, authority.certificate("localhost", 2021)]);
        let http = authority.channel(&target, true);
        let (reply, was) = met(http.request(&outgoing())).await;
        assert_eq!(reply.unwrap().ack, "200 OK");
        assert_eq!((was["peer"].as_str(), was["tls"].as_str()), (target.address.to_string().as_str(), "TLSv1.3"));
        assert!(was["addresses"].split(", ").any(|address| address == "127.0.0.1"), "{was:?}");
        assert!(was["certificate"].starts_with("until 2091-01-01T00:00:00Z, serial "), "{was:?}");
        assert!(was["certificate"].ends_with(", from ours"), "{was:?}");
        let (_, is) = met(http.request(&outgoing())).await;
        assert!(is["certificate"].starts_with("until 2092-01-01T00:00:00Z, serial "), "{is:?}");
        assert_ne!(is["certificate"].split(", ").nth(1), was["certificate"].split(", ").nth(1));
        let (refused, expired) = met(http.request(&outgoing())).await;
        assert_eq!(refused.unwrap_err().cause, Cause::Tls);
        assert!(expired["certificate"].starts_with("until 2021-01-01T00:00:00Z, serial "), "{expired:?}");
        assert!(!expired.contains_key("tls"), "a certificate that is not trusted is no TLS: {expired:?}");
    });
}

#[test]
fn the_server_that_answers_is_noted_on_every_connection() {
    block_on(async {
        let say = |server: &str| {
            Say(format!("HTTP/1.1 500 No\r\nserver: {server}\r\ncontent-length: 0\r\n\r\n").into_bytes())
        };
        // A second connection may have been begun before the first was given back; what is first asked on it is no first question.
        let (before, after) = (vec![say("nginx/1.24")], vec![say("nginx/1.25")]);
        let target = Target::start(vec![vec![before, after.clone()], vec![after]]);
        let http = open(HttpSettings { url: Some(target.url().parse().unwrap()), ..HttpSettings::default() });
        let (_, was) = met(http.request(&outgoing())).await;
        let expected = [("peer", target.address.to_string()), ("server", "nginx/1.24".to_owned())];
        assert_eq!(was, BTreeMap::from(expected), "an address stands for itself");
        let (_, is) = met(until_reused(&http, &outgoing())).await;
        assert_eq!((&is["peer"], is["server"].as_str()), (&was["peer"], "nginx/1.25"));
    });
}

#[test]
fn no_session_is_resumed_so_that_todays_certificate_is_the_one_judged() {
    block_on(async {
        let authority = Authority::new("ours");
        let (first, second) = (authority.certificate("localhost", 2091), authority.certificate("localhost", 2092));
        let target = serve_tls(vec![first, second, authority.certificate("localhost", 2021)]);
        let http = authority.channel(&target, true);
        for expires in ["2091-01-01T00:00:00Z", "2092-01-01T00:00:00Z"] {
            let message = http.request(&outgoing()).await.unwrap().message.unwrap();
            assert_eq!(message.facts["certificate_expires"], Value::from(expires));
        }
        assert_eq!(http.request(&outgoing()).await.unwrap_err().cause, Cause::Tls);
    });
}

#[test]
fn certificates_that_are_not_right_are_a_tls_failure_before_anything_left() {
    block_on(async {
        let authority = Authority::new("ours");
        let key = KeyPair::generate().unwrap();
        let self_signed = params("localhost", 2090).self_signed(&key).unwrap();
        let cases = [
            (authority.certificate("localhost", 2021), "has expired"),
            (authority.certificate("elsewhere.example", 2090), "for another name"),
            (certified(self_signed.der().clone(), &key), "not trusted"),
            (Authority::new("theirs").certificate("localhost", 2090), "not trusted"),
        ];
        for (certificate, words) in cases {
            let target = serve_tls(vec![certificate]);
            let fault = authority.channel(&target, false).send(&with_body("{}")).await.unwrap_err();
            assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{}", fault.detail);
            assert!(fault.detail.contains(words), "{}", fault.detail);
            assert_eq!(names(&fault.phases), ["dns", "connect", "tls"]);
            assert!(target.requests().is_empty());
        }
        // Without `ca_file` the system's authorities do not know ours.
        let target = serve_tls(vec![authority.certificate("localhost", 2090)]);
        let url = format!("https://localhost:{}", target.address.port());
        let fault = channel(&url).send(&with_body("{}")).await.unwrap_err();
        assert!(fault.cause == Cause::Tls && fault.detail.contains("`ca_file`"), "{}", fault.detail);
    });
}

#[test]
fn a_server_that_does_not_speak_tls_is_told_as_such() {
    block_on(async {
        let limit = Duration::from_millis(300);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = channel(&format!("https://{}", silent.local_addr().unwrap()));
        let fault = http.send(&within(limit, with_body("{}"))).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false));
        assert!(fault.detail.contains("TLS handshake"), "{}", fault.detail);
        assert_eq!(names(&fault.phases), ["connect", "tls"]);

        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = plain.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
                let (mut stream, _) = plain.accept().unwrap();
                let _ = stream.write_all(bytes);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        for _ in 0..2 {
            let fault = channel(&format!("https://{address}")).send(&with_body("{}")).await.unwrap_err();
            assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{}", fault.detail);
        }
        serving.join().unwrap();
    });
}

#[test]
fn certificates_that_cannot_be_read_are_told_at_once() {
    journeyman::tls::init();
    let scratch = Scratch::new("http-bad-ca");
    let told = |path: PathBuf| {
        let settings = HttpSettings { ca_file: Some(path), ..HttpSettings::default() };
        Http::open(settings, Clock::system()).err().unwrap()
    };
    assert!(told(scratch.path().join("missing.pem")).contains("missing.pem"));
    assert!(told(scratch.write("empty.pem", "no certificate\n")).contains("PEM"));
    let bent = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(told(scratch.write("bent.pem", bent)).contains("bent.pem"));
}
