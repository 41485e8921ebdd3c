//! One connection through a proxy: two pumps, and whatever ends it.
//!
//! Each direction has one part that takes bytes as they come, with the time, and one that gives them on when the faults of the
//! moment let it; so a latency delays bytes, and not those after them once more. Between the two is a bounded queue.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::proxy::count::Counts;
use crate::proxy::fault::Direction;
use crate::proxy::moment::{Effect, End, Moment, Passed, chance};
use crate::time::Mono;

/// The most that is taken at once, and how many pieces wait in each direction; a sender that is faster than that waits.
const PIECE: usize = 16 * 1_024;
const PIECES: usize = 16;
/// How long a client may take to hear that its connection has ended because the proxy is down.
const HEARD: Duration = Duration::from_millis(500);

/// What one connection needs.
#[derive(Clone)]
pub(super) struct Link {
    /// Which connection it is, from 1, and when it began.
    pub(super) number: u64,
    pub(super) began: Mono,
    pub(super) seed: u64,
    pub(super) server: Arc<str>,
    pub(super) clock: Clock,
    pub(super) moment: watch::Receiver<Moment>,
    pub(super) counts: Arc<Counts>,
}

/// Bytes, and when they came.
type Piece = (Mono, Bytes);

impl Link {
    /// Carries a connection until it ends.
    pub(super) async fn carry(self, mut client: TcpStream) {
        let mut server = None;
        let end = tokio::select! {
            biased;
            end = self.ended() => end,
            end = self.talk(&mut client, &mut server) => end,
        };
        part(end, client, server).await;
        self.counts.note(|tally| {
            tally.open -= 1;
            match end {
                End::Left => {}
                End::Unreached => tally.unreached += 1,
                End::Cut | End::Down => tally.cut += 1,
                End::Reset { .. } => tally.reset += 1,
                End::TimedOut => tally.timed_out += 1,
                End::Limited => tally.limited += 1,
            }
        });
    }

    /// Waits until something ends the connection from outside.
    async fn ended(&self) -> End {
        let mut moment = self.moment.clone();
        loop {
            let due = self.end(&moment.borrow_and_update());
            let over = async {
                match due {
                    Some((at, end)) => {
                        self.sleep_until(at).await;
                        end
                    }
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                end = over => return end,
                changed = moment.changed() => if changed.is_err() {
                    return End::Cut;
                },
            }
        }
    }

    async fn talk(&self, client: &mut TcpStream, server: &mut Option<TcpStream>) -> End {
        let server = match TcpStream::connect(&*self.server).await {
            Ok(connected) => server.insert(connected),
            Err(error) => {
                tracing::debug!(server = %self.server, %error, "the server cannot be reached");
                return End::Unreached;
            }
        };
        // Waiting for more is not ours to add.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let there = self.pump(from_client, to_server, Direction::ToServer);
        let back = self.pump(from_server, to_client, Direction::ToClient);
        // Both, so that one side's goodbye still lets the other's last bytes through.
        match tokio::try_join!(there, back) {
            Ok(_) => End::Left,
            Err(end) => end,
        }
    }

    async fn pump(&self, from: ReadHalf<'_>, to: WriteHalf<'_>, direction: Direction) -> Result<(), End> {
        let (pieces, waiting) = mpsc::channel(PIECES);
        let taking = async {
            self.take(from, pieces, direction).await;
            Ok::<_, End>(())
        };
        tokio::try_join!(taking, self.give(waiting, to, direction)).map(drop)
    }

    async fn take(&self, mut from: ReadHalf<'_>, pieces: mpsc::Sender<Piece>, direction: Direction) {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            self.counts.note(|tally| tally.carried_mut(direction).came += length as u64);
            let piece = (self.clock.now().mono, Bytes::copy_from_slice(&buffer[..length]));
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    }

    async fn give(
        &self,
        mut pieces: mpsc::Receiver<Piece>,
        mut to: WriteHalf<'_>,
        direction: Direction,
    ) -> Result<(), End> {
        let mut moment = self.moment.clone();
        let mut luck = chance(self.seed, self.number, u64::MAX - direction as u64);
        let (mut passed, mut before) = (Passed::default(), Mono::default());
        while let Some((came, mut rest)) = pieces.recv().await {
            let luck = luck.f64();
            while !rest.is_empty() {
                let due = |effect: &Effect| effect.due(came, before, luck, rest.len());
                let effect = self.until(&mut moment, direction, due).await?;
                let next = rest.split_to(effect.allows(effect.size(rest.len()), &passed));
                if to.write_all(&next).await.is_err() {
                    return Ok(());
                }
                before = self.clock.now().mono;
                self.counts.note(|tally| tally.carried_mut(direction).went += next.len() as u64);
                if effect.pass(next.len(), &mut passed) {
                    return Err(End::Limited);
                }
            }
        }
        let closed = self.clock.now().mono;
        self.until(&mut moment, direction, |effect| closed + effect.close).await?;
        // The one side's goodbye is passed on; the other may still speak.
        let _ = to.shutdown().await;
        Ok(())
    }

    /// Waits until the faults of the moment, whatever they are by then, let go what is `due`; gives what they do to it.
    async fn until(
        &self,
        moment: &mut watch::Receiver<Moment>,
        direction: Direction,
        due: impl Fn(&Effect) -> Mono,
    ) -> Result<Effect, End> {
        loop {
            let (end, effect) = {
                let now = moment.borrow_and_update();
                (self.end(&now), now.effect(self.number, self.seed, direction))
            };
            // What was held when the connection is ended is lost, also if it is let go in the same moment.
            if let Some((_, end)) = end.filter(|(at, _)| *at <= self.clock.now().mono) {
                return Err(end);
            }
            tokio::select! {
                biased;
                changed = moment.changed() => changed.map_err(|_| End::Cut)?,
                () = self.sleep_until(due(&effect)), if !effect.holds => return Ok(effect),
            }
        }
    }

    fn end(&self, moment: &Moment) -> Option<(Mono, End)> {
        moment.end(self.number, self.seed, self.began)
    }

    /// A timer ends with the next tick, also one whose time has passed; what is due must not wait for that.
    async fn sleep_until(&self, at: Mono) {
        if at > self.clock.now().mono {
            self.clock.sleep_until(at).await;
        }
    }
}

/// Lets go of both sides as the end wants it.
async fn part(end: End, mut client: TcpStream, server: Option<TcpStream>) {
    match end {
        End::Down => {
            drop(server);
            let _ = client.shutdown().await;
            // A client that hears it closes its side; one that does not listen hears it when it next writes.
            let mut rest = [0; 1_024];
            let heard = async { while client.read(&mut rest).await.is_ok_and(|length| length > 0) {} };
            let _ = tokio::time::timeout(HEARD, heard).await;
        }
        End::Reset { client: for_client, server: for_server } => {
            let _ = for_client.then(|| client.set_zero_linger());
            let _ = server.filter(|_| for_server).map(|server| server.set_zero_linger());
        }
        End::Left | End::Unreached | End::Cut | End::TimedOut | End::Limited => {}
    }
}
