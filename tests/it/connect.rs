//! `check --connect`: what is there is told from what is not, in words, and nobody is told anything.

use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::fake_slack::{self, FakeSlack};
use crate::support::fake_smtp::{Act, At, FakeSmtp, Offer, Rule};
use crate::support::target::Target;
use crate::support::{block_on, free_port};

#[test]
fn what_is_configured_is_proven_and_what_fails_says_why() {
    block_on(async {
        let (slack, smtp, target) = (FakeSlack::start().await, FakeSmtp::start().await, Target::start(1).await);
        let setup = Setup::new("connect");
        let nobody = free_port();
        let config = |slack_token: &str, mail: u16| {
            format!(
                r#"
[channels.shop]
type = "http"
url  = "{shop}"

[channels.gone]
type = "http"
url  = "http://127.0.0.1:{nobody}/"

[channels.orders]
type = "amqp"
url  = {{ env = "ORDERS_URL" }}

[notifiers.oncall]
type     = "slack"
token    = {{ env = "{slack_token}" }}
channel  = "{channel}"
api_url  = "{api}"
fallback = "mail"

[notifiers.mail]
type = "email"
smtp = "smtp://127.0.0.1:{mail}"
from = "journeyman@example.net"
to   = ["ops@example.net"]

[notifiers.hook]
type = "webhook"
url  = "{shop}"
"#,
                shop = target.url(),
                channel = fake_slack::CHANNEL,
                api = slack.url(),
            )
        };
        let run = async |text: &str| {
            let file = setup.write("journeyman.toml", text);
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_journeyman"));
            command.args(["check", "--connect", "--config"]).arg(file).current_dir(setup.directory());
            command.env("ORDERS_URL", format!("amqp://probe:s3cr3t-pa55@127.0.0.1:{nobody}/%2f"));
            command.env("GOOD", fake_slack::TOKEN).env("BAD", "xoxb-1-revoked-token");
            crate::support::command::run(command).await
        };

        let ended = run(&config("GOOD", smtp.port())).await;
        assert_eq!(ended.code, 69, "two channels are not there: {ended:#?}");
        let line = |name: &str| {
            let found = ended.stdout.lines().find(|line| line.split(' ').any(|word| word == name));
            found.unwrap_or_else(|| panic!("no line for {name}: {}", ended.stdout))
        };
        for (name, begin, words) in [
            ("shop", "ok   channel shop (http, ", "answers OPTIONS"),
            ("gone", "FAIL channel gone (http, ", "unreachable: "),
            ("orders", "FAIL channel orders (amqp, ", "unreachable: cannot connect to 127.0.0.1:"),
            ("oncall", "ok   notifier oncall (slack, ", "the token is `journeyman`"),
            ("mail", "ok   notifier mail (email, ", "speaks SMTP"),
            ("hook", "ok   notifier hook (webhook, ", "is there"),
        ] {
            assert!(line(name).starts_with(begin) && line(name).contains(words), "{}", line(name));
        }
        assert!(ended.stdout.ends_with("4 of 6 are well\n"), "{}", ended.stdout);
        for secret in ["s3cr3t-pa55", fake_slack::TOKEN] {
            assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:#?}");
        }
        assert!(slack.messages(fake_slack::CHANNEL).is_empty() && smtp.mails().is_empty(), "nobody is told anything");

        slack.script("auth.test", [fake_slack::Answer::Refuse("invalid_auth")]);
        let ended = run(&config("BAD", nobody)).await;
        assert!(ended.stdout.contains("FAIL notifier oncall") && ended.stdout.contains("invalid_auth"), "{ended:#?}");
        assert!(ended.stdout.contains("FAIL notifier mail"), "{ended:#?}");
    });
}

#[test]
fn a_mail_server_that_does_not_take_our_password_says_so() {
    block_on(async {
        let smtp = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        smtp.script([Rule::always(At::Auth, Act::Say("535 5.7.8 not you"))]);
        let setup = Setup::new("connect-auth");
        setup.write("password", "pa55-w0rd-of-mine");
        setup.write(
            "journeyman.toml",
            &format!(
                "[notifiers.mail]\ntype = \"email\"\nsmtp = \"smtp://probe@127.0.0.1:{}\"\npassword = {{ file = \"password\" }}\nfrom = \"j@example.net\"\nto = [\"ops@example.net\"]\n",
                smtp.port()
            ),
        );
        let ended = journeyman(setup.directory(), &["check", "--connect", "--config", "journeyman.toml"]).await;
        assert_eq!(ended.code, 69, "{ended:#?}");
        assert!(ended.stdout.contains("FAIL notifier mail") && ended.stdout.contains("not you"), "{ended:#?}");
        assert!(!ended.stdout.contains("pa55-w0rd-of-mine"), "{ended:#?}");
    });
}
