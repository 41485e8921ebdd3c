//! What somebody reads who stands in the wrong folder, asks a daemon that is not there, or has the wrong token: each says what to do.

use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::target::Target;
use crate::support::{Scratch, block_on, free_port};

#[test]
fn a_configuration_that_is_not_there_leads_to_one() {
    block_on(async {
        let scratch = Scratch::new("errors-nowhere");
        for verb in [&["run"][..], &["status"], &["once", "shop"], &["check"]] {
            let ended = journeyman(scratch.path(), verb).await;
            assert!(ended.code == 78 && ended.stdout.is_empty(), "{ended:#?}");
            assert!(
                ended.stderr.contains("help: `--config FILE` names another; `journeyman init` makes"),
                "{ended:#?}"
            );
        }
        scratch.write("journeyman.toml", "");
        let ended = journeyman(scratch.path(), &["status"]).await;
        assert!(ended.stderr.contains("help: there is one here: say `--config journeyman.toml`"), "{ended:#?}");
        let named = journeyman(scratch.path(), &["status", "--config", "journeymen.toml"]).await;
        assert!(!named.stderr.contains("there is one here"), "{named:#?}");
    });
}

#[test]
fn a_daemon_that_does_not_answer_is_told_from_one_that_does_not_want() {
    block_on(async {
        let scratch = Scratch::new("errors-silent");
        let http = |token: &str| {
            format!("[http]\nlisten = \"127.0.0.1:{}\"\nadmin_token = {{ file = \"{token}\" }}\n", free_port())
        };
        scratch.write("token", "right");
        scratch.write("journeyman.toml", &http("token"));
        for verb in ["status", "health"] {
            let ended = journeyman(scratch.path(), &[verb, "--config", "journeyman.toml"]).await;
            assert!(ended.code != 0 && ended.stderr.contains("Connection refused"), "{ended:#?}");
        }

        let target = Target::start(1).await;
        let setup = Setup::new("errors-token");
        setup.write("token", "right");
        setup.write("other-token", "wrong");
        let config = format!(
            "[http]\nadmin_token = {{ file = \"token\" }}\n\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n",
            target.url()
        );
        let probes = "[[journey]]\nname = \"shop\"\nevery = \"1h\"\nmuted = true\nstep = [{ request = \"web\", path = \"/0\" }]\n";
        let daemon = setup.start(&config, probes).await;
        let file = std::fs::read_to_string(daemon.directory().join("journeyman.toml")).unwrap();
        std::fs::write(daemon.directory().join("other.toml"), file.replace("\"token\"", "\"other-token\"")).unwrap();
        let wrong = journeyman(daemon.directory(), &["pause", "shop", "--config", "other.toml"]).await;
        assert!(wrong.code == 77 && wrong.stderr.contains("does not take the `admin_token`"), "{wrong:#?}");
        assert!(!wrong.stderr.contains("Bearer") && wrong.stderr.contains("\n  help: "), "{wrong:#?}");

        let word = journeyman(daemon.directory(), &["runs", "shop", "--outcome", "bad"]).await;
        assert!(word.code == 64 && word.stderr.contains("`bad` is none of good, slow, failed, late"), "{word:#?}");
    });
}

#[test]
fn who_runs_a_journey_by_hand_is_not_shown_all_warnings() {
    block_on(async {
        let target = Target::start(1).await;
        let scratch = Scratch::new("errors-warnings");
        let text = format!(
            "[channels.web]\ntype = \"http\"\nurl = \"{}\"\n[channels.hook]\ntype = \"webhook\"\npath = \"/x\"\n\
             verify = {{ scheme = \"none\" }}\n[hooks]\nlisten = \"127.0.0.1:{}\"\n[[journey]]\nname = \"shop\"\nevery = \"1h\"\n\
             muted = true\nstep = [{{ request = \"web\", path = \"/0\" }}]\n[[journey]]\nname = \"back\"\nevery = \"1h\"\n\
             muted = true\nstep = [{{ send = \"web\" }}, {{ receive = \"hook\" }}]\n",
            target.url(),
            free_port()
        );
        scratch.write("journeyman.toml", &text);
        let ended = journeyman(scratch.path(), &["once", "shop", "--config", "journeyman.toml"]).await;
        assert_eq!(ended.code, 0, "{ended:#?}");
        assert_eq!(ended.stderr, "2 warnings: `journeyman check` shows what is meant\n");
        // What a step does is not said twice where it has no other name.
        assert!(ended.stdout.contains("\n✓ request web  ▕"), "{ended:#?}");
    });
}
