//! A notice as a mail for one recipient, rendered from data alone.
//!
//! What mail clients need to keep an incident together, in one thread: the same subject every time, and references to its first
//! message. So the state is in the first line of the body and in headers, for rules, and not in the subject.

use std::time::Duration;

use jiff::Timestamp;
use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, MultiPartKind, SinglePart};
use sha2::{Digest as _, Sha256};

use super::{html, one_line, shorten};
use crate::detect::Severity;
use crate::incident::NotifyReason;
use crate::notice::Notification;
use crate::notifier::Delivery;
use crate::secret::Redactor;
use crate::time::{Human, between};

/// A notice that is told later than this says so.
const LATE: Duration = Duration::from_secs(120);
/// Longer header values are cut: lines of a header must not be longer than 998 characters (RFC 5322, 2.1.1).
const HEADER: usize = 200;
/// Longer texts, and longer lines of a text, are cut; the log and the journey's page have the whole.
const TEXT: usize = 60_000;
const LINE: usize = 1_000;
/// The part of a Message-ID before the `@` is at most this long, without the recipient's hash.
const ID: usize = 120;

/// A message ready to be sent.
pub(super) struct Letter {
    /// Its Message-ID, with the angle brackets.
    pub(super) id: String,
    /// Headers and body, in ASCII.
    pub(super) bytes: Vec<u8>,
}

/// The mail that tells `to` of `delivery`.
///
/// # Errors
/// The message cannot be put together; in words.
pub(super) fn letter(
    delivery: &Delivery,
    from: &Mailbox,
    to: &Mailbox,
    now: Timestamp,
    redactor: &Redactor,
) -> Result<Letter, String> {
    let notification = &delivery.notification;
    let incident = &notification.incident;
    let domain = from.email.domain();
    let id = message_id(&delivery.id, to, domain);
    let root = message_id(&root_delivery(delivery), to, domain);
    let line = |text: &str| one_line(&redactor.clean(text), HEADER);
    let notes: Vec<String> = notes(delivery, now).iter().map(|note| redactor.clean(note)).collect();

    let mut builder = Message::builder()
        .from(from.clone())
        .to(to.clone())
        .subject(line(&format!("[journeyman] {}: incident {}", notification.subject, incident.id)))
        .date(notification.at.into())
        .message_id(Some(id.clone()));
    if root != id {
        builder = builder.in_reply_to(root.clone()).references(root);
    }
    let mut headers = vec![
        // RFC 3834: answering machines must not answer. Exchange heeds only its own header, of MS-OXCMAIL.
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("X-Auto-Response-Suppress", "All".to_owned()),
        // RFC 2919: what filters sort by.
        ("List-Id", format!("<{}.journeyman.{domain}>", label(&redactor.clean(&notification.subject)))),
        ("X-Journeyman-Incident", line(&incident.id)),
        ("X-Journeyman-State", notification.state_word().to_owned()),
        ("X-Journeyman-Reason", notification.reason.to_string()),
        ("X-Journeyman-Delivery", line(&delivery.id)),
    ];
    if is_urgent(notification) {
        headers.push(("Importance", "high".to_owned()));
    }
    for (name, value) in headers {
        builder = builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value));
    }

    let parts = MultiPart::builder()
        .kind(MultiPartKind::Alternative)
        // Derived, so that a message is the same whenever it is rendered.
        .boundary(format!("=_{}", hash(&id, 32)))
        .singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(text(notification, &notes, redactor)))
        .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(html::page(
            notification,
            &notes,
            redactor,
        )));
    let message = builder.multipart(parts);
    let message = message.map_err(|error| format!("the mail for {} cannot be put together: {error}", to.email))?;
    Ok(Letter { id, bytes: message.formatted() })
}

fn is_urgent(notification: &Notification) -> bool {
    notification.reason != NotifyReason::Resolved && notification.incident.worst == Severity::Critical
}

/// What belongs to this way of telling and not to the notice.
fn notes(delivery: &Delivery, now: Timestamp) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((other, said)) = &delivery.instead_of {
        notes.push(format!("Told here because notifier `{other}` did not take it: {}", one_line(said, HEADER)));
    }
    let late = between(delivery.notification.at, now);
    if late > LATE {
        notes.push(format!(
            "Told late: decided at {}, handed over {} after that, at attempt {}",
            delivery.notification.at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            Human(late),
            delivery.attempt
        ));
    }
    notes
}

