//! A start while the store that daemons share is away: what is kept of the time before, and how the store comes in
//! later.
//!
//! What is kept is a file of the spool, written while the store answers. It holds the installation's key, so nobody
//! else may read it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::board::Board;
use crate::breaker::{Guarded, Order};
use crate::clock::Clock;
use crate::cluster::{self, LEAD};
use crate::control::Silence;
use crate::journey::spend::Spent;
use crate::store::Store;
use crate::store::postgres::{self, Endpoint, Held};
use crate::time::Mono;

/// The file, in the spool.
const FILE: &str = "known.json";
/// Its form. A build reads no newer one.
const FORM: u32 = 1;
/// It is looked this often whether it is as things are.
const LOOK: Duration = Duration::from_secs(1);
/// The store is asked this often for what is in nobody's memory.
const ASK: Duration = Duration::from_secs(5);
/// A server that is away is asked this often.
const RETRY: Duration = Duration::from_millis(500);

/// What a daemon goes by that begins without its store. Not to be printed: the key is in it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    form: u32,
    /// Whose state it is, for people.
    place: String,
    /// Who held the shards: the process, and no other one.
    holder: String,
    /// The shards, with the epochs in which they were held.
    held: BTreeMap<i32, i64>,
    /// The installation's.
    pub(super) key: [u8; 32],
    orders: BTreeMap<String, Order>,
    silences: Vec<Silence>,
    pub(super) spent: Vec<Spent>,
}

/// The form alone.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

impl Facts {
    /// What was found at a start with the store at `place`, by the process `holder`, which holds nothing yet.
    pub(super) fn new(
        (place, holder): (String, String),
        key: [u8; 32],
        orders: &[(Guarded, Order)],
        spent: Vec<Spent>,
    ) -> Facts {
        Facts {
            form: FORM,
            place,
            holder,
            held: BTreeMap::new(),
            key,
            orders: texts(orders.iter().cloned()),
            silences: Vec::new(),
            spent,
        }
    }

    /// What is kept in this spool; nothing, if nothing is.
    ///
    /// # Errors
    /// In words, without a part of it: it cannot be read, or is of another version.
    pub(super) fn read(directory: &Path) -> Result<Option<Facts>, String> {
        let path = directory.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        // The words of the parser may have the key in them.
        let garbled = |error: serde_json::Error| {
            format!("{} is not as we write it (line {}, column {})", path.display(), error.line(), error.column())
        };
        let Form { form } = serde_json::from_slice(&text).map_err(garbled)?;
        if form > FORM {
            return Err(format!("{} is of a newer version ({form}; this build knows {FORM})", path.display()));
        }
        serde_json::from_slice(&text).map(Some).map_err(garbled)
    }

    /// Puts it in the place of what was there, all of it or nothing, also when the machine goes down.
    fn write(&self, directory: &Path) -> std::io::Result<()> {
        let (path, new) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
        // Of one that was left half written the mode stays: it is made anew.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        std::fs::File::open(directory)?.sync_all()
    }

    /// The same, for another process.
    pub(super) fn of(self, holder: String) -> Facts {
        Facts { holder, ..self }
    }

    /// As far as it serves a daemon at `location` whose store is at `place`.
    ///
    /// # Errors
    /// In words: it is another store's, or nothing was held.
    pub(super) fn serving(mut self, place: &str, location: Option<&str>) -> Result<Facts, String> {
        if self.place != place {
            return Err(format!("it is of another store, {}", self.place));
        }
        let groups = cluster::groups(location);
        self.held.retain(|shard, _| groups.iter().any(|shards| shards.contains(shard)));
        if self.held.is_empty() { Err("no journey was run here when it was written".to_owned()) } else { Ok(self) }
    }

    /// What people wanted of breakers.
    pub(super) fn orders(&self) -> Vec<(Guarded, Order)> {
        self.orders.iter().filter_map(|(what, order)| Some((what.parse().ok()?, order.clone()))).collect()
    }
}

fn texts(orders: impl IntoIterator<Item = (Guarded, Order)>) -> BTreeMap<String, Order> {
    orders.into_iter().map(|(what, order)| (what.to_string(), order)).collect()
}

/// A start without the store.
pub(super) struct Outset {
    /// What it goes by.
    pub(super) facts: Facts,
    /// Why the store was not there.
    pub(super) why: String,
    /// When.
    pub(super) began: Timestamp,
    /// Says why the server is not asked, until it may be.
    pub(super) shut: watch::Sender<Option<String>>,
    /// The server itself.
    pub(super) server: Endpoint,
    /// This process.
    pub(super) heir: String,
    /// How long a shard lasts without being renewed.
    pub(super) ttl: Duration,
}

impl Outset {
    /// What was held.
    pub(super) fn held(&self) -> &BTreeMap<i32, i64> {
        &self.facts.held
    }

    /// What people wanted quiet.
    pub(super) fn silences(&self) -> Vec<Silence> {
        self.facts.silences.clone()
    }

    /// Waits for the server, makes it ready, and lets everybody ask it.
    async fn meet(&self, clock: Clock) {
        let mut said = None;
        loop {
            let names = (self.heir.as_str(), self.facts.holder.as_str());
            match postgres::inherit(&self.server, names, &self.facts.held, self.ttl).await {
                Ok(()) => break,
                Err(error) => {
                    let why = error.to_string();
                    if said.as_ref() != Some(&why) {
                        tracing::warn!(why, "still without the store");
                    }
                    self.shut.send_replace(Some(why.clone()));
                    said = Some(why);
                }
            }
            clock.sleep_until(clock.now().mono + RETRY).await;
        }
        tracing::info!("the store that was away at the start is there");
        self.shut.send_replace(None);
    }
}

