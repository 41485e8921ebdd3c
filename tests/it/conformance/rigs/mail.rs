//! Mail: sent by SMTP to a Postfix, which passes it on by LMTP to a Dovecot, where it is received by IMAP.

use std::net::SocketAddr;
use std::path::Path;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::certificate::Certificate;
use crate::support::dovecot::{Dovecot, PASSWORD};
use crate::support::postfix::Postfix;
use crate::support::{Scratch, block_on};

struct Mail {
    dovecot: Dovecot,
    postfix: Postfix,
    /// With its certificate.
    _scratch: Scratch,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn smtp(name: &str, url: &str, to: &str, more: &str) -> String {
    format!(
        "[channels.{name}]\ntype = \"smtp\"\nurl = \"{url}\"\nfrom = \"probe@example.test\"\nto = [\"{to}@any.test\"]\n{more}\n"
    )
}

fn imap(name: &str, server: SocketAddr, user: &str) -> String {
    format!(
        "[channels.{name}]\ntype = \"imap\"\nurl = \"imap://{server}\"\nusername = \"{user}@any.test\"\npassword = \"{PASSWORD}\"\npoll = \"1s\"\n"
    )
}

impl Rig for Mail {
    fn name(&self) -> &'static str {
        "smtp imap"
    }

    fn promises(&self) -> Promises {
        Promises { redelivers: false, connects_for_each: true, asks: true, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (loopback(self.postfix.port()), loopback(self.dovecot.imap))
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        smtp("out", &format!("smtp://{out}"), &format!("{tag}.work"), "") + &imap("in", back, &format!("{tag}.back"))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let (out, back) = self.server();
        imap("work", back, &format!("{tag}.work")) + &smtp("back", &format!("smtp://{out}"), &format!("{tag}.back"), "")
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        let login = "username = \"probe@example.test\"\npassword = \"wrong-password\"";
        Some(smtp("out", &format!("smtp://{out}"), &format!("{tag}.work"), login))
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let ca_file = format!("ca_file = \"{}\"", ca_file.display());
        Some(smtp("out", &format!("smtps://localhost:{}", out.port()), &format!("{tag}.work"), &ca_file))
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        for n in 0..count {
            let mail = format!("From: someone@example.test\nSubject: order {n}\n\nnothing to do with us\n");
            self.dovecot.deliver(&format!("{tag}.back@any.test"), &mail).await;
        }
        Some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let mails = self.dovecot.client(&format!("{tag}.back@any.test")).await.mails("INBOX").await;
        mails.iter().filter(|(subject, flags)| subject.starts_with("order ") && flags.is_empty()).count()
    }

    async fn kill(&mut self) -> bool {
        self.dovecot.kill();
        true
    }

    async fn revive(&mut self) {
        self.dovecot.run().await;
    }
}

/// With servers of its own.
pub(crate) async fn start() -> Option<impl Rig> {
    let scratch = Scratch::new("mail-rig");
    let certificate = Certificate::new(&scratch, &["localhost"]);
    let dovecot = Dovecot::start().await?;
    let postfix = Postfix::start_before(&dovecot, &certificate).await?;
    Some(Mail { dovecot, postfix, _scratch: scratch })
}

#[test]
fn mail() {
    block_on(async {
        let Some(rig) = start().await else { return };
        suite(rig).await;
    });
}
