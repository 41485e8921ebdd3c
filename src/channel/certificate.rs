//! What a journey asks of a certificate: when it expires, whose it is. Read from its DER without an X.509 library.

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

use crate::tls::der::{any_element, element};

#[cfg(feature = "checks")]
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
#[cfg(feature = "checks")]
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`: the version, absent in version 1 certificates.
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT`.
#[cfg(feature = "checks")]
const EXTENSIONS: u8 = 0xa3;
/// `[2] IMPLICIT IA5String` and `[7] IMPLICIT OCTET STRING`, within `GeneralName`.
#[cfg(feature = "checks")]
const DNS_NAME: u8 = 0x82;
#[cfg(feature = "checks")]
const ADDRESS: u8 = 0x87;

/// The `notAfter` of a DER certificate (RFC 5280 section 4.1); `None` if it is not one.
pub(crate) fn not_after(der: &[u8]) -> Option<Timestamp> {
    parts(der).map(|parts| parts.not_after)
}

/// How it is told in evidence: until when, which, and whose; `None` if it is none.
pub(crate) fn told(der: &[u8]) -> Option<String> {
    let Parts { serial, issuer, not_after, .. } = parts(der)?;
    // A sign that is only there so that the number is not negative (X.690 section 8.3).
    let serial = serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial);
    let serial: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(crate::journey::seen::certificate(not_after, &serial, &common_name(issuer)))
}

/// What people know a certificate by.
#[cfg(feature = "checks")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The common name that it is for, or the organisation's, or nothing.
    pub(crate) subject: String,
    /// The same of who signed it.
    pub(crate) issuer: String,
    /// The DNS names and addresses that it is for.
    pub(crate) names: Vec<String>,
    /// From when it is valid.
    pub(crate) not_before: Timestamp,
    /// Until when.
    pub(crate) not_after: Timestamp,
}

/// A DER certificate, as far as people ask for it; `None` if it is not one.
#[cfg(feature = "checks")]
pub(crate) fn read(der: &[u8]) -> Option<Certificate> {
    let Parts { issuer, not_before, not_after, subject, rest, .. } = parts(der)?;
    let (subject, issuer) = (common_name(subject), common_name(issuer));
    let names = alternative_names(rest).unwrap_or_default();
    Some(Certificate { subject, issuer, names, not_before: not_before?, not_after })
}

#[cfg_attr(
    not(feature = "checks"),
    allow(dead_code, clippy::allow_attributes, reason = "only the check of certificates shows all of it")
)]
struct Parts<'a> {
    serial: &'a [u8],
    issuer: &'a [u8],
    not_before: Option<Timestamp>,
    not_after: Timestamp,
    subject: &'a [u8],
    /// From the public key on.
    rest: &'a [u8],
}

fn parts(der: &[u8]) -> Option<Parts<'_>> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut tbs, _) = element(certificate, SEQUENCE)?;
    if let Some((_, rest)) = element(tbs, VERSION) {
        tbs = rest;
    }
    let (serial, tbs) = element(tbs, INTEGER)?;
    let (_signature_algorithm, tbs) = element(tbs, SEQUENCE)?;
    let (issuer, tbs) = element(tbs, SEQUENCE)?;
    let (validity, tbs) = element(tbs, SEQUENCE)?;
    let (subject, rest) = element(tbs, SEQUENCE)?;
    let (tag, not_before, validity) = any_element(validity)?;
    let not_before = time(tag, not_before);
    let (tag, not_after, _) = any_element(validity)?;
    Some(Parts { serial, issuer, not_before, not_after: time(tag, not_after)?, subject, rest })
}

