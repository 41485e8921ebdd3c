//! What a terminal shows: colours where it takes them and nowhere else, and the pictures of it in the documentation.

use std::path::Path;

use tokio::process::Command;

use crate::support::browser::{Browser, Look};
use crate::support::command::run;
use crate::support::document::adapt;
use crate::support::target::{Mode, Target};
use crate::support::{Scratch, block_on, server_binary};

/// Set to any value, the pictures of docs/pictures are taken anew.
const UPDATE: &str = "UPDATE_PICTURES";
/// A picture for the documentation is no larger than this.
const LARGEST: usize = 150_000;
const LOOK: Look = Look { width: 1_060, is_dark: true };

const JOURNEY: &str = r#"[[journey]]
name     = "order"
every    = "1m"
budget   = "1s"
deadline = "5s"
muted    = true

  [[journey.step]]
  name    = "submit"
  request = "shop"
  path    = "/0"
  expect  = [{ status = 204 }]

  [[journey.step]]
  name    = "list"
  request = "shop"
  path    = "/1"
  expect  = [{ status = 204, message = "the order is listed" }]

  [[journey.step]]
  name    = "cancel"
  request = "shop"
  path    = "/0"
"#;

/// What is there in the end when this is typed at a terminal.
async fn typed(directory: &Path, script: &Path, command: &str, no_color: Option<&str>) -> String {
    let program = command.replacen("journeyman", env!("CARGO_BIN_EXE_journeyman"), 1);
    let mut typed = Command::new(script);
    typed.args(["--quiet", "--command", &program, "/dev/null"]).current_dir(directory).env_remove("NO_COLOR");
    typed.envs(no_color.map(|value| ("NO_COLOR", value)));
    let shown = run(typed).await.stdout.replace("\r\n", "\n");
    // What was drawn meanwhile is wiped off.
    shown.rsplit_once("\u{1b}[J").map_or(shown.clone(), |(_, last)| last.to_owned())
}

/// A terminal's text as HTML: what it says of colours and weight becomes spans.
fn html(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let mut parts = escaped.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (codes, rest) = part.split_once('m').expect("nothing but colours is left");
        let classes: Vec<_> =
            codes.split(';').filter(|code| !["", "0"].contains(code)).map(|code| format!("c{code}")).collect();
        out += &format!("</span><span class=\"{}\">{rest}", classes.join(" "));
    }
    format!("<span>{out}</span>")
}

fn page(command: &str, shown: &str) -> String {
    format!(
        "<!doctype html><meta charset=utf-8><style>body{{margin:0;background:#0d1117;color:#d5dbe3}}
         pre{{margin:0;padding:16px 20px;font:14px/1.45 'DejaVu Sans Mono',monospace;white-space:pre-wrap}}
         .c1{{font-weight:bold}} .c31,.c91{{color:#ff7b72}} .c32,.c92{{color:#56d364}} .c33,.c93{{color:#e3b341}}
         .c34,.c94{{color:#79c0ff}} .c36,.c96{{color:#76e3ea}} b{{color:#8b949e;font-weight:normal}}</style>
         <pre><b>$</b> {command}\n{}</pre>",
        html(shown)
    )
}

#[test]
fn a_terminal_has_colours_and_pictures_are_taken_of_it() {
    let Some(script) = server_binary("script", "bsdutils") else { return };
    block_on(async {
        let target = Target::start(2).await;
        target.set(1, Mode::Fails);
        let scratch = Scratch::new("terminal");
        std::fs::create_dir_all(scratch.path().join("config")).unwrap();
        let main = format!("[channels.shop]\ntype = \"http\"\nurl  = \"{}\"\n\n{JOURNEY}", target.url());
        scratch.write("config/journeyman.toml", &main);
        let typos = [("deadline =", "dedline  ="), ("\"shop\"\n  path    = \"/1\"", "\"shp\"\n  path    = \"/1\"")];
        scratch.write("config/typo.toml", &adapt(&main, &typos));
        let (once, check) = ("journeyman once order", "journeyman check --config config/typo.toml");

        let failed = typed(scratch.path(), &script, once, None).await;
        for part in [
            "order  \u{1b}[1;31mfailed (rejected) at step `list`",
            "\u{1b}[32m✓\u{1b}[0m submit",
            "\u{1b}[1;31m✗\u{1b}[0m list",
        ] {
            assert!(failed.contains(part), "{part:?}: {failed:?}");
        }
        let wrong = typed(scratch.path(), &script, check, None).await;
        assert!(wrong.contains("\u{1b}[") && wrong.contains("did you mean `deadline`?"), "{wrong:?}");
        for command in [once, check] {
            let plain = typed(scratch.path(), &script, command, Some("1")).await;
            assert!(!plain.contains('\u{1b}') && plain.lines().count() > 5, "{plain:?}");
        }
        assert!(
            typed(scratch.path(), &script, once, Some("")).await.contains("\u{1b}[32m"),
            "said, and empty, is not said"
        );

        if std::env::var_os(UPDATE).is_none() {
            return;
        }
        let Some(browser) = Browser::start().await else { return };
        for (name, command, shown) in [("terminal-once", once, &failed), ("terminal-check", check, &wrong)] {
            let file = scratch.write(&format!("{name}.html"), &page(command, shown));
            browser.look(LOOK).await;
            browser.open(&format!("file://{}", file.display())).await;
            let picture = browser.picture().await;
            assert!(picture.len() < LARGEST, "{name}: {} bytes", picture.len());
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures").join(format!("{name}.png"));
            std::fs::write(file, picture).expect("a picture can be written");
        }
    });
}
