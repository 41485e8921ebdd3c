//! The floor under a mail's journey: SMTP in, and a session of IMAP that asks with NOOP every millisecond while the mail is awaited.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::support::dovecot::Dovecot;

const EVERY: Duration = Duration::from_millis(200);
const USER: &str = "floor@any.test";

/// How long each mail took from just before it was offered at the port `smtp` until it had been read out of its mailbox, one in flight.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]
pub(crate) async fn run(smtp: u16, dovecot: &Dovecot, seconds: u64) -> Vec<Duration> {
    let mut client = dovecot.client(USER).await;
    client.command("SELECT INBOX").await;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, end) = (Vec::new(), Instant::now() + Duration::from_secs(seconds));
    let mut sender = Sender::connect(smtp).await;
    while Instant::now() < end {
        ticks.tick().await;
        let began = Instant::now();
        sender.send().await;
        while !client.command("NOOP").await.iter().any(|line| line.trim_end().ends_with(" EXISTS")) {
            sleep(Duration::from_millis(1)).await;
        }
        client.command("FETCH * BODY.PEEK[HEADER]").await;
        latencies.push(began.elapsed());
        client.command("STORE 1:* +FLAGS (\\Deleted)").await;
        client.command("EXPUNGE").await;
    }
    latencies
}

struct Sender(BufReader<TcpStream>);

impl Sender {
    async fn connect(port: u16) -> Sender {
        let mut sender = Sender(BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.expect("it listens")));
        sender.answer().await;
        sender.say("EHLO floor.example.test").await;
        sender
    }

    async fn send(&mut self) {
        self.say("MAIL FROM:<inbox@example.test>").await;
        self.say(&format!("RCPT TO:<{USER}>")).await;
        self.say("DATA").await;
        self.say(&format!("From: inbox@example.test\r\nTo: {USER}\r\nSubject: floor\r\n\r\nfloor\r\n.")).await;
    }

    async fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.expect("it reads");
        self.answer().await;
    }

    async fn answer(&mut self) {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.expect("it answers");
            assert!(line.starts_with(['2', '3']), "{line}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return;
            }
        }
    }
}
