//! The switchboard: matches arrivals with the runs that wait for them, by token or by key, and tells every other kind apart.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::channel::ChannelPolicy;
use crate::journey::Name;
use crate::journey::expect::View;
use crate::journey::message::{Arrival, Message};
use crate::journey::run::Event;
use crate::journey::token::{Mint, Origin, Token};
use crate::ledger::{Entry, Kind, Ledger, Settled, Sighting};
use crate::runner::mailbox::Mailbox;
use crate::time::Mono;

/// Arrivals with a key that nobody waits for yet are kept this long: the answer that tells us the key may be slower than they are.
const EARLY: Duration = Duration::from_secs(60);
/// And at most this many of them.
const EARLY_KEPT: usize = 1_024;

/// What the switchboard knows of a receiving channel.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// How its arrivals are recognised.
    pub policy: ChannelPolicy,
}

/// Matches arrivals with runs. Shared; every call is short and none waits.
pub struct Switchboard {
    mint: Arc<Mint>,
    channels: RwLock<HashMap<Name, Arc<Reading>>>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ledger: Ledger,
    waiting: HashMap<Token, Arc<Mailbox>>,
    keys: HashMap<(Name, String), Token>,
    early: VecDeque<(String, Arrival)>,
}

impl Switchboard {
    /// A switchboard that reads these channels and remembers these tokens.
    pub fn new(
        mint: Arc<Mint>,
        channels: HashMap<Name, Reading>,
        known: impl IntoIterator<Item = (Token, Entry)>,
    ) -> Self {
        let switchboard = Switchboard { mint, channels: RwLock::default(), inner: Mutex::default() };
        switchboard.know(known);
        switchboard.regard(channels);
        switchboard
    }

    /// Reads these channels, too, from here on; those that it read before in this way.
    pub fn regard(&self, channels: HashMap<Name, Reading>) {
        let channels = channels.into_iter().map(|(name, reading)| (name, Arc::new(reading)));
        self.channels.write().unwrap_or_else(PoisonError::into_inner).extend(channels);
    }

    /// Reads this channel no longer.
    pub fn disregard(&self, channel: &Name) {
        self.channels.write().unwrap_or_else(PoisonError::into_inner).remove(channel);
    }

