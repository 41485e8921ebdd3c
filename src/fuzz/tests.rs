//! The corpus given to every target, and a little of what lies around it. The search for more is `tests/fuzz`.

use std::path::PathBuf;

use crate::clock::Clock;

use super::*;

/// What a small input may take, also on a busy machine and in a debug build.
const BOUND: Duration = Duration::from_secs(5);
/// Changed copies of each input.
const COPIES: usize = 8;

#[test]
fn what_was_found_once_breaks_nothing_any_more() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let directory = root.join(name);
        let mut files: Vec<_> = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let mut random = fastrand::Rng::with_seed(7);
            let copies = (0..COPIES).map(|_| bent(&bytes, &mut random)).collect::<Vec<_>>();
            for input in std::iter::once(bytes).chain(copies) {
                let clock = Clock::system();
                target(&input);
                let took = clock.now().mono.0;
                assert!(took < BOUND, "{name} took {took:?} for {}", String::from_utf8_lossy(&input));
            }
        }
    }
    // Where the target `store_file` writes.
    let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("journeyman-fuzz-{}", std::process::id())));
}

/// A copy with something flipped, cut out, or said twice.
fn bent(bytes: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..4) {
        let (from, until) = (random.usize(..=bytes.len()), random.usize(..=bytes.len()));
        let range = from.min(until)..from.max(until);
        match random.u8(..4) {
            0 => drop(bytes.drain(range)),
            1 => {
                let again = bytes[range].to_vec();
                bytes.extend(again);
            }
            2 => bytes[range].iter_mut().take(4).for_each(|byte| *byte = random.u8(..)),
            _ => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << random.u8(..8)),
        }
    }
    bytes.truncate(64 << 10);
    bytes
}
