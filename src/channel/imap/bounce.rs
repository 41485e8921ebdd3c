//! Notices about mails of ours (RFC 3464): not delivered, delayed. Pure.

use mail_parser::{Message, MimeHeaders, PartType};

use super::ours::{self, TOKEN_HEADER};
use crate::journey::message::Trouble;
use crate::journey::outcome::Cause;
use crate::journey::token::Token;

/// What a notice says of the mail that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// The mail's token, from what of it came back.
    pub(super) token: Option<Token>,
    /// What became of it.
    pub(super) fate: Fate,
    /// To whom, why: in the words of the server that gave up.
    pub(super) words: String,
}

/// What became of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It will not be delivered.
    Failed,
    /// Not yet, and it is tried again.
    Delayed,
    /// It went on, or was delivered.
    Delivered,
}

impl Notice {
    /// What its arrival means for the run.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let detail = format!("not delivered: {}", self.words);
        (self.fate == Fate::Failed).then_some(Trouble { cause: Cause::Rejected, detail })
    }
}

/// The notice that a mail is, if it is one.
pub(super) fn notice(mail: &Message<'_>) -> Option<Notice> {
    let is_report =
        mail.content_type().is_some_and(|kind| kind.ctype() == "multipart" && kind.subtype() == Some("report"));
    if !is_report {
        return None;
    }
    let status = mail.parts.iter().find(|part| is_of(part, &["delivery-status", "global-delivery-status"]))?;
    let groups = groups(&String::from_utf8_lossy(status.contents()));
    // The first group is about the report, each further one about a recipient.
    let recipients: Vec<_> = groups.iter().skip(1).collect();
    let field = |group: &[(String, String)], name: &str| {
        group.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    let fate_of = |group: &[(String, String)]| match field(group, "Action").unwrap_or_default().to_lowercase().as_str()
    {
        "delayed" => Fate::Delayed,
        "delivered" | "relayed" | "expanded" => Fate::Delivered,
        _ => Fate::Failed,
    };
    let rank = |fate: Fate| [Fate::Failed, Fate::Delayed, Fate::Delivered].iter().position(|known| *known == fate);
    let worst = recipients.iter().min_by_key(|group| rank(fate_of(group)))?;
    let words: Vec<_> = ["Status", "Diagnostic-Code"].iter().filter_map(|name| field(worst, name)).collect();
    // `rfc822; someone@example.net`
    let recipient = field(worst, "Final-Recipient").or_else(|| field(worst, "Original-Recipient"));
    let recipient = recipient.map(|text| text.split_once(';').map_or(text.clone(), |(_, to)| to.trim().to_owned()));
    let words = match (words.is_empty(), recipient) {
        (false, Some(to)) => format!("{} (to {to})", words.join(", ")),
        (false, None) => words.join(", "),
        (true, to) => format!("no reason given (to {})", to.as_deref().unwrap_or("somebody")),
    };
    Some(Notice { token: returned(mail), fate: fate_of(worst), words: crate::channel::mail::one_line(&words, 500) })
}

/// The token of the mail that came back, whole or its header alone: by the fields that we set, else by any.
fn returned(mail: &Message<'_>) -> Option<Token> {
    mail.parts.iter().find_map(|part| match &part.body {
        PartType::Message(original) => {
            let by_field =
                |name: &'static str| original.header_raw(name).and_then(|raw| Token::find_all(raw.as_bytes()).next());
            let anywhere = || original.parts.iter().find_map(|part| Token::find_all(part.contents()).next());
            by_field(TOKEN_HEADER).or_else(|| by_field("Message-ID")).or_else(|| by_field("Subject")).or_else(anywhere)
        }
        _ if is_of(part, &["rfc822-headers"]) => ours::token_in_header(&String::from_utf8_lossy(part.contents())),
        _ => None,
    })
}

fn is_of(part: &mail_parser::MessagePart<'_>, subtypes: &[&str]) -> bool {
    part.content_type()
        .and_then(|kind| kind.subtype())
        .is_some_and(|found| subtypes.iter().any(|subtype| subtype.eq_ignore_ascii_case(found)))
}

/// Groups of fields with an empty line between them.
fn groups(text: &str) -> Vec<Vec<(String, String)>> {
    let text = text.replace("\r\n", "\n");
    let mut groups: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines() {
        let Some(group) = groups.last_mut() else { continue };
        if line.trim().is_empty() {
            if !group.is_empty() {
                groups.push(Vec::new());
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = group.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            group.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}
