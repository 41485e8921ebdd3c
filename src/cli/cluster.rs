//! `journeyman cluster`: the daemons that share a store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::cli::Format;
use crate::config::{Apart, some_of};
use crate::store::reading::{Backlog, Cluster, Daemon, Held};
use crate::text::visible_line;
use crate::time::Human;

/// The daemons, printed: who leads, which of them run journeys and how many shards of these, and what is wrong with them.
pub fn print_cluster(cluster: &Cluster, format: Format) -> String {
    let Cluster { daemons, free, relay, .. } = cluster;
    let is_one = daemons.iter().filter_map(configuration).collect::<BTreeSet<_>>().len() < 2;
    match format {
        Format::Json => {
            let document = json!({
                "daemons": daemons.iter().map(document).collect::<Vec<_>>(),
                "same_configuration": is_one,
                "differences": gaps(cluster).iter().map(Gap::document).collect::<Vec<_>>(),
                "free_shards": free,
                "relay": { "rows": relay.rows, "oldest_seconds": relay.oldest.map(|oldest| oldest.as_secs_f64()) },
            });
            format!("{document:#}\n")
        }
        Format::Text if daemons.is_empty() => "no daemon was here in the last hour\n".to_owned(),
        Format::Text => {
            let width = daemons.iter().map(|daemon| daemon.name.chars().count()).max().unwrap_or(0).max("daemon".len());
            let mut text = format!(
                "{:width$}  {:7}  {:9}  {:8}  {:13}  {:21}  {:10}  {:6}  lease\n",
                "daemon", "is", "seen", "version", "configuration", "listens", "location", "shards"
            );
            daemons.iter().for_each(|daemon| line(&mut text, daemon, width));
            if !is_one {
                text += "\ntheir configurations differ: which journeys there are depends on who runs them\n";
                gaps(cluster).iter().for_each(|gap| gap.write(&mut text));
            }
            if !daemons.iter().any(|daemon| role(daemon) == LEADS) {
                text += "\nnobody leads: nothing is decided, and nobody is told\n";
            }
            if *free > 0 {
                let are = if *free == 1 { "is" } else { "are" };
                let them = if *free == 1 { "shard" } else { "shards" };
                let _ = writeln!(text, "\n{free} {them} {are} nobody's: the journeys in them are not run");
            }
            if let Backlog { rows, oldest: Some(oldest) } = relay {
                let waits = if *rows == 1 { "row waits" } else { "rows wait" };
                let _ = writeln!(text, "\n{rows} {waits} for the daemon that leads, the oldest for {}", Human(*oldest));
            }
            text
        }
    }
}

fn document(daemon: &Daemon) -> serde_json::Value {
    let said = daemon.said.as_ref();
    let shard = |(shard, epoch): &(i32, u64)| json!({ "shard": shard, "epoch": epoch });
    json!({
        "name": daemon.name,
        "role": role(daemon),
        "epoch": daemon.lease.map(|held| held.epoch),
        "left_seconds": daemon.lease.and_then(|held| held.left).map(|left| left.as_secs_f64()),
        "shards": daemon.shards.iter().map(shard).collect::<Vec<_>>(),
        "seen_seconds": said.map(|said| said.ago.as_secs_f64()),
        "version": said.map(|said| &said.version),
        "configuration": said.map(|said| &said.configuration),
        "listens": said.map(|said| &said.listens),
        "location": said.and_then(|said| said.location.as_deref()),
    })
}

/// The configuration of some daemons, which is another than that of the one that decides.
struct Gap<'a> {
    daemons: Vec<&'a str>,
    theirs: &'a str,
    /// Of the one that decides.
    decides: &'a str,
    /// In what it differs, if both have said what they consist of.
    apart: Option<Apart>,
}

/// What one runs that has said so of late: who is silent runs nothing.
fn configuration(daemon: &Daemon) -> Option<&str> {
    daemon.said.as_ref().filter(|_| role(daemon) != SILENT).map(|said| &*said.configuration)
}

/// One for each other configuration; nobody is compared with where nobody decides.
fn gaps(Cluster { daemons, parts, .. }: &Cluster) -> Vec<Gap<'_>> {
    let Some(decides) = daemons.iter().find(|daemon| role(daemon) == LEADS).and_then(configuration) else {
        return Vec::new();
    };
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for daemon in daemons {
        if let Some(theirs) = configuration(daemon).filter(|theirs| *theirs != decides) {
            others.entry(theirs).or_default().push(&daemon.name);
        }
    }
    let apart = |theirs: &str| Apart::between(parts.get(decides)?, parts.get(theirs)?);
    others.into_iter().map(|(theirs, daemons)| Gap { daemons, theirs, decides, apart: apart(theirs) }).collect()
}

