//! IMAP: watches a folder, and the spam folder beside it, for the mails that come.
//!
//! One session, in IDLE on the folder. At intervals it leaves IDLE and looks by itself, in case the server told it nothing, and
//! asks whether something new is in the spam folder. What it has handed over and is ours, it deletes; what is not, it never touches.

mod bounce;
mod commands;
mod mail;
mod name;
mod ours;
mod reader;
mod session;
mod sign_in;
mod tray;

#[cfg(any(test, fuzzing))]
pub(crate) use mail::fuzz;

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::channel::dial::Limit;
use crate::channel::imap::session::Session;
use crate::channel::mail::{MailServer, Way};
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::run::{Fault, Reply};

/// How often the folders are looked at, whatever the server tells, unless the settings say otherwise.
pub const POLL: Duration = Duration::from_secs(15);
/// A server may end an IDLE of 30 minutes (RFC 2177); each poll begins a new one.
pub const LONGEST_POLL: Duration = Duration::from_secs(20 * 60);

/// Settings of an `imap` channel.
#[derive(Clone, Debug)]
pub struct ImapSettings {
    /// The server that has the mailbox.
    pub server: MailServer,
    /// The folder that mails are expected in.
    pub folder: String,
    /// The spam folder; `None` is the one that the server says it is.
    pub junk: Option<String>,
    /// How often the folders are looked at, whatever the server tells.
    pub poll: Duration,
    /// Whether mails of ours stay.
    pub keep: bool,
}

/// An `imap` channel.
pub struct Imap {
    settings: ImapSettings,
    way: Way,
    clock: Clock,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: ImapSettings, clock: Clock) -> Result<Imap, String> {
    Ok(Imap { way: settings.server.way()?, settings, clock })
}

impl Imap {
    async fn knock(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, within);
        let knocked = async {
            let mut session = Session::open(&self.settings.server, &self.way, limit).await?;
            let told = session.examine(&self.settings.folder).await;
            session.logout().await;
            told
        };
        knocked.await.map_err(|refusal| refusal.before_sending().into_fault(asked, self.clock.now(), Vec::new()))
    }
}

impl Channel for Imap {
    fn send<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async {
            Err(cannot(self.clock, "an `imap` channel only receives; send the mail through an `smtp` channel"))
        })
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async { Err(cannot(self.clock, "an `imap` channel only receives")) })
    }

    /// Signs in and opens the folder for reading only: no mail becomes seen, or loses its mark of being recent.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.knock(limit))
    }

    /// Watches the folder; ready once it is selected, its next UID is known, and the server idles.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(reader::listen(&self.settings, &self.way, listener))
    }
}
