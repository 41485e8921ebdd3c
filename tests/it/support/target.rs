//! The system that is watched: parts that are well, fail, or hang, as the test says.

use std::sync::{Arc, Mutex};

use axum::extract::Path;
use axum::http::StatusCode;
use tokio::task::JoinSet;

/// How a part answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// 204.
    #[default]
    Well,
    /// 500.
    Fails,
    /// Never.
    Hangs,
}

/// The target; it ends with its owner.
pub struct Target {
    url: String,
    parts: Arc<Mutex<Vec<(Mode, usize)>>>,
    _server: JoinSet<()>,
}

impl Target {
    /// A target whose `parts` are all well, on a loopback port of its own. Part `n` is at `/n`.
    pub async fn start(parts: usize) -> Target {
        let parts = Arc::new(Mutex::new(vec![(Mode::Well, 0); parts]));
        let shared = parts.clone();
        let answer = async move |Path(part): Path<usize>| {
            let mode = {
                let mut parts = shared.lock().expect("no panic while held");
                let (mode, requests) = &mut parts[part];
                *requests += 1;
                *mode
            };
            match mode {
                Mode::Well => StatusCode::NO_CONTENT,
                Mode::Fails => StatusCode::INTERNAL_SERVER_ERROR,
                Mode::Hangs => std::future::pending().await,
            }
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        let router = axum::Router::new().route("/{part}", axum::routing::get(answer));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it is not told to stop") });
        Target { url, parts, _server: server }
    }

    /// Its root, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on `part` answers like this.
    pub fn set(&self, part: usize, mode: Mode) {
        self.parts.lock().expect("no panic while held")[part].0 = mode;
    }

    /// From now on all parts answer like this.
    pub fn set_all(&self, mode: Mode) {
        self.parts.lock().expect("no panic while held").iter_mut().for_each(|part| part.0 = mode);
    }

    /// How often `part` was asked.
    pub fn requests(&self, part: usize) -> usize {
        self.parts.lock().expect("no panic while held")[part].1
    }
}
