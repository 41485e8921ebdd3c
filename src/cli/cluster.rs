//! `journeyman cluster`: the daemons that share a store.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::cli::Format;
use crate::store::reading::{Daemon, Held};
use crate::time::Human;

/// The daemons, printed: who has the lease, who stands by, and whether they would watch the same.
pub fn print_cluster(daemons: &[Daemon], format: Format) -> String {
    let configurations: BTreeSet<_> =
        daemons.iter().filter_map(|daemon| Some(&daemon.said.as_ref()?.configuration)).collect();
    let is_one = configurations.len() < 2;
    match format {
        Format::Json => {
            let one = |daemon: &Daemon| {
                let said = daemon.said.as_ref();
                json!({
                    "name": daemon.name,
                    "role": role(daemon),
                    "epoch": daemon.lease.map(|held| held.epoch),
                    "left_seconds": daemon.lease.and_then(|held| held.left).map(|left| left.as_secs_f64()),
                    "seen_seconds": said.map(|said| said.ago.as_secs_f64()),
                    "version": said.map(|said| &said.version),
                    "configuration": said.map(|said| &said.configuration),
                    "listens": said.map(|said| &said.listens),
                })
            };
            let document =
                json!({ "daemons": daemons.iter().map(one).collect::<Vec<_>>(), "same_configuration": is_one });
            format!("{document:#}\n")
        }
        Format::Text if daemons.is_empty() => "no daemon was here in the last hour\n".to_owned(),
        Format::Text => {
            let width = daemons.iter().map(|daemon| daemon.name.chars().count()).max().unwrap_or(0).max("daemon".len());
            let mut text = format!(
                "{:width$}  {:7}  {:9}  {:8}  {:13}  {:21}  lease\n",
                "daemon", "is", "seen", "version", "configuration", "listens"
            );
            daemons.iter().for_each(|daemon| line(&mut text, daemon, width));
            if !is_one {
                text += "\ntheir configurations differ: whoever takes over watches something else\n";
            }
            if !daemons.iter().any(|daemon| role(daemon) == ACTIVE) {
                text += "\nnobody has the lease: nothing is watched\n";
            }
            text
        }
    }
}

const ACTIVE: &str = "active";
/// Each says every five seconds that it is there.
const SILENT: Duration = Duration::from_secs(15);

/// What a daemon is. One that holds no lease and has said nothing of late was killed, is stopped, or is cut off.
fn role(daemon: &Daemon) -> &'static str {
    match &daemon.lease {
        Some(Held { left: Some(_), .. }) => ACTIVE,
        _ if daemon.said.as_ref().is_none_or(|said| said.ago > SILENT) => "silent",
        _ => "standby",
    }
}

fn line(text: &mut String, daemon: &Daemon, width: usize) {
    let lease = match daemon.lease {
        Some(Held { epoch, left: Some(left) }) => format!("epoch {epoch}, for {} unless renewed", Human(left)),
        Some(Held { epoch, left: None }) => format!("epoch {epoch}, over"),
        None => String::new(),
    };
    let (seen, version, configuration, listens) = match &daemon.said {
        Some(said) => (format!("{} ago", Human(said.ago)), &*said.version, &*said.configuration, &*said.listens),
        None => ("-".to_owned(), "-", "-", "-"),
    };
    let line = format!(
        "{:width$}  {:7}  {seen:9}  {version:8}  {configuration:13}  {listens:21}  {lease}",
        daemon.name,
        role(daemon),
    );
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::reading::Said;

    fn daemon(name: &str, configuration: &str, lease: Option<Held>) -> Daemon {
        let said = Said {
            ago: Duration::from_millis(1_200),
            version: "0.1.0".to_owned(),
            configuration: configuration.to_owned(),
            listens: "127.0.0.1:9464".to_owned(),
        };
        Daemon { name: name.to_owned(), said: Some(said), lease }
    }

    #[test]
    fn who_has_it_who_stands_by_and_what_is_wrong_is_said() {
        let held = |left| Some(Held { epoch: 3, left });
        let text = print_cluster(
            &[daemon("one, process 7", "aa", held(Some(Duration::from_secs(5)))), daemon("two, process 8", "aa", None)],
            Format::Text,
        );
        assert_eq!(
            text,
            "daemon          is       seen       version   configuration  listens                lease\n\
             one, process 7  active   1.2s ago   0.1.0     aa             127.0.0.1:9464         epoch 3, for 5s unless renewed\n\
             two, process 8  standby  1.2s ago   0.1.0     aa             127.0.0.1:9464\n"
        );
        let text = print_cluster(&[daemon("one", "aa", held(None)), daemon("two", "bb", None)], Format::Text);
        assert!(text.contains("their configurations differ") && text.contains("nobody has the lease"), "{text}");
        let unseen = Daemon { said: None, ..daemon("one", "aa", held(Some(Duration::from_secs(1)))) };
        assert!(print_cluster(&[unseen], Format::Text).contains("one     active   -  "));
        let killed = Said { ago: Duration::from_secs(60), ..daemon("one", "aa", None).said.unwrap() };
        let killed = Daemon { said: Some(killed), ..daemon("one", "aa", held(None)) };
        assert!(print_cluster(&[killed], Format::Text).contains("one     silent   1m ago"));
        assert_eq!(print_cluster(&[], Format::Text), "no daemon was here in the last hour\n");
    }
}
