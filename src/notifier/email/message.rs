//! A notice as a mail for one recipient, rendered from data alone.
//!
//! What mail clients need to keep an incident together, in one thread: the same subject every time, and references to its first
//! message. So the state is in the first line of the body and in headers, for rules, and not in the subject.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, MultiPartKind, SinglePart};

use super::picture::{Picture, waterfall};
use super::{html, one_line, shorten, thread};
use crate::detect::Severity;
use crate::incident::NotifyReason;
use crate::notice::Notification;
use crate::notifier::Delivery;
use crate::notifier::template::{Fault, Template, Templates};
use crate::secret::Redactor;
use crate::text::visible;
use crate::time::{Human, between};

/// A notice that is told later than this says so.
const LATE: Duration = Duration::from_secs(120);
/// Longer header values are cut: lines of a header must not be longer than 998 characters (RFC 5322, 2.1.1).
const HEADER: usize = 200;
/// Longer texts, and longer lines of a text, are cut; the log and the journey's page have the whole.
const TEXT: usize = 60_000;
const LINE: usize = 1_000;

/// What every recipient of a delivery gets.
pub(super) struct Content {
    /// The same for every mail of an incident, unless a template says otherwise.
    topic: String,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
    waterfall: Option<(Picture, String)>,
}

impl Content {
    /// The HTML as a document of its own, its picture within it.
    pub(super) fn html_alone(&self) -> String {
        let Some((picture, address)) = &self.waterfall else { return self.html.clone() };
        let data = format!("data:image/png;base64,{}", STANDARD.encode(&picture.png));
        self.html.replace(&format!("cid:{address}"), &data)
    }
}

/// A message ready to be sent.
pub(super) struct Letter {
    /// Its Message-ID, with the angle brackets.
    pub(super) id: String,
    /// Headers and body, in ASCII.
    pub(super) bytes: Vec<u8>,
}

/// Renders a delivery. A template that fails after all gives way to what is built in: people are told in any case.
pub(super) fn content(
    delivery: &Delivery,
    domain: &str,
    now: Timestamp,
    redactor: &Redactor,
    templates: &Templates,
) -> Content {
    let notification = &delivery.notification;
    let notes: Vec<String> = notes(delivery, now).iter().map(|note| redactor.clean(note)).collect();
    let waterfall = notification.report.as_ref().map(|report| {
        let picture = waterfall(report, notification.last_good.as_ref(), |name| redactor.clean(name));
        (picture, format!("waterfall.{}@{domain}", thread::hash(&delivery.id, 24)))
    });
    let address = waterfall.as_ref().map(|(_, address)| address.as_str());
    let own = |template: &Option<Template>, what: &str, is_sound: &dyn Fn(&str) -> bool| {
        let rendered =
            template.as_ref()?.render(delivery, &notes, address.map(|id| format!("cid:{id}")).as_deref(), redactor);
        let checked = rendered.and_then(|text| match is_sound(&text) {
            true => Ok(text),
            false => Err(Fault { line: None, message: format!("{} bytes cannot be the {what}", text.len()) }),
        });
        let complain = |fault: &Fault| {
            tracing::warn!(delivery = %delivery.id, template = what, %fault, "a template failed; the built-in text is told");
        };
        checked.inspect_err(complain).ok()
    };
    let topic = one_line(
        &redactor.clean(&format!(
            "[journeyman] {}: incident {}",
            notification.marked(notification.subject.clone()),
            notification.incident.id
        )),
        HEADER,
    );
    let is_said = |text: &str| !text.trim().is_empty();
    let subject = own(&templates.subject, "subject", &is_said);
    let text = own(&templates.text, "text", &is_said).map(|text| bounded(&text));
    let html = own(&templates.html, "html", &|html| is_said(html) && html.len() <= html::MOST);
    let inline = || waterfall.as_ref().map(|(picture, address)| html::Inline { picture, address });
    Content {
        subject: subject.map_or_else(|| topic.clone(), |subject| one_line(&notification.marked(subject), HEADER)),
        // What a system said may command a terminal that shows the mail, or turn around what stands beside it.
        text: visible(&text.unwrap_or_else(|| self::text(notification, &notes, redactor))).into_owned(),
        html: visible(&html.unwrap_or_else(|| html::page(notification, &notes, inline(), redactor))).into_owned(),
        topic,
        waterfall,
    }
}

