//! An experiment's report as a page: whole in one file, without script, dark and light, and nothing of it is taken for markup that
//! came from outside.

use std::fmt::Write as _;

use crate::cli::experiment::{charts, row, verdict};
use crate::experiment::bounds::Standing;
use crate::experiment::compare::{claims, numbers};
use crate::experiment::report::{Ending, Report};
use crate::text::visible_line;
use crate::time::{Human, between};

const STYLE: &str = include_str!("style.css");

/// The page; held against another report, if there is one.
pub fn page(report: &Report, before: Option<&Report>) -> String {
    let name = escape(&report.name);
    let (class, said) = (class_of(report.ending), escape(&verdict(report)));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"content-security-policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{name}: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{name}</h1>\n<p class=\"verdict {class}\">{said}</p>\n",
        escape(report.ending.words())
    );
    if let Some(description) = &report.description {
        let _ = writeln!(page, "<p>{}</p>", escape(description));
    }
    page += &facts(report);
    page += &hypothesis(report);
    let _ = writeln!(page, "<section>{}{}</section>", charts::messages(report), charts::latency(report));
    page += &parts(report);
    page += &acts(report);
    page += &messages(report);
    if let Some(before) = before {
        page += &compared(before, report);
    }
    let _ = write!(page, "<footer>Journeyman {}</footer>\n</main>\n</body>\n</html>\n", escape(&report.version));
    page
}

/// Text that stands for itself in HTML, also within quotes; what hides or turns text around is shown as what it is.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in visible_line(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

fn class_of(ending: Ending) -> &'static str {
    match ending {
        Ending::Held => "good",
        Ending::Failed | Ending::Stuck => "bad",
        Ending::Aborted | Ending::NotTested => "warn",
    }
}