impl Gap<'_> {
    fn document(&self) -> serde_json::Value {
        let apart = self.apart.as_ref();
        json!({
            "configuration": self.theirs,
            "daemons": self.daemons,
            "other": apart.map(|apart| &apart.other),
            "only_there": apart.map(|apart| &apart.only_there),
            "missing_there": apart.map(|apart| &apart.missing_there),
        })
    }

    fn write(&self, text: &mut String) {
        let Gap { daemons, theirs, decides, apart } = self;
        let have = if daemons.len() == 1 { "has" } else { "have" };
        let who = daemons.join("; ");
        let _ =
            writeln!(text, "{who} {have} another configuration ({theirs}) than the daemon that decides ({decides}):");
        let Some(Apart { other, only_there, missing_there }) = apart else {
            text.push_str("  in what is not known: one of them is of an older version, or has only just come\n");
            return;
        };
        for (what, names) in [("other", other), ("only there", only_there), ("missing there", missing_there)] {
            if !names.is_empty() {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let _ = writeln!(text, "  {what}: {}", visible_line(&some_of(&names)));
            }
        }
    }
}

const LEADS: &str = "leads";
const SILENT: &str = "silent";
/// Each says at least every five seconds that it is there.
const SILENCE: Duration = Duration::from_secs(15);

/// What a daemon is. One that holds no lease and has said nothing of late was killed, is stopped, or is cut off.
fn role(daemon: &Daemon) -> &'static str {
    match &daemon.lease {
        Some(Held { left: Some(_), .. }) => LEADS,
        _ if daemon.said.as_ref().is_none_or(|said| said.ago > SILENCE) => SILENT,
        _ if !daemon.shards.is_empty() => "runs",
        _ => "standby",
    }
}

