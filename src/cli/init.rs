//! `journeyman init`: five questions, and a pair of files that work. Nothing that is there is touched.

use std::fmt::Write as _;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use url::Url;

use crate::cli::InitArguments;
use crate::cli::import::{name_of, quoted};
use crate::config::read_duration;

/// A question, and what reads its answer.
struct Question {
    ask: &'static str,
    example: &'static str,
    default: Option<&'static str>,
    read: fn(&str) -> Result<String, String>,
}

const QUESTIONS: [Question; 5] = [
    Question {
        ask: "What do you send to?",
        example: "an address, as in https://shop.example.net/orders",
        default: None,
        read: address,
    },
    Question {
        ask: "Where does it come back?",
        example: "`answer`, in the answer itself; or a path like /orders-done, where the system calls us",
        default: Some("answer"),
        read: back,
    },
    Question { ask: "How often?", example: "as in 30s, 1m, 1h", default: Some("1m"), read: length },
    Question { ask: "How long may it take?", example: "slower than this is slow", default: Some("5s"), read: length },
    Question {
        ask: "Who is told?",
        example: "a mail address, the address of a Slack webhook, or `nobody`",
        default: Some("nobody"),
        read: people,
    },
];

/// The answers, all in order.
pub struct Answers {
    name: String,
    send: String,
    /// Where the system calls us; `None` if its answer is all there is.
    back: Option<String>,
    every: String,
    within: String,
    tell: Tell,
}

enum Tell {
    Nobody,
    Mail(String),
    Slack(String),
}

/// A file to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Where, below the chosen directory.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
    /// Only its owner may read it.
    pub is_secret: bool,
}

/// The answers: as given, or else asked for on `out` and read from `lines`.
///
/// # Errors
/// An answer is wrong or missing, in words.
pub fn answers(given: &InitArguments, lines: &mut dyn BufRead, out: &mut dyn Write) -> Result<Answers, String> {
    let options = [&given.send, &given.back, &given.every, &given.within, &given.tell];
    let mut found = Vec::new();
    for (question, option) in QUESTIONS.iter().zip(options) {
        let answer = match (option, question.default) {
            (Some(answer), _) => (question.read)(answer.trim())?,
            (None, Some(default)) if given.yes => default.to_owned(),
            (None, None) if given.yes => return Err(format!("{} Say it with `--send`", question.ask)),
            (None, _) => ask(question, lines, out)?,
        };
        found.push(answer);
    }
    let [send, back, every, within, tell] =
        <[String; 5]>::try_from(found).map_err(|_| "a question has no answer".to_owned())?;
    let host = Url::parse(&send).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    Ok(Answers {
        name: name_of(given.name.as_deref().unwrap_or(&host)),
        back: Some(back).filter(|back| back != "answer"),
        tell: match tell.as_str() {
            "nobody" => Tell::Nobody,
            url if url.contains("://") => Tell::Slack(tell),
            _ => Tell::Mail(tell),
        },
        send,
        every,
        within,
    })
}

fn ask(question: &Question, lines: &mut dyn BufRead, out: &mut dyn Write) -> Result<String, String> {
    let broken = |error: std::io::Error| format!("nobody answers: {error}");
    loop {
        let default = question.default.map_or(String::new(), |default| format!(" [{default}]"));
        write!(out, "{}\n  {}\n>{default} ", question.ask, question.example).map_err(broken)?;
        out.flush().map_err(broken)?;
        let mut line = String::new();
        if lines.read_line(&mut line).map_err(broken)? == 0 {
            return Err(format!("nobody answers: {} `journeyman init --help` says how to do without", question.ask));
        }
        let answer = match (line.trim(), question.default) {
            ("", Some(default)) => default,
            (answer, _) => answer,
        };
        match (question.read)(answer) {
            Ok(answer) => return Ok(answer),
            Err(why) => writeln!(out, "  {why}").map_err(broken)?,
        }
    }
}

