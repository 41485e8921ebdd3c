//! The reader: waits in IDLE, or asks while a mail is awaited, fetches what is new by UID, hands it over, deletes what was ours.

use std::sync::Mutex;
use std::time::Duration;

use super::ImapSettings;
use super::commands::{came_since, probably_ours};
use super::name::Folder;
use super::ours;
use super::session::Session;
use super::tray::{AT_ONCE, Place, Position, Progress, Tray};
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::mail::Way;
use crate::channel::receiving::keep_receiving;
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;
use crate::time::{Mono, Now, earlier};

/// From the first packet to the server's word that it idles.
const SETUP: Duration = Duration::from_secs(20);
/// A mail of ours that is older was left behind: no journey listens that long.
const LEFT_BEHIND: Duration = Duration::from_secs(86_400);
/// Pauses between two questions that are shorter are not spent in IDLE.
const TOO_SHORT_TO_IDLE: Duration = Duration::from_millis(500);
/// What is still to be done when we stop may take this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// Watches until told to stop; reconnects by itself, and goes on where it was.
pub(super) async fn listen(settings: &ImapSettings, way: &Way, listener: Listener) {
    let progress = Mutex::default();
    let open = || Watch::open(settings, way, &listener, &progress);
    keep_receiving(&listener, open, |watch| Box::pin(watch.read())).await;
}

/// What the reader does next.
enum Next {
    /// It looks at the folders, tidies them, and idles again, if there is time for that.
    Look,
    /// It asks first whether there is anything new: some servers tell whoever idles half a second late.
    Ask,
    Stop,
}

/// A folder in which the reader is at a place.
struct Watched {
    folder: Folder,
    at: Position,
}

/// The mailbox being watched.
struct Watch<'a> {
    session: Session,
    settings: &'a ImapSettings,
    inbox: Watched,
    spam: Option<Watched>,
    tray: Tray<'a>,
    /// When the folders are looked at next, whatever the server tells.
    look_at: Mono,
    /// When the server was last asked for anything new. Pauses begin here, not where another run begins to wait.
    asked: Mono,
}

