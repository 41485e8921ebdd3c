//! What the reader asks of a session: folders, mails, their headers, their end.

use std::time::Duration;

use async_imap::imap_proto::{AttributeValue, MailboxDatum, NameAttribute, Response, ResponseCode, StatusAttribute};
use jiff::Timestamp;
use jiff::fmt::strtime;

use super::name::{Folder, quoted};
use super::session::Session;
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;
use crate::time::earlier;

/// Of a mail, this much is read: a stranger's attachments must not fill our memory.
const LARGEST: usize = 1 << 20;

/// A folder, as far as it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Selected {
    /// UIDs mean the same mails for as long as this is the same.
    pub(super) validity: u32,
    /// The next mail's UID, or less.
    pub(super) next: u32,
    /// How many mails are in it.
    pub(super) exists: u32,
}

/// A mail that was fetched.
pub(super) struct Fetched<'a> {
    pub(super) uid: u32,
    pub(super) size: Option<u32>,
    pub(super) delivered: Option<Timestamp>,
    pub(super) bytes: &'a [u8],
}

impl Session {
    /// Opens a folder: to change it, or to look only.
    pub(super) async fn select(&mut self, folder: &Folder, to_change: bool) -> Result<Selected, Refusal> {
        let command = format!("{} {}", if to_change { "SELECT" } else { "EXAMINE" }, folder.wire);
        let mut selected = Selected::default();
        self.run(&command, &format!("opening folder `{}`", folder.shown), |response| match response {
            Response::Data { outcome, .. } => match outcome.code {
                Some(ResponseCode::UidValidity(validity)) => selected.validity = validity,
                Some(ResponseCode::UidNext(next)) => selected.next = next,
                _ => {}
            },
            Response::MailboxData(MailboxDatum::Exists(count)) => selected.exists = *count,
            _ => {}
        })
        .await?;
        self.noticed = false;
        if selected.next == 0 {
            // An old server, which leaves it to us.
            selected.next = self.last_uid().await? + 1;
        }
        Ok(selected)
    }

    async fn last_uid(&mut self) -> Result<u32, Refusal> {
        let mut last = 0;
        let found = self.run("UID FETCH * (UID)", "looking for the last mail", |response| {
            last = last.max(uid_of(response).unwrap_or(0));
        });
        match found.await {
            // Of an empty folder some servers say that it has no `*`.
            Ok(()) => Ok(last),
            Err(refusal) if refusal.cause == Cause::Refused => Ok(last),
            Err(refusal) => Err(refusal),
        }
    }

    /// Opens a folder to look only; what it says, in words.
    pub(super) async fn examine(&mut self, folder: &str) -> Result<String, Refusal> {
        let selected = self.select(&Folder::named(folder), false).await?;
        let mut told = format!("{} lets us in; folder `{folder}` has {} mails", self.peer, selected.exists);
        if !self.can.idle {
            told.push_str("; it has no IDLE, so mails that no run waits for are seen at the next poll");
        }
        if !self.can.uid_expunge {
            told.push_str("; it has no UIDPLUS, so mails of ours are marked as deleted and stay");
        }
        Ok(told)
    }

    /// The folder that the server says is for spam.
    pub(super) async fn spam_folder(&mut self) -> Result<Option<Folder>, Refusal> {
        let command = if self.can.special_use { "LIST (SPECIAL-USE) \"\" \"*\"" } else { "LIST \"\" \"*\"" };
        let mut found = None;
        self.run(command, "looking for the spam folder", |response| {
            if let Response::MailboxData(MailboxDatum::List(list)) = response
                && list.name_attributes.contains(&NameAttribute::Junk)
            {
                found = Some(Folder::found(&list.name));
            }
        })
        .await?;
        Ok(found)
    }

    /// What a folder that is not open has.
    pub(super) async fn status(&mut self, folder: &Folder) -> Result<Selected, Refusal> {
        let mut told = Selected::default();
        let command = format!("STATUS {} (MESSAGES UIDNEXT UIDVALIDITY)", folder.wire);
        self.run(&command, &format!("asking about folder `{}`", folder.shown), |response| {
            let Response::MailboxData(MailboxDatum::Status { status, .. }) = response else { return };
            for attribute in status {
                match attribute {
                    StatusAttribute::UidNext(next) => told.next = *next,
                    StatusAttribute::UidValidity(validity) => told.validity = *validity,
                    StatusAttribute::Messages(count) => told.exists = *count,
                    _ => {}
                }
            }
        })
        .await?;
        if told.next == 0 {
            let detail = format!("{} does not say which number the next mail of `{}` has", self.peer, folder.shown);
            return Err(Refusal::new(Cause::Refused, detail));
        }
        Ok(told)
    }

