//! `notify preview --run`: the notice of a run of the store, beside the daemon that has it.

use super::*;

/// A journey that runs when it is asked for, and nobody is told of.
const RARE: &str = "[[journey]]\nname = \"rare\"\ncron = \"0 0 1 1 *\"\ndeadline = \"2s\"\nowner = \"team rare\"\n\
                    step = [{ name = \"ask\", request = \"web\", path = \"/1\" }]\n";

#[test]
fn a_preview_of_a_run_is_what_people_were_told_without_what_a_click_may_do() {
    block_on(async {
        let stage = Stage::start("preview-run", RARE).await;
        stage.target.set_all(Mode::Fails);
        let mail = stage.mail("ops", 0).await;
        let token = mail.split("Run: ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a token");
        let preview = async |arguments: &[&str]| {
            stage.cli(&[&["notify", "preview", "--out", "out", "--run"], arguments].concat()).await
        };
        let read = |name: &str| {
            std::fs::read_to_string(stage.daemon.directory().join("out").join(name)).expect("it was written")
        };
        let shown = preview(&[token]).await;
        let files = "out/slack-first.json\nout/slack-first.html\nout/email-first.eml\nout/email-first.html\nout/email-first.txt\n";
        assert_eq!((shown.code, shown.stdout.as_str()), (0, files), "{shown:?}");
        let text = read("email-first.txt");
        assert_eq!(text.lines().next(), mail.lines().next(), "as it was told");
        assert!(text.contains(token) && text.contains("2 failed runs in a row"), "{text}");
        let link = |text: &str, name: &str| {
            text.split(&format!("{name}: ")).nth(1).and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
        };
        for name in ["Acknowledge", "Run again"] {
            let [sent, shown] = [&mail, &text].map(|text| link(text, name).expect("a link"));
            let (claim, signature) = sent.rsplit_once('.').expect("a signature");
            assert_eq!(shown, format!("{claim}.{:032}", 0));
            assert!(!read("email-first.html").contains(signature) && !read("email-first.eml").contains(signature));
        }
        assert!(read("slack-first.json").contains("journeyman_run") && read("slack-first.html").contains("<svg"));

        // Nobody was told of this one.
        let ended = stage.cli(&["rerun", "rare", "--wait"]).await;
        let untold = ended.stdout.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).expect("a token");
        assert_eq!(ended.code, 2, "{ended:?}");
        let shown = preview(&[untold, "--notifier", "ops"]).await;
        assert_eq!((shown.code, shown.stdout.lines().count()), (0, 3), "{shown:?}");
        let text = read("ops-first.txt");
        assert!(text.starts_with("DOWN rare · failed (rejected)") && text.contains("nobody was told of it"), "{text}");
        assert!(text.contains("team rare") && text.contains("ask"), "{text}");

        let nothing = preview(&["jm00000000000000000000000007"]).await;
        assert!(nothing.code == 64 && nothing.stderr.contains("no evidence of run"), "{nothing:?}");
        let wrong = preview(&["sms"]).await;
        assert!(wrong.code == 64 && wrong.stderr.contains("is no run's token"), "{wrong:?}");
    });
}
