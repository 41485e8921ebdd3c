//! Passwords. A hash is worth a tenth of a second of a CPU, so there is one at a time, only so many for one address, and none for
//! what was right a moment ago. A user that is not there costs what a wrong password costs.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::gate::Refusal;
use crate::gate::bucket::{Buckets, Rate};
use crate::gate::places::network;
use crate::time::Mono;

/// Hashes for one address: a person may mistype some, and a machine with an old password comes every 15 s.
const TRIES: Rate = Rate { every: Duration::from_secs(5), burst: 10 };
/// Addresses whose tries are counted.
const ADDRESSES: usize = 4_096;
/// Callers who wait for their turn to be hashed; more are sent away.
const WAITING: usize = 32;
/// So many right answers are remembered: a few users, and passwords that change.
const REMEMBERED: usize = 256;

/// Knows by user and password.
pub(super) struct Doorman {
    /// Makes what is remembered useless to whoever reads our memory later.
    key: [u8; 32],
    right: Mutex<HashSet<[u8; 32]>>,
    tries: Mutex<Buckets<IpAddr>>,
    waiting: Semaphore,
    turn: Arc<Semaphore>,
}

impl Doorman {
    /// Knows nobody yet.
    ///
    /// # Errors
    /// In words: there is no randomness.
    pub(super) fn new() -> Result<Doorman, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| format!("no randomness: {error}"))?;
        Ok(Doorman {
            key,
            right: Mutex::default(),
            tries: Mutex::new(Buckets::new(TRIES, ADDRESSES)),
            waiting: Semaphore::new(WAITING),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Lets the users of this list in, by the value of an `Authorization` header.
    pub(super) async fn admit(
        &self,
        users: &BTreeMap<String, String>,
        header: Option<&str>,
        peer: IpAddr,
        now: Mono,
    ) -> Result<(), Refusal> {
        let (user, password) = header.and_then(credentials).ok_or(Refusal::Unknown)?;
        let known = users.get(user.as_str());
        // Of a user that is not there, the hash of the one that takes the longest.
        let costliest = || users.values().max_by_key(|hash| cost(hash));
        let hash = known.or_else(costliest).ok_or(Refusal::Unknown)?.clone();
        let print = self.print([user.as_bytes(), hash.as_bytes(), password.as_bytes()]);
        if known.is_some() && self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&print) {
            return Ok(());
        }
        let took = self.tries.lock().unwrap_or_else(PoisonError::into_inner).take(network(peer), now);
        took.map_err(Refusal::TooMany)?;
        let _waits = self.waiting.try_acquire().map_err(|_| Refusal::TooMany(TRIES.every))?;
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Refusal::Unknown)?;
        let hashed = tokio::task::spawn_blocking(move || {
            // Held by the work, not by the caller: one who leaves does not let a second one begin.
            let _turn = turn;
            bcrypt::verify(password.as_bytes(), &hash).unwrap_or(false)
        });
        let is_right = hashed.await.unwrap_or(false) && known.is_some();
        if !is_right {
            return Err(Refusal::Unknown);
        }
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED {
            right.clear();
        }
        right.insert(print);
        Ok(())
    }

    /// Of user, hash and password, in one way only: what they are joined of cannot be divided otherwise (CVE-2022-46146).
    fn print(&self, parts: [&[u8]; 3]) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// User and password of `Basic …` (RFC 7617).
fn credentials(header: &str) -> Option<(String, Zeroizing<String>)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), Zeroizing::new(password.to_owned())))
}