fn facts(report: &Report) -> String {
    let permission = report.permission.as_deref().map(|who| format!(", allowed by {}", escape(who)));
    let mut text = "<dl>".to_owned();
    let mut fact = |name: &str, value: String| {
        let _ = write!(text, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    };
    fact("against", format!("{}{}", escape(&report.target), permission.unwrap_or_default()));
    fact("journey", escape(&report.journey));
    fact("late after", Human(report.deadline).to_string());
    fact("began", format!("{:.0}", report.started));
    fact("took", Human(between(report.started, report.ended)).to_string());
    text + "</dl>\n"
}

fn hypothesis(report: &Report) -> String {
    let mut text =
        "<section><h2>Hypothesis</h2><table><thead><tr><th></th><th>claimed</th><th>found</th></tr></thead><tbody>"
            .to_owned();
    for judged in &report.hypothesis {
        let (class, word) = match judged.standing {
            Standing::Held => ("good", "✓ held"),
            Standing::Broken => ("bad", "✗ broken"),
            Standing::Unclear => ("warn", "? unclear"),
        };
        let (bound, found) = (escape(&judged.bound), escape(&judged.found));
        let _ = write!(text, "<tr><td class=\"{class}\">{word}</td><td>{bound}</td><td>{found}</td></tr>");
    }
    text + "</tbody></table></section>\n"
}

fn parts(report: &Report) -> String {
    const HEADS: [&str; 12] =
        ["phase", "for", "due", "on time", "late", "lost", "refused", "twice", "order", "p50", "p99", "max"];
    let mut text = "<section><h2>Phases</h2><div class=\"wide\"><table class=\"numbers\"><thead><tr>".to_owned();
    HEADS.iter().for_each(|head| text += &format!("<th>{head}</th>"));
    text += "</tr></thead><tbody>";
    let parts = report.phases.iter().map(|part| (&*part.name, part.to.saturating_sub(part.from), &part.tally));
    let whole = ("all", between(report.started, report.ended), &report.tally);
    for (name, took, tally) in parts.chain([whole]) {
        text += "<tr>";
        row(name, Human(took).to_string(), tally).iter().for_each(|cell| text += &format!("<td>{}</td>", escape(cell)));
        text += "</tr>";
    }
    let extras = super::extras(&report.tally);
    let extras: String = extras.lines().map(|line| format!("<p>{}</p>", escape(line))).collect();
    text + "</tbody></table></div>" + &extras + "</section>\n"
}

fn acts(report: &Report) -> String {
    if report.acts.is_empty() {
        return String::new();
    }
    let mut text =
        "<section><h2>What was done</h2><table><thead><tr><th>at</th><th>phase</th><th>what</th><th>took</th>\
                    <th>result</th></tr></thead><tbody>"
            .to_owned();
    for act in &report.acts {
        let class = if act.is_ok { "good" } else { "bad" };
        let result = act.result.as_deref().unwrap_or(if act.is_ok { "✓" } else { "✗" });
        let (at, took) = (act.at.as_secs_f64(), Human(act.took));
        let (phase, what, result) = (escape(&act.phase), escape(&act.what), escape(result));
        let _ = write!(
            text,
            "<tr><td>{at:.1}s</td><td>{phase}</td><td><code>{what}</code></td><td>{took}</td><td class=\"{class}\">{result}</td></tr>"
        );
    }
    text + "</tbody></table></section>\n"
}

fn messages(report: &Report) -> String {
    if report.messages.is_empty() {
        return String::new();
    }
    let count = report.messages.len();
    let mut text = format!(
        "<section><h2>Messages that something is wrong with</h2><details><summary>{count}</summary><table><thead><tr><th>sent</th>\
         <th>message</th><th>what became of it</th><th>why</th></tr></thead><tbody>"
    );
    for message in &report.messages {
        let copies = if message.copies > 0 { format!(", {} copies too many", message.copies) } else { String::new() };
        let why = escape(message.why.as_deref().unwrap_or_default());
        let _ = write!(
            text,
            "<tr><td>{:.3}</td><td><code>{}</code></td><td>{}{copies}</td><td>{why}</td></tr>",
            message.sent, message.token, message.fate
        );
    }
    text + "</tbody></table></details></section>\n"
}

fn compared(before: &Report, now: &Report) -> String {
    let mut text = format!(
        "<section><h2>Against the report of {:.0}</h2><table><thead><tr><th></th><th></th><th>then</th><th>now</th></tr></thead><tbody>",
        before.started
    );
    for row in claims(before, now) {
        let (what, then, found) = (
            escape(&row.what),
            escape(row.before.as_deref().unwrap_or("-")),
            escape(row.now.as_deref().unwrap_or("-")),
        );
        let _ = write!(text, "<tr><td>{}</td><td>{what}</td><td>{then}</td><td>{found}</td></tr>", row.change);
    }
    for (name, then, found) in numbers(before, now) {
        let _ = write!(text, "<tr><td></td><td>{name}</td><td>{then}</td><td>{found}</td></tr>");
    }
    text + "</tbody></table></section>\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::experiment::account::{Fate, Quantiles, Tally};
    use crate::experiment::bounds::Judged;
    use crate::experiment::report::{Act, Named, Part, Second};
    use crate::journey::token::Token;

    const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}";

    fn report() -> Report {
        let text = || HOSTILE.to_owned();
        let quick = Duration::from_millis(20);
        let latency = Some(Quantiles { p50: quick, p90: quick, p99: quick * 2, max: quick * 3 });
        let tally = Tally { due: 30, on_time: 27, lost: 3, latency, ..Tally::default() };
        let second = Second { sent: 10, arrived: 9, lost: 1, latency, ..Second::default() };
        let part = |from: u64, to: u64| Part {
            name: text(),
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
            tally: tally.clone(),
        };
        Report {
            name: text(),
            description: Some(text()),
            target: text(),
            permission: Some(text()),
            journey: text(),
            deadline: quick,
            started: Timestamp::UNIX_EPOCH,
            ended: Timestamp::from_second(3).unwrap(),
            ending: Ending::Failed,
            why: Some(text()),
            tally: tally.clone(),
            hypothesis: vec![Judged { bound: text(), found: text(), standing: Standing::Broken }],
            phases: vec![part(0, 1), part(1, 3)],
            seconds: vec![second.clone(), Second { latency: None, ..second.clone() }, second],
            acts: vec![Act { at: quick, took: quick, phase: text(), what: text(), result: Some(text()), is_ok: false }],
            messages: vec![Named {
                number: 1,
                token: Token::from_bits(7),
                sent: Timestamp::UNIX_EPOCH,
                fate: Fate::Lost,
                copies: 2,
                why: Some(text()),
            }],
            version: text(),
        }
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let page = page(&report(), Some(&report()));
        assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
        let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;⟨U+202E⟩";
        assert!(page.matches(escaped).count() >= 14, "{}", page.matches(escaped).count());
        assert!(!page.contains("http://") && !page.contains("https://"), "it needs nothing else");
    }

    #[test]
    fn a_line_is_broken_where_there_is_nothing_and_phases_stand_behind_it() {
        let svg = charts::latency(&report());
        let line = svg.split("class=\"line p50\" d=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(line.map(|line| line.matches('M').count()), Some(2), "{svg}");
        assert_eq!(svg.matches("<rect class=\"band").count(), 2);
        assert_eq!(charts::messages(&report()).matches("class=\"line ").count(), 3, "nothing was late or refused");
    }

    #[test]
    fn a_report_without_a_message_is_a_page_too() {
        let report = Report { seconds: Vec::new(), phases: Vec::new(), messages: Vec::new(), ..report() };
        assert!(page(&report, None).contains("</html>"));
    }
}
