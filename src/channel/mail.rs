//! What sending and receiving mail have in common: a server, how the way to it is protected, and who we are there.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::channel::dial::Dialer;
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;
use crate::secret::Secret;

/// A mail server, and how to reach it.
#[derive(Clone, Debug)]
pub struct MailServer {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Who we are; `None` where nobody needs to be anyone.
    pub login: Option<Login>,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plain,
    /// It begins in the clear, and nothing is said before STARTTLS.
    StartTls,
    /// TLS from the first byte.
    Tls,
}

/// User name and password.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// The way to a mail server, with its certificates read.
#[derive(Clone)]
pub(super) struct Way {
    /// Connects; by TLS if that is to be there from the first byte.
    pub(super) dialer: Dialer,
    /// The client's side of TLS that comes by STARTTLS.
    pub(super) upgrade: Option<Arc<ClientConfig>>,
}

impl MailServer {
    /// The way there.
    ///
    /// # Errors
    /// In words: certificates that cannot be read.
    pub(super) fn way(&self) -> Result<Way, String> {
        let config = match self.security {
            Security::Plain => None,
            Security::StartTls | Security::Tls => {
                Some(Arc::new(crate::channel::seen::tls_client(self.ca_file.as_deref())?))
            }
        };
        let (tls, upgrade) = if self.security == Security::StartTls { (None, config) } else { (config, None) };
        Ok(Way { dialer: Dialer { host: self.host.clone(), port: self.port, tls }, upgrade })
    }
}

/// The server has no STARTTLS, so nothing is told to it.
pub(super) fn no_starttls(peer: &str, instead: &str) -> Refusal {
    let detail = format!(
        "{peer} does not offer STARTTLS, so nothing was told to it: either somebody strips it from the connection, or the server wants \
         {instead}"
    );
    Refusal::new(Cause::Tls, detail)
}

/// `text` on one line of at most `most` characters, without control characters: what servers say ends up in logs and notices.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_fits_on_a_line() {
        assert_eq!(one_line("a\r\nb\tc\u{7f}  d", 100), "a b c d");
        assert_eq!(one_line("äöüß", 3), "äöü…");
    }
}
