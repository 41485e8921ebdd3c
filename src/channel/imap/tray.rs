//! What was fetched, until it is handed over; what was handed over, until it is deleted; and where to go on after a lost connection.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::ImapSettings;
use super::bounce::Fate;
use super::commands::Fetched;
use super::mail::{self, Mail, Raw};
use super::name::Folder;
use super::ours;
use crate::channel::Listener;
use crate::journey::message::Arrival;
use crate::time::{Mono, Now};

/// Mails that wait here to be handed over; more are left where they are until there is room.
const ROOM: usize = 32;
/// How often it is looked for mails that were left behind.
const SWEEP: Duration = Duration::from_secs(86_400);
/// At most this many are deleted, or looked at, in one turn.
pub(super) const AT_ONCE: usize = 200;

/// Which of the two folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Inbox,
    Spam,
}

/// What outlives a connection.
#[derive(Default)]
pub(super) struct Progress {
    inbox: Option<Position>,
    spam: Option<Position>,
    /// Handed over, ours, and still there.
    doomed: BTreeSet<(Place, u32, u32)>,
    /// When it was last looked for what was left behind.
    swept: Option<Mono>,
}

/// How far a folder was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) validity: u32,
    /// The first UID that was not handed over.
    pub(super) next: u32,
}

impl Progress {
    fn position(&mut self, place: Place) -> &mut Option<Position> {
        match place {
            Place::Inbox => &mut self.inbox,
            Place::Spam => &mut self.spam,
        }
    }
}

/// A mail that was fetched and stamped, and not handed over yet.
struct Waiting {
    at: Now,
    place: Place,
    uid: u32,
    mail: Mail,
}

/// What was fetched, on its way to those who wait for it.
pub(super) struct Tray<'a> {
    settings: &'a ImapSettings,
    pub(super) listener: &'a Listener,
    progress: &'a Mutex<Progress>,
    waiting: VecDeque<Waiting>,
}

impl<'a> Tray<'a> {
    /// One with nothing in it.
    pub(super) fn new(settings: &'a ImapSettings, listener: &'a Listener, progress: &'a Mutex<Progress>) -> Tray<'a> {
        Tray { settings, listener, progress, waiting: VecDeque::new() }
    }

    /// How many more mails may be fetched.
    pub(super) fn room(&self) -> usize {
        ROOM.saturating_sub(self.waiting.len())
    }

    /// Whether all that was fetched is handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the folder was not read before.
    pub(super) fn is_new_to(&self, place: Place) -> bool {
        self.progress().position(place).is_none()
    }

    /// Where to go on in a folder: where we were, if its numbers still mean the same; otherwise at its end.
    pub(super) fn resume(&self, place: Place, told: Position, folder: &Folder) -> Position {
        let mut progress = self.progress();
        let position = progress.position(place);
        match *position {
            Some(before) if before.validity == told.validity => before,
            before => {
                if before.is_some() {
                    tracing::warn!(channel = %self.listener.channel, folder = folder.shown, "the folder was made anew: what came meanwhile is not seen");
                }
                *position.insert(told)
            }
        }
    }

    /// Takes a mail that was stamped, and hands over what there is room for.
    pub(super) fn take(&mut self, at: Now, place: Place, folder: &str, is_spam: bool, fetched: &Fetched<'_>) {
        let raw = Raw { bytes: fetched.bytes, size: fetched.size, delivered: fetched.delivered, folder, is_spam };
        self.waiting.push_back(Waiting { at, place, uid: fetched.uid, mail: mail::read(&raw) });
        self.hand_over();
    }

    pub(super) fn hand_over(&mut self) {
        while let Some(first) = self.waiting.front() {
            let is_told = first.mail.notice.as_ref().is_none_or(|notice| notice.fate == Fate::Failed);
            let room = match is_told.then(|| self.listener.arrivals.try_reserve()) {
                Some(Ok(room)) => Some(room),
                // It stays, stamped, until there is room.
                Some(Err(_)) => return,
                None => None,
            };
            let Some(Waiting { at, place, uid, mail }) = self.waiting.pop_front() else { return };
            self.settle(place, uid, &mail);
            match room {
                Some(room) => {
                    room.send(Arrival { channel: self.listener.channel.clone(), at, message: mail.message });
                }
                None => {
                    // It stands for no mail: one that is delayed may still come, and one that was delivered is here by itself.
                    let notice = mail.notice.as_ref();
                    let (token, words) = (notice.and_then(|n| n.token), notice.map(|n| n.words.as_str()));
                    tracing::info!(channel = %self.listener.channel, ?token, words, "a notice of delay or delivery came");
                }
            }
        }
    }

    /// The mail is handed over: it is not fetched again, and goes if it is ours.
    fn settle(&self, place: Place, uid: u32, mail: &Mail) {
        let is_ours = !self.settings.keep && ours::is_ours(&mail.message, mail.notice.as_ref(), &self.listener.mint);
        let mut progress = self.progress();
        let Some(position) = progress.position(place) else { return };
        position.next = position.next.max(uid.saturating_add(1));
        let validity = position.validity;
        if is_ours {
            progress.doomed.insert((place, validity, uid));
        }
    }

    /// What is to be deleted from a folder.
    pub(super) fn doomed(&self, place: Place, validity: u32) -> Vec<u32> {
        let progress = self.progress();
        let here = progress.doomed.iter().filter(|(of, valid, _)| *of == place && *valid == validity);
        here.map(|(.., uid)| *uid).take(AT_ONCE).collect()
    }

    /// These are not to be deleted from a folder any more.
    pub(super) fn spare(&self, place: Place, uids: &[u32]) {
        self.progress().doomed.retain(|(of, _, uid)| *of != place || !uids.contains(uid));
    }

    pub(super) fn is_sweep_due(&self, now: Mono) -> bool {
        let mut progress = self.progress();
        let is_due = progress.swept.is_none_or(|last| now.since(last) >= SWEEP);
        if is_due {
            progress.swept = Some(now);
        }
        is_due
    }
}
