//! Reads a Slack message into pieces that a page can show: Block Kit, attachments and mrkdwn.
//! <https://docs.slack.dev/reference/block-kit/blocks>, <https://docs.slack.dev/messaging/formatting-message-text>

use serde_json::{Map, Value};

use super::chart::{self, Chart};

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Header(String),
    Text(Vec<Span>),
    Fields(Vec<Vec<Span>>),
    Code(String),
    Small(Vec<Span>),
    Chart(Chart),
    Buttons(Vec<Span>),
    Rule,
}

/// Text in one style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) style: Style,
    /// Where it leads; http or https.
    pub(super) link: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) bold: bool,
    pub(super) italic: bool,
    pub(super) strike: bool,
    pub(super) code: bool,
}

/// How a message looks at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Warning,
    Bad,
    Plain,
}

/// Every piece of a message, in order. Blocks stand in for the text, which is then only for notifications.
pub(super) fn pieces(content: &Map<String, Value>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    match items(content.get("blocks")) {
        [] => mrkdwn(string(content.get("text")), &mut pieces),
        blocks => blocks.iter().for_each(|block| read_block(block, &mut pieces)),
    }
    for attachment in items(content.get("attachments")) {
        match items(attachment.get("blocks")) {
            [] => {
                let title = string(attachment.get("title"));
                if !title.is_empty() {
                    pieces.push(Piece::Header(title.to_owned()));
                }
                mrkdwn(string(attachment.get("text")), &mut pieces);
            }
            blocks => blocks.iter().for_each(|block| read_block(block, &mut pieces)),
        }
    }
    pieces
}

/// The tone: an attachment's colour if there is one, else the word that the message begins with.
pub(super) fn tone(content: &Map<String, Value>, pieces: &[Piece]) -> Tone {
    let colour = items(content.get("attachments")).iter().find_map(|attachment| attachment.get("color")?.as_str());
    colour.and_then(tone_of_colour).unwrap_or_else(|| {
        let header = pieces.iter().find_map(|piece| match piece {
            Piece::Header(text) => Some(text.clone()),
            Piece::Text(spans) => Some(spans.iter().map(|span| span.text.as_str()).collect()),
            _ => None,
        });
        tone_of_words(&header.unwrap_or_default())
    })
}

fn tone_of_colour(colour: &str) -> Option<Tone> {
    match colour {
        "good" => return Some(Tone::Good),
        "warning" => return Some(Tone::Warning),
        "danger" => return Some(Tone::Bad),
        _ => {}
    }
    let hex = colour.strip_prefix('#').filter(|hex| hex.len() == 6)?;
    let value = u32::from_str_radix(hex, 16).ok()?;
    let (red, green, blue) = (value >> 16, value >> 8 & 255, value & 255);
    Some(match () {
        () if green > red && green > blue => Tone::Good,
        () if red > blue && green * 2 > red + blue => Tone::Warning,
        () if red > green && red > blue => Tone::Bad,
        () => Tone::Plain,
    })
}

