//! Reads what people see of a mail: its subject, who wrote it to whom, and its text part (RFC 5322, 2045, 2047).

/// What people see of a mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    /// Its subject, decoded.
    pub subject: String,
    /// Who wrote it, decoded.
    pub from: String,
    /// To whom, decoded.
    pub to: String,
    /// Its Message-ID.
    pub message_id: String,
    /// The Message-IDs of the thread that it belongs to.
    pub references: String,
    /// The first `text/plain` part; empty if there is none.
    pub text: String,
}

/// Reads a mail. Never fails: what cannot be understood is left out.
pub fn read(mail: &[u8]) -> Letter {
    let (headers, body) = split(mail);
    let line = |name: &str| words(field(&headers, name).unwrap_or_default());
    let mut text = text_part(&headers, body, MAX_DEPTH).unwrap_or_default().replace("\r\n", "\n");
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    Letter {
        subject: line("subject"),
        from: line("from"),
        to: line("to"),
        message_id: line("message-id"),
        references: line("references"),
        text,
    }
}

type Headers = Vec<(String, String)>;

/// The header fields, unfolded, and the body.
fn split(entity: &[u8]) -> (Headers, &[u8]) {
    let mut headers = Headers::new();
    let mut rest = entity;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            break;
        }
        match (line.starts_with([' ', '\t']), headers.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => value.push_str(line),
            (_, _, Some((name, value))) => headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
            _ => {}
        }
    }
    (headers, rest)
}

