//! Exit codes and the failures that lead to them. The codes are those of sysexits(3), so that a supervisor can tell them apart.

use std::fmt;

/// Why the process cannot go on.
#[derive(Debug)]
pub struct Failure {
    /// What an operator reads: what, where, why, what to do.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

/// Wrong command line.
pub const USAGE: u8 = 64;
/// What was to be read is not all there: something of it is left out.
pub const DATA: u8 = 65;
/// A file that was to be read is not there.
pub const NO_INPUT: u8 = 66;
/// Something that we need is not available: a port is taken.
pub const UNAVAILABLE: u8 = 69;
/// A fault of our own: a task ended that must not.
pub const SOFTWARE: u8 = 70;
/// The store cannot be made or written.
pub const CANNOT_CREATE: u8 = 73;
/// The store cannot be read.
pub const IO: u8 = 74;
/// Another process has the store, or has taken it over, or it was asked for too soon; trying again later may help.
pub const TEMPORARY: u8 = 75;
/// The daemon does not take our token.
pub const NO_PERMISSION: u8 = 77;
/// Wrong configuration.
pub const CONFIG: u8 = 78;

impl Failure {
    /// A failure with this code.
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
