//! What must be there before anything starts.

use super::*;
use crate::support::command::journeyman;
use crate::support::free_port;

const WEB: &str = "type = \"http\"\nurl = \"http://127.0.0.1";

fn config(setup: &Setup, rest: &str) -> String {
    format!(
        "probes = []\n[http]\nlisten = \"{}\"\n[store]\nurl = \"sqlite:{}\"\n{rest}",
        setup.http_address(),
        setup.store_path().display()
    )
}

#[test]
fn what_is_required_and_not_there_keeps_the_daemon_from_starting_in_words() {
    block_on(async {
        let setup = Setup::new("required");
        let nobody = free_port();
        for rest in [
            format!("[channels.orders]\n{WEB}:{nobody}\"\nrequired = true\n"),
            format!("[notifiers.orders]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{nobody}/\"\nrequired = true\n"),
        ] {
            setup.write("journeyman.toml", &config(&setup, &rest));
            let ended = journeyman(setup.directory(), &["run", "--config", "journeyman.toml"]).await;
            assert_eq!(ended.code, 69, "{ended:?}");
            for words in ["orders", "requires is not there", "required = false", "refused"] {
                assert!(ended.stderr.contains(words), "{words}: {ended:?}");
            }
            assert!(!setup.store_path().exists(), "nothing was started");
        }
    });
}

#[test]
fn what_is_not_required_is_missed_in_words_and_what_says_nothing_is_not_asked() {
    block_on(async {
        let setup = Setup::new("optional");
        let (nobody, unasked) = (free_port(), Hook::start([]).await);
        let there = Hook::start([]).await;
        let rest = format!(
            "[channels.away]\n{WEB}:{nobody}\"\nrequired = false\n[channels.there]\n{WEB}:{}\"\nrequired = true\n\
             [channels.unasked]\n{WEB}:{}\"\n",
            there.port(),
            unasked.port()
        );
        setup.write("journeyman.toml", &config(&setup, &rest));
        let mut daemon = setup.start_as_written().await;
        let (answer, health) = health(&daemon).await;
        assert_eq!((answer, &health["status"]), (StatusCode::OK, &"degraded".into()), "{health:#}");
        let away = &health["components"]["channel away"];
        assert_eq!((&away["ok"], &away["critical"]), (&false.into(), &false.into()));
        assert!(away["cause"].as_str().unwrap().contains("not there at the start"), "{away}");
        assert!(daemon.log().contains("not there at the start; going on without it"), "{}", daemon.log());
        assert_eq!(health["components"]["channel there"]["ok"], true, "{health:#}");
        assert!(unasked.requests().is_empty());
        assert_eq!(daemon.terminate().await, 0);
    });
}
