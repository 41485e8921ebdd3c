//! Email: one multipart message per recipient, threaded by incident.

mod font;
mod html;
mod message;
mod picture;
mod session;
mod thread;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::TlsParameters;

use crate::clock::Clock;
use crate::notifier::template::Templates;
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered};
use crate::secret::{Redactor, Secret};

/// Conversations at once. Hosted relays allow three connections per account, and another notifier may use the same one.
const AT_ONCE: usize = 2;
/// Deliveries of which it is remembered who has them; more are never under way at once by far.
const REMEMBERED: usize = 256;

/// Settings of an `email` notifier.
#[derive(Clone, Debug)]
pub struct EmailSettings {
    /// The server's host name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// User name and password.
    pub credentials: Option<(String, Secret)>,
    /// The sender, with an optional display name.
    pub from: String,
    /// The recipients; each gets a message of their own.
    pub to: Vec<String>,
}

/// How an SMTP connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all: `smtp://` to a loopback relay.
    Plain,
    /// STARTTLS is required: `smtp+starttls://`.
    StartTls,
    /// TLS from the first byte: `smtps://`.
    Tls,
}

/// Sends each notice as one message to each recipient. Every message gets a connection of its own, so that the recipients'
/// fates are independent.
pub struct Email {
    host: String,
    port: u16,
    security: Security,
    tls: Option<TlsParameters>,
    credentials: Option<(String, Secret)>,
    from: Mailbox,
    to: Vec<Mailbox>,
    templates: Templates,
    redactor: Redactor,
    clock: Clock,
    taken: Mutex<Taken>,
}

/// Makes the notifier, and checks all that can be checked without the network.
///
/// # Errors
/// An address that is none, no recipient, a password that would cross the network in the clear, no usable trust store.
pub fn open(settings: EmailSettings, redactor: Redactor, clock: Clock) -> Result<Email, String> {
    let EmailSettings { host, port, security, credentials, from, to } = settings;
    // An IPv6 address in a URL stands in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let from = mailbox(&from).map_err(|why| format!("`from`: {why}"))?;
    let mut recipients: Vec<Mailbox> = Vec::new();
    for text in &to {
        let recipient = mailbox(text).map_err(|why| format!("`to`: {why}"))?;
        if !recipients.iter().any(|other| other.email == recipient.email) {
            recipients.push(recipient);
        }
    }
    if recipients.is_empty() {
        return Err("`to` names nobody: give at least one address".to_owned());
    }
    if credentials.is_some() && security == Security::Plain && !is_loopback(&host) {
        return Err(format!(
            "the password would cross the network to {host} in the clear: use `smtp+starttls://` or `smtps://`"
        ));
    }
    let tls = match security {
        Security::Plain => None,
        Security::StartTls | Security::Tls => {
            let parameters = TlsParameters::new(host.clone());
            Some(parameters.map_err(|error| format!("cannot prepare TLS for {host}: {error}"))?)
        }
    };
    let (templates, taken) = (Templates::default(), Mutex::default());
    Ok(Email { host, port, security, tls, credentials, from, to: recipients, templates, redactor, clock, taken })
}

