//! `journeyman health`: asks a running daemon whether it is ready. For container health checks, which need no other program.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

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
    let answer = request.send().await.map_err(|error| format!("{url}: {}", why_silent(error)))?;
    let status = answer.status();
    match status.as_u16() {
        _ if status.is_success() => Ok(()),
        401 if local.needs_password && token.is_none() => Err(format!(
            "{url} wants a password (`web_config`); with an `admin_token` in [http] this command needs none"
        )),
        _ => {
            let said = answer.text().await.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let reasons =
                said.as_ref().and_then(|said| said["reasons"].as_array()).map(Vec::as_slice).unwrap_or_default();
            let reasons: Vec<_> = reasons.iter().filter_map(Value::as_str).collect();
            let why = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
            Err(format!("{url} answered {status}{why}"))
        }
    }
}
