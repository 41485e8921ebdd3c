//! How this machine's own commands reach the daemon: over loopback, and over TLS if the listener has it. They trust the one
//! certificate that the file names, whatever name it is for.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::Client;
use url::Url;

use crate::gate::rules::Rules;

/// The way to a daemon on this machine.
pub struct Local {
    /// Its address, without a path.
    pub base: Url,
    /// What asks it.
    pub client: Client,
    /// What it wants that only a person has: it has users, and no admin token lets commands in.
    pub needs_password: bool,
}

impl Local {
    /// The way to what listens on `listen` with this `web_config`; an answer takes at most `within`.
    ///
    /// # Errors
    /// In words: the file cannot be used, or no client can be made.
    pub fn to(listen: SocketAddr, web: Option<&Path>, within: Duration) -> Result<Local, String> {
        let rules = web.map(Rules::load).transpose()?.unwrap_or_default();
        let builder = Client::builder().timeout(within).no_proxy();
        let (scheme, builder) = match rules.certificate() {
            // A machine that has no certificates at all can ask its own daemon, too.
            None => ("http", builder.tls_backend_preconfigured(crate::tls::client_without_roots()?)),
            Some(certificate) => {
                let tls = crate::tls::client_that_knows(certificate.clone())?;
                ("https", builder.tls_backend_preconfigured(tls))
            }
        };
        let base = format!("{scheme}://{}", reach(listen));
        Ok(Local {
            base: base.parse().map_err(|error| format!("{base}: {error}"))?,
            client: builder.build().map_err(|error| format!("no client: {error}"))?,
            needs_password: rules.has_users(),
        })
    }
}

/// Why nothing came, without the address: the innermost error names what happened, and those around it only that something did.
pub fn why_silent(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn Error = &error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

/// Where what listens on `listen` is reached from this machine.
pub fn reach(listen: SocketAddr) -> SocketAddr {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(host, listen.port())
}
