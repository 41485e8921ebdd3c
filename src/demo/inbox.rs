//! The alert inbox: one page with the channel, the mailbox and what the demo does, as people would see it on the day.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde_json::{Map, Value as Json};

use super::blocks::{Piece, Span, Tone, pieces, tone, tone_of_words};
use super::chart;
use super::gateway::{Counts, Fault, Gateway};
use super::mail::{Mail, Mailbox};
use super::script::{ACTS, Board, Scene};
use super::shop::Shop;
use super::workspace::{Post, Workspace};
use crate::clock::Clock;
use crate::time::between;

/// What the page shows, and where it has it from.
pub(super) struct Inbox {
    pub(super) clock: Clock,
    pub(super) gateway: Arc<Gateway>,
    pub(super) shop: Arc<Shop>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) workspace: Arc<Workspace>,
    pub(super) board: Arc<Board>,
    /// The daemon's status pages.
    pub(super) status_url: Option<String>,
}

/// What the page shows, at one moment.
struct View {
    at: Timestamp,
    scene: Scene,
    counts: Counts,
    orders: u64,
    posts: Vec<Post>,
    mails: Vec<Mail>,
    status_url: Option<String>,
}

impl Inbox {
    /// The page and its style sheet.
    pub(super) fn routes(self) -> Router {
        Router::new().route("/", get(page)).route("/inbox.css", get(style)).with_state(Arc::new(self))
    }

    fn view(&self) -> View {
        let now = self.clock.now();
        View {
            at: now.wall,
            scene: self.board.scene(now),
            counts: self.gateway.counts(),
            orders: self.shop.done(),
            posts: self.workspace.posts(),
            mails: self.mailbox.mails(),
            status_url: self.status_url.clone(),
        }
    }
}

async fn page(State(inbox): State<Arc<Inbox>>) -> Response {
    match render(&inbox.view()) {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CACHE_CONTROL, "no-store"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the alert inbox cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "The alert inbox cannot be rendered; the log says why.\n")
                .into_response()
        }
    }
}

async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        // Long enough that the page does not flicker when it renews itself.
        (header::CACHE_CONTROL, "max-age=300"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("inbox.css")).into_response()
}

fn render(view: &View) -> Result<String, minijinja::Error> {
    environment()?.get_template("inbox.html")?.render(facts(view))
}

/// One message of Slack's as a page of its own.
pub(super) fn message(content: &Map<String, Json>, at: Timestamp) -> Result<String, minijinja::Error> {
    let pieces = pieces(content);
    environment()?.get_template("message.html")?.render(context! {
        title => content.get("text").and_then(Json::as_str),
        style => include_str!("inbox.css"),
        tone => tone_name(tone(content, &pieces)),
        pieces => pieces.iter().map(piece).collect::<Vec<_>>(),
        time => time(at),
        stamp => at.to_string(),
    })
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // The names end in .html, which switches escaping on.
    environment.add_template("pieces.html", include_str!("pieces.html"))?;
    environment.add_template("inbox.html", include_str!("inbox.html"))?;
    environment.add_template("message.html", include_str!("message.html"))?;
    Ok(environment)
}

fn facts(view: &View) -> Value {
    let Scene { act, since, next_in } = view.scene;
    let played = &ACTS[act];
    let threads: Vec<Value> = view
        .posts
        .iter()
        .rev()
        .filter(|post| post.thread.is_none())
        .take(SHOWN)
        .map(|post| thread(post, view))
        .collect();
    let mails: Vec<Value> = view.mails.iter().take(SHOWN).map(|mail| letter(mail, view.at)).collect();
    let next = next_in.zip(ACTS.get(act + 1)).map(|(wait, next)| {
        let of = next.at.saturating_sub(played.at).as_secs();
        context! { name => next.name, wait => spell(wait), of, at => since.as_secs().min(of) }
    });
    let title = match threads.len() {
        0 => "Alert inbox".to_owned(),
        told => format!("({told}) Alert inbox"),
    };
    context! {
        refresh => REFRESH.as_secs(),
        title,
        status_url => view.status_url.as_deref(),
        tone => tone_of_fault(played.fault),
        now => played.now,
        since => spell(since),
        expect => played.expect,
        next,
        counts => counts(view),
        acts => acts(act),
        threads,
        mails,
    }
}