fn line(text: &mut String, daemon: &Daemon, width: usize) {
    let lease = match daemon.lease {
        Some(Held { epoch, left: Some(left) }) => format!("epoch {epoch}, for {} unless renewed", Human(left)),
        Some(Held { epoch, left: None }) => format!("epoch {epoch}, over"),
        None => String::new(),
    };
    let said = daemon.said.as_ref();
    let seen = said.map_or("-".to_owned(), |said| format!("{} ago", Human(said.ago)));
    let (version, configuration, listens) =
        said.map_or(("-", "-", "-"), |said| (&*said.version, &*said.configuration, &*said.listens));
    let location = said.and_then(|said| said.location.as_deref()).unwrap_or("-");
    let line = format!(
        "{:width$}  {:7}  {seen:9}  {version:8}  {configuration:13}  {listens:21}  {location:10}  {:6}  {lease}",
        daemon.name,
        role(daemon),
        daemon.shards.len(),
    );
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::reading::Said;

    fn daemon(name: &str, configuration: &str, lease: Option<Held>, shards: i32) -> Daemon {
        let said = Said {
            ago: Duration::from_millis(1_200),
            version: "0.1.0".to_owned(),
            configuration: configuration.to_owned(),
            listens: "127.0.0.1:9464".to_owned(),
            location: Some("london-1".to_owned()),
        };
        let shards = (1..=shards).map(|shard| (shard, 4)).collect();
        Daemon { name: name.to_owned(), said: Some(said), lease, shards }
    }

    fn print(daemons: &[Daemon]) -> String {
        print_cluster(&Cluster { daemons: daemons.to_vec(), ..Cluster::default() }, Format::Text)
    }

    #[test]
    fn who_leads_who_runs_what_and_what_is_wrong_is_said() {
        let held = |left| Some(Held { epoch: 3, left });
        let text = print(&[
            daemon("one, process 7", "aa", held(Some(Duration::from_secs(5))), 16),
            daemon("two, process 8", "aa", None, 16),
        ]);
        assert_eq!(
            text,
            "daemon          is       seen       version   configuration  listens                location    shards  lease\n\
             one, process 7  leads    1.2s ago   0.1.0     aa             127.0.0.1:9464         london-1        16  epoch 3, for 5s unless renewed\n\
             two, process 8  runs     1.2s ago   0.1.0     aa             127.0.0.1:9464         london-1        16\n"
        );
        let text = print(&[daemon("one", "aa", held(None), 0), daemon("two", "bb", None, 0)]);
        assert!(text.contains("their configurations differ") && text.contains("nobody leads"), "{text}");
        assert!(text.contains("two     standby  "), "{text}");
        let unseen = Daemon { said: None, ..daemon("one", "aa", held(Some(Duration::from_secs(1))), 0) };
        assert!(print(&[unseen]).contains("one     leads    -  "));
        let killed = Said { ago: Duration::from_secs(60), ..daemon("one", "aa", None, 0).said.unwrap() };
        let killed = Daemon { said: Some(killed), ..daemon("one", "aa", held(None), 32) };
        assert!(print(&[killed]).contains("one     silent   1m ago"));
        assert_eq!(print(&[]), "no daemon was here in the last hour\n");
    }

    #[test]
    fn in_what_configurations_differ_from_that_of_who_decides_is_said() {
        let lease = Some(Held { epoch: 3, left: Some(Duration::from_secs(5)) });
        let daemons =
            [daemon("one", "bb", None, 8), daemon("two", "aa", lease, 8), daemon("three", "bb", None, 8)].to_vec();
        let parts = |text: &str| text.to_owned();
        let here = parts(r#"{"[http]":"1","channel orders":"2","journey checkout":"3","journey same":"4"}"#);
        let there = parts(r#"{"[http]":"9","journey checkout":"9","journey same":"4","journey sms":"5"}"#);
        let known = [("aa".to_owned(), here), ("bb".to_owned(), there)].into();
        let cluster = Cluster { daemons, parts: known, ..Cluster::default() };
        let text = print_cluster(&cluster, Format::Text);
        let said = "\ntheir configurations differ: which journeys there are depends on who runs them\n\
                    one; three have another configuration (bb) than the daemon that decides (aa):\n  \
                      other: [http], journey checkout\n  \
                      only there: journey sms\n  \
                      missing there: channel orders\n";
        assert!(text.ends_with(said), "{text}");
        let document = |cluster: &Cluster| {
            let text = print_cluster(cluster, Format::Json);
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["differences"].clone()
        };
        let gap = json!([{
            "configuration": "bb", "daemons": ["one", "three"], "other": ["[http]", "journey checkout"],
            "only_there": ["journey sms"], "missing_there": ["channel orders"],
        }]);
        assert_eq!(document(&cluster), gap);

        // Of many some are named, and what somebody calls a journey commands no terminal.
        let many: BTreeMap<_, _> = (0..47).map(|nth| (format!("journey \u{1b}{nth:02}"), "1".to_owned())).collect();
        let mut cluster = cluster;
        cluster.parts.insert("aa".to_owned(), "{}".to_owned());
        cluster.parts.insert("bb".to_owned(), serde_json::to_string(&many).unwrap());
        let text = print_cluster(&cluster, Format::Text);
        assert!(text.ends_with("journey ⟨U+001B⟩11, … and 35 more\n"), "{text}");
        assert_eq!(document(&cluster)[0]["only_there"].as_array().map(Vec::len), Some(47));

        // One that has not said so, and nobody to compare with.
        cluster.parts.remove("aa");
        let text = print_cluster(&cluster, Format::Text);
        assert!(text.contains("decides (aa):\n  in what is not known: "), "{text}");
        assert_eq!(document(&cluster)[0]["other"], json!(null));
        cluster.daemons[1].lease = None;
        let text = print_cluster(&cluster, Format::Text);
        assert!(text.contains("their configurations differ") && !text.contains("another configuration"), "{text}");
        assert_eq!(document(&cluster), json!([]));

        // What was killed runs nothing.
        cluster.daemons[1].lease = lease;
        for daemon in [0, 2] {
            cluster.daemons[daemon].said.as_mut().unwrap().ago = Duration::from_secs(60);
        }
        assert_eq!(document(&cluster), json!([]));
        assert!(!print_cluster(&cluster, Format::Text).contains("differ"));
    }

    #[test]
    fn shards_that_are_nobodys_and_what_nobody_has_heard_are_said() {
        let lease = Some(Held { epoch: 3, left: Some(Duration::from_secs(5)) });
        let relay = Backlog { rows: 12, oldest: Some(Duration::from_secs(4)) };
        let cluster = Cluster { daemons: vec![daemon("one", "aa", lease, 2)], free: 30, relay, ..Cluster::default() };
        let text = print_cluster(&cluster, Format::Text);
        let end = "\n30 shards are nobody's: the journeys in them are not run\n\
                   \n12 rows wait for the daemon that leads, the oldest for 4s\n";
        assert!(text.ends_with(end), "{text}");
        let document: serde_json::Value = serde_json::from_str(&print_cluster(&cluster, Format::Json)).unwrap();
        assert_eq!(document["free_shards"], 30);
        assert_eq!(document["relay"], json!({ "rows": 12, "oldest_seconds": 4.0 }));
        let shards = json!([{ "shard": 1, "epoch": 4 }, { "shard": 2, "epoch": 4 }]);
        assert_eq!((&document["daemons"][0]["shards"], &document["daemons"][0]["role"]), (&shards, &json!("leads")));
    }
}