/// Reads `ops@example.net` or `Ops <ops@example.net>`. A domain outside ASCII takes its `xn--` form.
fn mailbox(text: &str) -> Result<Mailbox, String> {
    let parsed: Mailbox =
        text.parse().map_err(|error| format!("`{text}` is not an email address ({error}): write `ops@example.net`"))?;
    let Mailbox { name, email } = parsed;
    if !email.user().is_ascii() {
        return Err(format!(
            "`{text}` has letters outside ASCII before the `@`: few servers take them, and we do not send them"
        ));
    }
    if email.domain().is_ascii() {
        return Ok(Mailbox::new(name, email));
    }
    let domain = url::Host::parse(email.domain()).map_err(|error| format!("the domain of `{text}`: {error}"))?;
    let email = Address::new(email.user(), domain.to_string()).map_err(|error| format!("`{text}`: {error}"))?;
    Ok(Mailbox::new(name, email))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl Email {
    /// With texts of people's own.
    pub fn with_templates(self, templates: Templates) -> Email {
        Email { templates, ..self }
    }

    /// Everything is rendered before anything is connected: a notice that cannot be rendered reaches nobody by half.
    fn render(&self, delivery: &Delivery) -> Result<(message::Content, Vec<message::Letter>), String> {
        let now = self.clock.now().wall;
        let content = message::content(delivery, self.from.email.domain(), now, &self.redactor, &self.templates);
        let letter = |to| message::letter(&content, delivery, &self.from, to, &self.redactor);
        let letters = self.to.iter().map(letter).collect::<Result<_, _>>()?;
        Ok((content, letters))
    }

    fn server(&self) -> session::Server<'_> {
        session::Server {
            host: &self.host,
            port: self.port,
            security: self.security,
            tls: self.tls.as_ref(),
            credentials: self.credentials.as_ref().map(|(user, password)| {
                // lettre keeps credentials as plain strings; they live as long as the attempt.
                Credentials::new(user.clone(), password.reveal().as_str().to_owned())
            }),
        }
    }

    /// What a conversation without a message has proven.
    fn proof(&self) -> String {
        let over = match self.security {
            Security::Plain => "",
            Security::StartTls | Security::Tls => " over TLS",
        };
        let credentials = if self.credentials.is_some() { ", and takes our credentials" } else { "" };
        format!(
            "{}:{} speaks SMTP{over}{credentials}; whether it takes mail to the recipients only a mail tells",
            self.host, self.port
        )
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, NotifyError> {
        let (_, letters) = self.render(delivery).map_err(NotifyError::Never)?;
        let id = letters.first().map(|letter| letter.id.clone()).unwrap_or_default();
        let server = self.server();
        let mut conversations: Vec<BoxFuture<'_, _>> = Vec::new();
        for (to, letter) in self.to.iter().zip(&letters) {
            conversations.push(Box::pin(self.hand_over(delivery, &server, &to.email, &letter.bytes)));
        }
        let answers: Vec<_> = futures_util::stream::iter(conversations).buffered(AT_ONCE).collect().await;
        let answers: Vec<_> = self.to.iter().map(|to| to.email.to_string()).zip(answers).collect();
        let verdict = verdict(&answers, id, &self.host);
        if verdict.is_ok() {
            for (to, refusal) in answers.iter().filter_map(|(to, answer)| Some((to, answer.as_ref().err()?))) {
                tracing::error!(recipient = %to, delivery = %delivery.id, %refusal, "a recipient was not told; the others were");
            }
        }
        verdict
    }

    /// Hands one message over, unless an attempt before this one has. A success is remembered at once, so that it is not lost
    /// if the attempt is given up.
    async fn hand_over(
        &self,
        delivery: &Delivery,
        server: &session::Server<'_>,
        to: &Address,
        content: &[u8],
    ) -> Result<String, NotifyError> {
        if let Some(said) = self.taken.lock().unwrap_or_else(PoisonError::into_inner).recall(&delivery.id, to.as_ref())
        {
            return Ok(said);
        }
        let said = session::send(server, &self.from.email, to, content).await;
        let said = said.map_err(|error| self.clean(error))?;
        let said = self.redactor.clean(&said);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remember(&delivery.id, to.as_ref(), &said);
        Ok(said)
    }

    /// Servers repeat what they were given, in their own words.
    fn clean(&self, error: NotifyError) -> NotifyError {
        match error {
            NotifyError::Never(text) => NotifyError::Never(self.redactor.clean(&text)),
            NotifyError::Backoff(text) => NotifyError::Backoff(self.redactor.clean(&text)),
            NotifyError::After { wait, detail } => NotifyError::After { wait, detail: self.redactor.clean(&detail) },
            NotifyError::Ambiguous(text) => NotifyError::Ambiguous(self.redactor.clean(&text)),
        }
    }
}

impl Notifier for Email {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(self.attempt(delivery))
    }

    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async move {
            let proven = session::prove(&self.server(), &self.from.email).await;
            proven.map(|()| self.proof()).map_err(|error| self.clean(error))
        })
    }

    /// The mail to the first recipient, and its parts for whoever wants to look at them alone.
    fn preview(&self, delivery: &Delivery) -> Result<Vec<Rendered>, String> {
        let (content, letters) = self.render(delivery)?;
        let mail = letters.into_iter().next().map(|letter| letter.bytes).unwrap_or_default();
        let html = content.html_alone().into_bytes();
        let files = [("eml", mail), ("html", html), ("txt", content.text.into_bytes())];
        Ok(files.map(|(ending, bytes)| Rendered { ending, bytes }).into())
    }

    fn kind(&self) -> &'static str {
        "email"
    }
}

