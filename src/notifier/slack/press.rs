//! A button that somebody pressed: whether Slack says so, who it was, and what they may ask for. Pure decisions.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::Value;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::message::ACTION;
use crate::commands::{Denial, Request, Which};
use crate::control::grant::{Deed, Grant};
use crate::control::{Ack, Silence};
use crate::time::later;

/// A call is believed for so long after it was signed. <https://docs.slack.dev/authentication/verifying-requests-from-slack>
pub(super) const FRESH: Duration = Duration::from_secs(300);
/// What the button silences for.
const SILENCED: Duration = Duration::from_secs(3_600);
/// Characters of a person's name.
const NAME: usize = 60;

/// A button of ours that was pressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Press {
    /// The workspace that it was pressed in.
    team: String,
    /// The workspace of who pressed it, which is another one in a shared channel.
    home: Option<String>,
    /// Who: their id.
    pub(super) user: String,
    /// Who: their name.
    name: String,
    /// The channel of the message.
    pub(super) channel: String,
    /// The button's value.
    value: String,
}

/// What a press asks for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// That something is changed.
    Change(Request),
    /// A run.
    Run {
        /// Of which journey.
        which: Which,
        /// Who asks.
        by: String,
    },
}

/// Whether Slack signed this body just now.
pub(super) fn verify(
    secret: &[u8],
    stamp: Option<&str>,
    signature: Option<&str>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Denial> {
    let stamp = stamp.ok_or(Denial::Forged("no timestamp"))?;
    let is_spelt = (1..=12).contains(&stamp.len()) && stamp.bytes().all(|b| b.is_ascii_digit());
    let at: i64 = stamp.parse().ok().filter(|_| is_spelt).ok_or(Denial::Forged("no timestamp"))?;
    let signature = signature.ok_or(Denial::Forged("no signature"))?;
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return Err(Denial::Forged("no secret")) };
    for part in [b"v0:", stamp.as_bytes(), b":", body] {
        mac.update(part);
    }
    let mut expected = "v0=".to_owned();
    for byte in mac.finalize().into_bytes() {
        expected.push_str(&format!("{byte:02x}"));
    }
    if !bool::from(expected.as_bytes().ct_eq(signature.as_bytes())) {
        return Err(Denial::Forged("wrong signature"));
    }
    // After the signature: who cannot sign learns nothing of our clock.
    if now.as_second().abs_diff(at) > FRESH.as_secs() {
        return Err(Denial::Forged("signed too long ago, or a clock is wrong"));
    }
    Ok(())
}

/// The payload in the form that Slack posts.
pub(super) fn payload(body: &[u8]) -> Result<Value, Denial> {
    let mut payloads = url::form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
    let (Some((_, payload)), None) = (payloads.next(), payloads.next()) else {
        return Err(Denial::Unreadable("there is no single `payload`"));
    };
    serde_json::from_str(&payload).map_err(|_| Denial::Unreadable("`payload` is not JSON"))
}

/// What was pressed; `None` if it was no button that asks us for something, as one that is a link.
pub(super) fn read(payload: &Value) -> Option<Press> {
    if payload["type"] != "block_actions" {
        return None;
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let ours = |action: &&Value| action["action_id"].as_str().is_some_and(|id| id.starts_with(ACTION));
    let action = payload["actions"].as_array()?.iter().find(ours)?;
    let user = &payload["user"];
    let name = text(&user["username"]).or_else(|| text(&user["name"])).or_else(|| text(&user["id"]))?;
    Some(Press {
        team: text(&payload["team"]["id"]).unwrap_or_default(),
        home: text(&user["team_id"]),
        user: text(&user["id"])?,
        name: name.chars().filter(|c| !c.is_control()).take(NAME).collect(),
        channel: text(&payload["container"]["channel_id"]).or_else(|| text(&payload["channel"]["id"]))?,
        value: text(&action["value"])?,
    })
}

/// What the press asks for, if it may; otherwise why not, for who pressed.
pub(super) fn judge(press: &Press, team: &str, key: &[u8], now: Timestamp) -> Result<Wanted, String> {
    if press.team != team || press.home.as_ref().is_some_and(|home| home != team) {
        return Err("only people of the workspace that Journeyman is installed in may do this".to_owned());
    }
    let grant = Grant::verify(&press.value, key, now).map_err(|why| why.to_string().replace("link", "button"))?;
    let by = format!("@{} (Slack)", press.name);
    match grant.deed {
        Deed::Acknowledge => {
            let ack = Ack { by, at: now, until: None, note: None };
            Ok(Wanted::Change(Request::Acknowledge { incident: grant.incident, ack }))
        }
        Deed::Silence => {
            let silence = Silence {
                // Pressed twice it is one silence, which begins anew.
                id: format!("slack-{}", grant.incident),
                matchers: Vec::new(),
                from: now,
                until: later(now, SILENCED),
                until_resolved: false,
                exclude_from_slo: false,
                pauses: false,
                reason: "asked for in Slack".to_owned(),
                author: by,
            };
            Ok(Wanted::Change(Request::SilenceMembers { incident: grant.incident, silence }))
        }
        Deed::RunAgain => Ok(Wanted::Run { which: Which::Incident(grant.incident), by }),
    }
}

/// A press that anybody claims was made.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let now = Timestamp::UNIX_EPOCH;
    let press = payload(data).or_else(|_| serde_json::from_slice(data)).ok().and_then(|payload| read(&payload));
    if let Some(press) = press {
        assert!(judge(&press, &press.team, b"nobody knows this key", now).is_err(), "nobody has granted that");
    }
}

#[cfg(test)]
mod tests;