fn counts(view: &View) -> Vec<Value> {
    let Counts { accepted, delivered, dropped, .. } = view.counts;
    let rows =
        [("SMS accepted", accepted), ("SMS delivered", delivered), ("SMS lost", dropped), ("Orders done", view.orders)];
    rows.map(|(name, value)| context! { name, value, bad => name == "SMS lost" && value > 0 }).to_vec()
}

fn acts(current: usize) -> Vec<Value> {
    let row = |(index, act): (usize, &super::script::Act)| {
        let state = match index.cmp(&current) {
            std::cmp::Ordering::Less => "was",
            std::cmp::Ordering::Equal => "is",
            std::cmp::Ordering::Greater => "will",
        };
        let at = act.at.as_secs();
        context! { name => act.name, state, tone => tone_of_fault(act.fault), at => format!("{}:{:02}", at / 60, at % 60) }
    };
    ACTS.iter().enumerate().map(row).collect()
}

fn thread(root: &Post, view: &View) -> Value {
    let replies: Vec<Value> = view
        .posts
        .iter()
        .filter(|post| post.thread.as_deref() == Some(root.ts.as_str()))
        .map(|reply| post(reply, view.at, Vec::new()))
        .collect();
    post(root, view.at, replies)
}

fn post(post: &Post, at: Timestamp, replies: Vec<Value>) -> Value {
    let pieces = pieces(&post.content);
    context! {
        tone => tone_name(tone(&post.content, &pieces)),
        pieces => pieces.iter().map(piece).collect::<Vec<_>>(),
        time => time(post.at),
        stamp => post.at.to_string(),
        ago => spell(between(post.at, at)),
        edited => post.edited.map(time),
        replies,
    }
}

fn letter(mail: &Mail, at: Timestamp) -> Value {
    let subject = &mail.letter.subject;
    // A subject that holds a thread together does not change with the state; the first line does.
    let first_line = mail.letter.text.lines().next().unwrap_or_default();
    let tone = tone_of_words(&format!("{subject} {first_line}"));
    context! {
        tone => tone_name(tone),
        subject => if subject.is_empty() { "(no subject)" } else { subject },
        from => or(&mail.letter.from, &mail.sender),
        to => or(&mail.letter.to, &mail.recipients.join(", ")),
        time => time(mail.at),
        stamp => mail.at.to_string(),
        ago => spell(between(mail.at, at)),
        text => mail.letter.text.trim_end(),
    }
}

fn or<'a>(told: &'a str, instead: &'a str) -> String {
    if told.is_empty() { instead } else { told }.to_owned()
}

fn piece(piece: &Piece) -> Value {
    match piece {
        Piece::Header(text) => context! { kind => "header", text },
        Piece::Text(list) => context! { kind => "text", spans => spans(list) },
        Piece::Fields(fields) => {
            context! { kind => "fields", fields => fields.iter().map(|field| Value::from(spans(field))).collect::<Vec<_>>() }
        }
        Piece::Code(text) => context! { kind => "code", text },
        Piece::Chart(drawn) => chart::shown(drawn),
        Piece::Small(list) => context! { kind => "small", spans => spans(list) },
        Piece::Buttons(list) => context! { kind => "buttons", spans => spans(list) },
        Piece::Rule => context! { kind => "rule" },
    }
}

fn spans(list: &[Span]) -> Vec<Value> {
    let span = |span: &Span| {
        let style = span.style;
        context! {
            text => span.text.as_str(), link => span.link.as_deref(),
            bold => style.bold, italic => style.italic, strike => style.strike, code => style.code,
        }
    };
    list.iter().map(span).collect()
}

fn tone_name(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Warning => "warning",
        Tone::Bad => "bad",
        Tone::Plain => "plain",
    }
}