/// Keeps the file as things are.
pub(super) struct Memory {
    /// Where the file is.
    pub(super) directory: PathBuf,
    /// As it was at the start.
    pub(super) facts: Facts,
    pub(super) held: Held,
    pub(super) board: Arc<Board>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
}

impl Memory {
    /// For ever. After a start without the store not before it is there: until then the file is as it is to be.
    pub(super) async fn keep(self, outset: Option<Outset>) -> std::convert::Infallible {
        if let Some(outset) = outset {
            outset.meet(self.clock).await;
        }
        let Memory { directory, mut facts, held, board, store, clock } = self;
        let (mut written, mut ask, mut is_failing) = (None, Mono::default(), false);
        loop {
            let now = clock.now().mono;
            if now >= ask {
                // That the store is away is told by who writes.
                if let Ok(orders) = store.orders().await {
                    facts.orders = texts(orders);
                }
                if let Ok(spent) = store.spent().await {
                    facts.spent = spent;
                }
                ask = clock.now().mono + ASK;
            }
            facts.held = held.epochs();
            facts.held.remove(&LEAD);
            facts.silences = board.docket().silences.clone();
            // Who holds nothing has just begun, or is about to take something.
            if !facts.held.is_empty() && written.as_ref() != Some(&facts) {
                let (file, to) = (facts.clone(), directory.clone());
                let result = tokio::task::spawn_blocking(move || file.write(&to)).await;
                match result.map_err(std::io::Error::other).flatten() {
                    Ok(()) => {
                        is_failing = false;
                        written = Some(facts.clone());
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            let directory = directory.display();
                            tracing::warn!(%error, %directory, "what a start without the store takes is not kept");
                        }
                    }
                }
            }
            clock.sleep_until(clock.now().mono + LOOK).await;
        }
    }
}

/// Why a daemon cannot begin without its store although it has a spool, and what to do, for people; `useless` says
/// what is wrong with what is kept there.
pub(super) fn hint(spool: &Path, useless: Option<&str>) -> String {
    let kept = match useless {
        None => format!("{} keeps nothing of such a run", spool.display()),
        Some(useless) => format!("what is kept of such a run is of no use: {useless}"),
    };
    format!(
        "does the server run, and is the way to it open? Only a daemon that has run with it can begin without it, \
         and {kept}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> PathBuf {
        let directory = std::env::temp_dir().join(format!("journeyman-outset-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn facts() -> Facts {
        let place = ("PostgreSQL at a:5432/state".to_owned(), "a, process 7-1".to_owned());
        let order = Order {
            to: crate::breaker::Force::Open,
            by: "ann".to_owned(),
            reason: "it costs".to_owned(),
            until: Timestamp::UNIX_EPOCH,
        };
        let orders = [(Guarded::Channel("sms".into()), order)];
        let spent =
            Spent { channel: "sms".into(), day: "2026-11-21".parse().unwrap(), journey: "otp".into(), messages: 3 };
        Facts { held: BTreeMap::from([(3, 7), (9, 2)]), ..Facts::new(place, [42; 32], &orders, vec![spent]) }
    }

    #[test]
    fn what_is_kept_is_read_again_and_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = directory();
        assert!(Facts::read(&directory).unwrap().is_none());
        // What a process left that was killed while it wrote is in nobody's way.
        std::fs::write(directory.join("known.json.new"), "{").unwrap();
        let facts = facts();
        for _ in 0..2 {
            facts.write(&directory).unwrap();
            assert!(Facts::read(&directory).unwrap().unwrap() == facts);
            let mode = std::fs::metadata(directory.join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(facts.orders()[0].0, Guarded::Channel("sms".into()));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_of_no_use_is_so_in_words_that_have_no_key_in_them() {
        let directory = directory();
        let text = String::from_utf8(serde_json::to_vec(&facts()).unwrap()).unwrap();
        for (wrong, words) in [
            (text[..text.len() / 2].to_owned(), "is not as we write it (line 1"),
            (String::new(), "is not as we write it"),
            ("{\"form\":1,\"key\":\"42424242\"}".to_owned(), "is not as we write it"),
            (text.replace("\"form\":1", "\"form\":9"), "is of a newer version (9; this build knows 1)"),
            ("[]".to_owned(), "is not as we write it"),
        ] {
            std::fs::write(directory.join(FILE), &wrong).unwrap();
            let Err(said) = Facts::read(&directory) else { panic!("{wrong} was taken") };
            assert!(said.contains(words) && !said.contains("42"), "{said}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn it_serves_the_same_store_and_the_shards_that_are_to_be_had_here() {
        let serving = |facts: Facts, place: &str, location| facts.serving(place, location).map(|facts| facts.held);
        let place = "PostgreSQL at a:5432/state";
        assert_eq!(serving(facts(), place, None), Ok(BTreeMap::from([(3, 7), (9, 2)])));
        assert!(serving(facts(), "PostgreSQL at a:5432/other", None).unwrap_err().contains("another store"));
        let paris = cluster::first_at("paris-1");
        let with = |shards: &[i32]| Facts { held: shards.iter().map(|shard| (*shard, 1)).collect(), ..facts() };
        assert_eq!(serving(with(&[5, paris]), place, Some("paris-1")), Ok(BTreeMap::from([(5, 1), (paris, 1)])));
        // It has moved, and whoever decides has a lease of its own.
        assert_eq!(serving(with(&[LEAD, 5, paris]), place, Some("london-1")), Ok(BTreeMap::from([(5, 1)])));
        assert!(serving(with(&[LEAD, paris]), place, None).unwrap_err().contains("no journey was run here"));
    }
}