    /// Reads the mails of a range of UIDs, without marking them as seen; `each` has each one the moment its bytes are here.
    pub(super) async fn fetch(&mut self, range: &str, mut each: impl FnMut(Fetched<'_>) + Send) -> Result<(), Refusal> {
        let command = format!("UID FETCH {range} (UID INTERNALDATE RFC822.SIZE BODY.PEEK[]<0.{LARGEST}>)");
        self.run(&command, "fetching mails", |response| {
            let Response::Fetch(_, attributes) = response else { return };
            let (mut size, mut delivered, mut bytes) = (None, None, None);
            for attribute in attributes {
                match attribute {
                    AttributeValue::Rfc822Size(found) => size = Some(*found),
                    AttributeValue::InternalDate(text) => delivered = internal_date(text),
                    AttributeValue::BodySection { section: None, data, .. } => bytes = data.as_deref(),
                    _ => {}
                }
            }
            if let (Some(uid), Some(bytes)) = (uid_of(response), bytes) {
                each(Fetched { uid, size, delivered, bytes });
            }
        })
        .await
    }

    /// The headers of these mails, as far as they say whose they are.
    pub(super) async fn headers(&mut self, uids: &[u32]) -> Result<Vec<(u32, String)>, Refusal> {
        let command = format!("UID FETCH {} (UID BODY.PEEK[HEADER.FIELDS (X-Journeyman-Token Message-ID)])", set(uids));
        let mut headers = Vec::new();
        self.run(&command, "reading headers", |response| {
            let Response::Fetch(_, attributes) = response else { return };
            let text = attributes.iter().find_map(|attribute| match attribute {
                AttributeValue::BodySection { section: Some(_), data, .. } => data.as_deref(),
                _ => None,
            });
            if let (Some(uid), Some(text)) = (uid_of(response), text) {
                headers.push((uid, String::from_utf8_lossy(text).into_owned()));
            }
        })
        .await?;
        Ok(headers)
    }

    /// The UIDs of the mails that fulfil `criteria`, in order.
    pub(super) async fn search(&mut self, criteria: &str) -> Result<Vec<u32>, Refusal> {
        let mut found = Vec::new();
        self.run(&format!("UID SEARCH {criteria}"), "searching", |response| {
            if let Response::MailboxData(MailboxDatum::Search(uids)) = response {
                found.extend_from_slice(uids);
            }
        })
        .await?;
        found.sort_unstable();
        Ok(found)
    }

    /// Deletes these mails and no other: never by a plain EXPUNGE, which takes along whatever other clients have marked. A server
    /// without UIDPLUS keeps them, marked as deleted.
    pub(super) async fn delete(&mut self, uids: &[u32]) -> Result<(), Refusal> {
        let set = set(uids);
        self.run(&format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)"), "marking our mails as deleted", |_| {}).await?;
        if self.can.uid_expunge {
            self.run(&format!("UID EXPUNGE {set}"), "deleting our mails", |_| {}).await?;
        }
        Ok(())
    }
}

fn uid_of(response: &Response<'_>) -> Option<u32> {
    let Response::Fetch(_, attributes) = response else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        AttributeValue::Uid(uid) => Some(*uid),
        _ => None,
    })
}

/// `21-Nov-2026 11:00:00 +0100`, the day with a space before it if it has one digit.
fn internal_date(text: &str) -> Option<Timestamp> {
    strtime::parse("%d-%b-%Y %H:%M:%S %z", text.trim_start()).ok()?.to_timestamp().ok()
}

/// A set of UIDs as the protocol writes it.
fn set(uids: &[u32]) -> String {
    uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// `DD-Mon-YYYY`, as searches want it.
fn date(at: Timestamp) -> String {
    at.strftime("%d-%b-%Y").to_string()
}

/// What finds mails that are probably ours: those from before `day` that carry our field, or the beginning of a token as the left
/// side of their Message-ID. A search finds parts of words (RFC 3501, 6.4.4), so what it finds is looked at before it is believed.
pub(super) fn probably_ours(day: Timestamp) -> String {
    let (field, id) = (quoted(super::ours::TOKEN_HEADER), quoted("<jm"));
    format!("UNDELETED BEFORE {} OR HEADER {field} \"jm\" HEADER \"Message-ID\" {id}", date(day))
}

/// What finds the mails that may have come since then. A server compares days, in a zone that it chooses.
pub(super) fn came_since(then: Timestamp) -> String {
    format!("UNDELETED SINCE {}", date(earlier(then, Duration::from_secs(86_400))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written_as_the_protocol_has_them() {
        let noon: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        assert_eq!(internal_date("01-Nov-2026 13:00:00 +0100"), Some(noon));
        assert_eq!(internal_date(" 1-Nov-2026 12:00:00 +0000"), Some(noon));
        assert_eq!(internal_date("soon"), None);
        assert_eq!(date(noon), "01-Nov-2026");
        assert_eq!(came_since(noon), "UNDELETED SINCE 31-Oct-2026");
    }
}
