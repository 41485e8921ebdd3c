//! The real Postfix: takes mail on a loopback port and delivers it into a Maildir that the test reads, or on to Dovecot.
//!
//! Postfix's master insists on root, and delivers as `nobody`; where the tests run as somebody else they say that they did not run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::certificate::Certificate;
use super::dovecot::Dovecot;
use super::mail::Mail;
use super::{Process, Scratch, free_port, server_binary, wait_for};

const BOUND: Duration = Duration::from_secs(30);

/// A running Postfix; it ends with its owner.
pub struct Postfix {
    port: u16,
    tls_port: u16,
    program: PathBuf,
    /// The start script, which ends when the master does.
    process: Process,
    scratch: Scratch,
}

impl Postfix {
    /// Starts one that delivers everything for `example.test` and passes nothing on. `None`, said loudly, without the program
    /// or without root.
    pub async fn start() -> Option<Postfix> {
        Postfix::start_with(|root| {
            format!(
                "virtual_mailbox_domains = example.test
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = inline:{{ {{ops@example.test = all/}} {{duty@example.test = all/}} }}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
"
            )
        })
        .await
    }

    /// Starts one that delivers everything for `inbox@example.test`, `probe@example.test` and anybody in `any.test` to Dovecot by
    /// LMTP, takes and bounces what is for `gone@example.test`, offers STARTTLS, and lets Dovecot judge who signs in.
    pub async fn start_before(dovecot: &Dovecot, certificate: &Certificate) -> Option<Postfix> {
        let (lmtp, sasl) = (dovecot.lmtp, dovecot.sasl);
        let (certificate, key) = (certificate.certificate.display(), certificate.key.display());
        Postfix::start_with(|_| {
            format!(
                "virtual_mailbox_domains = example.test, any.test
virtual_mailbox_maps = inline:{{ {{inbox@example.test = x}} {{probe@example.test = x}} {{@any.test = x}} }}
virtual_alias_maps = inline:{{ {{gone@example.test = someone@elsewhere.invalid}} }}
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{sasl}
"
            )
        })
        .await
    }

    async fn start_with(more: impl FnOnce(std::path::Display<'_>) -> String) -> Option<Postfix> {
        let program = server_binary("postfix", "postfix")?;
        if !is_root() {
            not_tested("Postfix's master runs as root only; run the tests as root, or use tests/run");
            return None;
        }
        let scratch = Scratch::new("postfix");
        let port = free_port();
        let tls_port = free_port();
        configure(scratch.path(), port, tls_port, more);
        let log = scratch.path().join("start.log");
        let mut command = Command::new(&program);
        command.arg("-c").arg(scratch.path().join("etc")).arg("start-fg");
        let process = Process::start("postfix", &mut command, &log);
        let mut postfix = Postfix { port, tls_port, program, process, scratch };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        wait_for("Postfix to listen", BOUND, async || {
            if let Some(code) = postfix.process.exit_code() {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("Postfix ended with {code}: {said}{}", postfix.log());
            }
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok().map(drop)
        })
        .await;
        Some(postfix)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its port for TLS from the first byte.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log/mail.log")).unwrap_or_default()
    }

    /// The mails delivered so far, as they lie in the mailbox.
    pub fn mails(&self) -> Vec<Mail> {
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(self.scratch.path().join("mail/all/new")) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => Vec::new(),
        };
        paths.sort();
        paths.iter().map(|path| Mail::parse(&std::fs::read_to_string(path).expect("a mail can be read"))).collect()
    }

    /// The first mail that `is_it`.
    pub async fn wait_for_mail(&self, what: &str, mut is_it: impl FnMut(&Mail) -> bool) -> Mail {
        wait_for(what, BOUND, async || self.mails().into_iter().find(&mut is_it)).await
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Reads the master's pid from our own queue directory, and waits for it; its children end with it.
        let etc = self.scratch.path().join("etc");
        let stopped = Command::new(&self.program).arg("-c").arg(etc).arg("stop").output();
        let is_over = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            self.process.exit_code().is_some()
        });
        if !is_over {
            eprintln!("Postfix on port {} does not stop: {stopped:?}", self.port);
        }
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("`id` runs");
    id.stdout.trim_ascii() == b"0"
}

fn not_tested(why: &str) {
    let message = format!("NOT TESTED: {why}");
    assert!(std::env::var_os(super::REQUIRED).is_none(), "{message}");
    eprintln!("\n{}\n{message}\n{}\n", "!".repeat(80), "!".repeat(80));
}

fn configure(root: &Path, port: u16, tls_port: u16, more: impl FnOnce(std::path::Display<'_>) -> String) {
    use std::os::unix::fs::PermissionsExt as _;
    let root = root.canonicalize().expect("the directory exists");
    // Postfix wants directories that only their owner can change.
    for (name, mode) in [("etc", 0o755), ("queue", 0o755), ("data", 0o700), ("log", 0o755), ("mail", 0o700)] {
        let path = root.join(name);
        std::fs::create_dir_all(&path).expect("a directory can be made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode can be set");
    }
    for (owner, name) in [("postfix", "data"), ("nobody", "mail")] {
        let status = Command::new("chown").arg(owner).arg(root.join(name)).status();
        assert!(status.is_ok_and(|status| status.success()), "{name} cannot be given to {owner}");
    }
    let more = more(root.display());
    let root = root.display();
    let main = format!(
        "compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file = {root}/log/mail.log
maillog_file_prefixes = {root}
myhostname = mx.example.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
smtpd_peername_lookup = no
smtpd_banner = $myhostname ESMTP
smtpd_recipient_restrictions = reject_unlisted_recipient, permit_mynetworks, reject
default_transport = error:this Postfix passes nothing on
relay_transport = error:this Postfix passes nothing on
{more}"
    );
    let services = format!(
        "127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{tls_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
lmtp unix - - n - - lmtp
tlsmgr unix - - n 1000? 1 tlsmgr
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"
    );
    std::fs::write(root.to_string() + "/etc/main.cf", main).expect("main.cf can be written");
    std::fs::write(root.to_string() + "/etc/master.cf", services).expect("master.cf can be written");
}
