//! `type = "imap"`.

use std::time::Duration;

use crate::channel::Settings;
use crate::channel::imap::{ImapSettings, LONGEST_POLL, POLL};
use crate::config::channels::{Channel, Grammar, mail};
use crate::config::document::Section;
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "imap",
    keys: &["url", "username", "password", "plain_password", "ca_file", "folder", "junk", "poll", "keep"],
    tables: &[],
    read,
};

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let folder = |key: &str| {
        let text = section.text(key)?;
        if text.is_empty() || text.chars().any(char::is_control) {
            context.add(Problem::error(section.place_of(key), format!("`{key}` is not the name of a folder")));
        }
        Some(text.to_owned())
    };
    let (inbox, junk) = (folder("folder").unwrap_or_else(|| "INBOX".to_owned()), folder("junk"));
    if junk.as_ref() == Some(&inbox) {
        let problem = Problem::error(section.place_of("junk"), "`junk` is the folder that mails are expected in");
        context.add(problem.hint("it is the spam folder beside it; leave it out if the server says which that is"));
    }
    let poll = section.duration("poll").unwrap_or(POLL);
    if !(Duration::from_secs(1)..=LONGEST_POLL).contains(&poll) {
        let problem = Problem::error(section.place_of("poll"), "`poll` must be between 1s and 20m");
        context.add(problem.hint("a server may end an IDLE of half an hour, so each poll begins a new one"));
    }
    let keep = section.bool("keep", false);
    let server = mail::server(section, channel, ["imap", "imap+starttls", "imaps"])?;
    if server.login.is_none()
        && !section.node.entries().iter().any(|entry| entry.key == "username" || entry.key == "password")
    {
        let problem = Problem::error(&section.node.place, "`username` is missing");
        context.add(problem.hint("whose mailbox it is, with `password = { file = \"…\" }`"));
    }
    Some(Settings::Imap(ImapSettings { server, folder: inbox, junk, poll, keep }))
}