    /// Remembers these tokens, too.
    pub fn know(&self, known: impl IntoIterator<Item = (Token, Entry)>) {
        let mut inner = self.lock();
        for (token, entry) in known {
            inner.ledger.expect(token, entry);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects `token` from here on; its arrivals go to `mailbox`.
    pub fn expect(&self, token: Token, entry: Entry, mailbox: Arc<Mailbox>) {
        let mut inner = self.lock();
        inner.ledger.expect(token, entry);
        inner.waiting.insert(token, mailbox);
    }

    /// Arrivals on `channel` whose key is `key` are `token`'s from here on; those that came shortly before are handed over now.
    pub fn expect_key(&self, channel: &Name, key: String, token: Token) {
        let mut inner = self.lock();
        let mut early = std::mem::take(&mut inner.early);
        early.retain(|(found, arrival)| {
            let is_it = *found == key && arrival.channel == *channel;
            if is_it && let Some(mailbox) = inner.waiting.get(&token) {
                mailbox.put(event(arrival.clone()));
            }
            !is_it
        });
        inner.early = early;
        inner.keys.insert((channel.clone(), key), token);
    }

    /// The run of `token` has ended.
    pub fn settle(&self, token: Token, how: Settled) {
        let mut inner = self.lock();
        inner.ledger.settle(token, how);
        inner.waiting.remove(&token);
        if how == Settled::Arrived {
            inner.keys.retain(|_, other| *other != token);
        }
    }

    /// Takes an arrival: hands it to its run if one waits, and says what it was.
    pub fn arrive(&self, arrival: Arrival) -> Sighting {
        let nobody = |kind| Sighting { kind, token: None, journey: None, slot: None };
        let Some(read) = self.read(&arrival) else { return nobody(Kind::Refused) };
        let mut inner = self.lock();
        let Some(token) = self.token_of(&inner, &read, &arrival) else {
            if let Read { key: Some(key) } = read {
                inner.keep_early(key, arrival);
            }
            return nobody(Kind::Unmatched);
        };
        let sighting = inner.ledger.sight(token, &self.mint);
        if sighting.kind == Kind::Expected
            && let Some(mailbox) = inner.waiting.get(&token)
        {
            // Full only if a flood of copies came for one run; they are counted, and the run has seen enough.
            mailbox.put(event(arrival));
        }
        sighting
    }

    /// Whose arrival it is, if somebody would miss it, and whether a run waits for it here.
    pub fn missed_by(&self, arrival: &Arrival) -> Option<(Token, bool)> {
        let read = self.read(arrival)?;
        let inner = self.lock();
        let token = self.token_of(&inner, &read, arrival)?;
        let entry = inner.ledger.entry(token)?;
        (entry.settled != Some(Settled::Arrived)).then(|| (token, inner.waiting.contains_key(&token)))
    }

    /// Of an arrival that nobody here would miss, the token that this installation gave out: another daemon's run may wait for it.
    pub fn missed_elsewhere(&self, arrival: &Arrival) -> Option<Token> {
        let read = self.read(arrival)?;
        let inner = self.lock();
        let token = self.token_of(&inner, &read, arrival)?;
        (inner.ledger.entry(token).is_none() && self.mint.origin(token) == Origin::Ours).then_some(token)
    }

    /// What is read of an arrival; `None` if it is not let in.
    fn read(&self, arrival: &Arrival) -> Option<Read> {
        let reading = self.channels.read().unwrap_or_else(PoisonError::into_inner).get(&arrival.channel).cloned()?;
        let policy = &reading.policy;
        let view = View::of(&arrival.message, arrival.at.wall);
        let is_in = policy.filter.iter().all(|expectation| expectation.check(view, None).passed);
        is_in.then(|| Read { key: policy.key.as_ref().and_then(|query| Some(query.find(view)?.to_text())) })
    }

    fn token_of(&self, inner: &Inner, read: &Read, arrival: &Arrival) -> Option<Token> {
        let of_key = |key: &String| inner.keys.get(&(arrival.channel.clone(), key.clone())).copied();
        let token = read.key.as_ref().and_then(of_key).or(arrival.message.token);
        token.or_else(|| self.token_in(&inner.ledger, &arrival.message))
    }

    /// The token that the message carries: the first that the ledger knows, else the first of ours, else the first at all.
    fn token_in(&self, ledger: &Ledger, message: &Message) -> Option<Token> {
        let headers = message.headers.iter().flat_map(|(name, value)| {
            let trace = name.eq_ignore_ascii_case("traceparent").then(|| trace_token(value)).flatten();
            trace.into_iter().chain(Token::find_all(value.as_bytes()))
        });
        let mut ours = None;
        let mut other = None;
        for token in Token::find_all(&message.body).chain(headers) {
            if ledger.entry(token).is_some() {
                return Some(token);
            }
            match self.mint.origin(token) {
                Origin::Ours => ours = ours.or(Some(token)),
                Origin::Foreign | Origin::Forged => other = other.or(Some(token)),
            }
        }
        // A trace id is 128 bits of anyone's; only ours say something.
        ours.or_else(|| other.filter(|token| Token::find_all(&message.body).any(|found| found == *token)))
    }

    /// Forgets what is no longer of interest, and says how many tokens are expected and remembered.
    pub fn expire(&self, now: crate::time::Now) -> (usize, usize) {
        let mut inner = self.lock();
        inner.ledger.expire(now.wall);
        inner.drop_early(now.mono);
        let Inner { ledger, keys, .. } = &mut *inner;
        keys.retain(|_, token| ledger.entry(*token).is_some());
        ledger.size()
    }
}

/// What an arrival says of whose it is, beside its token.
struct Read {
    key: Option<String>,
}

impl Inner {
    fn keep_early(&mut self, key: String, arrival: Arrival) {
        self.drop_early(arrival.at.mono);
        if self.early.len() >= EARLY_KEPT {
            self.early.pop_front();
        }
        self.early.push_back((key, arrival));
    }

    fn drop_early(&mut self, now: Mono) {
        while self.early.front().is_some_and(|(_, arrival)| now.since(arrival.at.mono) > EARLY) {
            self.early.pop_front();
        }
    }
}

fn event(arrival: Arrival) -> Event {
    Event::Arrived { channel: arrival.channel, message: Arc::new(arrival.message), at: arrival.at }
}

/// The trace id of a W3C `traceparent` value as a token.
fn trace_token(value: &str) -> Option<Token> {
    let trace = value.trim().split('-').nth(1).filter(|trace| trace.len() == 32)?;
    u128::from_str_radix(trace, 16).ok().map(Token::from_bits)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use jiff::Timestamp;

    use super::*;
    use crate::journey::expect::{JsonPath, Query};
    use crate::time::Now;

    fn now(seconds: u64) -> Now {
        Now {
            wall: Timestamp::from_second(1_790_000_000 + seconds as i64).unwrap(),
            mono: Mono(Duration::from_secs(seconds)),
        }
    }

    fn arrival(seconds: u64, body: &str) -> Arrival {
        Arrival { channel: "inbound".into(), at: now(seconds), message: Message::new(body) }
    }

    fn entry() -> Entry {
        Entry {
            journey: "sms".into(),
            slot: now(0).wall,
            recorded: now(0).wall,
            keep_until: now(600).wall,
            settled: None,
        }
    }

    fn board(key: Option<&str>) -> (Switchboard, Arc<Mint>) {
        let mint = Arc::new(Mint::new([1; 32], 0));
        let key = key.map(|path| Query::Json(JsonPath::parse(path).unwrap()));
        let reading = Reading { policy: ChannelPolicy { key, ..ChannelPolicy::default() } };
        (Switchboard::new(mint.clone(), HashMap::from([("inbound".into(), reading)]), []), mint)
    }

    #[test]
    fn an_arrival_reaches_its_run_and_a_copy_after_it_is_a_duplicate() {
        let (board, mint) = board(None);
        let mailbox = Arc::new(Mailbox::default());
        let (mine, other) = (mint.issue(now(0).wall), mint.issue(now(0).wall));
        board.expect(mine, entry(), mailbox.clone());
        assert_eq!(board.arrive(arrival(1, &format!("hello {mine}"))).kind, Kind::Expected);
        assert!(matches!(mailbox.next().now_or_never(), Some(Event::Arrived { at, .. }) if at == now(1)));
        assert_eq!(board.arrive(arrival(1, &format!("hello {other}"))).kind, Kind::Orphan);
        assert_eq!(board.arrive(arrival(1, "no token")).kind, Kind::Unmatched);
        board.settle(mine, Settled::Arrived);
        assert_eq!(board.arrive(arrival(2, &format!("again {mine}"))).kind, Kind::Duplicate);
        assert!(mailbox.next().now_or_never().is_none());
    }

    #[test]
    fn a_trace_header_is_enough_and_strangers_traces_are_nobodys() {
        let (board, mint) = board(None);
        let mailbox = Arc::new(Mailbox::default());
        let token = mint.issue(now(0).wall);
        board.expect(token, entry(), mailbox.clone());
        let mut traced = arrival(1, "{}");
        traced.message.headers.push(("traceparent".into(), token.traceparent()));
        assert_eq!(board.arrive(traced).kind, Kind::Expected);
        assert!(mailbox.next().now_or_never().is_some());
        let mut foreign = arrival(1, "{}");
        foreign.message.headers.push(("traceparent".into(), format!("00-{}-01", "ab".repeat(16))));
        assert_eq!(board.arrive(foreign).kind, Kind::Unmatched);
    }

    #[test]
    fn what_the_channel_knows_to_be_ours_needs_no_token_in_it() {
        let (board, mint) = board(None);
        let mailbox = Arc::new(Mailbox::default());
        let token = mint.issue(now(0).wall);
        board.expect(token, entry(), mailbox.clone());
        let mut receipt = arrival(1, "id:4711 stat:DELIVRD");
        receipt.message.token = Some(token);
        assert_eq!(board.arrive(receipt).kind, Kind::Expected);
        assert!(mailbox.next().now_or_never().is_some());
    }

    #[test]
    fn a_key_matches_also_what_came_before_it_was_known() {
        let (board, mint) = board(Some("$.sid"));
        let mailbox = Arc::new(Mailbox::default());
        let token = mint.issue(now(0).wall);
        board.expect(token, entry(), mailbox.clone());
        assert_eq!(board.arrive(arrival(1, r#"{"sid":"SM1","status":"sent"}"#)).kind, Kind::Unmatched);
        board.expect_key(&"inbound".into(), "SM1".to_owned(), token);
        assert!(mailbox.next().now_or_never().is_some());
        assert_eq!(board.arrive(arrival(2, r#"{"sid":"SM1","status":"delivered"}"#)).kind, Kind::Expected);
        assert!(mailbox.next().now_or_never().is_some());
        assert_eq!(board.arrive(arrival(2, r#"{"sid":"SM2"}"#)).kind, Kind::Unmatched);
    }

    #[test]
    fn early_arrivals_are_bounded_in_number_and_time() {
        let (board, _) = board(Some("$.sid"));
        for n in 0..EARLY_KEPT + 10 {
            board.arrive(arrival(1, &format!(r#"{{"sid":"S{n}"}}"#)));
        }
        assert_eq!(board.lock().early.len(), EARLY_KEPT);
        board.expire(now(62));
        assert_eq!(board.lock().early.len(), 0);
    }
}
