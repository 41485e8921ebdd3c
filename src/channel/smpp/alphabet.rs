//! Text in the alphabets of short messages (3GPP TS 23.038, SMPP 3.4 section 5.2.19). Pure.

/// What `data_coding` 0, the SMS centre's default alphabet, stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// The GSM 7-bit default alphabet, one character to an octet.
    Gsm,
    /// ISO 8859-1.
    Latin1,
}

/// The `data_coding` values that we send.
pub(super) const DEFAULT: u8 = 0;
pub(super) const UCS2: u8 = 8;

/// The basic table, by code; 0x1B is the escape to the extension.
const BASIC: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å', 'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω',
    'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', '\u{1b}', 'Æ', 'æ', 'ß', 'É', ' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+',
    ',', '-', '.', '/', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?', '¡', 'A', 'B',
    'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y',
    'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§', '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p',
    'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à',
];
const EXTENSION: [(u8, char); 10] = [
    (0x0a, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2f, '\\'),
    (0x3c, '['),
    (0x3d, '~'),
    (0x3e, ']'),
    (0x40, '|'),
    (0x65, '€'),
];
const ESCAPE: u8 = 0x1b;

/// A text as it goes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// The `data_coding` that says how to read it.
    pub(super) data_coding: u8,
    /// Its characters, each whole: a part of a message ends between two of them.
    pub(super) characters: Vec<Vec<u8>>,
}

impl Encoded {
    /// The text in the default alphabet if that has all its characters, else in UCS-2.
    pub(super) fn new(text: &str, alphabet: Alphabet) -> Encoded {
        let plain: Option<Vec<_>> = text.chars().map(|character| encode(character, alphabet)).collect();
        match plain {
            Some(characters) => Encoded { data_coding: DEFAULT, characters },
            None => {
                let utf16 = |character: char| {
                    character.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()).collect()
                };
                Encoded { data_coding: UCS2, characters: text.chars().map(utf16).collect() }
            }
        }
    }

    /// All of it.
    pub(super) fn octets(&self) -> Vec<u8> {
        self.characters.concat()
    }

    /// How many octets one message holds, and one part of several: 140 octets on the air, less six for the header of a part;
    /// in the default alphabet eight characters to seven octets. Latin-1 goes over the air as 8 bits, or is put into GSM by the
    /// SMS centre; the smaller figure holds for both.
    pub(super) fn room(&self, alphabet: Alphabet) -> (usize, usize) {
        match (self.data_coding, alphabet) {
            (DEFAULT, Alphabet::Gsm) => (160, 153),
            _ => (140, 134),
        }
    }

    /// The pieces of at most `room` octets.
    pub(super) fn pieces(&self, room: usize) -> Vec<Vec<u8>> {
        let mut pieces = vec![Vec::new()];
        for character in &self.characters {
            if pieces.last().is_some_and(|piece: &Vec<u8>| piece.len() + character.len() > room) {
                pieces.push(Vec::new());
            }
            if let Some(piece) = pieces.last_mut() {
                piece.extend(character);
            }
        }
        pieces
    }
}

fn encode(character: char, alphabet: Alphabet) -> Option<Vec<u8>> {
    match alphabet {
        Alphabet::Latin1 => u8::try_from(character).ok().map(|octet| vec![octet]),
        Alphabet::Gsm if character == char::from(ESCAPE) => None,
        Alphabet::Gsm => {
            let basic = BASIC.iter().position(|other| *other == character).map(|code| vec![code as u8]);
            basic.or_else(|| {
                EXTENSION.iter().find(|(_, other)| *other == character).map(|(code, _)| vec![ESCAPE, *code])
            })
        }
    }
}

/// The text of octets that came with `data_coding`, in UTF-8; octets of what is no text, or in an alphabet that we do not
/// know, as they are.
pub(super) fn decode(octets: &[u8], data_coding: u8, alphabet: Alphabet) -> Vec<u8> {
    let default = || match alphabet {
        Alphabet::Gsm => gsm(octets),
        Alphabet::Latin1 => latin1(octets),
    };
    match data_coding {
        // SMPP 3.4 section 5.2.19; the groups below are those of GSM 03.38, which it takes over.
        0x00 | 0x10..=0x13 | 0xc0..=0xdf | 0xf0..=0xf3 => default().into_bytes(),
        0x01 | 0x03 => latin1(octets).into_bytes(),
        0x08 | 0x18..=0x1b | 0xe0..=0xef => ucs2(octets).into_bytes(),
        _ => octets.to_vec(),
    }
}

