//! The log: static sentences with fields, as text or JSON, on standard error, with every known secret taken out.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::secret::Redactor;
use crate::text::{takes_colour, visible_line};

/// Libraries that report at a high level what a monitor expects to see every day.
const QUIET: &str = "rustls_platform_verifier=off,tokio_cron_scheduler=error,lapin=off,async_imap=off,rumqttc=off";

/// Starts logging. `level` is a `tracing` filter; one that cannot be read is `info`. Further calls do nothing.
pub fn init(level: &str, json: bool, redactor: &Redactor) {
    let filter =
        EnvFilter::try_new(format!("{QUIET},{level}")).unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},info")));
    let has_colour = !json && takes_colour(&io::stderr());
    let writer = Redacting { redactor: redactor.clone(), has_colour };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(has_colour).with_writer(writer).with_target(false);
    // Fails only if a subscriber is set already, which then goes on.
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
}

/// Writes to standard error without secrets, and without what commands a terminal.
#[derive(Clone)]
struct Redacting {
    redactor: Redactor,
    has_colour: bool,
}

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { redactor: &self.redactor, has_colour: self.has_colour, bytes: Vec::with_capacity(256) }
    }
}

/// One event: collected, then written whole, so that a secret cannot slip through between two writes.
struct Line<'a> {
    redactor: &'a Redactor,
    has_colour: bool,
    bytes: Vec<u8>,
}

impl Line<'_> {
    /// The event as it is written: one line, whatever is in it.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let clean = self.redactor.clean(text.trim_end_matches('\n'));
        // Where there is colour its escapes are the formatter's own: it has taken them out of what it was given.
        let shown = match self.has_colour {
            true => clean.split('\u{1b}').map(visible_line).collect::<Vec<_>>().join("\u{1b}"),
            false => visible_line(&clean).into_owned(),
        };
        shown + "\n"
    }
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
        // A log that cannot be written is no reason to stop.
        let _ = io::stderr().write_all(self.text().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(redactor: &Redactor, has_colour: bool, writes: &[&[u8]]) -> String {
        let mut line = Line { redactor, has_colour, bytes: Vec::new() };
        for bytes in writes {
            line.write_all(bytes).unwrap();
        }
        let text = line.text();
        // Nothing of it goes to the log of the tests.
        std::mem::forget(line);
        text
    }

    #[test]
    fn a_secret_split_over_two_writes_is_still_hidden() {
        let redactor = Redactor::new();
        redactor.add("hunter2-token");
        assert_eq!(line(&redactor, false, &[b"got hunter2", b"-token\n"]), "got •••\n");
    }

    #[test]
    fn an_event_is_one_line_that_commands_no_terminal() {
        let event = "INFO a target said why=\u{1b}[2J\nERROR all is lost\u{202e}\n".as_bytes();
        let told = line(&Redactor::new(), false, &[event]);
        assert_eq!(told, "INFO a target said why=⟨U+001B⟩[2J⟨U+000A⟩ERROR all is lost⟨U+202E⟩\n");
        let coloured = line(&Redactor::new(), true, &[b"\x1b[32mINFO\x1b[0m x\x07\n"]);
        assert_eq!(coloured, "\u{1b}[32mINFO\u{1b}[0m x⟨U+0007⟩\n");
    }
}
