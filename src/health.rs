//! `journeyman health`: asks a running daemon whether it is ready. For container health checks, which need no other program.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::gate::{Local, why_silent};
use crate::secret::Secret;

/// Health checks run every few seconds; one that takes longer has failed.
const WITHIN: Duration = Duration::from_secs(3);

/// Whether the daemon that listens on `listen`, behind this `web_config`, says that it is ready. The token lets us in where people
/// need a password.
///
/// # Errors
/// Why it is not, in words.
pub async fn ready(listen: SocketAddr, web: Option<&Path>, token: Option<&Secret>) -> Result<(), String> {
    let local = Local::to(listen, web, WITHIN)?;
    let url = format!("{}ready", local.base);
    let mut request = local.client.get(&url);
    if let Some(token) = token {
        request = request.bearer_auth(token.reveal().as_str());
    }
    let status = request.send().await.map_err(|error| format!("{url}: {}", why_silent(error)))?.status();
    match status.as_u16() {
        _ if status.is_success() => Ok(()),
        401 if local.needs_password && token.is_none() => Err(format!(
            "{url} wants a password (`web_config`); with an `admin_token` in [http] this command needs none"
        )),
        _ => Err(format!("{url} answered {status}")),
    }
}
