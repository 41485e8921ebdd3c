//! A signed permission to do one thing to one incident: the value of a button, or a link in a mail. Whoever has the message may
//! use it, until it expires; nobody can make one, and one for an old incident does nothing to a new one.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::journey::outcome::labelled;

/// Binds the signature to this use of the installation's key.
const CONTEXT: &[u8] = b"journeyman grant 1\0";
/// Hexadecimal digits of the signature: 128 bits.
const SIGNATURE: usize = 32;

labelled! {
    /// What may be done.
    Deed {
        /// To acknowledge the incident.
        Acknowledge = "ack",
        /// To silence its members.
        Silence = "silence",
        /// To run its journey again.
        RunAgain = "run",
    }
}

/// A permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What may be done.
    pub deed: Deed,
    /// To which incident.
    pub incident: String,
    /// Until when.
    pub until: Timestamp,
}

/// Why a permission is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// We never gave it.
    #[error("this is not a link that this Journeyman made")]
    Forged,
    /// We gave it, and its time is over.
    #[error("this link has expired")]
    Expired,
}

impl Grant {
    /// The permission as text: letters, digits, dots.
    pub fn sign(&self, key: &[u8]) -> String {
        let claim = format!("{}.{}.{}", self.deed, self.incident, self.until.as_second());
        let signature = signature(key, &claim);
        format!("{claim}.{signature}")
    }

    /// Reads what [`Grant::sign`] wrote.
    ///
    /// # Errors
    /// It is not one of ours, or it has expired; in words that help nobody to make one.
    pub fn verify(text: &str, key: &[u8], now: Timestamp) -> Result<Grant, Invalid> {
        const FORGED: Invalid = Invalid::Forged;
        let (claim, signed) = text.rsplit_once('.').ok_or(FORGED)?;
        let expected = signature(key, claim);
        if signed.len() != SIGNATURE
            || !bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), signed.as_bytes()))
        {
            return Err(FORGED);
        }
        let mut parts = claim.split('.');
        let (Some(deed), Some(incident), Some(until), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FORGED);
        };
        let until = until.parse().ok().and_then(|second| Timestamp::from_second(second).ok()).ok_or(FORGED)?;
        if until <= now {
            return Err(Invalid::Expired);
        }
        Ok(Grant { deed: deed.parse().map_err(|_| FORGED)?, incident: incident.to_owned(), until })
    }
}

fn signature(key: &[u8], claim: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(CONTEXT);
    mac.update(claim.as_bytes());
    let mut text = String::with_capacity(SIGNATURE);
    for byte in mac.finalize().into_bytes().iter().take(SIGNATURE / 2) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
