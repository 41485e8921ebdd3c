//! What keeps the mails of an incident together. Gmail goes by References and the same subject, Outlook by Thread-Index and
//! Thread-Topic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lettre::message::Mailbox;
use sha2::{Digest as _, Sha256};

use crate::notifier::{Delivery, Receipt};

/// The part of a Message-ID before the `@` is at most this long, without the recipient's hash.
const ID: usize = 120;
/// Seconds from 1601, where FILETIME begins, to 1970.
const FILETIME: i64 = 11_644_473_600;

/// Identifies a delivery to one recipient; a function of state, so that a repeat, also after a crash, has the same, and a
/// mailbox that has it already can tell. The recipient is hashed, since the id travels in replies to others.
pub(super) fn message_id(delivery: &str, to: &Mailbox, domain: &str) -> String {
    recipients(&dot_atom(delivery), to, domain)
}

/// The recipient's own copy of the first mail of this incident, from the receipt of the first recipient's.
///
/// A recipient who was refused then refers to a mail that never was; what refers to the same is still one thread.
pub(super) fn first_mail(root: Option<&Receipt>, to: &Mailbox) -> Option<String> {
    let id = root?.id.strip_prefix('<')?.strip_suffix('>')?;
    let (left, domain) = id.rsplit_once('@')?;
    let (delivery, _) = left.rsplit_once('.')?;
    Some(recipients(delivery, to, domain))
}

fn recipients(atom: &str, to: &Mailbox, domain: &str) -> String {
    let address = to.email.to_string().to_lowercase();
    format!("<{atom}.{}@{domain}>", hash(&address, 12))
}

/// [MS-OXOMSG] 2.2.1.3: the thread's beginning and identity, and for each mail after the first how long after that.
///
/// As Outlook writes it, the upper six bytes of the FILETIME, whose first is 1 until the year 2057.
pub(super) fn index(delivery: &Delivery) -> String {
    let incident = &delivery.notification.incident;
    // Of what is the same for every mail of the incident: who is told late has no other thread.
    let since = filetime(incident.since);
    let mut index = since.to_be_bytes()[..6].to_vec();
    index.extend(&Sha256::digest(incident.id.as_bytes())[..16]);
    if incident.sequence > 1 {
        // 31 bits of the difference without its 18 lowest: fine for 1.7 years. The response level is one of them all.
        let after = (filetime(delivery.notification.at).saturating_sub(since) >> 18) as u32 & 0x7fff_ffff;
        index.extend(after.to_be_bytes());
        // Four random bits and a counter of four: here the notice's number, so that it is the same on every attempt.
        index.push((incident.sequence & 0xff) as u8);
    }
    STANDARD.encode(index)
}

/// 100 ns since 1601.
fn filetime(at: Timestamp) -> u64 {
    let ticks = i128::from(at.as_second() + FILETIME) * 10_000_000 + i128::from(at.subsec_nanosecond() / 100);
    u64::try_from(ticks).unwrap_or_default()
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
pub(super) fn label(text: &str) -> String {
    let hyphens = text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let words: Vec<_> = hyphens.split('-').filter(|word| !word.is_empty()).collect();
    let label: String = words.join("-").chars().take(60).collect();
    if label.is_empty() { hash(text, 12) } else { label }
}

/// The first `digits` hexadecimal digits of SHA-256.
pub(super) fn hash(text: &str, digits: usize) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::NotifyReason;
    use crate::notice::sample::sample;

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
    fn the_first_mail_is_the_recipients_own() {
        let to = |to: &str| to.parse::<Mailbox>().unwrap();
        for delivery in ["7f3a.2.ops-mail", "7f3a.2.Büro 2"] {
            let id = message_id(delivery, &to("ops@example.net"), "example.net");
            let root = Receipt { id, ..Receipt::default() };
            let duty = to("duty@example.net");
            assert_eq!(first_mail(Some(&root), &duty), Some(message_id(delivery, &duty, "example.net")));
        }
        let foreign = Receipt { id: "1773.0042".to_owned(), ..Receipt::default() };
        assert_eq!(first_mail(Some(&foreign), &to("ops@example.net")), None);
        assert_eq!(first_mail(None, &to("ops@example.net")), None);
    }

    #[test]
    fn a_thread_index_is_the_incident_and_how_long_after() {
        let of = |reason| {
            let notification = sample(reason);
            let id = String::new();
            let delivery = Delivery { id, attempt: 1, is_ambiguous: false, notification, root: None, instead_of: None };
            STANDARD.decode(index(&delivery)).unwrap()
        };
        let (first, worse, repeat) = (of(NotifyReason::First), of(NotifyReason::Worse), of(NotifyReason::Repeat));
        assert_eq!((first.len(), worse.len()), (22, 27));
        assert_eq!(worse[..22], first[..]);
        // 2026-03-14 11:57 UTC is 134 179 630 200 000 000 ticks: the upper six bytes.
        let since = u64::from_be_bytes([&first[..6], &[0, 0]].concat().try_into().unwrap());
        assert_eq!(since >> 16, 134_179_630_200_000_000_u64 >> 16);
        let after = |index: &[u8]| u64::from(u32::from_be_bytes(index[22..26].try_into().unwrap())) << 18;
        // Within what 18 bits of 100 ns are.
        assert!((10_500_000_000 - (1 << 18)..=10_500_000_000).contains(&after(&worse)), "{}", after(&worse));
        assert!(after(&repeat) > after(&worse), "Outlook sorts by it");
    }

    #[test]
    fn a_list_id_is_one_label() {
        assert_eq!(label("Checkout API [eu]"), "checkout-api-eu");
        assert_eq!(label("a\r\nBcc: b"), "a-bcc-b");
        assert_eq!(label("日本"), hash("日本", 12));
    }
}