fn cost(hash: &str) -> u32 {
    hash.parse::<bcrypt::HashParts>().map_or(0, |parts| parts.get_cost())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn users() -> BTreeMap<String, String> {
        // Half a hundredth of a second of work: enough to be seen.
        let hash = |password: &str| bcrypt::hash(password, 7).unwrap();
        [("ada".to_owned(), hash("one")), ("bob".to_owned(), hash("two"))].into()
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn only_a_user_with_its_own_password_comes_in() {
        let (doorman, users) = (Doorman::new().unwrap(), users());
        for (header, expected) in [
            (basic("ada", "one"), Ok(())),
            (basic("ada", "one").replace("Basic", "bAsIc"), Ok(())),
            (basic("ada", "two"), Err(Refusal::Unknown)),
            (basic("ada", ""), Err(Refusal::Unknown)),
            // Neither by the password of one, nor of the other, whose hash is compared with.
            (basic("eve", "one"), Err(Refusal::Unknown)),
            (basic("eve", "two"), Err(Refusal::Unknown)),
            (basic("", "one"), Err(Refusal::Unknown)),
            (basic("ada", "one").replace("Basic", "Bearer"), Err(Refusal::Unknown)),
            ("Basic".to_owned(), Err(Refusal::Unknown)),
            ("Basic YWRh".to_owned(), Err(Refusal::Unknown)),
            ("Basic ####".to_owned(), Err(Refusal::Unknown)),
        ] {
            assert_eq!(doorman.admit(&users, Some(&header), PEER, at(0)).await, expected, "{header}");
        }
        assert_eq!(doorman.admit(&users, None, PEER, at(0)).await, Err(Refusal::Unknown));
        assert_eq!(
            doorman.admit(&BTreeMap::new(), Some(&basic("ada", "one")), PEER, at(0)).await,
            Err(Refusal::Unknown)
        );
    }

    /// What CVE-2022-46146 was: parts that are joined by a separator which may stand in them.
    #[tokio::test]
    async fn nothing_that_was_right_makes_something_else_right() {
        let doorman = Doorman::new().unwrap();
        let users = users();
        let hash = users["ada"].clone();
        assert!(doorman.admit(&users, Some(&basic("ada", "one")), PEER, at(0)).await.is_ok());
        for (user, password) in
            [(format!("ada:{hash}"), "one"), (format!("ada{hash}one"), ""), ("adao".to_owned(), "ne")]
        {
            let told = doorman.admit(&users, Some(&basic(&user, password)), PEER, at(60)).await;
            assert_eq!(told, Err(Refusal::Unknown), "{user}");
        }
        let prints = [
            doorman.print([b"ab", b"c", b"d"]),
            doorman.print([b"a", b"bc", b"d"]),
            doorman.print([b"a", b"b", b"cd"]),
            doorman.print([b"", b"abc", b"d"]),
        ];
        assert_eq!(prints.iter().collect::<HashSet<_>>().len(), prints.len());
        let changed = [("ada".to_owned(), bcrypt::hash("new", 4).unwrap())].into();
        let told = doorman.admit(&changed, Some(&basic("ada", "one")), PEER, at(120)).await;
        assert_eq!(told, Err(Refusal::Unknown), "a changed password ends what the old one opened");
    }

    #[tokio::test]
    async fn guesses_are_limited_before_they_are_hashed_and_who_is_known_is_not() {
        let (doorman, users) = (Doorman::new().unwrap(), users());
        let good = basic("ada", "one");
        assert!(doorman.admit(&users, Some(&good), PEER, at(0)).await.is_ok());
        let mut limited = 0;
        for guess in 0..30 {
            let told = doorman.admit(&users, Some(&basic("ada", &guess.to_string())), PEER, at(0)).await;
            limited += u32::from(matches!(told, Err(Refusal::TooMany(_))));
        }
        assert_eq!(limited, 21, "ten of an address are hashed, and the first was the right one");
        assert!(doorman.admit(&users, Some(&good), PEER, at(0)).await.is_ok());
        let other = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(doorman.admit(&users, Some(&basic("ada", "x")), other, at(0)).await, Err(Refusal::Unknown));
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "it measures real time")]
    async fn a_user_who_is_not_there_takes_as_long_as_a_wrong_password() {
        let doorman = Doorman::new().unwrap();
        // Slow enough that what surrounds it does not matter.
        let users: BTreeMap<_, _> = [("ada".to_owned(), bcrypt::hash("one", 9).unwrap())].into();
        let took = async |user: &str, second| {
            let began = std::time::Instant::now();
            assert_eq!(doorman.admit(&users, Some(&basic(user, "x")), PEER, at(second)).await, Err(Refusal::Unknown));
            began.elapsed()
        };
        let (mut there, mut away) = (Duration::MAX, Duration::MAX);
        for second in [0, 60, 120] {
            there = there.min(took("ada", second).await);
            away = away.min(took("eve", second).await);
        }
        assert!(away * 2 > there && there * 2 > away, "{there:?} {away:?}");
    }
}
