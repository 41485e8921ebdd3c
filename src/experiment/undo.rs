//! What is still to be undone, kept in a file as a line each: a fault is written down before it is made, and struck off after it is
//! undone. Whoever finds a line that is not struck off undoes it, also after the process that wrote it was killed.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A fault that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Its number in the file.
    pub id: u64,
    /// The experiment's file.
    pub experiment: String,
    /// The phase.
    pub phase: String,
    /// What makes it.
    pub run: Vec<String>,
    /// What undoes it.
    pub undo: Vec<String>,
    /// Where both run.
    pub directory: PathBuf,
    /// Against what.
    pub target: String,
    /// When.
    pub at: Timestamp,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// A fault is about to be made.
    Cut(Cut),
    /// Undoing it begins.
    Undoing {
        /// Which.
        id: u64,
        /// When.
        at: Timestamp,
    },
    /// It is undone.
    Undone {
        /// Which.
        id: u64,
        /// When.
        at: Timestamp,
    },
}

/// What is still to be undone by these lines, the last first; and the highest number among them. A line that ends in the middle is
/// one that was being written when everything ended: nothing had been done for it yet.
pub fn standing(text: &str) -> (Vec<Cut>, u64) {
    let mut cuts: Vec<Cut> = Vec::new();
    let mut highest = 0;
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Cut(cut)) => {
                highest = highest.max(cut.id);
                cuts.push(cut);
            }
            Ok(Line::Undone { id, .. }) => cuts.retain(|cut| cut.id != id),
            Ok(Line::Undoing { .. }) | Err(_) => {}
        }
    }
    cuts.reverse();
    (cuts, highest)
}

/// A command as a person would type it.
pub fn typed(command: &[String]) -> String {
    let word = |word: &String| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        match !word.is_empty() && word.chars().all(is_plain) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    };
    command.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(id: u64) -> Cut {
        Cut {
            id,
            experiment: "az.toml".to_owned(),
            phase: "cut".to_owned(),
            run: vec!["touch".to_owned(), "cut".to_owned()],
            undo: vec!["rm".to_owned(), "cut".to_owned()],
            directory: PathBuf::from("."),
            target: "staging".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn write(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    #[test]
    fn what_was_not_struck_off_stands_and_the_last_comes_first() {
        let at = Timestamp::UNIX_EPOCH;
        let text = write(&[
            Line::Cut(cut(1)),
            Line::Cut(cut(2)),
            Line::Cut(cut(3)),
            Line::Undoing { id: 3, at },
            Line::Undoing { id: 2, at },
            Line::Undone { id: 2, at },
        ]);
        assert_eq!(standing(&text), (vec![cut(3), cut(1)], 3));
        assert_eq!(standing(""), (Vec::new(), 0));
        let half = &text[..text.find("\n").unwrap() + 40];
        assert_eq!(standing(half), (vec![cut(1)], 1), "a line without an end had not begun");
    }

    #[test]
    fn a_command_can_be_typed_again() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(typed(&words(&["ip", "link", "set", "eth0", "up"])), "ip link set eth0 up");
        assert_eq!(typed(&words(&["sh", "-c", "echo 'a' > b", ""])), r"sh -c 'echo '\''a'\'' > b' ''");
    }
}
