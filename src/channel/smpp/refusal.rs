//! Why an SMS centre said no: the statuses of SMPP as causes and sentences. Pure.

use rusmpp::CommandStatus;

use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

impl Refusal {
    /// The answer to a bind.
    pub(super) fn of_bind(status: CommandStatus, peer: &str, system_id: &str) -> Refusal {
        let (cause, words) = meaning(status);
        Refusal::new(cause, format!("{peer} refused to bind `{system_id}`: {words}"))
    }

    /// The answer to a submit.
    pub(super) fn of_submit(status: CommandStatus, peer: &str) -> Refusal {
        let (cause, words) = meaning(status);
        Refusal::new(cause, format!("{peer} refused the message: {words}"))
    }
}

/// SMPP 3.4 section 5.1.3, and what 5.0 adds. The cause goes by what an operator does next.
fn meaning(status: CommandStatus) -> (Cause, String) {
    use CommandStatus as S;
    let (cause, name, words) = match status {
        S::EsmeRthrottled => (Cause::Throttled, "ESME_RTHROTTLED", "too many messages; `rate` limits ours"),
        S::EsmeRmsgqful => (Cause::Throttled, "ESME_RMSGQFUL", "its queue is full"),

        S::EsmeRbindfail => (Cause::Auth, "ESME_RBINDFAIL", "system id, password or system type is wrong"),
        S::EsmeRinvpaswd => (Cause::Auth, "ESME_RINVPASWD", "the password is wrong"),
        S::EsmeRinvsysid => (Cause::Auth, "ESME_RINVSYSID", "it does not know this system id"),
        S::EsmeRalybnd => {
            (Cause::Auth, "ESME_RALYBND", "the account is bound already, and has no further bind to give")
        }
        S::EsmeRinvsystyp => (Cause::Auth, "ESME_RINVSYSTYP", "the system type is wrong"),
        S::EsmeRsertypunauth => (Cause::Auth, "ESME_RSERTYPUNAUTH", "the account may not use this service"),
        S::EsmeRprohibited => (Cause::Auth, "ESME_RPROHIBITED", "the account may not do this"),

        S::EsmeRsyserr => (Cause::Rejected, "ESME_RSYSERR", "a fault of its own"),
        S::EsmeRsubmitfail => (Cause::Rejected, "ESME_RSUBMITFAIL", "it could not take the message"),
        S::EsmeRdeliveryfailure => (Cause::Rejected, "ESME_RDELIVERYFAILURE", "it could not deliver the message"),
        S::EsmeRsertypunavail => (Cause::Rejected, "ESME_RSERTYPUNAVAIL", "the service is out of order"),
        S::EsmeRunknownerr => (Cause::Rejected, "ESME_RUNKNOWNERR", "a fault that it does not name"),

        S::EsmeRinvdstadr => (Cause::Refused, "ESME_RINVDSTADR", "it does not take the number in `to`"),
        S::EsmeRinvdstton => (Cause::Refused, "ESME_RINVDSTTON", "it does not take `to_ton`"),
        S::EsmeRinvdstnpi => (Cause::Refused, "ESME_RINVDSTNPI", "it does not take `to_npi`"),
        S::EsmeRinvsrcadr => (Cause::Refused, "ESME_RINVSRCADR", "it does not take the sender in `from`"),
        S::EsmeRinvsrcton => (Cause::Refused, "ESME_RINVSRCTON", "it does not take `from_ton`"),
        S::EsmeRinvsrcnpi => (Cause::Refused, "ESME_RINVSRCNPI", "it does not take `from_npi`"),
        S::EsmeRinvmsglen => (Cause::Refused, "ESME_RINVMSGLEN", "the text is too long for it"),
        S::EsmeRinvbndsts => (Cause::Refused, "ESME_RINVBNDSTS", "this bind may not do this"),
        S::EsmeRinvexpiry => (Cause::Refused, "ESME_RINVEXPIRY", "it does not take our validity period"),
        S::EsmeRinvdcs => (Cause::Refused, "ESME_RINVDCS", "it does not take the text's alphabet"),
        S::EsmeRinvregdlvflg => (Cause::Refused, "ESME_RINVREGDLVFLG", "it gives no receipts"),
        S::EsmeRtlvnotallwd => {
            (Cause::Refused, "ESME_RTLVNOTALLWD", "it does not take a parameter; `long = \"split\"` does without")
        }

        // Those of one SMS centre only, and what lies between the standard's: it has taken a look, and will not carry it.
        S::Other(code) => return (Cause::Rejected, format!("a status of its own (0x{code:X}); its operator knows it")),
        // What is left says that something in the PDU is not as this SMS centre wants it.
        other => return (Cause::Refused, format!("{other:?} (0x{:X})", u32::from(other))),
    };
    (cause, format!("{words} ({name}, 0x{:X})", u32::from(status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_cause_that_says_what_to_do() {
        let cases = [
            (0x58, Cause::Throttled),
            (0x14, Cause::Throttled),
            (0x05, Cause::Auth),
            (0x0d, Cause::Auth),
            (0x0e, Cause::Auth),
            (0x0f, Cause::Auth),
            (0x53, Cause::Auth),
            (0x100, Cause::Auth),
            (0x101, Cause::Auth),
            (0x08, Cause::Rejected),
            (0x45, Cause::Rejected),
            (0xfe, Cause::Rejected),
            (0xff, Cause::Rejected),
            (0x102, Cause::Rejected),
            (0x400, Cause::Rejected),
            (0x4ff, Cause::Rejected),
            (0x01, Cause::Refused),
            (0x03, Cause::Refused),
            (0x04, Cause::Refused),
            (0x0a, Cause::Refused),
            (0x0b, Cause::Refused),
            (0x48, Cause::Refused),
            (0x50, Cause::Refused),
            (0x51, Cause::Refused),
            (0x62, Cause::Refused),
            (0xc0, Cause::Refused),
            (0xc1, Cause::Refused),
            (0x104, Cause::Refused),
        ];
        for (code, cause) in cases {
            let refusal = Refusal::of_submit(CommandStatus::from(code), "smsc:2775");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, true), "0x{code:X}");
            assert!(refusal.detail.contains(&format!("0x{code:X}")), "{refusal:?}");
        }
    }

    #[test]
    fn the_words_say_who_and_what() {
        let refusal = Refusal::of_bind(CommandStatus::EsmeRalybnd, "smsc:2775", "probe");
        let expected = "smsc:2775 refused to bind `probe`: the account is bound already, and has no further bind to give \
                        (ESME_RALYBND, 0x5)";
        assert_eq!(refusal.detail, expected);
    }
}
