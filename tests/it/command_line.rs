//! The command line: what each verb prints, writes and ends with.

mod errors;
mod explain;
#[cfg(feature = "checks")] // among what is taken over there are ports
mod import;
mod init;
mod json;
mod once;
mod page;
#[cfg(feature = "full")] // the schemas have every kind of channel
mod schema;