/// The last common name of a distinguished name, or its organisation (RFC 5280 section 4.1.2.4).
fn common_name(mut name: &[u8]) -> String {
    /// 2.5.4.3 and 2.5.4.10.
    const KINDS: [&[u8]; 2] = [&[0x55, 4, 3], &[0x55, 4, 10]];
    let mut found = [None, None];
    while let Some((set, rest)) = element(name, SET) {
        name = rest;
        let attribute = element(set, SEQUENCE).and_then(|(pair, _)| {
            let (kind, rest) = element(pair, OBJECT)?;
            any_element(rest).map(|(_, value, _)| (kind, value))
        });
        if let Some((kind, value)) = attribute
            && let Some(at) = KINDS.iter().position(|wanted| *wanted == kind)
        {
            found[at] = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    let [common, organisation] = found;
    common.or(organisation).unwrap_or_default()
}

/// What the extension `subjectAltName` holds of names and addresses (RFC 5280 section 4.2.1.6).
#[cfg(feature = "checks")]
fn alternative_names(after_subject: &[u8]) -> Option<Vec<String>> {
    /// 2.5.29.17.
    const ALTERNATIVE_NAMES: &[u8] = &[0x55, 29, 17];
    let (_public_key, mut rest) = element(after_subject, SEQUENCE)?;
    // `[1]` and `[2]`, the unique identifiers, that nobody has.
    while let Some((_, _, after)) = any_element(rest).filter(|(tag, ..)| *tag != EXTENSIONS) {
        rest = after;
    }
    let (extensions, _) = element(rest, EXTENSIONS)?;
    let (mut extensions, _) = element(extensions, SEQUENCE)?;
    while let Some((extension, rest)) = element(extensions, SEQUENCE) {
        extensions = rest;
        let (kind, value) = element(extension, OBJECT)?;
        if kind != ALTERNATIVE_NAMES {
            continue;
        }
        let value = element(value, BOOLEAN).map_or(value, |(_, value)| value);
        let (mut names, _) = element(value, OCTETS).and_then(|(names, _)| element(names, SEQUENCE))?;
        let mut found = Vec::new();
        while let Some((tag, value, rest)) = any_element(names) {
            names = rest;
            found.extend(alternative_name(tag, value));
        }
        return Some(found);
    }
    None
}

#[cfg(feature = "checks")]
fn alternative_name(tag: u8, value: &[u8]) -> Option<String> {
    match (tag, value.len()) {
        (DNS_NAME, _) => Some(String::from_utf8_lossy(value).into_owned()),
        (ADDRESS, 4) => <[u8; 4]>::try_from(value).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
        (ADDRESS, 16) => <[u8; 16]>::try_from(value).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
        _ => None,
    }
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
    fn it_is_told_by_its_end_its_number_and_its_issuer() {
        let mut params = CertificateParams::new(vec!["probe.example.net".to_owned()]).unwrap();
        params.not_after = date_time_ymd(2026, 3, 1);
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x9a, 0x01]));
        params.distinguished_name.push(rcgen::DnType::CommonName, "Probe");
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        assert_eq!(told(&der).unwrap(), "until 2026-03-01T00:00:00Z, serial 9a01, from Probe");
        assert_eq!(told(&der[..40]), None);
    }

    #[cfg(feature = "checks")]
    #[test]
    fn it_is_known_by_its_names() {
        let mut params =
            CertificateParams::new(vec!["a.example.net".to_owned(), "*.b.example.net".to_owned()]).unwrap();
        params.subject_alt_names.push(rcgen::SanType::IpAddress("192.0.2.7".parse().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::IpAddress("2001:db8::7".parse().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name("ops@example.net".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example GmbH");
        params.distinguished_name.push(rcgen::DnType::CommonName, "Probe");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let found = read(der.der()).unwrap();
        assert_eq!((found.subject.as_str(), found.issuer.as_str()), ("Probe", "Probe"));
        assert_eq!(found.names, ["a.example.net", "*.b.example.net", "192.0.2.7", "2001:db8::7"]);
        assert_eq!(found.not_before, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(Some(found.not_after), not_after(der.der()));
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
            let read_all = |der: &[u8]| {
                let _ = not_after(der);
                #[cfg(feature = "checks")]
                let _ = read(der);
            };
            read_all(&der);
            let mut bent = certificate(2026, 3, 1);
            let at = at % bent.len();
            bent[at] = byte;
            read_all(&bent);
        }
    }
}