/// The mail that tells `to` of `delivery`.
///
/// # Errors
/// The message cannot be put together; in words.
pub(super) fn letter(
    content: &Content,
    delivery: &Delivery,
    from: &Mailbox,
    to: &Mailbox,
    redactor: &Redactor,
) -> Result<Letter, String> {
    let notification = &delivery.notification;
    let domain = from.email.domain();
    let id = thread::message_id(&delivery.id, to, domain);
    let line = |text: &str| one_line(&redactor.clean(text), HEADER);
    let mut builder = Message::builder()
        .from(from.clone())
        .to(to.clone())
        .subject(content.subject.clone())
        .date(notification.at.into())
        .message_id(Some(id.clone()));
    if let Some(first) = thread::first_mail(delivery.root.as_ref(), to).filter(|first| *first != id) {
        builder = builder.in_reply_to(first.clone()).references(first);
    }
    let mut headers = vec![
        // RFC 3834: answering machines must not answer. Exchange heeds only its own header, of MS-OXCMAIL.
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("X-Auto-Response-Suppress", "All".to_owned()),
        // RFC 2919: what filters sort by.
        ("List-Id", format!("<{}.journeyman.{domain}>", thread::label(&redactor.clean(&notification.subject)))),
        ("Thread-Topic", content.topic.clone()),
        ("Thread-Index", thread::index(delivery)),
        ("X-Journeyman-Incident", line(&notification.incident.id)),
        ("X-Journeyman-State", notification.state_word().to_owned()),
        ("X-Journeyman-Reason", notification.reason.to_string()),
        ("X-Journeyman-Severity", notification.severity().to_string()),
        ("X-Journeyman-Delivery", line(&delivery.id)),
    ];
    if let Some(mark) = notification.mark {
        headers.push(("X-Journeyman-Mark", mark.to_string()));
    }
    if let Some(report) = &notification.report {
        headers.push(("X-Journeyman-Run", line(&report.token.to_string())));
    }
    if is_urgent(notification) {
        headers.push(("Importance", "high".to_owned()));
    }
    for (name, value) in headers {
        builder = builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value));
    }
    let message = builder.multipart(parts(content, &id));
    let message = message.map_err(|error| format!("the mail for {} cannot be put together: {error}", to.email))?;
    Ok(Letter { id, bytes: message.formatted() })
}

/// Text, or HTML with its picture. Boundaries are derived, so that a message is the same whenever it is rendered.
fn parts(content: &Content, id: &str) -> MultiPart {
    let text = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(content.text.clone());
    let html = SinglePart::builder().header(ContentType::TEXT_HTML).body(content.html.clone());
    let boundary = |part: &str| format!("=_{}", thread::hash(&format!("{part}{id}"), 32));
    let alternative =
        MultiPart::builder().kind(MultiPartKind::Alternative).boundary(boundary("alternative")).singlepart(text);
    let picture = content.waterfall.as_ref().zip("image/png".parse::<ContentType>().ok());
    let Some(((picture, address), kind)) = picture else { return alternative.singlepart(html) };
    let image = Attachment::new_inline_with_name(address.clone(), "waterfall.png".to_owned());
    let related = MultiPart::builder().kind(MultiPartKind::Related).boundary(boundary("related")).singlepart(html);
    alternative.multipart(related.singlepart(image.body(picture.png.clone(), kind)))
}

fn is_urgent(notification: &Notification) -> bool {
    let is_bad = notification.reason != NotifyReason::Resolved && notification.incident.worst == Severity::Critical;
    is_bad && notification.mark.is_none()
}

/// What belongs to this way of telling and not to the notice.
fn notes(delivery: &Delivery, now: Timestamp) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((other, said)) = &delivery.instead_of {
        notes.push(format!("Told here because notifier `{other}` did not take it: {}", one_line(said, HEADER)));
    }
    let late = between(delivery.notification.at, now);
    if late > LATE {
        notes.push(format!(
            "Told late: decided at {}, handed over {} after that, at attempt {}",
            delivery.notification.at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            Human(late),
            delivery.attempt
        ));
    }
    notes
}

fn text(notification: &Notification, notes: &[String], redactor: &Redactor) -> String {
    let text = redactor.clean(&notification.text());
    // The verdict comes first: it is what a list of messages shows.
    let (verdict, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let notes: String = notes.iter().map(|note| format!("\n{note}\n")).collect();
    bounded(&format!("{verdict}\n{notes}\n{rest}"))
}

fn bounded(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{}\n", shorten(line, LINE))).collect();
    shorten(&lines, TEXT)
}