fn field<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn text_part(headers: &Headers, body: &[u8], depth: usize) -> Option<String> {
    let kind = field(headers, "content-type").unwrap_or("text/plain");
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media.starts_with("multipart/") && depth > 0 {
        let boundary = format!("--{}", parameter(kind, "boundary")?);
        return parts(body, boundary.as_bytes()).into_iter().find_map(|part| {
            let (headers, body) = split(part);
            text_part(&headers, body, depth - 1)
        });
    }
    if media != "text/plain" {
        return None;
    }
    let encoding = field(headers, "content-transfer-encoding").unwrap_or_default().to_ascii_lowercase();
    let bytes = match encoding.as_str() {
        "base64" => base64(body),
        "quoted-printable" => quoted_printable(body, false),
        _ => body.to_vec(),
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of a parameter of a Content-Type, with or without quotes.
fn parameter<'a>(kind: &'a str, name: &str) -> Option<&'a str> {
    kind.split(';').skip(1).find_map(|parameter| {
        let (found, value) = parameter.split_once('=')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// The parts of a multipart body (RFC 2046 section 5.1.1). The line end before a boundary belongs to the boundary.
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let (mut at, mut begun) = (0, None);
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(boundary) {
            if let Some(begun) = begun {
                let part: &[u8] = &body[begun..at];
                let part = part.strip_suffix(b"\n").unwrap_or(part);
                parts.push(part.strip_suffix(b"\r").unwrap_or(part));
            }
            if line[boundary.len()..].starts_with(b"--") {
                break;
            }
            begun = Some(at + line.len());
        }
        at += line.len();
    }
    parts
}

/// Decodes the encoded words of a header (RFC 2047) in UTF-8; the space between two of them is not part of the text.
fn words(value: &str) -> String {
    let mut out = String::new();
    let (mut rest, mut after_word) = (value, false);
    while let Some(begin) = rest.find("=?") {
        let (before, word) = rest.split_at(begin);
        let Some((decoded, length)) = word_at(word) else {
            out.push_str(&rest[..begin + 2]);
            (rest, after_word) = (&rest[begin + 2..], false);
            continue;
        };
        if !(after_word && before.trim().is_empty()) {
            out.push_str(before);
        }
        out.push_str(&decoded);
        (rest, after_word) = (&word[length..], true);
    }
    out + rest
}

/// The encoded word at the beginning of `text`, decoded, and its length.
fn word_at(text: &str) -> Option<(String, usize)> {
    let mut fields = text.strip_prefix("=?")?.splitn(4, '?');
    let (charset, encoding, content) = (fields.next()?, fields.next()?, fields.next()?);
    fields.next()?.strip_prefix('=')?;
    if !charset.eq_ignore_ascii_case("utf-8") || content.contains(' ') {
        return None;
    }
    let bytes = match encoding {
        "B" | "b" => base64(content.as_bytes()),
        "Q" | "q" => quoted_printable(content.as_bytes(), true),
        _ => return None,
    };
    Some((String::from_utf8_lossy(&bytes).into_owned(), charset.len() + encoding.len() + content.len() + 6))
}

/// RFC 4648 section 4; what is not of its alphabet is passed over, as RFC 2045 section 6.8 asks.
fn base64(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    out
}

/// RFC 2045 section 6.7; in an encoded word an underscore is a space.
fn quoted_printable(text: &[u8], in_word: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let escape = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, escape) {
            (b'=', Some(value)) => {
                out.push(value);
                rest = &after[2..];
            }
            (b'=', None) if after.starts_with(b"\r\n") => rest = &after[2..],
            (b'=', None) if after.starts_with(b"\n") => rest = &after[1..],
            (b'_', _) if in_word => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
    out
}

/// A page can show this much of a mail.
const MAX_TEXT: usize = 32 * 1024;
/// Deeper mails are not written by people, nor by us.
const MAX_DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use lettre::message::{Mailbox, MultiPart};
    use proptest::prelude::*;

    use super::*;

    fn letter(subject: &str, text: &str) -> Vec<u8> {
        let to: Mailbox = "Dienst für alle <duty@example.net>".parse().unwrap();
        lettre::Message::builder()
            .from("Journeyman <journeyman@example.net>".parse().unwrap())
            .to(to)
            .subject(subject)
            .message_id(Some("<1.slack@example.net>".to_owned()))
            .references("<0@example.net>".to_owned())
            .multipart(MultiPart::alternative_plain_html(text.to_owned(), "<p>no</p>".to_owned()))
            .unwrap()
            .formatted()
    }

    #[test]
    fn what_a_mail_library_writes_is_read() {
        let subject = "DOWN sms-round-trip · arrive: nothing came in 1.80s – that is a long subject with ▇▇▇ in it";
        let text = "░░▇▇ ünïcode\n.\nFrom here = there\n".repeat(30);
        let read = read(&letter(subject, &text));
        assert_eq!(read.subject, subject);
        assert_eq!(read.to, "Dienst für alle <duty@example.net>");
        assert_eq!(read.from, "Journeyman <journeyman@example.net>");
        assert_eq!((read.message_id.as_str(), read.references.as_str()), ("<1.slack@example.net>", "<0@example.net>"));
        assert_eq!(read.text.trim_end(), text.trim_end());
    }

    #[test]
    fn the_text_part_is_found_in_nested_parts_and_encodings() {
        let nested = "Content-Type: multipart/mixed; boundary=\"a\"\r\n\r\npreamble\r\n--a\r\n\
                      Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>no\r\n\
                      --b\r\nContent-Type: text/plain;\r\n charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
                      a=3Db=\r\n c =C3=A9 =zz\r\n--b--\r\n--a--\r\n";
        assert_eq!(read(nested.as_bytes()).text, "a=b c é =zz");
        let encoded = b"Content-Transfer-Encoding: base64\r\n\r\nw6kg\r\n4paH\r\n";
        assert_eq!(read(encoded).text, "é ▇");
        assert_eq!(read(b"Content-Type: text/html\r\n\r\n<p>").text, "");
        assert_eq!(read(b"Subject: plain\n\nwith bare\nline ends").text, "with bare\nline ends");
    }

    #[test]
    fn encoded_words_join_and_other_text_stays() {
        assert_eq!(
            words("=?utf-8?b?w6k=?= =?UTF-8?Q?_=C2=B7?= and =?latin1?Q?x?= 1 =? 2"),
            "é · and =?latin1?Q?x?= 1 =? 2"
        );
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let mail = format!("Subject: s\r\n\r\n{}", "é".repeat(MAX_TEXT));
        assert_eq!(read(mail.as_bytes()).text.len(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn any_text_survives_a_mail_library(text in "[ -~äöü▇\n]{0,300}") {
            let read = read(&letter("s", &text)).text;
            prop_assert_eq!(read.trim_end_matches('\n'), text.trim_end_matches('\n'));
        }

        #[test]
        fn nothing_makes_it_panic(mail in prop::collection::vec(any::<u8>(), 0..400), head in "(=\\?utf-8\\?[bq]\\?.{0,9}|--b|=)?") {
            let _ = read(&mail);
            let with_head = [b"Subject: ", head.as_bytes(), b"\r\nContent-Type: multipart/x; boundary=b\r\n\r\n--b\r\n", &mail].concat();
            let _ = read(&with_head);
        }
    }
}