/// What the recipients' answers come to. While anyone may still be told the delivery is not over; who was refused for good
/// does not keep it open, if at least one other was told.
fn verdict(answers: &[(String, Result<String, NotifyError>)], id: String, place: &str) -> Result<Receipt, NotifyError> {
    let failures = || answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
    let told = || answers.iter().filter_map(|(to, answer)| Some((to, answer.as_ref().ok()?)));
    let mut said: Vec<String> = told().map(|(to, said)| format!("{to}: {said}")).collect();
    // A server that is away says the same of every recipient; once is enough.
    for text in failures().map(ToString::to_string) {
        if !said.contains(&text) {
            said.push(text);
        }
    }
    let said = said.join("; ");
    if failures().any(|error| matches!(error, NotifyError::Ambiguous(_))) {
        Err(NotifyError::Ambiguous(said))
    } else if failures().any(|error| matches!(error, NotifyError::Backoff(_) | NotifyError::After { .. })) {
        Err(NotifyError::Backoff(said))
    } else if told().next().is_none() {
        Err(NotifyError::Never(said))
    } else {
        Ok(Receipt { id, place: place.to_owned(), said, is_root: false })
    }
}

/// Who has a delivery already, and what the server said. Not saved: after a crash a repeat has the same Message-ID.
#[derive(Default)]
struct Taken(VecDeque<(String, BTreeMap<String, String>)>);

impl Taken {
    fn recall(&self, delivery: &str, to: &str) -> Option<String> {
        let (_, by_recipient) = self.0.iter().find(|(id, _)| id == delivery)?;
        by_recipient.get(to).cloned()
    }

    fn remember(&mut self, delivery: &str, to: &str, said: &str) {
        let known = self.0.iter().position(|(id, _)| id == delivery);
        let at = known.unwrap_or_else(|| {
            if self.0.len() == REMEMBERED {
                self.0.pop_front();
            }
            self.0.push_back((delivery.to_owned(), BTreeMap::new()));
            self.0.len() - 1
        });
        self.0[at].1.insert(to.to_owned(), said.to_owned());
    }
}

/// Text for one line: no control characters, no runs of white space, at most `most` characters.
fn one_line(text: &str, most: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(&clean.split_whitespace().collect::<Vec<_>>().join(" "), most)
}

