//! When a certificate expires: the one field that a journey asks of it, read from its DER without an X.509 library.

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`: the version, absent in version 1 certificates.
const VERSION: u8 = 0xa0;

/// The `notAfter` of a DER certificate (RFC 5280 section 4.1); `None` if it is not one.
pub(crate) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut tbs, _) = element(certificate, SEQUENCE)?;
    if let Some((_, rest)) = element(tbs, VERSION) {
        tbs = rest;
    }
    let (_serial, tbs) = element(tbs, INTEGER)?;
    let (_signature_algorithm, tbs) = element(tbs, SEQUENCE)?;
    let (_issuer, tbs) = element(tbs, SEQUENCE)?;
    let (validity, _) = element(tbs, SEQUENCE)?;
    let (_not_before, validity) = any_element(validity).map(|(_, content, rest)| (content, rest))?;
    let (tag, not_after, _) = any_element(validity)?;
    time(tag, not_after)
}

/// The content of the element at the beginning of `der` if it has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any_element(der).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// The element at the beginning of `der`: its tag, its content, and what follows it (X.690 section 8.1).
fn any_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    // Tags of more than one byte do not occur on the way to the validity.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The indefinite form is BER, and no certificate needs more than four bytes of length.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A `Time`: UTCTime until 2049, GeneralizedTime from 2050, both to the second and in UTC (RFC 5280 section 4.1.2.5).
fn time(tag: u8, content: &[u8]) -> Option<Timestamp> {
    let digits = content.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2])?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
        _ => return None,
    };
    let mut fields = rest.chunks(2).map(|pair| number(pair).and_then(|value| i8::try_from(value).ok()));
    let mut next = || fields.next().flatten();
    let at = DateTime::new(year, next()?, next()?, next()?, next()?, next()?, 0).ok()?;
    match TimeZone::UTC.to_timestamp(at) {
        Ok(at) => Some(at),
        // 99991231235959Z says "no end" (RFC 5280 section 4.1.2.5) and lies just beyond what a timestamp holds.
        Err(_) => (year == 9999).then_some(Timestamp::MAX),
    }
}

fn number(digits: &[u8]) -> Option<i16> {
    digits.iter().try_fold(0i16, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["probe.example.net".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1975, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn not_after_is_read_in_both_notations_and_on_both_sides_of_the_century() {
        let cases = [
            (certificate(1999, 12, 31), "1999-12-31T00:00:00Z"),
            (certificate(2026, 3, 1), "2026-03-01T00:00:00Z"),
            (certificate(2049, 12, 31), "2049-12-31T00:00:00Z"),
            (certificate(2050, 1, 1), "2050-01-01T00:00:00Z"),
            (certificate(4096, 2, 29), "4096-02-29T00:00:00Z"),
        ];
        for (der, expected) in cases {
            assert_eq!(not_after(&der), Some(expected.parse().unwrap()));
        }
        assert_eq!(not_after(&certificate(9999, 12, 31)), Some(Timestamp::MAX));
    }

    #[test]
    fn the_time_of_day_counts_and_other_notations_are_not_guessed_at() {
        let at = |tag, text: &str| time(tag, text.as_bytes());
        assert_eq!(at(UTC_TIME, "260301123456Z"), Some("2026-03-01T12:34:56Z".parse().unwrap()));
        assert_eq!(at(UTC_TIME, "500101000000Z"), Some("1950-01-01T00:00:00Z".parse().unwrap()));
        for (tag, text) in [
            (UTC_TIME, "2603011234Z"),
            (UTC_TIME, "260301123456+0100"),
            (UTC_TIME, "261301123456Z"),
            (UTC_TIME, "26O301123456Z"),
            (GENERALIZED_TIME, "20260301123456.5Z"),
            (GENERALIZED_TIME, "20260301123456"),
            (SEQUENCE, "20260301123456Z"),
        ] {
            assert_eq!(at(tag, text), None, "{text}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_short_has_no_answer() {
        let der = certificate(2026, 3, 1);
        for length in 0..der.len() {
            assert_eq!(not_after(&der[..length]), None, "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(der in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..600, byte: u8) {
            let _ = not_after(&der);
            let mut bent = certificate(2026, 3, 1);
            let at = at % bent.len();
            bent[at] = byte;
            let _ = not_after(&bent);
        }
    }
}
