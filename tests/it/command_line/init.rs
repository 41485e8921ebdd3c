//! A first configuration: it works at once, and nothing is lost by asking for it twice.

use std::os::unix::fs::PermissionsExt;

use crate::support::command::journeyman;
use crate::support::target::{Mode, Target};
use crate::support::{Scratch, block_on};

#[test]
fn what_is_written_runs_and_is_never_written_over() {
    block_on(async {
        let target = Target::start(1).await;
        let scratch = Scratch::new("init");
        let send = format!("{}/0", target.url());
        let init =
            ["init", "--yes", "--send", &send, "--name", "shop", "--tell", "https://hooks.slack.com/services/T/B/x"];
        let made = journeyman(scratch.path(), &init).await;
        assert_eq!((made.code, made.stderr.as_str()), (0, ""), "{made:#?}");
        assert!(
            made.stdout.contains("wrote ./probes/shop.toml\n") && made.stdout.contains("journeyman once shop"),
            "{made:#?}"
        );
        let check = journeyman(scratch.path(), &["check"]).await;
        assert_eq!((check.code, check.stderr.as_str()), (0, ""), "{check:#?}");
        assert_eq!(check.stdout, "config/journeyman.toml: 1 journey, 1 channel, 1 notifier\n");
        assert_eq!(journeyman(scratch.path(), &["once", "shop"]).await.code, 0);
        target.set(0, Mode::Fails);
        assert_eq!(journeyman(scratch.path(), &["once", "shop"]).await.code, 2);

        let secret = scratch.path().join("config/secrets/slack");
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(scratch.path().join("config/journeyman.toml")).unwrap();
        let again = journeyman(scratch.path(), &init).await;
        assert!(again.code == 73 && again.stderr.contains("probes/shop.toml is there already"), "{again:#?}");
        assert!(!scratch.path().join("config/journeyman.toml").exists(), "all of it or nothing");
        let nobody = journeyman(scratch.path(), &["init", "--dir", "elsewhere"]).await;
        assert!(nobody.code == 64 && nobody.stderr.contains("What do you send to?"), "{nobody:#?}");
        assert!(!scratch.path().join("elsewhere").exists());
    });
}

#[test]
fn completions_and_manual_pages_name_every_verb() {
    block_on(async {
        let scratch = Scratch::new("man");
        let bash = journeyman(scratch.path(), &["completions", "bash"]).await;
        assert!(
            bash.code == 0 && bash.stdout.contains("explain") && bash.stdout.contains("--output"),
            "{}",
            bash.stdout
        );
        let page = journeyman(scratch.path(), &["man"]).await;
        assert!(
            page.code == 0 && page.stdout.contains(".TH journeyman 1") && page.stdout.contains("explain"),
            "{page:#?}"
        );
        let pages = journeyman(scratch.path(), &["man", "--dir", "pages"]).await;
        assert_eq!((pages.code, pages.stdout.as_str()), (0, ""), "{pages:#?}");
        for verb in ["once", "explain", "import-gatus", "notify-test"] {
            let text = std::fs::read_to_string(scratch.path().join(format!("pages/journeyman-{verb}.1")));
            assert!(text.is_ok_and(|text| text.contains(".SH NAME")), "{verb}");
        }
    });
}
