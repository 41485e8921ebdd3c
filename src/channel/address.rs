//! The parts of a URL that is a secret: nothing of it is repeated in an error, because it holds the password.

use url::{Host, Url};
use zeroize::Zeroizing;

/// Its host: a name, or an address without brackets.
///
/// # Errors
/// In words: there is none.
pub(crate) fn host(url: &Url) -> Result<String, String> {
    match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => Ok(decoded(name)?.to_string()),
        Some(Host::Ipv4(address)) => Ok(address.to_string()),
        Some(Host::Ipv6(address)) => Ok(address.to_string()),
        _ => Err("it has no host".to_owned()),
    }
}

/// A part of it without its percent-encoding (RFC 3986 section 2.1).
///
/// # Errors
/// In words: a part is not encoded as it should be.
pub(crate) fn decoded(text: &str) -> Result<Zeroizing<String>, String> {
    let wrong = || "a part of it is not percent-encoded UTF-8".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
        bytes.push((high << 4 | low) as u8);
    }
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_parts_are_decoded_and_what_is_no_text_is_refused() {
        let of = |text| host(&Url::parse(text).unwrap());
        assert_eq!(of("redis://db.example.net:1/x"), Ok("db.example.net".to_owned()));
        assert_eq!(of("redis://[::1]"), Ok("::1".to_owned()));
        assert!(of("redis:///x").is_err());
        assert_eq!(decoded("p%40ss%C3%A9").unwrap().as_str(), "p@ssé");
        for wrong in ["%", "%4", "%zz", "%ff"] {
            assert!(decoded(wrong).is_err(), "{wrong}");
        }
    }
}
