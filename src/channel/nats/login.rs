//! Who we are to a server: the CONNECT line. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::NatsSettings;
use super::wire::Info;
use crate::channel::server::Server;
use crate::secret::Secret;

/// What proves who we are, as it is now: files may have changed since the last time.
pub(super) struct Login {
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    token: Option<Zeroizing<String>>,
    nkey: Option<Zeroizing<String>>,
    creds: Option<Zeroizing<String>>,
    is_tls: bool,
}

impl Login {
    /// What the settings say, and else the URL. A user without a password in a URL is a token.
    pub(super) fn new(settings: &NatsSettings, server: &Server) -> Login {
        let reveal = |secret: &Option<Secret>| secret.as_ref().map(Secret::reveal);
        let password = reveal(&settings.password).or_else(|| server.password.clone());
        let (user, token) = match (settings.user.clone().or_else(|| server.user.clone()), &password) {
            (Some(token), None) if settings.user.is_none() => (None, Some(Zeroizing::new(token))),
            (user, _) => (user, None),
        };
        Login {
            user,
            password,
            token: reveal(&settings.token).or(token),
            nkey: reveal(&settings.nkey),
            creds: reveal(&settings.creds),
            is_tls: server.is_tls,
        }
    }

    /// The line that says so under `name`, and asks for an answer.
    ///
    /// # Errors
    /// A key that is none, in words without it.
    pub(super) fn connect(&self, info: &Info, name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut line = Map::new();
        let mut say = |key: &str, value: Value| drop(line.insert(key.to_owned(), value));
        for key in ["verbose", "pedantic"] {
            say(key, json!(false));
        }
        for key in ["headers", "no_responders", "echo"] {
            say(key, json!(true));
        }
        say("tls_required", json!(self.is_tls));
        say("name", json!(name));
        say("lang", json!("rust"));
        say("version", json!(env!("CARGO_PKG_VERSION")));
        // Servers may tell of changes by further INFOs.
        say("protocol", json!(1));
        let plain =
            [("user", self.user.as_ref()), ("pass", self.password.as_deref()), ("auth_token", self.token.as_deref())];
        for (key, value) in plain {
            if let Some(value) = value {
                say(key, json!(value));
            }
        }
        if let Some(seed) = &self.nkey {
            let (public, signature) = sign(seed.trim(), info)?;
            say("nkey", json!(public));
            say("sig", json!(signature));
        }
        if let Some(creds) = &self.creds {
            let (jwt, seed) = taken_apart(creds).ok_or("`creds` is not a NATS credentials file")?;
            let (_, signature) = sign(seed, info)?;
            say("jwt", json!(jwt));
            say("sig", json!(signature));
        }
        let mut bytes = Zeroizing::new(b"CONNECT ".to_vec());
        bytes.extend_from_slice(Value::Object(line).to_string().as_bytes());
        bytes.extend_from_slice(b"\r\nPING\r\n");
        Ok(bytes)
    }
}

/// The public key of a seed, and the server's nonce signed with it.
fn sign(seed: &str, info: &Info) -> Result<(String, String), String> {
    let key = nkeys::KeyPair::from_seed(seed).map_err(|_| "the seed of our key is not one (it begins with `SU`)")?;
    let nonce = info.nonce.as_deref().ok_or("the server asks nobody to sign: it knows no keys")?;
    let signature = key.sign(nonce.as_bytes()).map_err(|_| "our key cannot sign: it is a public one")?;
    Ok((key.public_key(), URL_SAFE_NO_PAD.encode(signature)))
}

/// The token and the seed in a credentials file: each alone on the line after a line of dashes and a title.
fn taken_apart(creds: &str) -> Option<(&str, &str)> {
    let mut lines = creds.lines().map(str::trim);
    let mut after = |title: &str| {
        lines.by_ref().find(|line| line.starts_with("---") && line.contains(title) && line.contains("BEGIN"))?;
        lines.by_ref().find(|line| !line.is_empty())
    };
    Some((after("JWT")?, after("SEED")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Redactor;

    fn line(change: impl Fn(&mut NatsSettings), url_user: Option<(&str, Option<&str>)>) -> Result<Value, String> {
        let mut settings = NatsSettings::plain(Secret::new("nats://127.0.0.1".to_owned(), &Redactor::new()));
        change(&mut settings);
        let server = Server {
            host: "127.0.0.1".to_owned(),
            port: 4_222,
            is_tls: false,
            user: url_user.map(|(user, _)| user.to_owned()),
            password: url_user.and_then(|(_, password)| password).map(|password| Zeroizing::new(password.to_owned())),
        };
        let info = Info { nonce: Some("a-nonce".to_owned()), ..Info::default() };
        let bytes = Login::new(&settings, &server).connect(&info, "journeyman")?;
        let text = std::str::from_utf8(&bytes).unwrap();
        let json = text.strip_prefix("CONNECT ").unwrap().strip_suffix("\r\nPING\r\n").unwrap();
        Ok(serde_json::from_str(json).unwrap())
    }

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text.to_owned(), &Redactor::new()))
    }

    #[test]
    fn the_settings_go_before_the_url_and_a_lone_user_in_it_is_a_token() {
        let plain = line(|_| {}, None).unwrap();
        assert_eq!((&plain["headers"], &plain["no_responders"], plain.get("user")), (&json!(true), &json!(true), None));
        let url = line(|_| {}, Some(("probe", Some("pass")))).unwrap();
        assert_eq!((&url["user"], &url["pass"]), (&json!("probe"), &json!("pass")));
        let token = line(|_| {}, Some(("s3cret", None))).unwrap();
        assert_eq!((token.get("user"), &token["auth_token"]), (None, &json!("s3cret")));
        let own = line(
            |settings| {
                settings.user = Some("other".to_owned());
                settings.password = secret("else");
            },
            Some(("probe", Some("pass"))),
        );
        let own = own.unwrap();
        assert_eq!((&own["user"], &own["pass"]), (&json!("other"), &json!("else")));
    }

    #[test]
    fn a_key_signs_what_the_server_asks_and_is_never_sent_or_shown() {
        let key = nkeys::KeyPair::new_user();
        let seed = key.seed().unwrap();
        let said = line(|settings| settings.nkey = secret(&seed), None).unwrap();
        assert_eq!(said["nkey"], json!(key.public_key()));
        let signature = URL_SAFE_NO_PAD.decode(said["sig"].as_str().unwrap()).unwrap();
        key.verify(b"a-nonce", &signature).unwrap();
        assert!(!said.to_string().contains(&seed));

        let creds = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.eXAi.x\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let said = line(|settings| settings.creds = secret(&creds), None).unwrap();
        assert_eq!((&said["jwt"], said.get("nkey")), (&json!("eyJ0.eXAi.x"), None));
        assert!(said["sig"].is_string() && !said.to_string().contains(&seed));

        for (nkey, creds) in [(Some("CANARY"), None), (None, Some("CANARY"))] {
            let error = line(
                |settings| {
                    settings.nkey = nkey.and_then(secret);
                    settings.creds = creds.and_then(secret);
                },
                None,
            );
            assert!(!error.as_ref().unwrap_err().contains("CANARY"), "{error:?}");
        }
    }
}
