//! An exposition as it is kept and, to almost everyone, sent: as gzip (RFC 1952), a thirtieth of the text.

use std::io::{Cursor, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// A part that is unpacked at once, in bytes.
const PART: usize = 64 * 1024;

/// A packed text.
#[derive(Clone, Debug)]
pub struct Packed(Bytes);

impl Packed {
    pub(super) fn new(write: impl FnOnce(&mut dyn Write)) -> Packed {
        // Names repeat in every line: more effort makes it a little smaller and much later.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        write(&mut encoder);
        Packed(encoder.finish().expect("memory takes all").into())
    }

    /// The gzip file.
    pub fn gzip(&self) -> Bytes {
        self.0.clone()
    }

    /// The text, part by part, for who does not take it packed; no more than a part of it is held.
    pub fn parts(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let mut decoder = GzDecoder::new(Cursor::new(self.0.clone()));
        std::iter::from_fn(move || {
            let mut part = Vec::with_capacity(PART);
            let _read = decoder.by_ref().take(PART as u64).read_to_end(&mut part).expect("we packed it ourselves");
            (!part.is_empty()).then(|| part.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART, 1_000_000] {
            let text: Vec<u8> = (0..length).map(|at| (at * at % 251) as u8).collect();
            let packed = Packed::new(|out| text.chunks(7_777).for_each(|part| out.write_all(part).unwrap()));
            assert_eq!(packed.gzip()[..2], [0x1f, 0x8b]);
            let parts: Vec<Bytes> = packed.parts().collect();
            assert!(parts.iter().all(|part| part.len() <= PART));
            assert!(parts.concat() == text, "{length}");
        }
    }
}