fn text(notification: &Notification, notes: &[String], redactor: &Redactor) -> String {
    let text = redactor.clean(&notification.text());
    // The verdict comes first: it is what a list of messages shows.
    let (verdict, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let notes: String = notes.iter().map(|note| format!("\n{note}\n")).collect();
    let whole = format!("{verdict}\n{notes}\n{rest}");
    let lines: String = whole.lines().map(|line| format!("{}\n", shorten(line, LINE))).collect();
    shorten(&lines, TEXT)
}

/// Identifies a delivery to one recipient; a function of state, so that a repeat, also after a crash, has the same, and a
/// mailbox that has it already can tell. The recipient is hashed, since the id travels in replies to others.
fn message_id(delivery: &str, to: &Mailbox, domain: &str) -> String {
    let address = to.email.to_string().to_lowercase();
    format!("<{}.{}@{domain}>", dot_atom(delivery), hash(&address, 12))
}

/// The incident's first delivery by this notifier: what the later ones refer to. If this delivery's id does not tell, one that
/// never was serves as well, since all refer to the same.
fn root_delivery(delivery: &Delivery) -> String {
    let incident = &delivery.notification.incident;
    match delivery.id.strip_prefix(&format!("{}.{}.", incident.id, incident.sequence)) {
        Some(notifier) => format!("{}.1.{notifier}", incident.id),
        None => format!("{}.1", incident.id),
    }
}

/// `text` as the left side of a Message-ID (RFC 5322, 3.2.3). What had to be changed is told apart by a hash.
fn dot_atom(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_atom = text.chars().all(is_plain) && text.split('.').all(|atom| !atom.is_empty()) && text.len() <= ID;
    if is_atom {
        return text.to_owned();
    }
    let changed: String = text.chars().map(|c| if is_plain(c) && c != '.' { c } else { '-' }).take(ID).collect();
    format!("{changed}.{}", hash(text, 12))
}

/// `text` as one label of a List-Id: letters, digits and hyphens.
fn label(text: &str) -> String {
    let hyphens = text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let words: Vec<_> = hyphens.split('-').filter(|word| !word.is_empty()).collect();
    let label: String = words.join("-").chars().take(60).collect();
    if label.is_empty() { hash(text, 12) } else { label }
}

/// The first `digits` hexadecimal digits of SHA-256.
fn hash(text: &str, digits: usize) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_lawful_stable_and_different_for_each_recipient() {
        let id = |delivery: &str, to: &str| message_id(delivery, &to.parse().unwrap(), "example.net");
        let plain = id("7f3a2c01d2e4.1.ops-mail", "ops@example.net");
        assert_eq!(plain, "<7f3a2c01d2e4.1.ops-mail.edc0424c5325@example.net>");
        assert_eq!(plain, id("7f3a2c01d2e4.1.ops-mail", "Ops <OPS@example.net>"));
        assert_ne!(plain, id("7f3a2c01d2e4.1.ops-mail", "duty@example.net"));
        let odd = ["7f.1.Büro 2", "7f.1.b..c", "7f.1.", "7f.1.a>\r\nBcc: b", &"x".repeat(500)];
        let mut seen = std::collections::BTreeSet::new();
        for delivery in odd {
            let id = id(delivery, "ops@example.net");
            let left = id.strip_prefix('<').and_then(|id| id.strip_suffix("@example.net>")).unwrap();
            let is_atom = |c: char| c.is_ascii_alphanumeric() || c == '-';
            assert!(
                left.len() < 160 && left.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom)),
                "{id}"
            );
            assert!(seen.insert(id));
        }
        assert_ne!(dot_atom("7f.1.a b"), dot_atom("7f.1.a-b"), "what was changed is told apart");
    }

    #[test]
    fn a_list_id_is_one_label() {
        assert_eq!(label("Checkout API [eu]"), "checkout-api-eu");
        assert_eq!(label("a\r\nBcc: b"), "a-bcc-b");
        assert_eq!(label("日本"), hash("日本", 12));
    }
}