/// The tone of a text by the first word that says how something is.
pub(super) fn tone_of_words(text: &str) -> Tone {
    let words = text.split(|character: char| !character.is_alphanumeric());
    let mut tones = words.filter_map(|word| match word {
        "WELL" => Some(Tone::Good),
        "DOWN" => Some(Tone::Bad),
        "SLOW" | "STALE" => Some(Tone::Warning),
        _ => None,
    });
    tones.next().unwrap_or(Tone::Plain)
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn string(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn read_block(block: &Value, pieces: &mut Vec<Piece>) {
    match string(block.get("type")) {
        "header" => pieces.push(Piece::Header(with_emoji(string(block["text"].get("text"))))),
        "section" => {
            text_object(&block["text"], pieces);
            let fields: Vec<_> = items(block.get("fields")).iter().map(object_spans).collect();
            if !fields.is_empty() {
                pieces.push(Piece::Fields(fields));
            }
        }
        "context" => {
            let mut spans = Vec::new();
            for element in items(block.get("elements")) {
                if !spans.is_empty() {
                    spans.push(Span { text: GAP.to_owned(), ..Span::default() });
                }
                spans.extend(object_spans(element));
            }
            pieces.push(Piece::Small(spans));
        }
        "actions" => {
            let button = |element: &Value| Span {
                text: with_emoji(string(element["text"].get("text"))),
                link: web_link(string(element.get("url"))),
                ..Span::default()
            };
            pieces.push(Piece::Buttons(items(block.get("elements")).iter().map(button).collect()));
        }
        "divider" => pieces.push(Piece::Rule),
        "markdown" => mrkdwn(string(block.get("text")), pieces),
        "rich_text" => items(block.get("elements")).iter().for_each(|element| rich_text(element, pieces)),
        "data_visualization" => pieces.extend(chart::read(block).map(Piece::Chart)),
        // Slack shows what a client does not know as nothing; here it is named, so that nobody wonders.
        other => pieces.push(Piece::Small(vec![Span { text: format!("[{other} block]"), ..Span::default() }])),
    }
}

fn rich_text(element: &Value, pieces: &mut Vec<Piece>) {
    let spans: Vec<_> = items(element.get("elements")).iter().map(rich_span).collect();
    match string(element.get("type")) {
        "rich_text_preformatted" => {
            pieces.push(Piece::Code(spans.iter().map(|span| span.text.as_str()).collect()));
        }
        "rich_text_list" => {
            for item in items(element.get("elements")) {
                let mut line = vec![Span { text: "• ".to_owned(), ..Span::default() }];
                line.extend(items(item.get("elements")).iter().map(rich_span));
                pieces.push(Piece::Text(line));
            }
        }
        _ => pieces.push(Piece::Text(spans)),
    }
}

fn rich_span(element: &Value) -> Span {
    let has = |style: &str| element["style"][style] == true;
    let style = Style { bold: has("bold"), italic: has("italic"), strike: has("strike"), code: has("code") };
    match string(element.get("type")) {
        "link" => {
            let url = string(element.get("url"));
            let text = element.get("text").and_then(Value::as_str).unwrap_or(url);
            Span { text: text.to_owned(), style, link: web_link(url) }
        }
        "emoji" => Span { text: emoji(string(element.get("name"))), style, link: None },
        _ => Span { text: string(element.get("text")).to_owned(), style, link: None },
    }
}

fn text_object(object: &Value, pieces: &mut Vec<Piece>) {
    match string(object.get("type")) {
        "mrkdwn" => mrkdwn(string(object.get("text")), pieces),
        "plain_text" => pieces.push(Piece::Text(object_spans(object))),
        _ => {}
    }
}

fn object_spans(object: &Value) -> Vec<Span> {
    let text = string(object.get("text"));
    match string(object.get("type")) {
        "mrkdwn" => spans(text),
        _ => vec![Span { text: with_emoji(text), ..Span::default() }],
    }
}

/// Text and fenced code, in turns.
fn mrkdwn(text: &str, pieces: &mut Vec<Piece>) {
    for (at, part) in text.split("```").enumerate() {
        match at % 2 {
            1 => pieces.push(Piece::Code(unescape(part.trim_matches('\n')))),
            _ if part.trim().is_empty() => {}
            _ => pieces.push(Piece::Text(spans(part.trim_matches('\n')))),
        }
    }
}

fn spans(text: &str) -> Vec<Span> {
    let end = text.char_indices().nth(MAX_MRKDWN).map_or(text.len(), |(end, _)| end);
    let mut out = Vec::new();
    read_spans(&text[..end], Style::default(), MAX_NESTING, &mut out);
    out
}

/// Marks stand around words: `a*b*c` has none. They may be nested, `*bold with <https://…|link>*`.
fn read_spans(text: &str, style: Style, depth: usize, out: &mut Vec<Span>) {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = plain.chars().next_back().is_some_and(char::is_alphanumeric);
        let marked = if depth == 0 || in_word { None } else { marked(rest, first) };
        if let Some((content, marks)) = marked {
            flush(&mut plain, style, out);
            let style = match first {
                '*' => Style { bold: true, ..style },
                '_' => Style { italic: true, ..style },
                '~' => Style { strike: true, ..style },
                _ => Style { code: true, ..style },
            };
            if style.code {
                out.push(Span { text: unescape(content), style, link: None });
            } else {
                read_spans(content, style, depth - 1, out);
            }
            rest = &rest[content.len() + marks..];
        } else if let Some(content) =
            rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(content, _)| content)
        {
            flush(&mut plain, style, out);
            out.push(Span { style, ..reference(content) });
            rest = &rest[content.len() + 2..];
        } else {
            plain.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    flush(&mut plain, style, out);
}

/// The text between `mark` at the beginning of `rest` and its partner on the same line, and how many bytes the marks are.
fn marked(rest: &str, mark: char) -> Option<(&str, usize)> {
    if !matches!(mark, '*' | '_' | '~' | '`') {
        return None;
    }
    let inner = &rest[1..];
    let line = inner.split('\n').next().unwrap_or_default();
    let end = line.match_indices(mark).map(|(end, _)| end).find(|end| {
        let next = line[end + 1..].chars().next();
        mark == '`' || !next.is_some_and(char::is_alphanumeric)
    })?;
    let content = &line[..end];
    (!content.is_empty() && !content.starts_with(' ') && !content.ends_with(' ')).then_some((content, 2))
}

/// `<https://…|label>`, `<!date^…|fallback>`, `<!here>`, `<@U…>`, `<#C…|name>`.
fn reference(content: &str) -> Span {
    let (target, label) = content.split_once('|').map_or((content, None), |(target, label)| (target, Some(label)));
    let text = match (label, target.chars().next()) {
        (Some(label), Some('#')) => format!("#{label}"),
        (Some(label), _) => label.to_owned(),
        (None, Some('!')) => format!("@{}", &target[1..]),
        (None, _) => target.to_owned(),
    };
    Span { text: with_emoji(&unescape(&text)), style: Style::default(), link: web_link(&unescape(target)) }
}

fn flush(plain: &mut String, style: Style, out: &mut Vec<Span>) {
    if !plain.is_empty() {
        out.push(Span { text: with_emoji(&unescape(plain)), style, link: None });
        plain.clear();
    }
}

/// The three characters that Slack wants escaped.
fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Anything else than a web address is no link: `javascript:` least of all.
fn web_link(url: &str) -> Option<String> {
    (url.starts_with("https://") || url.starts_with("http://")).then(|| url.to_owned())
}

/// The text with the emoji that it names.
fn with_emoji(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(':') {
        let (before, after) = (&rest[..begin], &rest[begin + 1..]);
        out.push_str(before);
        let named = after.split_once(':').filter(|(name, _)| EMOJI.iter().any(|(known, _)| known == name));
        match named {
            Some((name, behind)) => {
                out.push_str(&emoji(name));
                rest = behind;
            }
            None => {
                out.push(':');
                rest = after;
            }
        }
    }
    out + rest
}

fn emoji(name: &str) -> String {
    let known = EMOJI.iter().find(|(known, _)| *known == name);
    known.map_or_else(|| format!(":{name}:"), |(_, symbol)| (*symbol).to_owned())
}

/// Between the elements of a context block: an em space, which is not folded away.
const GAP: &str = "\u{2003}";
const MAX_NESTING: usize = 4;
/// More characters than Slack recommends for a message are not read: looking for the partner of each mark is quadratic.
const MAX_MRKDWN: usize = 4000;

/// Those that notices are written with.
const EMOJI: &[(&str, &str)] = &[
    ("red_circle", "🔴"),
    ("large_red_circle", "🔴"),
    ("large_orange_circle", "🟠"),
    ("large_yellow_circle", "🟡"),
    ("large_green_circle", "🟢"),
    ("large_blue_circle", "🔵"),
    ("white_circle", "⚪"),
    ("white_check_mark", "✅"),
    ("heavy_check_mark", "✔️"),
    ("x", "❌"),
    ("warning", "⚠️"),
    ("rotating_light", "🚨"),
    ("fire", "🔥"),
    ("hourglass", "⌛"),
    ("hourglass_flowing_sand", "⏳"),
    ("snail", "🐌"),
    ("turtle", "🐢"),
    ("bell", "🔔"),
    ("no_bell", "🔕"),
    ("eyes", "👀"),
    ("clock1", "🕐"),
    ("book", "📖"),
    ("link", "🔗"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> Span {
        Span { text: text.to_owned(), ..Span::default() }
    }

    fn bold(text: &str) -> Span {
        Span { style: Style { bold: true, ..Style::default() }, ..plain(text) }
    }

    fn read(content: Value) -> (Vec<Piece>, Tone) {
        let Value::Object(content) = content else { panic!("an object") };
        let pieces = pieces(&content);
        let tone = tone(&content, &pieces);
        (pieces, tone)
    }

    #[test]
    fn mrkdwn_is_read_as_slack_reads_it() {
        let link = Span { link: Some("https://x/?a=1&b".to_owned()), ..plain("the page") };
        let code = Span { style: Style { code: true, ..Style::default() }, ..plain("a*b*<c") };
        let cases = [
            ("*Since* 12:00", vec![bold("Since"), plain(" 12:00")]),
            ("a*b*c 2 * 3 * 4 snake_case_name", vec![plain("a*b*c 2 * 3 * 4 snake_case_name")]),
            ("`a*b*&lt;c` &amp;amp;", vec![code, plain(" &amp;")]),
            ("<https://x/?a=1&amp;b|the page>!", vec![link, plain("!")]),
            ("<javascript:alert(1)|click> <!here>", vec![plain("click"), plain(" "), plain("@here")]),
            ("<!date^1^{time}|noon> <#C1|ops> 1 < 2", vec![plain("noon"), plain(" "), plain("#ops"), plain(" 1 < 2")]),
            (":red_circle: 10:30:00 :nope:", vec![plain("🔴 10:30:00 :nope:")]),
        ];
        for (text, expected) in cases {
            assert_eq!(spans(text), expected, "{text}");
        }
        let nested = spans("*see <https://x|it>*");
        assert_eq!(nested[1].link.as_deref(), Some("https://x"));
        assert!(nested.iter().all(|span| span.style.bold));
    }

    #[test]
    fn blocks_become_pieces_in_order() {
        let (pieces, tone) = read(json!({
            "text": "for notifications only",
            "blocks": [
                { "type": "header", "text": { "type": "plain_text", "text": ":red_circle: DOWN sms" } },
                { "type": "section", "text": { "type": "mrkdwn", "text": "*arrive*\n```\na  b\nc\n```\nthen" },
                  "fields": [{ "type": "mrkdwn", "text": "*Since*\nnoon" }] },
                { "type": "rich_text", "elements": [
                    { "type": "rich_text_preformatted", "elements": [{ "type": "text", "text": "x  y" }] },
                    { "type": "rich_text_section", "elements": [{ "type": "text", "text": "b", "style": { "bold": true } }] } ] },
                { "type": "divider" },
                { "type": "context", "elements": [{ "type": "mrkdwn", "text": "one" }, { "type": "plain_text", "text": "*two*" }] },
                { "type": "actions", "elements": [{ "type": "button", "text": { "type": "plain_text", "text": "Open" }, "url": "http://x" }] },
                { "type": "novelty" },
            ],
        }));
        assert_eq!(tone, Tone::Bad);
        let expected = [
            Piece::Header("🔴 DOWN sms".to_owned()),
            Piece::Text(vec![bold("arrive")]),
            Piece::Code("a  b\nc".to_owned()),
            Piece::Text(vec![plain("then")]),
            Piece::Fields(vec![vec![bold("Since"), plain("\nnoon")]]),
            Piece::Code("x  y".to_owned()),
            Piece::Text(vec![bold("b")]),
            Piece::Rule,
            Piece::Small(vec![plain("one"), plain(GAP), plain("*two*")]),
            Piece::Buttons(vec![Span { link: Some("http://x".to_owned()), ..plain("Open") }]),
            Piece::Small(vec![plain("[novelty block]")]),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn attachments_have_a_colour_and_the_text_is_shown_without_blocks() {
        let (pieces, tone) =
            read(json!({ "text": "DOWN", "attachments": [{ "color": "#2eb67d", "title": "T", "text": "fine" }] }));
        assert_eq!(tone, Tone::Good);
        assert_eq!(
            pieces,
            [Piece::Text(vec![plain("DOWN")]), Piece::Header("T".to_owned()), Piece::Text(vec![plain("fine")])]
        );
        let colours =
            [("#e01e5a", Tone::Bad), ("#ecb22e", Tone::Warning), ("#36c5f0", Tone::Plain), ("danger", Tone::Bad)];
        for (colour, tone) in colours {
            assert_eq!(tone_of_colour(colour), Some(tone), "{colour}");
        }
        assert_eq!(tone_of_colour("red"), None);
        assert_eq!(read(json!({ "text": "WELL AGAIN sms · after 20s DOWN" })).1, Tone::Good);
        assert_eq!(tone_of_words("STILL SLOW DOWNLOAD-api"), Tone::Warning);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[*_~`<>|!@# a-cé:\n]{0,60}") {
            let mut pieces = Vec::new();
            mrkdwn(&text, &mut pieces);
            with_emoji(&text);
        }
    }
}
