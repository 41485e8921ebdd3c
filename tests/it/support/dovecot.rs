//! The real Dovecot: mailboxes by IMAP, filled by LMTP, on loopback ports of its own.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::certificate::Certificate;
use super::{Process, Scratch, free_port, server_binary, wait_for};

const BOUND: Duration = Duration::from_secs(20);
/// Everybody's.
pub const PASSWORD: &str = "let-me-in-4711";

/// A running Dovecot, in which every user exists; it ends with its owner.
pub struct Dovecot {
    program: std::path::PathBuf,
    process: Option<Process>,
    scratch: Scratch,
    /// IMAP in the clear, with STARTTLS if there is a certificate.
    pub imap: u16,
    /// IMAP by TLS.
    pub imaps: u16,
    /// LMTP.
    pub lmtp: u16,
    /// SASL, for Postfix.
    pub sasl: u16,
}

impl Dovecot {
    /// Starts one. `None`, said loudly, without the program.
    pub async fn start() -> Option<Dovecot> {
        Dovecot::start_with(None).await
    }

    /// The same with TLS.
    pub async fn start_with(certificate: Option<&Certificate>) -> Option<Dovecot> {
        Dovecot::start_saying(certificate, "").await
    }

    /// The same with these settings beside the others.
    pub async fn start_saying(certificate: Option<&Certificate>, settings: &str) -> Option<Dovecot> {
        let program = server_binary("dovecot", "dovecot-imapd")?;
        let scratch = Scratch::new("dovecot");
        let [imap, imaps, lmtp, sasl] = [(); 4].map(|()| free_port());
        let mut dovecot = Dovecot { program, process: None, scratch, imap, imaps, lmtp, sasl };
        dovecot.configure(certificate, settings);
        dovecot.run().await;
        Some(dovecot)
    }

    fn configure(&self, certificate: Option<&Certificate>, settings: &str) {
        let said = |option: &str| {
            let output = Command::new("id").arg(option).output().expect("`id` runs");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        // As root it drops to the users that its package made; otherwise it stays who it is.
        let (user, group) = (said("-un"), said("-gn"));
        let is_root = user == "root";
        let (internal, login) = if is_root { ("dovecot", "dovenull") } else { (user.as_str(), user.as_str()) };
        let internal_group = if is_root { "dovecot" } else { &group };
        let owner = if is_root { "uid=nobody gid=nogroup".to_owned() } else { format!("uid={user} gid={group}") };
        let ssl = certificate.map_or("ssl = no".to_owned(), |certificate| {
            let (certificate, key) = (certificate.certificate.display(), certificate.key.display());
            format!("ssl = yes\nssl_cert = <{certificate}\nssl_key = <{key}")
        });
        let root = self.scratch.path().display();
        let Dovecot { imap, imaps, lmtp, sasl, .. } = self;
        let imaps = if certificate.is_some() { *imaps } else { 0 };
        use std::os::unix::fs::PermissionsExt as _;
        for name in ["base", "state", "mail"] {
            let path = self.scratch.path().join(name);
            std::fs::create_dir_all(&path).expect("a directory can be made");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("its mode can be set");
        }
        let configuration = format!(
            "protocols = imap lmtp
base_dir = {root}/base
state_dir = {root}/state
log_path = {root}/dovecot.log
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
listen = 127.0.0.1
hostname = imap.example.test
{ssl}
{settings}
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
mail_location = maildir:{root}/mail/%u
first_valid_uid = 1
first_valid_gid = 1
mailbox_idle_check_interval = 1s
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = {owner} home={root}/mail/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service auth {{
  inet_listener sasl {{
    address = 127.0.0.1
    port = {sasl}
  }}
}}
namespace inbox {{
  inbox = yes
  mailbox Junk {{
    auto = create
    special_use = \\Junk
  }}
}}
"
        );
        self.scratch.write("dovecot.conf", &configuration);
    }

    /// Starts it, also after a [`Dovecot::kill`].
    pub async fn run(&mut self) {
        let log = self.scratch.path().join("start.log");
        let mut command = Command::new(&self.program);
        // A group of its own, so that it can be killed with all that it started.
        command.arg("-F").arg("-c").arg(self.scratch.path().join("dovecot.conf")).process_group(0);
        let mut process = Process::start("dovecot", &mut command, &log);
        for port in [self.imap, self.lmtp] {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            wait_for("Dovecot to listen", BOUND, async || {
                if let Some(code) = process.exit_code() {
                    let said = std::fs::read_to_string(&log).unwrap_or_default();
                    panic!("Dovecot ended with {code}: {said}{}", self.log());
                }
                std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok().map(drop)
            })
            .await;
        }
        self.process = Some(process);
    }

    /// Ends it at once, with every session, as a crash does.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.process = None;
    }

