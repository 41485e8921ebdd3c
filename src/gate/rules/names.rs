//! The names in a caller's certificate. They are read after rustls has verified the certificate that they stand in.

use crate::tls::der::{any_element, element};

const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[3] EXPLICIT`: the extensions.
const EXTENSIONS: u8 = 0xa3;
/// Of a `GeneralName`: an address of mail, a name, a URI, and an IP address.
const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;
/// 2.5.29.17: `subjectAltName`.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 29, 17];

/// The alternative names (RFC 5280 section 4.2.1.6) of a DER certificate, as people write them; `None` if there are none.
pub(super) fn alternative_names(der: &[u8]) -> Option<Vec<String>> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    let mut extensions = loop {
        let (tag, content, rest) = any_element(fields)?;
        fields = rest;
        if tag == EXTENSIONS {
            break element(content, SEQUENCE)?.0;
        }
    };
    loop {
        let (extension, rest) = element(extensions, SEQUENCE)?;
        extensions = rest;
        let (kind, value) = element(extension, OBJECT)?;
        if kind != ALTERNATIVE_NAMES {
            continue;
        }
        let value = element(value, BOOLEAN).map_or(value, |(_, value)| value);
        let (mut names, _) = element(element(value, OCTETS)?.0, SEQUENCE)?;
        let mut found = Vec::new();
        while let Some((tag, value, rest)) = any_element(names) {
            names = rest;
            found.extend(name(tag, value));
        }
        return Some(found);
    }
}

fn name(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        MAIL | DNS | URI => std::str::from_utf8(value).ok().map(str::to_owned),
        ADDRESS => match value.len() {
            4 => <[u8; 4]>::try_from(value).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(value).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example.net".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress("192.0.2.7".parse().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("2001:db8::7".parse().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("ops@example.net".try_into().unwrap()));
        params.subject_alt_names.push(SanType::URI("spiffe://example.net/prometheus".try_into().unwrap()));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_of_every_kind_are_read() {
        let expected =
            ["a.example.net", "192.0.2.7", "2001:db8::7", "ops@example.net", "spiffe://example.net/prometheus"];
        assert_eq!(alternative_names(&certificate()).unwrap(), expected);
        let without = CertificateParams::new(Vec::new()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(alternative_names(without.der()), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(der in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..600, byte: u8) {
            let _ = alternative_names(&der);
            let mut bent = certificate();
            let at = at % bent.len();
            bent[at] = byte;
            let _ = alternative_names(&bent);
        }
    }
}
