//! Reports, as SQLite has them. What good runs leave is most of what is kept, and nobody searches it: it is deflated, in the format
//! of zlib with a dictionary (RFC 1950, section 2.2), since a report resembles every other more than itself. What other runs leave is
//! JSON, for whoever looks into the file.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use rusqlite::types::{Type, Value, ValueRef};
use rusqlite::{Row, RowIndex};

use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::store::codes::Kept;
use crate::store::sqlite::rows::{json, parse};

/// What reports have in common, the commonest last. Never edited: stores hold what was deflated with it. Another one would be told
/// from it by its checksum, which stands in each row.
const WORDS: &[u8] = include_bytes!("words.txt");
/// Enough for all of them, and little to clear for each row.
const WINDOW_BITS: u8 = 12;
/// A report is refused beyond this: damage must not fill the memory.
const LONGEST: u64 = 64 * 1_024 * 1_024;

/// A report as its row has it.
///
/// # Errors
/// It cannot be written as JSON.
pub(super) fn kept(report: &Report) -> rusqlite::Result<Value> {
    let text = json(&Kept(report))?;
    if report.outcome.verdict() != Verdict::Good {
        return Ok(Value::Text(text));
    }
    let deflated = deflate(text.as_bytes()).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    Ok(Value::Blob(deflated))
}

/// The report in a column.
///
/// # Errors
/// There is none, or none that can be read.
pub(super) fn report(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Report> {
    match row.get_ref(column)? {
        ValueRef::Blob(deflated) => {
            let unread = |error: String| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, error.into());
            let text = inflate(deflated).and_then(|text| String::from_utf8(text).map_err(|error| error.to_string()));
            parse(&text.map_err(unread)?)
        }
        text => parse(text.as_str()?),
    }
}

fn deflate(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut deflater = Compress::new_with_window_bits(Compression::default(), true, WINDOW_BITS);
    deflater.set_dictionary(WORDS).map_err(|error| error.to_string())?;
    let mut deflated = Vec::with_capacity(text.len() / 2 + 64);
    loop {
        let taken = deflater.total_in() as usize;
        let status = deflater.compress_vec(&text[taken..], &mut deflated, FlushCompress::Finish);
        if status.map_err(|error| error.to_string())? == Status::StreamEnd {
            return Ok(deflated);
        }
        deflated.reserve(deflated.capacity());
    }
}

fn inflate(deflated: &[u8]) -> Result<Vec<u8>, String> {
    let mut inflater = Decompress::new(true);
    let mut text = Vec::with_capacity(deflated.len() * 8 + 64);
    loop {
        let taken = inflater.total_in() as usize;
        let before = (taken, inflater.total_out());
        match inflater.decompress_vec(&deflated[taken..], &mut text, FlushDecompress::None) {
            Ok(Status::StreamEnd) => return Ok(text),
            Ok(_) => {}
            Err(error) if error.needs_dictionary().is_some() => {
                inflater.set_dictionary(WORDS).map_err(|error| error.to_string())?;
                continue;
            }
            Err(error) => return Err(error.to_string()),
        }
        let has_room = text.len() < text.capacity();
        if has_room && before == (inflater.total_in() as usize, inflater.total_out()) {
            return Err("it breaks off".to_owned());
        }
        if inflater.total_out() > LONGEST {
            return Err("it is longer than any report".to_owned());
        }
        text.reserve(text.capacity());
    }
}

/// What a damaged row may hold is read or refused; what is written is read back.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(data: &[u8]) {
    let _ = inflate(data);
    assert_eq!(inflate(&deflate(data).expect("anything can be deflated")).as_deref(), Ok(data));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run of two steps leaves.
    const REPORT: &str = r#"{"beneath":null,"configuration":"cffc1ba629d2","journey":"checkout-0042","latency":2029,"lateness":492,"note":null,"outcome":{"latency":2029,"outcome":"good"},"slot":"2026-11-23T06:31:54.138Z","started":"2026-11-23T06:31:54.140745542Z","steps":[{"ack":"202 Accepted","at":0,"channel":"shop","checks":[{"cause":null,"expectation":"status equals 202","found":null,"passed":true,"soft":false}],"excerpt":"{\"queue\":{\"depth\":0},\"status\":\"ok\"}","name":"health","phases":[{"name":"connect","took":711},{"name":"first_byte","took":1224},{"name":"body","took":93}],"seen":[{"is":"127.0.0.1:42715","what":"peer"}],"status":"passed","took":2029,"verb":"send"},{"at":0,"channel":"orders-done","excerpt":"{\"id\":\"jm01m83hn78b4eg9g8v1z1dzttx7\",\"status\":\"done\"}","name":"done","status":"passed","took":248750,"verb":"receive"}],"token":"jm01m83hn70t4eg9g8v0tx0yv1t2","version":"0.1.0"}"#;

    #[test]
    fn a_report_takes_a_quarter_and_comes_back_as_it_was() {
        let deflated = deflate(REPORT.as_bytes()).unwrap();
        assert!(deflated.len() * 4 < REPORT.len(), "{} of {}", deflated.len(), REPORT.len());
        assert_eq!(inflate(&deflated).unwrap(), REPORT.as_bytes());
    }

    #[test]
    fn what_is_deflated_is_read_by_every_build_after_this_one() {
        // RFC 1950: the dictionary's Adler-32 follows the two bytes of the header. If it changes, stores cannot be read.
        assert_eq!(deflate(b"").unwrap()[2..6], [189, 213, 183, 39]);
    }

    #[test]
    fn anything_comes_back_and_what_is_damaged_is_refused() {
        fuzz(b"");
        fuzz(&REPORT.repeat(50).into_bytes());
        fuzz(&(0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect::<Vec<_>>());
        let deflated = deflate(REPORT.as_bytes()).unwrap();
        for length in 0..deflated.len() {
            assert!(inflate(&deflated[..length]).is_err(), "{length}");
        }
        for at in 0..deflated.len() {
            let mut damaged = deflated.clone();
            damaged[at] ^= 0x20;
            // A bit behind the last of the deflated ones says nothing.
            assert!(inflate(&damaged).map_or(true, |text| text == REPORT.as_bytes()), "{at}: taken for what it is not");
        }
    }
}
