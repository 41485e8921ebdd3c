//! What a write-ahead log holds, read before SQLite does: that stops in silence at the first frame that is not as it was written,
//! and begins the log anew. <https://www.sqlite.org/fileformat2.html#walformat>

/// Magic number, version, page size, sequence number, two salts, two checksums.
const HEADER: usize = 32;
/// Page number, size of the database after a commit, two salts, two checksums.
const FRAME_HEADER: usize = 24;
/// Both magic numbers but for their last bit, which says in which order bytes are summed up.
const MAGIC: u32 = 0x377f_0682;
/// The page size of every store of ours, for a header that does not say.
const PAGE: usize = 4_096;

/// What SQLite will make of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    /// Commits that it will use.
    pub(super) commits: u64,
    /// Commits that are there, behind a place that is not as it was written.
    pub(super) lost: u64,
}

/// Reads a log. Frames of an earlier turn, which have other salts, are no part of it. A commit at its very end that was cut short
/// is not lost: nobody was told that it was there.
pub(super) fn read(log: &[u8]) -> Log {
    let Some(header) = log.get(..HEADER) else { return Log::default() };
    let says_big = word(header, 0) & 1 == 1;
    let is_sound = word(header, 0) & !1 == MAGIC && summed((0, 0), &header[..24], says_big) == sum_of(header, 24);
    let is_big = if is_sound { says_big } else { cfg!(target_endian = "big") };
    let page = if is_sound { word(header, 8) as usize } else { PAGE };
    let frames: Vec<&[u8]> = log[HEADER..].chunks_exact(FRAME_HEADER + page).collect();
    // The salts of a header that is not sound may be what is wrong with it.
    let salts = if is_sound { Some(&header[16..24]) } else { frames.first().map(|frame| &frame[8..16]) };
    // Each goes on from the sum of the one before: what follows one that is wrong can be right.
    let before = std::iter::once(sum_of(header, 24)).chain(frames.iter().map(|frame| sum_of(frame, 16)));
    let is_right = |(frame, before): (&&[u8], (u32, u32))| {
        let sum = summed(summed(before, &frame[..8], is_big), &frame[FRAME_HEADER..], is_big);
        Some(&frame[8..16]) == salts && sum == sum_of(frame, 16)
    };
    let right: Vec<bool> = frames.iter().zip(before).map(is_right).collect();
    let unbroken = right.iter().take_while(|right| is_sound && **right).count();
    let until = frames[..unbroken].iter().rposition(|frame| is_commit(frame)).map_or(0, |at| at + 1);
    let written = right.iter().rposition(|right| *right).map_or(until, |at| until.max(at + 1));
    let is_lost = |frame: &&&[u8]| is_commit(frame) && Some(&frame[8..16]) == salts;
    Log {
        commits: frames[..until].iter().filter(|frame| is_commit(frame)).count() as u64,
        lost: frames[until..written].iter().filter(is_lost).count() as u64,
    }
}

fn sum_of(bytes: &[u8], at: usize) -> (u32, u32) {
    (word(bytes, at), word(bytes, at + 4))
}

fn is_commit(frame: &[u8]) -> bool {
    word(frame, 4) != 0
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// The running checksum: two sums over pairs of words.
fn summed((mut first, mut second): (u32, u32), bytes: &[u8], is_big: bool) -> (u32, u32) {
    let in_order = |at: usize| if is_big { word(bytes, at) } else { word(bytes, at).swap_bytes() };
    for at in (0..bytes.len()).step_by(8) {
        first = first.wrapping_add(in_order(at)).wrapping_add(second);
        second = second.wrapping_add(in_order(at + 4)).wrapping_add(first);
    }
    (first, second)
}
