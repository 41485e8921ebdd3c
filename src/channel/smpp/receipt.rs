//! Delivery receipts: what an SMS centre says became of a message. Pure.
//!
//! The text is nobody's standard (SMPP 3.4 appendix B gives an example, and vendors differ from it), so the optional parameters
//! go first where there are any.

use std::time::Duration;

use jiff::civil::DateTime;
use rusmpp::tlvs::TlvValue;
use rusmpp::values::MessageState;

use crate::journey::message::Trouble;
use crate::journey::outcome::Cause;

/// What a receipt says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    /// The message's id from the parameter `receipted_message_id`, as the answer to the submit gave it.
    pub(super) id: Option<String>,
    /// The id from the text, which some write in decimal where the answer had it in hexadecimal, or the other way round.
    pub(super) id_in_text: Option<String>,
    /// `DELIVRD`, `UNDELIV`, …
    pub(super) stat: Option<String>,
    /// The network's error code.
    pub(super) err: Option<String>,
    /// When the SMS centre took the message, as it writes it.
    pub(super) submit_date: Option<String>,
    /// When the message reached its last state, as the SMS centre writes it.
    pub(super) done_date: Option<String>,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// On the handset.
    Delivered,
    /// On its way; another receipt will follow.
    Underway,
    /// It will not be delivered, or nobody knows.
    Failed,
}

impl Receipt {
    /// The receipt with this text and these parameters.
    pub(super) fn read<'a>(text: &str, parameters: impl Iterator<Item = &'a TlvValue>) -> Receipt {
        let mut receipt = Receipt {
            id: None,
            id_in_text: field(text, "id:"),
            stat: field(text, "stat:").map(|stat| stat.to_ascii_uppercase()),
            err: field(text, "err:"),
            submit_date: field(text, "submit date:"),
            done_date: field(text, "done date:"),
        };
        for parameter in parameters {
            match parameter {
                TlvValue::ReceiptedMessageId(id) => receipt.id = Some(id.as_str().to_owned()),
                TlvValue::MessageState(state) => receipt.stat = word(*state).or(receipt.stat),
                TlvValue::NetworkErrorCode(code) => {
                    receipt.err = receipt.err.or_else(|| Some(code.error_code.to_string()));
                }
                _ => {}
            }
        }
        receipt
    }

    /// How far the message has come. A state that is not known is no success.
    pub(super) fn progress(&self) -> Progress {
        match self.stat.as_deref() {
            Some("DELIVRD" | "DELIVERED") => Progress::Delivered,
            Some("ENROUTE" | "ACCEPTD" | "ACCEPTED" | "SCHEDULED" | "BUFFERED") => Progress::Underway,
            _ => Progress::Failed,
        }
    }

    /// What is wrong, if the message was not delivered.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        if self.progress() != Progress::Failed {
            return None;
        }
        let what = match self.stat.as_deref() {
            Some(stat @ ("UNDELIV" | "UNDELIVERABLE" | "FAILED")) => format!("could not be delivered ({stat})"),
            Some(stat @ ("REJECTD" | "REJECTED")) => format!("was rejected ({stat})"),
            Some(stat @ "EXPIRED") => format!("was not delivered in time ({stat})"),
            Some(stat @ "DELETED") => format!("was deleted before it was delivered ({stat})"),
            Some(stat @ "SKIPPED") => format!("was deliberately not sent on ({stat})"),
            Some(stat @ "UNKNOWN") => format!("is lost: the SMS centre does not know its state ({stat})"),
            Some(stat) => format!("has a state that SMPP does not know: {stat}"),
            None => "has a receipt that does not say what became of it".to_owned(),
        };
        let err = self.err.as_deref().filter(|err| err.bytes().any(|digit| digit != b'0'));
        let err = err.map(|err| format!(", network error {err}")).unwrap_or_default();
        Some(Trouble { cause: Cause::Rejected, detail: format!("the message {what}{err}") })
    }

    /// How long the network took. To the minute where the dates have no seconds.
    pub(super) fn network(&self) -> Option<Duration> {
        let (submitted, done) = (date(self.submit_date.as_deref()?)?, date(self.done_date.as_deref()?)?);
        Duration::try_from(done.duration_since(submitted)).ok()
    }
}

/// The value after `key`, which begins a word, up to the next blank; nothing of the quoted message itself is read.
fn field(text: &str, key: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let is_start = |at: usize| at == 0 || !lower.as_bytes()[at - 1].is_ascii_alphanumeric();
    let quoted = lower.match_indices("text:").map(|(at, _)| at).find(|at| is_start(*at)).unwrap_or(lower.len());
    let at = lower[..quoted].match_indices(key).map(|(at, _)| at).find(|at| is_start(*at))?;
    let value = text[at + key.len()..quoted].trim_start();
    let value = value.split([' ', ',', ';', '\n', '\r', '\t']).next().unwrap_or_default();
    (!value.is_empty()).then(|| value.to_owned())
}