fn tone_of_fault(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "good",
        Fault::Slow(_) => "warning",
        Fault::Drop | Fault::Refuse => "bad",
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// A duration that is read once and counts on: whole seconds.
fn spell(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Nothing but our own style sheet and an empty icon: what is in a message or a mail can neither run nor fetch.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Often enough to see an alert come, seldom enough to read.
const REFRESH: Duration = Duration::from_secs(2);
/// So many threads, and so many mails, are on the page.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::mime::Letter;
    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn post(ts: &str, thread: Option<&str>, content: serde_json::Value) -> Post {
        let serde_json::Value::Object(content) = content else { panic!("an object") };
        Post { ts: ts.to_owned(), thread: thread.map(str::to_owned), at: at(0), edited: None, content }
    }

    fn mail(subject: &str, text: &str) -> Mail {
        let letter = Letter { subject: subject.to_owned(), text: text.to_owned(), ..Letter::default() };
        Mail { at: at(3), sender: "a@x".to_owned(), recipients: vec!["b@x".to_owned()], letter }
    }

    fn view(act: usize, posts: Vec<Post>, mails: Vec<Mail>) -> View {
        let scene = Scene { act, since: Duration::from_secs(12), next_in: Some(Duration::from_secs(8)) };
        let counts = Counts { accepted: 40, delivered: 34, dropped: 6, refused: 0 };
        View { at: at(75), scene, counts, orders: 21, posts, mails, status_url: Some("http://127.0.0.1:9".to_owned()) }
    }

    #[test]
    fn the_page_says_what_happens_now_and_next() {
        let html = render(&view(1, Vec::new(), Vec::new())).unwrap();
        for part in [
            "The gateway accepts every SMS and delivers none <span>since 12 s</span>",
            "Next in 8 s: It heals",
            "<progress max=\"20\" value=\"12\">",
            "<div class=\"bad\"><dt>SMS lost</dt><dd>6</dd></div>",
            "Nobody has been told anything.",
            "No mail yet.",
            "<a href=\"http:&#x2f;&#x2f;127.0.0.1:9\" rel=\"noreferrer\">Status pages</a>",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
    }

    #[test]
    fn an_incident_is_one_message_with_its_thread() {
        let mut root = post(
            "1.0",
            None,
            json!({
                "text": "fallback",
                "attachments": [{ "color": "#2eb67d", "blocks": [
                    { "type": "header", "text": { "type": "plain_text", "text": "WELL AGAIN sms" } },
                    { "type": "section", "fields": [{ "type": "mrkdwn", "text": "*Since*\nnoon" }] },
                    { "type": "section", "text": { "type": "mrkdwn", "text": "```\nsubmit ▇▇ 12ms\n```" } } ] }],
            }),
        );
        root.edited = Some(at(61));
        let posts = vec![
            root,
            post("2.0", Some("1.0"), json!({ "text": "DOWN sms" })),
            post("3.0", Some("1.0"), json!({ "text": "*WELL AGAIN* sms" })),
        ];
        let html =
            render(&view(2, posts, vec![mail("sms: incident 7", "SLOW sms · took 1.4s\nSince: DOWN\n")])).unwrap();
        for part in [
            "<article class=\"post good\">",
            "<h3>WELL AGAIN sms</h3>",
            "<li><b>Since</b>\nnoon</li>",
            "<pre tabindex=\"0\">submit ▇▇ 12ms</pre>",
            "(edited 14:14:21)",
            "2 replies",
            "<article class=\"reply bad\">",
            "<b>WELL AGAIN</b> sms",
            "1 min 15 s ago",
            "<article class=\"mail warning\">",
            "a@x → b@x",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        assert!(html.find("reply bad").unwrap() < html.find("reply good").unwrap());
    }

    #[test]
    fn what_others_wrote_is_text_and_nothing_else() {
        let content = json!({
            "text": HOSTILE,
            "blocks": [
                { "type": "header", "text": { "type": "plain_text", "text": HOSTILE } },
                { "type": "section", "text": { "type": "mrkdwn", "text": format!("*{HOSTILE}* <javascript:alert(1)|x> <https://x/\"onclick=alert(1)|y>") } },
                { "type": "context", "elements": [{ "type": "mrkdwn", "text": format!("```{HOSTILE}```") }] },
                { "type": "actions", "elements": [{ "type": "button", "text": { "type": "plain_text", "text": HOSTILE }, "url": "javascript:alert(1)" }] },
                { "type": HOSTILE },
            ],
        });
        let posts = vec![post("1.0", None, content), post("2.0", Some("1.0"), json!({ "text": HOSTILE }))];
        let mut hostile = mail(HOSTILE, HOSTILE);
        hostile.sender = HOSTILE.to_owned();
        hostile.recipients = vec![HOSTILE.to_owned()];
        let html = render(&view(0, posts, vec![hostile])).unwrap();
        assert!(html.matches("&lt;script&gt;").count() >= 8, "{html}");
        for bad in ["<script", "<img", "href=\"javascript", "\"onclick", "' onerror"] {
            assert!(!html.contains(bad), "{bad} is in {html}");
        }
        assert!(!include_str!("inbox.html").contains("|safe") && !include_str!("inbox.html").contains("style="));
    }
}
