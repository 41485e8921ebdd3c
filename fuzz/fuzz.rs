//! libFuzzer on one of `journeyman::fuzz::TARGETS`, by its name in `FUZZ_TARGET`. Built and run by `tests/fuzz`, which says how the
//! compiler counts what an input reaches.

#![no_main]

use std::sync::LazyLock;

use journeyman::fuzz::TARGETS;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("no target is named {wanted}")).1
});

fuzz_target!(|data: &[u8]| TARGET(data));