fn word(state: MessageState) -> Option<String> {
    let word = match state {
        MessageState::Scheduled => "SCHEDULED",
        MessageState::Enroute => "ENROUTE",
        MessageState::Delivered => "DELIVRD",
        MessageState::Expired => "EXPIRED",
        MessageState::Deleted => "DELETED",
        MessageState::Undeliverable => "UNDELIV",
        MessageState::Accepted => "ACCEPTD",
        MessageState::Unknown => "UNKNOWN",
        MessageState::Rejected => "REJECTD",
        MessageState::Skipped => "SKIPPED",
        MessageState::Other(_) => return None,
    };
    Some(word.to_owned())
}

/// `YYMMDDhhmm`, with or without seconds, or with the century before it.
fn date(text: &str) -> Option<DateTime> {
    if !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match text.len() {
        10 | 12 => (2000 + text[..2].parse::<i16>().ok()?, &text[2..]),
        14 => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let mut fields = (0..rest.len()).step_by(2).map(|at| rest[at..at + 2].parse::<i8>().ok());
    let mut next = || fields.next().flatten();
    let (month, day, hour, minute) = (next()?, next()?, next()?, next()?);
    DateTime::new(year, month, day, hour, minute, next().unwrap_or(0), 0).ok()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;
    use rusmpp::types::COctetString;

    use super::*;

    fn receipt(text: &str) -> Receipt {
        Receipt::read(text, [].into_iter())
    }

    const DELIVERED: &str = "id:0123 sub:001 dlvrd:001 submit date:2611210930 done date:2611210932 stat:DELIVRD err:000 text:id:9 stat:UNDELIV";

    #[test]
    fn the_text_of_appendix_b_and_its_kin_are_read() {
        let read = receipt(DELIVERED);
        assert_eq!(read.id_in_text.as_deref(), Some("0123"));
        assert_eq!(read.stat.as_deref(), Some("DELIVRD"));
        assert_eq!((read.progress(), read.trouble()), (Progress::Delivered, None));
        assert_eq!(read.network(), Some(Duration::from_secs(120)));
        let other =
            receipt("Id: AB-7, Stat: delivrd, Err: 0, Submit Date: 20261121093001, Done Date: 20261121093004, Text: x");
        assert_eq!(other.id_in_text.as_deref(), Some("AB-7"));
        assert_eq!((other.stat.as_deref(), other.err.as_deref()), (Some("DELIVRD"), Some("0")));
        assert_eq!(other.network(), Some(Duration::from_secs(3)));
        assert_eq!(receipt("msgid:5 laststat:X"), Receipt::default());
        let backwards = receipt("submit date:261121093010 done date:261121093000 stat:DELIVRD");
        assert_eq!(backwards.network(), None);
        assert_eq!(receipt("submit date:2611310930 done date:26x1310930").network(), None);
    }

    #[test]
    fn parameters_go_before_the_text() {
        let parameters = [
            TlvValue::ReceiptedMessageId(COctetString::from_str("7b").unwrap()),
            TlvValue::MessageState(MessageState::Undeliverable),
        ];
        let read = Receipt::read(DELIVERED, parameters.iter());
        assert_eq!((read.id.as_deref(), read.id_in_text.as_deref()), (Some("7b"), Some("0123")));
        assert_eq!(read.stat.as_deref(), Some("UNDELIV"));
        let unknown = [TlvValue::MessageState(MessageState::Other(77))];
        assert_eq!(Receipt::read(DELIVERED, unknown.iter()).stat.as_deref(), Some("DELIVRD"));
    }

    #[test]
    fn only_a_delivered_message_is_one() {
        use Progress::{Delivered, Failed, Underway};
        let cases = [
            ("stat:DELIVRD err:000", Delivered, None),
            ("stat:Delivered", Delivered, None),
            ("stat:ENROUTE", Underway, None),
            ("stat:ACCEPTD", Underway, None),
            ("stat:UNDELIV err:011", Failed, Some("the message could not be delivered (UNDELIV), network error 011")),
            ("stat:REJECTD err:000", Failed, Some("the message was rejected (REJECTD)")),
            ("stat:EXPIRED", Failed, Some("the message was not delivered in time (EXPIRED)")),
            ("stat:DELETED", Failed, Some("the message was deleted before it was delivered (DELETED)")),
            ("stat:UNKNOWN", Failed, Some("the message is lost: the SMS centre does not know its state (UNKNOWN)")),
            ("stat:SKIPPED", Failed, Some("the message was deliberately not sent on (SKIPPED)")),
            ("stat:FOO", Failed, Some("the message has a state that SMPP does not know: FOO")),
            ("id:1", Failed, Some("the message has a receipt that does not say what became of it")),
        ];
        for (text, progress, trouble) in cases {
            let read = receipt(text);
            assert_eq!(read.progress(), progress, "{text}");
            assert_eq!(read.trouble().map(|trouble| trouble.detail).as_deref(), trouble, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_somehow(text in "(id:|stat:|text:|submit date:|done date:|İ|[0-9]{2}|[ -~é€]){0,12}") {
            let read = receipt(&text);
            let _ = (read.network(), read.trouble());
        }
    }
}
