//! A Kafka listener that does nothing but SCRAM-SHA-256, from the server's side: RFC 5802 and RFC 7677, in Kafka's frames.
//! It is an old one: it knows `ApiVersions` only in version 0.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const API_VERSIONS: i16 = 18;
const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;
const METADATA: i16 = 3;
const UNSUPPORTED_VERSION: i16 = 35;
const SASL_AUTHENTICATION_FAILED: i16 = 58;
/// The least that RFC 7677 allows.
const ITERATIONS: u32 = 4_096;
const SALT: &[u8] = b"a fixed salt for the tests";

/// A listener that knows one user. Ends with its owner.
pub(crate) struct ScramListener {
    address: SocketAddr,
    let_in: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl ScramListener {
    /// On a free port of the loopback.
    pub(crate) async fn start(user: &'static str, password: &'static str) -> ScramListener {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let let_in = Arc::new(AtomicU32::new(0));
        let mut tasks = JoinSet::new();
        let count = let_in.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, user, password, count.clone()));
            }
        });
        ScramListener { address, let_in, _tasks: tasks }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many have proved who they are.
    pub(crate) fn let_in(&self) -> u32 {
        self.let_in.load(Ordering::SeqCst)
    }
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}

/// `Hi` of RFC 5802: PBKDF2 for one block.
fn salted(password: &str) -> Vec<u8> {
    let mut last = hmac(password.as_bytes(), &[SALT, &[0, 0, 0, 1]].concat());
    let mut salted = last.clone();
    for _ in 1..ITERATIONS {
        last = hmac(password.as_bytes(), &last);
        salted = xor(&salted, &last);
    }
    salted
}

async fn serve(mut stream: TcpStream, user: &str, password: &str, let_in: Arc<AtomicU32>) {
    let (mut said, mut nonce) = (String::new(), String::new());
    loop {
        let Ok(length) = stream.read_u32().await else { return };
        let mut frame = vec![0; length as usize];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let short = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
        let (api, version, correlation) = (short(0), short(2), &frame[4..8]);
        // The client's name; none of the versions spoken here has tags after it.
        let body = &frame[10 + usize::try_from(short(8)).unwrap_or_default()..];
        let answer = match api {
            API_VERSIONS if version > 0 => [&UNSUPPORTED_VERSION.to_be_bytes()[..], &[0; 4]].concat(),
            API_VERSIONS => {
                let known = [(SASL_HANDSHAKE, 1), (SASL_AUTHENTICATE, 1), (METADATA, 4)];
                let known = known.map(|(api, version): (i16, i16)| {
                    [api.to_be_bytes(), version.to_be_bytes(), version.to_be_bytes()].concat()
                });
                [vec![0, 0, 0, 0, 0, 3], known.concat()].concat()
            }
            SASL_HANDSHAKE => vec![0, 0, 0, 0, 0, 0],
            SASL_AUTHENTICATE => {
                let message = String::from_utf8_lossy(&body[4..]).into_owned();
                match message.strip_prefix("n,,") {
                    Some(first) => {
                        let (name, theirs) = first.split_once(",r=").expect("name and nonce");
                        assert_eq!(name, format!("n={user}"));
                        nonce = format!("{theirs}and-ours");
                        let challenge = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(SALT));
                        said = format!("{first},{challenge}");
                        authenticated(0, challenge.as_bytes())
                    }
                    None => {
                        let (without_proof, proof) = message.rsplit_once(",p=").expect("a proof");
                        let signed = format!("{said},{without_proof}");
                        let salted = salted(password);
                        let client_key = hmac(&salted, b"Client Key");
                        let signature = hmac(&Sha256::digest(&client_key), signed.as_bytes());
                        let is_right = without_proof == format!("c=biws,r={nonce}")
                            && STANDARD.decode(proof).is_ok_and(|proof| proof == xor(&client_key, &signature));
                        if is_right {
                            let_in.fetch_add(1, Ordering::SeqCst);
                            let ours = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
                            authenticated(0, format!("v={}", STANDARD.encode(ours)).as_bytes())
                        } else {
                            authenticated(SASL_AUTHENTICATION_FAILED, b"")
                        }
                    }
                }
            }
            // It knows no topics: whoever has come this far is let go.
            _ => return,
        };
        let length = u32::try_from(answer.len() + 4).expect("it is short");
        let answer = [&length.to_be_bytes()[..], correlation, &answer].concat();
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// A `SaslAuthenticate` answer, version 1: code, no words, bytes, a session without end.
fn authenticated(code: i16, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("it is short");
    [&code.to_be_bytes()[..], &[0xff, 0xff], &length.to_be_bytes(), bytes, &[0; 8]].concat()
}
