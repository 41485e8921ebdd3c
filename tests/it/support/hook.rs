//! An HTTP server of one answer a connection: as scripted, in order, and then as its owner says. It keeps what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What the hook does with a request that it has read whole.
#[derive(Clone)]
pub(crate) enum Answer {
    /// This, and closes.
    Raw(String),
    /// What it says when nothing is scripted.
    Well,
    /// The same, and nobody learns of it.
    WellAndClose,
    Hang,
    Close,
}

/// An answer without a body.
pub(crate) fn status(line: &str) -> Answer {
    Answer::Raw(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n"))
}

/// An answer with a JSON body.
pub(crate) fn json(line: &str, body: &Value) -> Answer {
    let body = body.to_string();
    Answer::Raw(format!(
        "HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// 429, with `Retry-After` or without.
pub(crate) fn too_many(retry_after: Option<&str>) -> Answer {
    let header = retry_after.map(|value| format!("retry-after: {value}\r\n")).unwrap_or_default();
    Answer::Raw(format!("HTTP/1.1 429 Too Many Requests\r\n{header}content-length: 0\r\n\r\n"))
}

#[derive(Clone)]
pub(crate) struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let mut found = fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let first = found.next();
        assert!(found.next().is_none(), "{name} occurs twice");
        first
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

type Otherwise = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// The server; it ends with its owner.
pub(crate) struct Hook {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    _serving: JoinSet<()>,
}

impl Hook {
    /// Answers with these in order, then `200`.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Hook {
        Hook::start_with(answers, |_| status("200 OK")).await
    }

    /// Answers with these in order, then as `otherwise` says.
    pub(crate) async fn start_with(
        answers: impl IntoIterator<Item = Answer>,
        otherwise: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Hook {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let (seen, script) = (requests.clone(), answers.clone());
        let otherwise: Otherwise = Arc::new(otherwise);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, script.clone(), seen.clone(), otherwise.clone()));
            }
        });
        Hook { port, requests, answers, _serving: serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it was asked, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic while held").clone()
    }

    /// Answers so after what is scripted already.
    pub(crate) fn then(&self, answer: Answer) {
        self.answers.lock().expect("no panic while held").push_back(answer);
    }

    /// Its address, and this behind it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Request>>>,
    otherwise: Otherwise,
) {
    let Some(request) = read(&mut stream).await else { return };
    let scripted = script.lock().expect("no panic while held").pop_front().unwrap_or(Answer::Well);
    let answer = match scripted {
        Answer::Well => otherwise(&request),
        Answer::WellAndClose => {
            otherwise(&request);
            Answer::Close
        }
        scripted => scripted,
    };
    seen.lock().expect("no panic while held").push(request);
    match answer {
        Answer::Raw(text) => stream.write_all(text.as_bytes()).await.unwrap_or_default(),
        Answer::Hang => std::future::pending().await,
        Answer::Close | Answer::Well | Answer::WellAndClose => {}
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = split {
            let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
            let request = Request { head, body: bytes[end + 4..].to_vec() };
            let length = request.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
            if request.body.len() >= length {
                return Some(request);
            }
        }
        let mut chunk = [0; 4_096];
        let length = stream.read(&mut chunk).await.ok()?;
        if length == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..length]);
    }
}
