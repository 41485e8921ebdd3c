//! DNS: one question, one answer, by UDP, and by TCP where the answer does not fit. No cache and no second try: a monitor that asks
//! again hides what it is there to see.

mod wire;

#[cfg(any(test, fuzzing))]
pub(crate) use wire::fuzz;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout_at;

use crate::channel::dial::Limit;
use crate::channel::dns::wire::{Answer, Question};
use crate::channel::refusal::Refusal;
use crate::channel::seen;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::seen::What;
use crate::time::{Human, Mono};

/// Settings of a `dns` channel.
#[derive(Clone, Debug, Default)]
pub struct DnsSettings {
    /// Who is asked; without it the first server that the system's own resolver asks.
    pub server: Option<SocketAddr>,
}

/// A `dns` channel.
pub struct Dns {
    settings: DnsSettings,
    clock: Clock,
}

impl Dns {
    /// Opens the channel. Touches no network.
    pub fn open(settings: DnsSettings, clock: Clock) -> Dns {
        Dns { settings, clock }
    }

    /// Who is asked. The system's file is read each time: it changes with the network.
    async fn server(&self) -> Result<SocketAddr, Refusal> {
        if let Some(server) = self.settings.server {
            return Ok(server);
        }
        let wrong = |why: String| {
            let detail = format!("{why}; say whom to ask with the channel's `server`");
            Refusal::new(Cause::Unreachable, detail)
        };
        let text = tokio::fs::read_to_string(Path::new(RESOLV_CONF)).await;
        let text = text.map_err(|error| wrong(format!("cannot read {RESOLV_CONF}: {error}")))?;
        let found = nameserver(&text).ok_or_else(|| wrong(format!("{RESOLV_CONF} names no server")))?;
        Ok(SocketAddr::new(found, PORT))
    }

    /// Asks by UDP, and by TCP if the answer does not fit.
    async fn ask(
        &self,
        server: SocketAddr,
        question: &Question,
        limit: Limit,
        phases: &mut Vec<Phase>,
    ) -> Result<Answer, Refusal> {
        let bytes = question.bytes().map_err(|why| Refusal::new(Cause::Refused, why))?;
        let mut lap = Lap { clock: self.clock, last: self.clock.now().mono, phases };
        let mut ignored = 0;
        let answer = timeout_at(limit.instant(), by_udp(server, question, &bytes, &mut ignored)).await;
        lap.end("udp");
        let answer =
            answer.map_err(|_| silence(server, limit, ignored))?.map_err(|error| unreachable(server, "UDP", &error))?;
        if !answer.is_truncated() {
            return Ok(answer);
        }
        let answer = timeout_at(limit.instant(), by_tcp(server, question, &bytes)).await;
        lap.end("tcp");
        let told =
            |what: Refusal| Refusal { detail: format!("{}, after a truncated answer by UDP", what.detail), ..what };
        let answer = answer
            .map_err(|_| told(Refusal::silence("asking by TCP", &server.to_string(), limit.length())))?
            .map_err(|error| told(unreachable(server, "TCP", &error)))?;
        answer.ok_or_else(|| {
            Refusal::new(Cause::Mismatch, format!("what {server} said by TCP is no answer to our question"))
        })
    }
}

/// Sends the question from a port of the kernel's choice, and waits for its answer; what else comes is counted.
async fn by_udp(server: SocketAddr, question: &Question, bytes: &[u8], ignored: &mut u32) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, so that the kernel drops what others send us, and tells us if nothing listens there.
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match question.answer(&buffer[..length]) {
            Some(answer) => return Ok(answer),
            None => *ignored += 1,
        }
    }
}

/// Asks over a connection, where each message has its length before it (RFC 1035 section 4.2.2).
async fn by_tcp(server: SocketAddr, question: &Question, bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(question.answer(&answer))
}

fn unreachable(server: SocketAddr, by: &str, error: &io::Error) -> Refusal {
    let detail = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens for DNS at {server} ({by})"),
        io::ErrorKind::UnexpectedEof => format!("{server} closed the connection without an answer ({by})"),
        _ => format!("cannot ask {server} by {by}: {error}"),
    };
    Refusal::new(Cause::Unreachable, detail)
}

fn silence(server: SocketAddr, limit: Limit, ignored: u32) -> Refusal {
    let more = match ignored {
        0 => String::new(),
        1 => "; one datagram came that does not answer our question".to_owned(),
        many => format!("; {many} datagrams came that do not answer our question"),
    };
    Refusal::new(Cause::Unreachable, format!("no answer from {server} within {}{more}", Human(limit.length())))
}

/// The first server of a resolv.conf(5).
fn nameserver(text: &str) -> Option<IpAddr> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") { words.next()?.parse().ok() } else { None }
    })
}

/// What took how long.
struct Lap<'a> {
    clock: Clock,
    last: Mono,
    phases: &'a mut Vec<Phase>,
}

impl Lap<'_> {
    fn end(&mut self, name: &str) {
        let now = self.clock.now().mono;
        self.phases.push(Phase { name: name.to_owned(), took: now.since(self.last) });
        self.last = now;
    }
}

impl Channel for Dns {
    fn send<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "DNS is asked by a `check`"))))
    }

    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            let limit = Limit::new(self.clock, outgoing.timeout);
            let field = |name: &str| outgoing.fields.get(name).map(String::as_str);
            let question = Question::new(field("lookup").unwrap_or_default(), field("record").unwrap_or(RECORD));
            let server = self.server().await;
            let started = self.clock.now();
            let mut phases = Vec::new();
            let asked = async {
                let question = question.map_err(|why| Refusal::new(Cause::Refused, why))?;
                let server = server?;
                seen::note(What::Peer, &server.to_string());
                let answer = self.ask(server, &question, limit, &mut phases).await?;
                seen::note_answer(What::NameServerAnswer, answer.found().into_iter());
                Ok::<_, Refusal>((server, answer))
            };
            let asked = asked.await;
            let finished = self.clock.now();
            match asked {
                Ok((server, answer)) => {
                    let message = Some(answer.message(&server.to_string()));
                    Ok(Reply { started, finished, ack: answer.word(), message, phases })
                }
                Err(refusal) => Err(refusal.into_fault(started, finished, phases)),
            }
        })
    }

    /// Any answer proves that it is there; what it knows is the journey's business.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let started = self.clock.now();
            let limit = Limit::new(self.clock, limit);
            let proven = async {
                let server = self.server().await?;
                let answer = self.ask(server, &Question::of_the_root(), limit, &mut Vec::new()).await?;
                Ok::<_, Refusal>(format!("{server} answers ({})", answer.word()))
            };
            proven.await.map_err(|refusal| refusal.into_fault(started, self.clock.now(), Vec::new()))
        })
    }

    /// Nothing arrives here.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { listener.stop.cancelled().await })
    }
}

/// Where the system's resolver finds its servers (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// What is asked for unless a step says otherwise.
const RECORD: &str = "A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_first_server_is_found() {
        let text = "# nameserver 192.0.2.1\nsearch example.net\nnameserver fe80::1%eth0\nnameserver  2001:db8::53 # x\nnameserver 192.0.2.2\n";
        assert_eq!(nameserver(text), Some("2001:db8::53".parse().unwrap()));
        assert_eq!(nameserver("options edns0\n"), None);
    }
}
