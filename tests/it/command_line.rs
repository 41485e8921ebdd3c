//! The command line: what each verb prints, writes and ends with.

mod explain;
mod import;
mod init;
mod once;
mod page;
mod schema;