impl<'a> Watch<'a> {
    /// Signs in, opens the folder, learns where it and the spam folder are, and idles.
    async fn open(
        settings: &'a ImapSettings,
        way: &Way,
        listener: &'a Listener,
        progress: &'a Mutex<Progress>,
    ) -> Result<Watch<'a>, String> {
        let limit = Limit::new(listener.clock, SETUP);
        let opening = async {
            let mut session = Session::open(&settings.server, way, limit).await?;
            let folder = Folder::named(&settings.folder);
            let selected = session.select(&folder, !settings.keep).await?;
            let tray = Tray::new(settings, listener, progress);
            let mut end = Position { validity: selected.validity, next: selected.next };
            if let Some(since) = listener.since.filter(|_| tray.is_new_to(Place::Inbox)) {
                // Runs of the process before wait since then.
                let mut came = session.search(&came_since(since)).await?;
                came.sort_unstable();
                let first = came.get(came.len().saturating_sub(AT_ONCE));
                end.next = first.map_or(end.next, |first| end.next.min(*first));
            }
            let at = tray.resume(Place::Inbox, end, &folder);
            let inbox = Watched { folder, at };
            let now = listener.clock.now().mono;
            let mut watch = Watch { session, settings, inbox, spam: None, tray, look_at: now, asked: now };
            watch.spam = watch.find_spam().await?;
            if watch.session.can.idle {
                watch.session.idle().await?;
            } else {
                tracing::warn!(channel = %listener.channel, "the server has no IDLE: mails that no run waits for are seen at the next poll");
            }
            Ok(watch)
        };
        match tokio::time::timeout_at(limit.instant(), Box::pin(opening)).await {
            Ok(opened) => opened.map_err(|refusal: Refusal| refusal.detail),
            Err(_) => Err(Refusal::silence("opening the mailbox", &way.dialer.peer(), SETUP).detail),
        }
    }

    /// The spam folder: the one that the settings name, or that the server does. It may be missing.
    async fn find_spam(&mut self) -> Result<Option<Watched>, Refusal> {
        let channel = &self.tray.listener.channel;
        let folder = match &self.settings.junk {
            Some(name) => Some(Folder::named(name)),
            None => self.session.spam_folder().await?,
        };
        let Some(folder) = folder.filter(|folder| *folder != self.inbox.folder) else {
            tracing::info!(%channel, "the server names no spam folder, and `junk` is not set: spam will look like loss");
            return Ok(None);
        };
        match self.session.status(&folder).await {
            Ok(told) => {
                let told = Position { validity: told.validity, next: told.next };
                let at = self.tray.resume(Place::Spam, told, &folder);
                Ok(Some(Watched { folder, at }))
            }
            Err(refusal) if refusal.cause == Cause::Refused => {
                tracing::warn!(%channel, why = refusal.detail, "the spam folder cannot be watched: spam will look like loss");
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Reads until told to stop (`Ok`), or until the server or the connection ends it (`Err`, in words).
    async fn read(mut self) -> Result<(), String> {
        let stop = &self.tray.listener.stop;
        loop {
            let next = self.wait().await.map_err(|refusal| refusal.detail)?;
            let mut is_over = matches!(next, Next::Stop);
            if !is_over {
                let mut round = Box::pin(self.round(next));
                let done = tokio::select! {
                    biased;
                    done = &mut round => done,
                    // What is under way is ended, if that takes no long time: cut off between two commands, nothing of ours stays.
                    () = stop.cancelled() => match tokio::time::timeout(FAREWELL, &mut round).await {
                        Ok(done) => done,
                        Err(_) => return Ok(()),
                    },
                };
                drop(round);
                done.map_err(|refusal| refusal.detail)?;
                is_over = stop.is_cancelled();
            }
            if is_over {
                let farewell = async {
                    self.session.wake().await?;
                    self.tidy(Place::Inbox).await
                };
                let _ = tokio::time::timeout(FAREWELL, farewell).await;
                self.session.logout().await;
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) -> Result<Next, Refusal> {
        let listener = self.tray.listener;
        let mut awaited = listener.awaited.clone();
        loop {
            let is_blocked = self.tray.room() == 0;
            if self.session.noticed && !is_blocked {
                return Ok(if listener.stop.is_cancelled() { Next::Stop } else { Next::Look });
            }
            let now = listener.clock.now().mono;
            let pause = listener.awaited.pause(now).filter(|_| !is_blocked);
            if pause.is_none() && !is_blocked && self.session.can.idle && !self.session.is_idle() {
                return Ok(Next::Ask);
            }
            let ask_at = pause.map(|pause| self.asked + pause).filter(|at| *at < self.look_at);
            tokio::select! {
                biased;
                () = listener.stop.cancelled() => return Ok(Next::Stop),
                told = self.session.told(), if self.session.is_idle() => told?,
                place = listener.arrivals.reserve(), if !self.tray.is_empty() => {
                    let Ok(place) = place else { return Ok(Next::Stop) };
                    drop(place);
                    self.tray.hand_over();
                    if self.tray.is_empty() {
                        return Ok(Next::Look);
                    }
                }
                () = awaited.changed() => {}
                () = listener.clock.sleep_until(ask_at.unwrap_or(self.look_at)) => {
                    return Ok(if ask_at.is_some() { Next::Ask } else { Next::Look });
                }
            }
        }
    }

    /// Does what is to be done, and idles again.
    async fn round(&mut self, next: Next) -> Result<(), Refusal> {
        self.session.wake().await?;
        let is_asking = matches!(next, Next::Ask);
        if is_asking {
            self.session.run("NOOP", "asking for new mails", |_| {}).await?;
        }
        if !is_asking || self.session.noticed {
            self.look(Place::Inbox).await?;
            self.tidy(Place::Inbox).await?;
        }
        let now = self.tray.listener.clock.now();
        self.asked = now.mono;
        if now.mono >= self.look_at {
            self.look_at = now.mono + self.settings.poll;
            self.visit_spam().await?;
            self.sweep(now).await?;
        }
        let pause = self.tray.listener.awaited.pause(now.mono);
        let has_time = pause.is_none_or(|pause| pause >= TOO_SHORT_TO_IDLE);
        if self.session.can.idle && !self.session.noticed && has_time {
            self.session.idle().await?;
        }
        Ok(())
    }

    /// Fetches what is new in the folder that is open, as far as there is room for it.
    async fn look(&mut self, place: Place) -> Result<(), Refusal> {
        let Watch { session, inbox, spam, tray, .. } = self;
        let watched = match (place, spam) {
            (Place::Spam, Some(spam)) => spam,
            _ => inbox,
        };
        session.noticed = false;
        loop {
            let room = u32::try_from(tray.room()).unwrap_or(0);
            if room == 0 {
                // What is left is looked at when there is room again.
                session.noticed = true;
                return Ok(());
            }
            let first = watched.at.next;
            // Never `*`: where nothing is new, it means the last mail of all.
            let range = format!("{first}:{}", first.saturating_add(room - 1));
            let mut next = first;
            let (folder, is_spam) = (watched.folder.shown.as_str(), place == Place::Spam);
            session
                .fetch(&range, |fetched| {
                    let at = tray.listener.clock.now();
                    if fetched.uid >= first {
                        next = next.max(fetched.uid.saturating_add(1));
                        tray.take(at, place, folder, is_spam, &fetched);
                    }
                })
                .await?;
            if next == first {
                let later = session.search(&format!("UID {first}:*")).await?;
                match later.into_iter().find(|uid| *uid >= first) {
                    // There is a gap; what comes after it is fetched in the next turn.
                    Some(uid) if uid > first => next = uid,
                    _ => return Ok(()),
                }
            }
            watched.at.next = next;
        }
    }

    /// Deletes what was handed over and is ours from the folder that is open.
    async fn tidy(&mut self, place: Place) -> Result<(), Refusal> {
        let Some(watched) = (if place == Place::Inbox { Some(&self.inbox) } else { self.spam.as_ref() }) else {
            return Ok(());
        };
        let uids = self.tray.doomed(place, watched.at.validity);
        if uids.is_empty() {
            return Ok(());
        }
        match self.session.delete(&uids).await {
            Ok(()) => {}
            Err(refusal) if refusal.cause == Cause::Refused => {
                tracing::warn!(channel = %self.tray.listener.channel, why = refusal.detail, "mails of ours stay where they are");
            }
            Err(refusal) => return Err(refusal),
        }
        self.tray.spare(place, &uids);
        Ok(())
    }

    /// Looks into the spam folder if something came there, or something of ours is still in it.
    async fn visit_spam(&mut self) -> Result<(), Refusal> {
        let Some(spam) = &mut self.spam else { return Ok(()) };
        let told = match self.session.status(&spam.folder).await {
            Ok(told) => told,
            Err(refusal) if refusal.cause == Cause::Refused => {
                tracing::warn!(channel = %self.tray.listener.channel, why = refusal.detail, "the spam folder cannot be looked at");
                return Ok(());
            }
            Err(refusal) => return Err(refusal),
        };
        if told.validity != spam.at.validity {
            spam.at =
                self.tray.resume(Place::Spam, Position { validity: told.validity, next: told.next }, &spam.folder);
        }
        if told.next <= spam.at.next && self.tray.doomed(Place::Spam, spam.at.validity).is_empty() {
            return Ok(());
        }
        let folder = spam.folder.clone();
        self.session.select(&folder, !self.settings.keep).await?;
        self.look(Place::Spam).await?;
        self.tidy(Place::Spam).await?;
        let selected = self.session.select(&self.inbox.folder, !self.settings.keep).await?;
        if selected.validity != self.inbox.at.validity {
            return Err(Refusal::lost(
                &self.session.peer,
                "the folder was made anew, and its mails are numbered from the start",
            ));
        }
        // What came meanwhile was told to nobody.
        self.look(Place::Inbox).await
    }

    /// Deletes mails of ours that an earlier life of this daemon left behind.
    async fn sweep(&mut self, now: Now) -> Result<(), Refusal> {
        if self.settings.keep || !self.tray.is_sweep_due(now.mono) {
            return Ok(());
        }
        let found = match self.session.search(&probably_ours(now.wall)).await {
            Ok(found) => found,
            Err(refusal) if refusal.cause == Cause::Refused => return Ok(()),
            Err(refusal) => return Err(refusal),
        };
        let old: Vec<u32> = found.into_iter().filter(|uid| *uid < self.inbox.at.next).take(AT_ONCE).collect();
        if old.is_empty() {
            return Ok(());
        }
        let then = earlier(now.wall, LEFT_BEHIND);
        let mint = &self.tray.listener.mint;
        let headers = self.session.headers(&old).await?;
        let is_ours = |(uid, header): (u32, String)| ours::is_left_behind(&header, mint, then).then_some(uid);
        let left: Vec<u32> = headers.into_iter().filter_map(is_ours).collect();
        if left.is_empty() {
            return Ok(());
        }
        tracing::info!(channel = %self.tray.listener.channel, mails = left.len(), "deleting mails of ours that were left behind");
        match self.session.delete(&left).await {
            Err(refusal) if refusal.cause != Cause::Refused => Err(refusal),
            _ => Ok(()),
        }
    }
}