fn address(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|_| format!("`{text}` is no address: write https://host/path"))?;
    match url.scheme() {
        "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(text.to_owned()),
        "http" | "https" => Err("a password does not belong in the address; put it into `headers` later".to_owned()),
        other => Err(format!("this makes journeys over HTTP; docs/channels has a page for what speaks `{other}`")),
    }
}

fn back(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.len() > 1 && !text.contains([' ', '?', '#', '"']);
    if text == "answer" || is_path {
        Ok(text.to_owned())
    } else {
        Err("say `answer`, or a path like /orders-done".to_owned())
    }
}

fn length(text: &str) -> Result<String, String> {
    match read_duration(text)? {
        length if length.is_zero() => Err("nothing takes no time".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn people(text: &str) -> Result<String, String> {
    let is_mail = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    let is_hook = Url::parse(text).is_ok_and(|url| url.scheme() == "https" || url.scheme() == "http");
    match is_mail && !text.contains(char::is_whitespace) || is_hook || text == "nobody" {
        true => Ok(text.to_owned()),
        false => Err("say a mail address, the address of a Slack webhook, or `nobody`".to_owned()),
    }
}

impl Answers {
    /// The journey's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the system has to call us.
    pub fn is_called(&self) -> bool {
        self.back.is_some()
    }

    /// The files. `token` is what the system proves itself by when it calls us.
    pub fn files(&self, token: &str) -> Vec<NewFile> {
        let open = |path: &str, text: String| NewFile { path: path.into(), text, is_secret: false };
        let mut files = vec![
            open("config/journeyman.toml", self.daemon()),
            open(&format!("probes/{}.toml", self.name), self.journey()),
        ];
        let mut secret = |path: &str, text: &str| {
            let (path, text) = (PathBuf::from("config").join(path), format!("{text}\n"));
            files.push(NewFile { path, text, is_secret: true });
        };
        if self.back.is_some() {
            secret("secrets/call", token);
        }
        if let Tell::Slack(url) = &self.tell {
            secret("secrets/slack", url);
        }
        files
    }

    fn daemon(&self) -> String {
        let mut text = String::from(
            "# The daemon: what journeys go through, and who is told. docs/configuration.md has every key;\n\
             # `journeyman schema > config/journeyman.schema.json` and `#:schema journeyman.schema.json` teach them to an editor.\n\n\
             probes = [\"../probes/*.toml\"]\n\n\
             [http]                     # status pages, metrics and API\n\
             listen = \"127.0.0.1:9464\"\n\n\
             [store]\n\
             url = \"sqlite:journeyman.db\"\n\n",
        );
        let _ = write!(text, "[channels.system]\ntype = \"http\"\nurl = {}\n", quoted(&self.send));
        if let Some(path) = &self.back {
            let _ = write!(
                text,
                "\n# The system calls http://HOST:9465{path} with the header `Authorization: Bearer` and what is in the file; any\n\
                 # body will do that has the token of the message in it.\n\
                 [channels.back]\ntype = \"webhook\"\npath = {}\n\
                 verify = {{ scheme = \"bearer\", secret = {{ file = \"secrets/call\" }} }}\n\n\
                 [hooks]\nlisten = \"127.0.0.1:9465\"\n",
                quoted(path)
            );
        }
        match &self.tell {
            Tell::Nobody => {}
            Tell::Mail(to) => {
                let _ = write!(
                    text,
                    "\n[notifiers.people]\ntype = \"email\"\nsmtp = \"smtp://localhost\"\nfrom = \"Journeyman <{to}>\"\nto = [{}]\n",
                    quoted(to)
                );
            }
            Tell::Slack(_) => {
                text.push_str("\n[notifiers.people]\ntype = \"slack\"\nwebhook_url = { file = \"secrets/slack\" }\n");
            }
        }
        text
    }

    fn journey(&self) -> String {
        let Answers { name, every, within, .. } = self;
        let told = match self.tell {
            Tell::Nobody => "muted  = true               # it is measured, and nobody is told",
            _ => "notify = [\"people\"]",
        };
        let mut text = format!(
            "[[journey]]\nname   = {}\nevery  = {}\nbudget = {}               # slower than this is slow\n{told}\n",
            quoted(name),
            quoted(every),
            quoted(within)
        );
        match self.back {
            None => text.push_str(
                "\n  [[journey.step]]\n  name    = \"ask\"\n  request = \"system\"\n  expect  = [{ status = { less_than = 400 } }]\n",
            ),
            Some(_) => text.push_str(
                "\n  [[journey.step]]\n  name = \"submit\"\n  send = \"system\"\n  json = { id = \"{{ token }}\" }\n\
                 \n  [[journey.step]]\n  name    = \"arrive\"\n  receive = \"back\"\n",
            ),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{ConfigArgument, Format};

    fn given() -> InitArguments {
        let (send, back, every, within, tell, name) = Default::default();
        InitArguments { send, back, every, within, tell, name, dir: PathBuf::new(), yes: false, format: Format::Text }
    }

    fn asked(lines: &str, given: &InitArguments) -> (Result<Answers, String>, String) {
        let mut out = Vec::new();
        let answers = answers(given, &mut lines.as_bytes(), &mut out);
        (answers, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_wrong_answer_is_asked_for_again() {
        let lines = "ftp://x\nhttps://shop.example.net/orders\ndone\n/orders-done\n\n0s\n2s\nada@example.net\n";
        let (answers, out) = asked(lines, &given());
        let answers = answers.unwrap();
        assert_eq!(
            (answers.name.as_str(), answers.every.as_str(), answers.within.as_str()),
            ("shop.example.net", "1m", "2s")
        );
        assert_eq!(answers.back.as_deref(), Some("/orders-done"));
        assert!(matches!(&answers.tell, Tell::Mail(to) if to == "ada@example.net"));
        for (question, times) in
            [("What do you send to?", 2), ("come back?", 2), ("How often?", 1), ("may it take?", 2)]
        {
            assert_eq!(out.matches(question).count(), times, "{question}: {out}");
        }
        assert!(out.contains("docs/channels has a page for what speaks `ftp`"), "{out}");
        let (nobody, _) = asked("https://x.example.net\n", &given());
        assert!(nobody.err().unwrap().starts_with("nobody answers: Where"));
    }

    #[test]
    fn what_is_given_is_not_asked_for() {
        let all = InitArguments {
            send: Some("http://127.0.0.1:1/".into()),
            name: Some("My shop".into()),
            yes: true,
            ..given()
        };
        let (answers, out) = asked("", &all);
        let answers = answers.unwrap();
        assert_eq!((answers.name.as_str(), out.as_str()), ("My-shop", ""));
        assert_eq!(answers.files("t").len(), 2);
        assert!(asked("", &InitArguments { yes: true, ..given() }).0.err().unwrap().contains("--send"));
        let wrong = InitArguments { every: Some("often".into()), ..all };
        assert!(asked("", &wrong).0.err().unwrap().contains("often"));
    }

    #[test]
    fn every_pair_of_files_is_accepted_without_a_word() {
        for back in ["answer", "/done"] {
            for tell in ["nobody", "ada@example.net", "https://hooks.slack.com/services/T0/B0/x"] {
                let [send, back, tell] =
                    ["https://shop.example.net/orders", back, tell].map(|text| Some(text.to_owned()));
                let (answers, _) = asked("", &InitArguments { send, back, tell, yes: true, ..given() });
                let root = std::env::temp_dir().join(format!("journeyman-init-{}", std::process::id()));
                let files = answers.unwrap().files("a-token");
                for file in &files {
                    let path = root.join(&file.path);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, &file.text).unwrap();
                }
                let loaded = crate::config::load(&root.join(ConfigArgument::default().config));
                let told = match &loaded {
                    Ok((_, problems)) | Err(problems) => crate::config::render(problems, false),
                };
                std::fs::remove_dir_all(&root).unwrap();
                assert!(loaded.is_ok_and(|(plan, problems)| problems.is_empty() && plan.journeys.len() == 1), "{told}");
            }
        }
    }
}