/// At most `most` characters, with a mark if there were more.
fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> EmailSettings {
        EmailSettings {
            host: "127.0.0.1".to_owned(),
            port: 25,
            security: Security::Plain,
            credentials: None,
            from: "Journeyman <journeyman@example.net>".to_owned(),
            to: vec!["ops@example.net".to_owned()],
        }
    }

    fn refusal(change: impl FnOnce(&mut EmailSettings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        open(settings, Redactor::new(), Clock::system()).err().expect("refused")
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_connected() {
        assert!(
            refusal(|settings| settings.from = "nobody".to_owned()).starts_with("`from`: `nobody` is not an email")
        );
        assert!(
            refusal(|settings| settings.to = vec!["a@example.net>\r\nBcc: b@example.net".to_owned()])
                .starts_with("`to`")
        );
        assert!(refusal(|settings| settings.to.clear()).contains("names nobody"));
        assert!(refusal(|settings| settings.to.push("jürgen@example.net".to_owned())).contains("outside ASCII"));
        let password = |settings: &mut EmailSettings| {
            let secret = Secret::new("hunter2hunter2".to_owned(), &Redactor::new());
            settings.credentials = Some(("journeyman".to_owned(), secret));
        };
        let text = refusal(|settings| {
            password(settings);
            settings.host = "mail.example.net".to_owned();
        });
        assert!(text.contains("in the clear") && !text.contains("hunter2"), "{text}");
        let mut local = settings();
        password(&mut local);
        assert!(open(local, Redactor::new(), Clock::system()).is_ok());
    }

    #[test]
    fn a_recipient_is_one_however_often_it_is_named_and_a_foreign_domain_takes_its_ascii_form() {
        let mut settings = settings();
        settings.to = ["Ops <ops@example.net>", "ops@example.net", "ops@bücher.example"].map(str::to_owned).to_vec();
        let email = open(settings, Redactor::new(), Clock::system()).unwrap();
        let to: Vec<_> = email.to.iter().map(|to| to.email.to_string()).collect();
        assert_eq!(to, ["ops@example.net", "ops@xn--bcher-kva.example"]);
    }

    #[test]
    fn the_worst_answer_wins_and_a_refusal_among_successes_is_told_in_the_receipt() {
        let ok = || Ok("250 queued as 4711".to_owned());
        let never = || Err(NotifyError::Never("550 no such user".to_owned()));
        let backoff = || Err(NotifyError::Backoff("451 come back".to_owned()));
        let ambiguous = || Err(NotifyError::Ambiguous("lost".to_owned()));
        let come_to = |answers: Vec<Result<String, NotifyError>>| {
            let answers: Vec<_> =
                answers.into_iter().enumerate().map(|(at, answer)| (format!("r{at}"), answer)).collect();
            verdict(&answers, "<id@example.net>".to_owned(), "mail.example.net")
        };
        let receipt = |said: &str| {
            Ok(Receipt {
                id: "<id@example.net>".to_owned(),
                place: "mail.example.net".to_owned(),
                said: said.to_owned(),
                is_root: false,
            })
        };
        assert_eq!(come_to(vec![ok(), ok()]), receipt("r0: 250 queued as 4711; r1: 250 queued as 4711"));
        assert_eq!(come_to(vec![ok(), never()]), receipt("r0: 250 queued as 4711; 550 no such user"));
        assert_eq!(come_to(vec![never(), never()]), Err(NotifyError::Never("550 no such user".to_owned())));
        assert!(matches!(come_to(vec![never(), backoff()]), Err(NotifyError::Backoff(_))));
        assert!(matches!(come_to(vec![ok(), backoff()]), Err(NotifyError::Backoff(_))));
        assert!(matches!(come_to(vec![backoff(), ambiguous(), ok()]), Err(NotifyError::Ambiguous(_))));
    }

    #[test]
    fn who_has_a_delivery_is_remembered_and_the_memory_is_bounded() {
        let mut taken = Taken::default();
        taken.remember("d0", "ops@example.net", "250 ok");
        assert_eq!(taken.recall("d0", "ops@example.net").as_deref(), Some("250 ok"));
        assert_eq!(taken.recall("d0", "duty@example.net"), None);
        assert_eq!(taken.recall("d1", "ops@example.net"), None);
        for serial in 1..=REMEMBERED {
            taken.remember(&format!("d{serial}"), "ops@example.net", "250 ok");
        }
        assert_eq!(taken.0.len(), REMEMBERED);
        assert_eq!(taken.recall("d0", "ops@example.net"), None);
    }

    #[test]
    fn one_line_has_no_control_characters_and_an_end() {
        assert_eq!(one_line("a\r\nBcc: b\tc\u{7f}", 100), "a Bcc: b c");
        assert_eq!(one_line("äöüß", 3), "äöü…");
    }
}