    fn signal(&self, signal: &str) {
        if let Some(process) = &self.process {
            let group = format!("-{}", process.pid());
            let _ = Command::new("kill").args([&format!("-{signal}"), "--", &group]).status();
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("dovecot.log")).unwrap_or_default()
    }

    /// A client in the mailbox of `user`.
    pub async fn client(&self, user: &str) -> RawImap {
        RawImap::sign_in(self.imap, user).await
    }

    /// Delivers a mail to `user` by LMTP, as Postfix does.
    pub async fn deliver(&self, user: &str, mail: &str) {
        let stream = TcpStream::connect(("127.0.0.1", self.lmtp)).await.expect("LMTP listens");
        let mut stream = BufReader::new(stream);
        let mail = format!("{}\r\n.", mail.replace("\r\n", "\n").trim_end_matches('\n').replace('\n', "\r\n"));
        let commands = ["LHLO test", "MAIL FROM:<>", &format!("RCPT TO:<{user}>"), "DATA", &mail, "QUIT"];
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("a greeting");
        for command in commands {
            stream.write_all(format!("{command}\r\n").as_bytes()).await.expect("it is written");
            loop {
                line.clear();
                stream.read_line(&mut line).await.expect("an answer");
                assert!(line.starts_with(['2', '3']), "{command}: {line}");
                if line.as_bytes().get(3) != Some(&b'-') {
                    break;
                }
            }
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // Its sessions would outlive their master otherwise.
        self.signal("KILL");
    }
}

/// Another client of a mailbox, as a person's mail program is.
pub struct RawImap {
    stream: BufReader<TcpStream>,
}

impl RawImap {
    async fn sign_in(port: u16, user: &str) -> RawImap {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("IMAP listens");
        let mut client = RawImap { stream: BufReader::new(stream) };
        client.line().await;
        client.command(&format!("LOGIN \"{user}\" \"{PASSWORD}\"")).await;
        client
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("an answer");
        // A literal belongs to its line.
        while let Some(length) = line.trim_end().strip_suffix('}').and_then(|text| text.rsplit_once('{')) {
            let mut literal = vec![0; length.1.parse().expect("a literal's length")];
            self.stream.read_exact(&mut literal).await.expect("a literal");
            line.push_str(&String::from_utf8_lossy(&literal));
            self.stream.read_line(&mut line).await.expect("what follows a literal");
        }
        line
    }

    /// Runs a command that must succeed; its untagged answers.
    pub async fn command(&mut self, command: &str) -> Vec<String> {
        self.stream.write_all(format!("t {command}\r\n").as_bytes()).await.expect("it is written");
        let mut answers = Vec::new();
        loop {
            let line = self.line().await;
            if line.starts_with("t ") {
                assert!(line.starts_with("t OK"), "{command}: {line}");
                return answers;
            }
            answers.push(line);
        }
    }

    /// Puts a mail into a folder, with flags such as `\Seen`.
    pub async fn append(&mut self, folder: &str, flags: &str, mail: &str) {
        self.put(&format!("{folder} ({flags})"), mail).await;
    }

    /// Puts a mail into a folder, as if it had come at `at`.
    pub async fn append_at(&mut self, folder: &str, at: Timestamp, mail: &str) {
        self.put(&format!("{folder} \"{}\"", at.strftime("%d-%b-%Y %H:%M:%S +0000")), mail).await;
    }

    async fn put(&mut self, place: &str, mail: &str) {
        let mail = mail.replace("\r\n", "\n").replace('\n', "\r\n");
        let command = format!("t APPEND {place} {{{}}}\r\n", mail.len());
        self.stream.write_all(command.as_bytes()).await.expect("it is written");
        assert!(self.line().await.starts_with('+'), "it wants the literal");
        self.stream.write_all(format!("{mail}\r\n").as_bytes()).await.expect("it is written");
        loop {
            let line = self.line().await;
            if line.starts_with("t ") {
                assert!(line.starts_with("t OK"), "{line}");
                return;
            }
        }
    }

    /// The subjects and flags of the mails in a folder, in order; looked at without changing anything.
    pub async fn mails(&mut self, folder: &str) -> Vec<(String, String)> {
        self.command(&format!("EXAMINE {folder}")).await;
        let answers = self.command("UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await;
        let fetched = answers.iter().filter(|answer| answer.contains("FETCH"));
        let mails = fetched.map(|answer| {
            let flags = answer.split_once("FLAGS (").and_then(|(_, rest)| rest.split_once(')')).expect("flags").0;
            let subject = answer.split_once("Subject: ").map_or("", |(_, rest)| rest.lines().next().unwrap_or(""));
            let mut flags: Vec<_> = flags.split(' ').filter(|flag| *flag != "\\Recent").collect();
            flags.sort_unstable();
            (subject.to_owned(), flags.join(" "))
        });
        mails.collect()
    }
}
