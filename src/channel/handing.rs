//! What readers do that read ahead: what has come is stamped at once, also while nobody takes it, and nothing is lost of it.

use std::collections::VecDeque;
use std::pin::pin;

use futures_util::{Stream, StreamExt};

use crate::channel::Listener;
use crate::journey::message::{Arrival, Message};
use crate::time::Now;

/// Arrivals that are stamped and not handed over. With this many, reading stops: the system keeps the rest.
const AHEAD: usize = 64;

/// What came at one time: each message, and what its reader wants to know it by when it is handed over.
pub(crate) type Batch<T> = (Now, Vec<(Message, T)>);

/// Hands over what `feed` reads, in order and with its stamp, and tells `handed` of each. Ends with `Ok` when told to stop, and
/// in `feed`'s words when that ends; what came before that is handed over first.
pub(crate) async fn hand_over<T>(
    listener: &Listener,
    feed: impl Stream<Item = Result<Batch<T>, String>>,
    mut handed: impl FnMut(T),
) -> Result<(), String> {
    let mut feed = pin!(feed);
    let mut waiting: VecDeque<(Arrival, T)> = VecDeque::new();
    let mut ended = None;
    loop {
        tokio::select! {
            biased;
            () = listener.stop.cancelled() => return Ok(()),
            batch = feed.next(), if ended.is_none() && waiting.len() < AHEAD => match batch {
                Some(Ok((at, messages))) => waiting.extend(messages.into_iter().map(|(message, known_by)| {
                    (Arrival { channel: listener.channel.clone(), at, message }, known_by)
                })),
                Some(Err(why)) => ended = Some(why),
                None => ended = Some("it ended".to_owned()),
            },
            place = listener.arrivals.reserve(), if !waiting.is_empty() => {
                let (Ok(place), Some((arrival, known_by))) = (place, waiting.pop_front()) else { return Ok(()) };
                place.send(arrival);
                handed(known_by);
            }
        }
        if let Some(why) = ended.take_if(|_| waiting.is_empty()) {
            return Err(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::stream;
    use tokio::sync::{mpsc, watch};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::channel::Readiness;
    use crate::clock::Clock;
    use crate::journey::token::Mint;

    fn listener(room: usize) -> (Listener, mpsc::Receiver<Arrival>) {
        let (arrivals, taken) = mpsc::channel(room);
        let listener = Listener {
            channel: "orders".into(),
            clock: Clock::system(),
            arrivals,
            journal: Default::default(),
            since: None,
            readiness: watch::channel(Readiness::Starting).0,
            mint: Arc::new(Mint::new([1; 32], 0)),
            nudge: Default::default(),
            awaited: Default::default(),
            stop: CancellationToken::new(),
        };
        (listener, taken)
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_the_end_is_handed_over_with_its_stamp_and_then_the_end_is_told() {
        let (listener, mut taken) = listener(1);
        let at = listener.clock.now();
        let batch = |range: std::ops::Range<u32>| -> Result<Batch<u32>, String> {
            Ok((at, range.map(|number| (Message::new(number.to_string()), number)).collect()))
        };
        let feed = stream::iter([batch(0..3), batch(3..100), Err("cut".to_owned())]);
        let mut handed = Vec::new();
        let taking = async {
            let mut seen = Vec::new();
            while seen.len() < 100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let arrival = taken.recv().await.unwrap();
                assert_eq!(arrival.at, at);
                seen.push(arrival.message.text().parse::<u32>().unwrap());
            }
            seen
        };
        let (ended, seen) = tokio::join!(hand_over(&listener, feed, |number| handed.push(number)), taking);
        assert_eq!(ended, Err("cut".to_owned()));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(handed, seen);
    }

    #[tokio::test(start_paused = true)]
    async fn it_reads_ahead_only_so_far_and_heeds_stop() {
        let (listener, mut taken) = listener(1);
        let read = std::sync::atomic::AtomicUsize::new(0);
        let feed = stream::repeat_with(|| {
            read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok((listener.clock.now(), vec![(Message::new("x"), ())]))
        });
        let stopping = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            listener.stop.cancel();
        };
        let (ended, ()) = tokio::join!(hand_over(&listener, feed, |()| {}), stopping);
        assert_eq!(ended, Ok(()));
        assert_eq!(read.load(std::sync::atomic::Ordering::Relaxed), AHEAD + 1);
        assert!(taken.try_recv().is_ok() && taken.try_recv().is_err());
    }
}
