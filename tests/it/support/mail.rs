//! Reading a mail, as far as the tests need it: header fields, parts, the common encodings.

/// A mail or a part of one.
#[derive(Clone, Debug)]
pub struct Mail {
    head: String,
    body: String,
}

impl Mail {
    /// Splits `raw`, whose lines end in CRLF or LF, into header and body.
    pub fn parse(raw: &str) -> Mail {
        let raw = raw.replace("\r\n", "\n");
        let (head, body) = raw.split_once("\n\n").unwrap_or((&raw, ""));
        Mail { head: head.to_owned(), body: body.to_owned() }
    }

    /// Every value of that header field, unfolded, encoded words decoded.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let unfolded = self.head.replace("\n ", " ").replace("\n\t", " ");
        let fields = unfolded.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| decode_words(value.trim())).collect()
    }

    /// The one value of that header field; panics if there are more.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut found = self.headers(name);
        assert!(found.len() < 2, "{name} occurs {} times", found.len());
        found.pop()
    }

    /// The parts of a multipart body, in order.
    pub fn parts(&self) -> Vec<Mail> {
        let kind = self.header("Content-Type").expect("a content type");
        let (_, rest) = kind.split_once("boundary=\"").expect("a boundary");
        let (boundary, _) = rest.split_once('"').expect("a boundary's end");
        let (inside, _) = self.body.split_once(&format!("--{boundary}--")).expect("a closing boundary");
        inside.split(&format!("--{boundary}\n")).skip(1).map(Mail::parse).collect()
    }

    /// The part of that media type.
    pub fn part(&self, kind: &str) -> Mail {
        self.find(kind).unwrap_or_else(|| panic!("no part of type {kind}"))
    }

    /// The same, or nothing; parts of parts too.
    fn find(&self, kind: &str) -> Option<Mail> {
        let own = self.header("Content-Type")?;
        if own.starts_with(kind) {
            return Some(self.clone());
        }
        if !own.starts_with("multipart/") {
            return None;
        }
        self.parts().iter().find_map(|part| part.find(kind))
    }

    /// The body as text, its transfer encoding undone.
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("the body is UTF-8").replace("\r\n", "\n")
    }

    /// The body, its transfer encoding undone.
    pub fn bytes(&self) -> Vec<u8> {
        match self.header("Content-Transfer-Encoding").as_deref() {
            Some("quoted-printable") => unquote(&self.body.replace("=\n", ""), b'='),
            Some("base64") => unbase64(&self.body),
            _ => self.body.clone().into_bytes(),
        }
    }

    /// The header as it came.
    pub fn raw_head(&self) -> &str {
        &self.head
    }
}

/// `=E2=9C=93` and the like.
fn unquote(text: &str, mark: u8) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == mark {
            out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).expect("two hexadecimal digits"));
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// Base64, white space ignored.
pub fn unbase64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = ALPHABET.iter().position(|symbol| *symbol == byte).expect("a base64 symbol");
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

/// RFC 2047 encoded words; white space between two of them does not count.
fn decode_words(value: &str) -> String {
    let mut out = String::new();
    let mut was_encoded = false;
    for word in value.split(' ') {
        let decoded = word.strip_prefix("=?utf-8?").and_then(|word| word.strip_suffix("?=")).map(|word| {
            let (kind, content) = word.split_once('?').expect("an encoded word's encoding");
            let bytes = if kind == "b" { unbase64(content) } else { unquote(&content.replace('_', " "), b'=') };
            String::from_utf8(bytes).expect("an encoded word is UTF-8")
        });
        if !(out.is_empty() || was_encoded && decoded.is_some()) {
            out.push(' ');
        }
        was_encoded = decoded.is_some();
        out.push_str(decoded.as_deref().unwrap_or(word));
    }
    out
}
