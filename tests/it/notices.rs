//! What people are told, as it looks: goldens of both media for every reason, and the commands that show and test it.

use std::path::Path;

use journeyman::app::preview::preview;
use journeyman::incident::NotifyReason;
use journeyman::notice::sample::sample;

use crate::support::command::journeyman;
use crate::support::fake_smtp::{Act, At, FakeSmtp, Rule};
use crate::support::{Scratch, block_on};

/// Compares with the golden, or writes it if `UPDATE_EXPECT` is set.
fn is_golden(name: &str, told: &str) -> bool {
    let path = Path::new("tests/it/golden/notices").join(name);
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("UPDATE_EXPECT").is_some() && golden != told {
        std::fs::create_dir_all("tests/it/golden/notices").expect("a directory can be made");
        std::fs::write(&path, told).expect("a file can be written");
        return true;
    }
    if golden != told {
        eprintln!("--- {}\n{golden}\n+++ now\n{told}", path.display());
    }
    golden == told
}

/// Without what is tested elsewhere: the picture's data, and of a mail all but the header.
fn essence(name: &str, content: &str) -> String {
    let picture = regex::Regex::new("data:image/png;base64,[A-Za-z0-9+/=]+").expect("an expression");
    let content = picture.replace_all(content, "data:…").into_owned();
    match name.ends_with(".eml") {
        true => content.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n", "\n") + "\n",
        false => content,
    }
}

#[test]
fn notices_look_as_they_are_kept() {
    journeyman::tls::init();
    let scratch = Scratch::new("previews");
    let mut differ = Vec::new();
    for reason in NotifyReason::ALL {
        let written = preview(None, sample(*reason), scratch.path()).expect("the sample can be shown");
        assert!(written.len() >= 5, "{written:?}");
        for path in written {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            // Drawn by the demo, for people.
            if name.starts_with("slack") && name.ends_with(".html") {
                continue;
            }
            let content = std::fs::read_to_string(&path).expect("it is text");
            if !is_golden(&name, &essence(&name, &content)) {
                differ.push(name);
            }
        }
    }
    assert!(differ.is_empty(), "not as in tests/it/golden/notices (UPDATE_EXPECT=1 renews them): {differ:?}");
}

fn configuration(scratch: &Scratch, port: u16, template: &str) {
    let text = format!(
        "[notifiers.mail]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{port}\"\n\
         from = \"journeyman@example.net\"\nto = [\"ops@example.test\"]\n{template}\
         [[journey]]\nname = \"home-page\"\nevery = \"1m\"\nnotify = [\"mail\"]\n\
         [[journey.step]]\nrequest = \"https://www.example.net/\"\n"
    );
    scratch.write("journeyman.toml", &text);
}

#[test]
fn a_test_notice_says_that_it_is_one_and_gives_the_receipt_or_the_error() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let scratch = Scratch::new("notify-test");
        configuration(&scratch, smtp.port(), "");
        let arguments = ["notify", "test", "mail", "--config", "journeyman.toml"];
        let told = journeyman(scratch.path(), &arguments).await;
        assert_eq!(told.code, 0, "{}", told.stderr);
        assert!(
            told.stdout.contains("ok   notifier mail") && told.stdout.contains("queued as FAKE1"),
            "{}",
            told.stdout
        );
        let taken = smtp.mails().remove(0);
        assert!(taken.mail.part("text/plain").text().contains("TEST: nothing is wrong"), "{}", taken.raw);
        assert_eq!(taken.mail.header("Importance"), None, "nobody must get up for it");

        smtp.script([Rule::always(At::Rcpt, Act::Say("550 5.1.1 No such user"))]);
        let refused = journeyman(scratch.path(), &arguments).await;
        assert_eq!(refused.code, 69, "{}", refused.stdout);
        assert!(refused.stderr.contains("550 5.1.1 No such user; check the address in `to`"), "{}", refused.stderr);

        let unknown = journeyman(scratch.path(), &["notify", "test", "slack", "--config", "journeyman.toml"]).await;
        assert!(unknown.code == 64 && unknown.stderr.contains("there are: mail"), "{}", unknown.stderr);
    });
}

#[test]
fn a_preview_is_told_as_the_notifier_would_and_a_wrong_template_is_a_wrong_configuration() {
    block_on(async {
        let scratch = Scratch::new("notify-preview");
        scratch.write("alert.txt", "{{ state }} at {{ owner }}\n");
        configuration(&scratch, 25, "template = { subject = \"{{ state }} {{ subject }}\", text = \"alert.txt\" }\n");
        let arguments = [
            "notify",
            "preview",
            "--notifier",
            "mail",
            "--reason",
            "resolved",
            "--out",
            "out",
            "--config",
            "journeyman.toml",
        ];
        let shown = journeyman(scratch.path(), &arguments).await;
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        assert_eq!(shown.stdout, "out/mail-resolved.eml\nout/mail-resolved.html\nout/mail-resolved.txt\n");
        let read = |name: &str| std::fs::read_to_string(scratch.path().join("out").join(name)).expect("it was written");
        assert_eq!(read("mail-resolved.txt"), "WELL AGAIN at team-checkout\n");
        assert!(read("mail-resolved.eml").contains("Subject: WELL AGAIN channel inbox\r\n"));

        scratch.write("alert.txt", "fine\n  {{ sate }}\n");
        let wrong = journeyman(scratch.path(), &arguments).await;
        assert_eq!(wrong.code, 78, "{}", wrong.stdout);
        assert!(wrong.stderr.contains("alert.txt:2:3") && wrong.stderr.contains("undefined"), "{}", wrong.stderr);
    });
}
