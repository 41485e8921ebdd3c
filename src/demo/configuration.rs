//! The configuration of the daemon in the demo: ordinary files in the ordinary grammar, that only name the sandbox's addresses.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{mail, workspace};

/// What the sandbox's systems expect of their callers, and show to those whom they call. Made anew for each sandbox.
pub(super) struct Keys {
    pub(super) gateway: String,
    pub(super) gateway_signing: String,
    pub(super) shop: String,
    pub(super) mail: String,
    pub(super) workspace: String,
}

impl Keys {
    /// Keys that guard a sandbox on loopback, for as long as it lives.
    pub(super) fn random() -> Keys {
        let key = || format!("{:032x}", fastrand::u128(..));
        Keys { gateway: key(), gateway_signing: key(), shop: key(), mail: key(), workspace: format!("xoxb-{}", key()) }
    }
}

/// Where the sandbox's systems listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) gateway: SocketAddr,
    pub(super) shop: SocketAddr,
    pub(super) mail: SocketAddr,
    pub(super) inbox: SocketAddr,
}

/// The files that make a daemon watch the sandbox.
pub struct DemoConfig {
    /// `journeyman.toml`
    pub main: String,
    /// Names and texts of the probe files.
    pub probes: Vec<(String, String)>,
    /// Names and contents of the secret files.
    pub secrets: Vec<(String, String)>,
}

impl DemoConfig {
    pub(super) fn new(keys: &Keys, at: Addresses, state_dir: &Path, [http, hooks]: [u16; 2]) -> DemoConfig {
        let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        let bearer = format!("Bearer {}", keys.gateway);
        let secrets = [
            ("gateway-authorization", bearer.as_str()),
            ("gateway-signing-key", &keys.gateway_signing),
            ("shop-token", &keys.shop),
            ("mail-token", &keys.mail),
            ("slack-bot-token", &keys.workspace),
        ];
        DemoConfig {
            main: main_file(at, state_dir, http, hooks),
            probes: PROBES.iter().copied().map(owned).collect(),
            secrets: secrets.into_iter().map(owned).collect(),
        }
    }

    /// Writes the files below `directory`, secrets for the owner's eyes only; the path of `journeyman.toml`.
    ///
    /// # Errors
    /// A file or directory cannot be written; the message names it.
    pub fn write(&self, directory: &Path) -> io::Result<PathBuf> {
        let main = directory.join("journeyman.toml");
        write(&main, &self.main, 0o644)?;
        for (name, text) in &self.probes {
            write(&directory.join("probes").join(name), text, 0o644)?;
        }
        for (name, secret) in &self.secrets {
            write(&directory.join("secrets").join(name), secret, 0o600)?;
        }
        Ok(main)
    }
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let told = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(told)?;
    }
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(mode).open(path).map_err(told)?;
    file.write_all(text.as_bytes()).map_err(told)
}

fn main_file(at: Addresses, state_dir: &Path, http: u16, hooks: u16) -> String {
    let store = toml_string(&format!("sqlite:{}", state_dir.join("journeyman.db").display()));
    let Addresses { gateway, shop, mail, inbox } = at;
    let (channel, drills) = (workspace::CHANNEL, mail::DRILLS);
    format!(
        r#"# The daemon in `journeyman demo`. An ordinary configuration: only the systems that it names are a sandbox on this machine.
# Paths are relative to this file.

probes   = ["probes/*.toml"]
location = "demo"

[http]                                # metrics, health, status pages, API
listen     = "127.0.0.1:{http}"
public_url = "http://127.0.0.1:{http}"

[hooks]                               # inbound webhooks have a listener of their own
listen = "127.0.0.1:{hooks}"

[store]
url = {store}

[log]
level = "warn"                        # what happens is told in the alert inbox

[defaults]
notify = ["team-chat", "ops-mail"]

# ---------------------------------------------------------------- channels

[channels.gateway]                    # an SMS gateway's API
type    = "http"
url     = "http://{gateway}/v1/messages"
headers = {{ authorization = {{ file = "secrets/gateway-authorization" }} }}
timeout = "5s"

[channels.inbound]                    # where it delivers SMS to us, signed
type   = "webhook"
path   = "/inbound-sms"
verify = {{ scheme = "hmac", header = "x-gateway-signature", prefix = "sha256=", secret = {{ file = "secrets/gateway-signing-key" }} }}

[channels.shop]                       # an order pipeline's entrance
type    = "http"
url     = "http://{shop}"
timeout = "5s"

[channels.orders-done]                # and its end
type   = "webhook"
path   = "/orders-done"
verify = {{ scheme = "bearer", secret = {{ file = "secrets/shop-token" }} }}

[channels.drill-inbox]                # mail for the drills' own address, as the mail server announces it
type   = "webhook"
path   = "/drill-mail"
verify = {{ scheme = "bearer", secret = {{ file = "secrets/mail-token" }} }}

# --------------------------------------------------------------- notifiers

[notifiers.team-chat]
type     = "slack"
token    = {{ file = "secrets/slack-bot-token" }}
channel  = "{channel}"
api_url  = "http://{inbox}/api"         # the sandbox workspace; without this line it is Slack
fallback = "ops-mail"

[notifiers.ops-mail]
type = "email"
smtp = "smtp://{mail}"
from = "Journeyman <journeyman@demo.invalid>"
to   = ["ops@demo.invalid"]

[notifiers.drill-mail]                # nobody is woken by a rehearsal
type = "email"
smtp = "smtp://{mail}"
from = "Journeyman <journeyman@demo.invalid>"
to   = ["{drills}"]

# ------------------------------------------------------------------- drill

[drill]                               # once a minute an outage is rehearsed: the alert must be seen where it goes
read_back = "drill-inbox"
notify    = ["drill-mail"]
within    = "45s"
schedule  = "* * * * *"               # your own: once a week
journeys  = ["order-pipeline"]
faults    = ["drop"]                  # what the pipeline announces is not seen
"#
    )
}

