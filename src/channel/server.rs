//! A server, as a URL has it: where it is, whether it speaks TLS, and who we are to it.

use url::Url;
use zeroize::Zeroizing;

use crate::channel::address::{decoded, host};
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;
use crate::secret::Secret;

/// A scheme: its name, its port unless the URL has one, and whether TLS begins at once.
pub(crate) type Scheme = (&'static str, u16, bool);

/// What a URL says.
pub(crate) struct Server {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// Whether the scheme asks for TLS.
    pub(crate) is_tls: bool,
    /// The user, if it has one.
    pub(crate) user: Option<String>,
    /// The password, if it has one.
    pub(crate) password: Option<Zeroizing<String>>,
}

impl Server {
    /// Takes the URL apart as it is now: a secret one may have changed since the last time.
    ///
    /// # Errors
    /// It is none, or has another scheme. Nothing of it is repeated: it may hold a password.
    pub(crate) fn of(url: &Secret, schemes: &[Scheme]) -> Result<Server, Refusal> {
        let wrong = || {
            let schemes: Vec<_> =
                schemes.iter().map(|(scheme, ..)| format!("{scheme}://user:password@host:port")).collect();
            let detail = format!(
                "the channel's `url` is not one that it can use; write {}, with special characters percent-encoded",
                schemes.join(" or ")
            );
            Refusal::new(Cause::Unreachable, detail)
        };
        let url = Url::parse(&url.reveal()).map_err(|_| wrong())?;
        let (_, port, is_tls) = *schemes.iter().find(|(scheme, ..)| *scheme == url.scheme()).ok_or_else(wrong)?;
        let host = host(&url).map_err(|_| wrong())?;
        let part = |text: &str| decoded(text).map_err(|_| wrong());
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(part).transpose()?;
        let password = url.password().map(part).transpose()?;
        let user = user.map(|user| user.to_string());
        Ok(Server { host, port: url.port().unwrap_or(port), is_tls, user, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Redactor;

    const SCHEMES: &[Scheme] = &[("mqtt", 1_883, false), ("mqtts", 8_883, true)];

    fn parsed(url: &str) -> Result<Server, Refusal> {
        Server::of(&Secret::new(url.to_owned(), &Redactor::new()), SCHEMES)
    }

    #[test]
    fn a_url_is_taken_apart() {
        let server = parsed("mqtts://us%40er:p%25ss+@mq.example.net").unwrap();
        assert_eq!((server.host.as_str(), server.port, server.is_tls), ("mq.example.net", 8_883, true));
        assert_eq!(server.user.as_deref(), Some("us@er"));
        assert_eq!(server.password.unwrap().as_str(), "p%ss+");
        let server = parsed("mqtt://[::1]:1884").unwrap();
        assert_eq!((server.host.as_str(), server.port, server.is_tls), ("::1", 1_884, false));
        assert!(server.user.is_none() && server.password.is_none());
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        for url in [
            "",
            "host",
            "amqp://user:CANARY@host",
            "mqtt://",
            "mqtt://user:CANARY@host:port",
            "mqtt://user:CANARY%zz@host",
        ] {
            let refusal = parsed(url).err().unwrap();
            assert!(!refusal.detail.contains("CANARY"), "{refusal:?}");
            assert!(refusal.detail.contains("mqtts://user:password@host:port"), "{refusal:?}");
        }
    }
}
