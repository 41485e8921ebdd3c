//! Systems to ask: nginx that answers at once, a server that holds each request and times itself, and one that never answers.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Processes, free_port, wait_for_port};

/// nginx with one worker, which answers every path at once.
pub(crate) struct Nginx {
    port: u16,
    processes: Processes,
}

impl Nginx {
    pub(crate) fn start(place: &Path) -> Nginx {
        let port = free_port();
        let root = place.display();
        let text = format!(
            "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/nginx.log;\n\
             events {{ worker_connections 16384; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; default_type text/plain;\n\
             client_body_temp_path {root}/1; proxy_temp_path {root}/2; fastcgi_temp_path {root}/3; uwsgi_temp_path {root}/4; scgi_temp_path {root}/5;\n\
             server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ return 200 \"ok\\n\"; }} location = /status {{ stub_status; }} }} }}\n"
        );
        let path = place.join("nginx.conf");
        std::fs::write(&path, text).expect("a file");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&path).arg("-p").arg(place);
        let processes = Processes::start([command]);
        wait_for_port(port);
        Nginx { port, processes }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.processes.pids()[0]
    }

    /// How many requests it has answered.
    pub(crate) fn answered(&self) -> f64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        let line = text.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1).expect("counts");
        line.split_whitespace().nth(2).and_then(|count| count.parse().ok()).expect("a count")
    }
}

/// A server that holds each request for a while, and notes for how long it did.
pub(crate) struct Timed {
    port: u16,
    requests: Arc<Mutex<Requests>>,
}

/// When each request to a path had been read, and how long it was held, in seconds.
type Requests = HashMap<String, Vec<(Instant, f64)>>;

impl Timed {
    pub(crate) fn start(holds: Duration) -> Timed {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::<Mutex<Requests>>::default();
        let notes = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = notes.clone();
                std::thread::spawn(move || serve(stream, holds, &notes));
            }
        });
        Timed { port, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// How long each request to a path was held so far, in seconds and in order.
    pub(crate) fn held(&self, path: &str) -> Vec<f64> {
        let requests = self.requests.lock().expect("nobody panics");
        requests.get(path).into_iter().flatten().map(|(_, held)| *held).collect()
    }

    /// By how much the time from each request of a path to the next was off `every`, and by how much the last of each path was, in
    /// seconds, where nothing but the intervals counts.
    pub(crate) fn intervals(&self, every: Duration) -> (Vec<f64>, Vec<f64>) {
        let (mut off, mut drift) = (Vec::new(), Vec::new());
        for requests in self.requests.lock().expect("nobody panics").values() {
            let gaps = requests.windows(2).map(|pair| pair[1].0.duration_since(pair[0].0).as_secs_f64());
            let gaps: Vec<f64> = gaps.map(|gap| gap - every.as_secs_f64()).collect();
            drift.push(gaps.iter().sum::<f64>().abs());
            off.extend(gaps.into_iter().map(f64::abs));
        }
        (off, drift)
    }

    pub(crate) fn forget(&self) {
        self.requests.lock().expect("nobody panics").clear();
    }
}

/// From the last byte of a request's head until its answer was handed to the kernel.
fn serve(stream: TcpStream, holds: Duration, notes: &Mutex<Requests>) {
    stream.set_nodelay(true).expect("TCP");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut path = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(count) if count > 0 => (),
            _ => return,
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        if line == "\r\n" {
            let began = Instant::now();
            std::thread::sleep(holds);
            let answer = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
            let took = began.elapsed().as_secs_f64();
            if answer.is_err() {
                return;
            }
            notes.lock().expect("nobody panics").entry(path.clone()).or_default().push((began, took));
        }
    }
}

/// A server that takes every connection and never answers; its URL.
pub(crate) fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        let mut taken = std::collections::VecDeque::new();
        for stream in listener.incoming().flatten() {
            taken.push_back(stream);
            // Nobody waits for so long.
            if taken.len() > 10_000 {
                taken.pop_front();
            }
        }
    });
    url
}
