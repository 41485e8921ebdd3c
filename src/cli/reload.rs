//! `journeyman reload`: has the running daemon read its configuration again.

use reqwest::Method;

use crate::cli::Format;
use crate::cli::ask::Daemon;
use crate::cli::control::text;
use crate::exit::Failure;

/// What is to be printed: what is different now.
///
/// # Errors
/// The configuration is not in order, and the one before goes on; or the daemon refuses, or does not answer.
pub async fn reload(daemon: &Daemon, format: Format) -> Result<String, Failure> {
    let answer = daemon.change(Method::POST, &["reload"], &[], None).await?;
    Ok(match format {
        Format::Json => format!("{answer:#}\n"),
        Format::Text => format!("read again: {}\n", text(&answer["said"])),
    })
}