fn gsm(octets: &[u8]) -> String {
    if octets.iter().any(|octet| *octet > 0x7f) {
        // Not the alphabet that it says: what sends such texts sends UTF-8 or Latin-1 as it is.
        return std::str::from_utf8(octets).map_or_else(|_| latin1(octets), str::to_owned);
    }
    let mut text = String::with_capacity(octets.len());
    let mut rest = octets.iter();
    while let Some(octet) = rest.next() {
        let character = match *octet {
            ESCAPE => match rest.next() {
                // A character that the extension does not have is shown as the basic table has it.
                Some(code) => {
                    EXTENSION.iter().find(|(other, _)| other == code).map_or(BASIC[usize::from(*code)], |(_, c)| *c)
                }
                None => break,
            },
            code => BASIC[usize::from(code)],
        };
        text.push(character);
    }
    text
}

fn latin1(octets: &[u8]) -> String {
    octets.iter().copied().map(char::from).collect()
}

/// UCS-2 is UTF-16 without surrogates, and everybody sends surrogates.
fn ucs2(octets: &[u8]) -> String {
    let units: Vec<u16> = octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str) -> (u8, Vec<u8>) {
        let encoded = Encoded::new(text, Alphabet::Gsm);
        (encoded.data_coding, encoded.octets())
    }

    #[test]
    fn the_default_alphabet_is_used_while_it_has_every_character() {
        for (text, data_coding, octets) in [
            ("Hi @ 5$", DEFAULT, b"Hi \x00 5\x02".to_vec()),
            ("a_b {1}", DEFAULT, b"a\x11b \x1b\x281\x1b\x29".to_vec()),
            ("€ äöüß", DEFAULT, b"\x1b\x65 \x7b\x7c\x7e\x1e".to_vec()),
            ("Привет", UCS2, vec![4, 0x1f, 4, 0x40, 4, 0x38, 4, 0x32, 4, 0x35, 4, 0x42]),
            ("a😀", UCS2, vec![0, 0x61, 0xd8, 0x3d, 0xde, 0]),
            ("ç", UCS2, vec![0, 0xe7]),
        ] {
            assert_eq!(encoded(text), (data_coding, octets.clone()), "{text}");
            assert_eq!(decode(&octets, data_coding, Alphabet::Gsm), text.as_bytes(), "{text}");
        }
        let latin = Encoded::new("ç@", Alphabet::Latin1);
        assert_eq!((latin.data_coding, latin.octets()), (DEFAULT, b"\xe7@".to_vec()));
    }

    #[test]
    fn the_data_coding_says_how_to_read() {
        for (octets, data_coding, text) in [
            (&b"\x00\x02"[..], 0x00, "@$".as_bytes()),
            (b"\x00\x02", 0xf1, "@$".as_bytes()),
            (b"\xe7@", 0x03, "ç@".as_bytes()),
            (b"\x00A\x00B", 0x08, b"AB"),
            (b"\x00A\x00B", 0x18, b"AB"),
            (b"\x00\xff\x80", 0x04, b"\x00\xff\x80"),
            (b"\x00\xff\x80", 0xf5, b"\x00\xff\x80"),
            // Says GSM and is not.
            ("größer".as_bytes(), 0x00, "größer".as_bytes()),
            (b"gr\xf6\xdfer", 0x00, "größer".as_bytes()),
            (b"end\x1b", 0x00, b"end"),
            (b"\x1bA", 0x00, b"A"),
        ] {
            assert_eq!(decode(octets, data_coding, Alphabet::Gsm), text, "{octets:?} {data_coding}");
        }
        assert_eq!(decode(b"@\xe7", 0, Alphabet::Latin1), "@ç".as_bytes());
    }

    #[test]
    fn pieces_end_between_characters() {
        let text = Encoded::new(&"€".repeat(100), Alphabet::Gsm);
        assert_eq!(text.room(Alphabet::Gsm), (160, 153));
        let pieces = text.pieces(153);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [152, 48]);
        assert_eq!(Encoded::new("", Alphabet::Gsm).pieces(160), [Vec::<u8>::new()]);
        let emoji = Encoded::new(&"😀".repeat(36), Alphabet::Gsm);
        assert_eq!(emoji.pieces(134).iter().map(Vec::len).collect::<Vec<_>>(), [132, 12]);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,80}", latin in any::<bool>()) {
            let alphabet = if latin { Alphabet::Latin1 } else { Alphabet::Gsm };
            let encoded = Encoded::new(&text, alphabet);
            prop_assert_eq!(decode(&encoded.octets(), encoded.data_coding, alphabet), text.as_bytes());
            let (_, room) = encoded.room(alphabet);
            let pieces = encoded.pieces(room);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= room));
            prop_assert_eq!(pieces.concat(), encoded.octets());
        }

        #[test]
        fn any_octets_are_read_somehow(octets in proptest::collection::vec(any::<u8>(), 0..64), data_coding: u8) {
            let _ = decode(&octets, data_coding, Alphabet::Gsm);
        }
    }
}
