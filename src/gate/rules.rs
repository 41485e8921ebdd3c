//! What a `web_config` file says: Prometheus' `web.yml`, as its exporters read it
//! (<https://prometheus.io/docs/prometheus/latest/configuration/https/>). A file is taken whole or not at all.

mod names;
mod tls;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use crate::gate::bucket::Rate;
use crate::gate::rules::yaml::{File, RateLimit};
use crate::gate::stamp::Stamped;
use crate::time::parse_duration;

/// A hash that takes longer than this is a mistake: each step doubles the time, and this one takes some seconds.
const MOST_COST: u32 = 16;

/// What may be added to every answer, and the values that it may have if those are fixed.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// The rules of a file.
#[derive(Default)]
pub struct Rules {
    tls: Option<tls::Tls>,
    /// Names, with the bcrypt hashes of their passwords.
    pub(super) users: BTreeMap<String, String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) rate: Option<Rate>,
    /// The files that this was read from, as they were just before.
    pub(super) files: Vec<Stamped>,
}

impl Rules {
    /// Reads a file, and the certificates that it names. Paths in it are relative to it.
    ///
    /// # Errors
    /// In words, without anything secret: what is wrong, and where.
    pub fn load(path: &Path) -> Result<Rules, String> {
        let mut files = vec![Stamped::new(path)];
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let file = yaml::read(&text).map_err(|why| format!("{}: {why}", path.display()))?;
        let rules = Rules::of(file, base, &mut files).map_err(|why| format!("{}: {why}", path.display()))?;
        Ok(Rules { files, ..rules })
    }

    fn of(file: File, base: &Path, files: &mut Vec<Stamped>) -> Result<Rules, String> {
        let tls = file.tls_server_config.map(|config| tls::Tls::of(config, base, files)).transpose()?;
        for (user, hash) in &file.basic_auth_users {
            check_user(user, hash)?;
        }
        let headers = file.http_server_config.headers.iter().map(|(name, value)| header(name, value));
        Ok(Rules {
            tls,
            headers: headers.collect::<Result<_, _>>()?,
            users: file.basic_auth_users,
            rate: file.rate_limit.map(rate).transpose()?.flatten(),
            files: Vec::new(),
        })
    }

    /// Whether callers speak TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether callers need a password.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether callers need a certificate of their own.
    pub fn wants_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_certificates)
    }

    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| tls.config.clone())
    }

    /// The certificate that callers are shown.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.as_ref().map(|tls| &tls.certificate)
    }

    /// Whether somebody with these certificates, which were verified, may come in.
    pub(super) fn admits(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        let Some(tls) = self.tls.as_ref().filter(|tls| !tls.allowed_names.is_empty()) else { return true };
        let own = certificates.and_then(<[_]>::first).and_then(|der| names::alternative_names(der)).unwrap_or_default();
        own.iter().any(|name| tls.allowed_names.contains(name))
    }

    /// Adds the headers of the file to an answer.
    pub(super) fn decorate(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            if name == CONTENT_SECURITY_POLICY {
                // Browsers keep all policies that they are given: this one can forbid more, and allow nothing.
                headers.append(name, value.clone());
            } else {
                headers.insert(name, value.clone());
            }
        }
    }
}

/// Without the hashes.
impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rules of {:?}", self.files)
    }
}

fn check_user(user: &str, hash: &str) -> Result<(), String> {
    if user.is_empty() || user.contains(':') {
        return Err("a user in `basic_auth_users` has a name, without a colon in it (RFC 7617)".to_owned());
    }
    let parts: bcrypt::HashParts = hash.parse().map_err(|_| {
        format!("the password of user `{user}` is no bcrypt hash; `htpasswd -nBC 10 \"\" | tr -d ':\\n'` makes one")
    })?;
    match parts.get_cost() {
        cost if cost > MOST_COST => Err(format!(
            "the password of user `{user}` is hashed with a cost of {cost}, which takes minutes; at most {MOST_COST}"
        )),
        _ => Ok(()),
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Some((_, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = HEADERS.iter().map(|(known, _)| *known).collect();
        return Err(format!("header `{name}` cannot be set; those that can: {}", known.join(", ")));
    };
    if !values.is_empty() && !values.contains(&value) {
        return Err(format!("header `{name}` can be {}, not `{value}`", values.join(" or ")));
    }
    let wrong = || format!("the value of header `{name}` has characters that no header may have");
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    Ok((name.clone(), HeaderValue::from_str(value).map_err(|_| wrong())?))
}

fn rate(limit: RateLimit) -> Result<Option<Rate>, String> {
    let text = limit.interval.as_str();
    let every = match text {
        "0" | "0s" => Duration::ZERO,
        _ => parse_duration(text).map_err(|why| format!("`interval` of `rate_limit`: {why}"))?,
    };
    match (every.is_zero(), limit.burst) {
        (true, _) => Ok(None),
        (false, 0) => Err("`burst` of `rate_limit` is 0, which lets nobody in".to_owned()),
        (false, burst) => Ok(Some(Rate { every, burst })),
    }
}
