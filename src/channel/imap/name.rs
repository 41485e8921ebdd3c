//! Names of folders as IMAP writes them: modified UTF-7 (RFC 3501, 5.1.3). Pure.

/// A folder's name, for the server and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    /// As a quoted string of the protocol.
    pub(super) wire: String,
    /// As people read it.
    pub(super) shown: String,
}

impl Folder {
    /// The folder that people call `text`.
    pub(super) fn named(text: &str) -> Folder {
        Folder { wire: quoted(&encoded(text)), shown: text.to_owned() }
    }

    /// The folder that the server calls `name`.
    pub(super) fn found(name: &str) -> Folder {
        Folder { wire: quoted(name), shown: decode(name).unwrap_or_else(|| name.to_owned()) }
    }
}

/// A quoted string of the protocol.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A name in modified UTF-7.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut foreign: Vec<u16> = Vec::new();
    let flush = |foreign: &mut Vec<u16>, out: &mut String| {
        if !foreign.is_empty() {
            let bytes: Vec<u8> = foreign.drain(..).flat_map(u16::to_be_bytes).collect();
            let digits = crate::secret::base64(&bytes);
            out.push('&');
            out.push_str(&digits.trim_end_matches('=').replace('/', ","));
            out.push('-');
        }
    };
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            flush(&mut foreign, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            foreign.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }
    flush(&mut foreign, &mut out);
    out
}

/// A name from modified UTF-7; `None` if it is none.
fn decode(name: &str) -> Option<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((plain, shifted)) = rest.split_once('&') {
        out.push_str(plain);
        let (digits, after) = shifted.split_once('-')?;
        rest = after;
        if digits.is_empty() {
            out.push('&');
            continue;
        }
        let (mut bits, mut held, mut units) = (0_u32, 0, Vec::new());
        for digit in digits.bytes() {
            let value = DIGITS.iter().position(|symbol| *symbol == digit)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
            held += 6;
            if held >= 16 {
                held -= 16;
                units.push((bits >> held) as u16);
                bits &= (1 << held) - 1;
            }
        }
        out.push_str(&String::from_utf16(&units).ok()?);
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_outside_ascii_are_written_as_the_protocol_has_them() {
        let table = [
            ("INBOX", "INBOX"),
            ("Junk E-mail", "Junk E-mail"),
            ("Courrier indésirable", "Courrier ind&AOk-sirable"),
            ("Tom & Jerry", "Tom &- Jerry"),
            // The example of RFC 3501.
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("😀", "&2D3eAA-"),
        ];
        for (text, name) in table {
            assert_eq!(encoded(text), name);
            assert_eq!(decode(name).as_deref(), Some(text));
            assert_eq!(Folder::found(name), Folder::named(text));
        }
        assert_eq!(Folder::named(r#"a"b\c"#).wire, r#""a\"b\\c""#);
        for broken in ["a&b", "&!!!-", "&2D0-"] {
            assert_eq!(Folder::found(broken).shown, broken);
        }
    }

    proptest! {
        #[test]
        fn every_name_survives(text in "\\PC{0,30}") {
            prop_assert_eq!(decode(&encoded(&text)), Some(text));
        }

        #[test]
        fn decoding_never_panics(text in "[&A-Za-z+,-]{0,40}") {
            let _ = decode(&text);
        }
    }
}