/// A TOML basic string (TOML 1.0, "String").
fn toml_string(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

const PROBES: &[(&str, &str)] = &[
    ("sms.toml", include_str!("sms.toml")),
    ("orders.toml", include_str!("orders.toml")),
    ("checkout.toml", include_str!("checkout.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(state_dir: &str) -> DemoConfig {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let at = Addresses { gateway: at(1001), shop: at(1002), mail: at(1003), inbox: at(1004) };
        DemoConfig::new(&Keys::random(), at, Path::new(state_dir), [1005, 1006])
    }

    #[test]
    fn every_file_is_toml_and_names_what_exists() {
        let config = configuration("/tmp/a \"b\"\\c\n");
        let main: toml::Table = config.main.parse().unwrap();
        assert_eq!(main["store"]["url"].as_str(), Some("sqlite:/tmp/a \"b\"\\c\n/journeyman.db"));
        assert_eq!(main["channels"]["gateway"]["url"].as_str(), Some("http://127.0.0.1:1001/v1/messages"));
        assert_eq!(main["notifiers"]["team-chat"]["api_url"].as_str(), Some("http://127.0.0.1:1004/api"));
        assert_eq!(main["notifiers"]["ops-mail"]["smtp"].as_str(), Some("smtp://127.0.0.1:1003"));

        let drill = &main["drill"];
        assert!(main["channels"].get(drill["read_back"].as_str().unwrap()).is_some());
        assert!(main["notifiers"].get(drill["notify"][0].as_str().unwrap()).is_some());

        let mut journeys = Vec::new();
        for (name, text) in &config.probes {
            let file: toml::Table = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            for journey in file["journey"].as_array().unwrap() {
                journeys.push(journey["name"].as_str().unwrap().to_owned());
                for step in journey["step"].as_array().unwrap() {
                    let channel = ["send", "receive", "request"].iter().find_map(|verb| step.get(verb)?.as_str());
                    assert!(main["channels"].get(channel.unwrap()).is_some(), "{name}: {step:?}");
                }
            }
        }
        assert!(journeys.contains(&drill["journeys"][0].as_str().unwrap().to_owned()));
        assert_eq!(journeys, ["sms-round-trip", "order-pipeline", "checkout-health"]);
    }

    #[test]
    fn secrets_are_in_their_files_alone() {
        use std::os::unix::fs::PermissionsExt;
        let config = configuration("state");
        for (name, secret) in &config.secrets {
            assert!(config.main.contains(&format!("secrets/{name}")), "{name} is used");
            let secret = secret.trim_start_matches("Bearer ");
            assert!(!config.main.contains(secret) && config.probes.iter().all(|(_, text)| !text.contains(secret)));
        }
        let directory = std::env::temp_dir().join(format!("journeyman-demo-config-{}", std::process::id()));
        let main = config.write(&directory).unwrap();
        assert_eq!(fs::read_to_string(&main).unwrap(), config.main);
        assert!(directory.join("probes/sms.toml").is_file());
        let mode = fs::metadata(directory.join("secrets/slack-bot-token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(&directory).unwrap();

        let error = config.write(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write /proc/nowhere/journeyman.toml"), "{error}");
    }
}
