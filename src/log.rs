//! The log: static sentences with fields, as text or JSON, on standard error, with every known secret taken out.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::secret::Redactor;

/// Libraries that report at a high level what a monitor expects to see every day.
const QUIET: &str = "rustls_platform_verifier=off,tokio_cron_scheduler=error,lapin=off,async_imap=off,rumqttc=off";

/// Starts logging. `level` is a `tracing` filter; one that cannot be read is `info`. Further calls do nothing.
pub fn init(level: &str, json: bool, redactor: &Redactor) {
    let filter =
        EnvFilter::try_new(format!("{QUIET},{level}")).unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},info")));
    let writer = Redacting(redactor.clone());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!json && io::stderr().is_terminal())
        .with_writer(writer)
        .with_target(false);
    // Fails only if a subscriber is set already, which then goes on.
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
}

/// Writes to standard error without secrets.
#[derive(Clone)]
struct Redacting(Redactor);

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { redactor: &self.0, bytes: Vec::with_capacity(256) }
    }
}

/// One event: collected, then written whole, so that a secret cannot slip through between two writes.
struct Line<'a> {
    redactor: &'a Redactor,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        let clean = self.redactor.redact(&text);
        // A log that cannot be written is no reason to stop.
        let _ = io::stderr().write_all(clean.as_deref().unwrap_or(&text).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_split_over_two_writes_is_still_hidden() {
        let redactor = Redactor::new();
        redactor.add("hunter2-token");
        let mut line = Line { redactor: &redactor, bytes: Vec::new() };
        line.write_all(b"got hunter2").unwrap();
        line.write_all(b"-token").unwrap();
        let text = String::from_utf8_lossy(&line.bytes).into_owned();
        assert_eq!(redactor.clean(&text), "got •••");
        line.bytes.clear();
    }
}
