//! Problems of a configuration: where, what, and what to do about it, drawn as compilers draw them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::secret::MASK;

/// One thing that is wrong with a configuration, or doubtful.
#[derive(Clone)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub place: Place,
    /// Another place that has to do with it, and what that is.
    pub also: Option<(Place, String)>,
    /// What to do, one thing a line.
    pub hints: Vec<String>,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// It works, and probably not as meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Problem {
    /// Something that must be changed.
    pub fn error(place: &Place, message: impl Into<String>) -> Problem {
        Problem::new(Severity::Error, place, message)
    }

    /// Something that should be looked at.
    pub fn warning(place: &Place, message: impl Into<String>) -> Problem {
        Problem::new(Severity::Warning, place, message)
    }

    /// Something worth knowing.
    pub fn note(place: &Place, message: impl Into<String>) -> Problem {
        Problem::new(Severity::Note, place, message)
    }

    fn new(severity: Severity, place: &Place, message: impl Into<String>) -> Problem {
        Problem { severity, message: message.into(), place: place.clone(), also: None, hints: Vec::new() }
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hints.push(hint.into());
        self
    }

    /// With what to do about it, if anything is known.
    pub fn maybe_hint(self, hint: Option<String>) -> Problem {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// With a second place.
    pub fn also(mut self, place: &Place, label: impl Into<String>) -> Problem {
        self.also = Some((place.clone(), label.into()));
        self
    }

    /// Whether nothing may be applied because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `path:line:column: error: message`, for logs.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        write!(f, "{}: {severity}: {}", self.place, self.message)
    }
}

/// As [`fmt::Display`]: the text around a place may hold secrets.
impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file of the configuration.
pub struct Source {
    name: String,
    text: String,
    order: usize,
    /// Where lines end.
    ends: Vec<usize>,
    /// Byte ranges that hold literal secrets, their ends by their starts; found while the file is read, needed when a problem is drawn.
    secrets: Mutex<BTreeMap<usize, usize>>,
}

impl Source {
    /// A file of that name with that text; `order` is its rank among the files.
    pub fn new(name: &str, text: &str, order: usize) -> Arc<Source> {
        let (ends, secrets) = (text.match_indices('\n').map(|(at, _)| at).collect(), Mutex::default());
        Arc::new(Source { name: name.to_owned(), text: text.to_owned(), order, ends, secrets })
    }

    /// Its name, as problems show it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Never shows what is in this range of bytes.
    pub fn hide(&self, range: Range<usize>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if !range.is_empty() {
            let end = secrets.entry(range.start).or_default();
            *end = range.end.max(*end);
        }
    }

    /// The hidden ranges within `line`, in order, overlapping ones made one.
    fn hidden(&self, line: &Range<usize>) -> Vec<Range<usize>> {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let within = secrets
            .iter()
            .map(|(start, end)| *start.max(&line.start)..*end.min(&line.end))
            .filter(|range| !range.is_empty());
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in within {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// A range of bytes in a file.
#[derive(Clone)]
pub struct Place {
    source: Arc<Source>,
    start: usize,
    end: usize,
}

impl Place {
    /// The range, moved to character boundaries within the text.
    pub fn new(source: &Arc<Source>, range: Range<usize>) -> Place {
        let text = source.text();
        let start = text.floor_char_boundary(range.start);
        let end = text.ceil_char_boundary(range.end).max(start);
        Place { source: source.clone(), start, end }
    }

    /// The file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The bytes.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The text at the place.
    pub fn text(&self) -> &str {
        &self.source.text[self.start..self.end]
    }

    /// What is between the quotes of a string, as it is written, without the literal secrets in it; `None` if it has none.
    pub(super) fn without_secrets(&self) -> Option<String> {
        let secrets = self.source.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        // A string has its secrets whole.
        let mut within = secrets.range(self.start..self.end).peekable();
        within.peek()?;
        let (mut shown, mut at) = (String::new(), self.start);
        for (start, end) in within {
            shown.push_str(self.source.text.get(at..*start).unwrap_or_default());
            at = at.max(*end);
        }
        shown.push_str(self.source.text.get(at..self.end).unwrap_or_default());
        Some(shown.trim_matches(['"', '\'']).to_owned())
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.source.ends.partition_point(|end| *end < self.start) + 1
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> usize {
        self.source.text[self.line_range().start..self.start].chars().count() + 1
    }

    /// The line that it begins on, without its end.
    fn line_range(&self) -> Range<usize> {
        let text = &self.source.text;
        let start = text[..self.start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[self.start..].find('\n').map_or(text.len(), |at| self.start + at);
        let end = if text[start..end].ends_with('\r') { end - 1 } else { end };
        start..end.max(start)
    }

    fn key(&self) -> (usize, usize, usize) {
        (self.source.order, self.start, self.end)
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.range() == other.range()
    }
}

/// `path:line:column`; the path alone where there is no text.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.text.is_empty() {
            true => f.write_str(&self.source.name),
            false => write!(f, "{}:{}:{}", self.source.name, self.line(), self.column()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// In the order of the files and of the places in them; each problem once, however many ways lead to it.
pub fn sort(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| a.place.key().cmp(&b.place.key()).then_with(|| a.severity.cmp(&b.severity)));
    let mut kept: Vec<Problem> = Vec::with_capacity(problems.len());
    for problem in problems {
        let same = |other: &&Problem| other.place == problem.place;
        if !kept.iter().rev().take_while(same).any(|other| other.message == problem.message) {
            kept.push(problem);
        }
    }
    kept
}

/// All problems as text for a terminal, closed by how many there are.
pub fn render(problems: &[Problem], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for problem in problems {
        out.push_str(&draw(problem, &renderer));
        out.push_str("\n\n");
    }
    out.push_str(&summary(problems));
    out.push('\n');
    out
}

/// One problem as text for a terminal, ended by a line end.
pub fn sketch(problem: &Problem, color: bool) -> String {
    draw(problem, &if color { Renderer::styled() } else { Renderer::plain() }) + "\n"
}

/// `3 errors, 1 warning`
fn summary(problems: &[Problem]) -> String {
    let names = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let counts: Vec<_> = names
        .into_iter()
        .map(|(severity, name)| (problems.iter().filter(|problem| problem.severity == severity).count(), name))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}{}", if count == 1 { "" } else { "s" }))
        .collect();
    if counts.is_empty() { "no problems".to_owned() } else { counts.join(", ") }
}

fn draw(problem: &Problem, renderer: &Renderer) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = level.primary_title(&problem.message).elements(std::iter::empty::<Origin<'_>>());
    let mut moved = Vec::new();
    group = show(group, &problem.place, None, &mut moved);
    if let Some((place, label)) = &problem.also {
        group = show(group, place, Some(label), &mut moved);
    }
    for hint in &problem.hints {
        group = group.element(Level::HELP.message(hint));
    }
    let mut out = renderer.render(&[group]);
    for (shown, real) in moved {
        out = out.replacen(&shown, &real, 1);
    }
    out
}

/// Adds the line at `place`. A mask is not as long as what it hides, so the column behind it is put right later: `moved`.
fn show<'a>(
    group: Group<'a>,
    place: &'a Place,
    label: Option<&'a str>,
    moved: &mut Vec<(String, String)>,
) -> Group<'a> {
    if place.source.text.is_empty() {
        return group.element(Origin::path(place.source.name.as_str()));
    }
    let line = place.line_range();
    let end = place.end.clamp(place.start, line.end.max(place.start));
    let (mut text, mut from, mut to) = (String::new(), None, None);
    let mut at = line.start;
    for hidden in place.source.hidden(&line) {
        map(place.start, &(at..hidden.start), text.len(), &mut from);
        map(end, &(at..hidden.start), text.len(), &mut to);
        text.push_str(&place.source.text[at..hidden.start]);
        // A problem that lies in a secret points at the whole mask.
        from = from.or((place.start < hidden.end).then_some(text.len()));
        text.push_str(MASK);
        to = to.or((end <= hidden.end).then_some(text.len()));
        at = hidden.end;
    }
    map(place.start, &(at..line.end), text.len(), &mut from);
    map(end, &(at..line.end), text.len(), &mut to);
    text.push_str(&place.source.text[at..line.end]);
    let from = from.unwrap_or(text.len());
    let span = from..to.unwrap_or(text.len()).max(from);
    let column = text[..from].chars().count() + 1;
    if column != place.column() {
        moved.push((format!("{}:{}:{column}", place.source.name, place.line()), place.to_string()));
    }
    let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
    let snippet = Snippet::source(text).path(place.source.name.as_str()).line_start(place.line());
    group.element(snippet.annotation(kind.span(span).label(label)))
}

/// Where byte `at` of the file is in the shown text, if it lies in the `part` that is shown from `shown` on.
fn map(at: usize, part: &Range<usize>, shown: usize, found: &mut Option<usize>) {
    if found.is_none() && (part.start..=part.end).contains(&at) {
        *found = Some(shown + at - part.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: &Arc<Source>, what: &str) -> Place {
        let start = source.text().find(what).unwrap();
        Place::new(source, start..start + what.len())
    }

    #[test]
    fn a_problem_is_drawn_with_line_caret_and_hint() {
        let source = Source::new("probes/sms.toml", "[[journey]]\nname = \"é\"\nevry = \"1m\"\n", 0);
        let problem = Problem::error(&place(&source, "evry"), "unknown key `evry`").hint("did you mean `every`?");
        let expected = "\
error: unknown key `evry`
 --> probes/sms.toml:3:1
  |
3 | evry = \"1m\"
  | ^^^^
  |
  = help: did you mean `every`?

1 error
";
        assert_eq!(render(std::slice::from_ref(&problem), false), expected);
        assert_eq!(problem.to_string(), "probes/sms.toml:3:1: error: unknown key `evry`");
        assert!(render(&[problem], true).contains("\u{1b}["));
    }

    #[test]
    fn a_secret_is_masked_and_the_column_stays_that_of_the_file() {
        let source = Source::new("a.toml", "x = { secret = \"hunter22\", evry = 1, b = \"pass\" }\n", 0);
        source.hide(16..24);
        source.hide(18..24);
        let told = render(&[Problem::error(&place(&source, "evry"), "unknown key `evry`")], false);
        assert!(told.contains(" --> a.toml:1:28\n"), "{told}");
        assert!(told.contains("x = { secret = \"•••\", evry = 1, b = \"pass\" }\n"), "{told}");
        assert!(told.contains("  |                       ^^^^"), "{told}");
        let told = render(&[Problem::error(&place(&source, "hunter22"), "too short")], false);
        assert!(told.contains("                ^^^") && !told.contains("hunter"), "{told}");
        let told = render(&[Problem::error(&place(&source, "\"hunter22\""), "too short")], false);
        assert!(told.contains("               ^^^^^") && !told.contains("hunter"), "{told}");
    }

    #[test]
    fn places_at_the_edges_are_drawn() {
        let source = Source::new("a.toml", "a = 1\r\nb = [\n1,\n2]", 0);
        for range in [0..0, 5..6, 6..7, 11..18, 18..18, 18..99, 99..99] {
            let told = render(&[Problem::warning(&Place::new(&source, range.clone()), "w")], false);
            assert!(told.starts_with("warning: w\n --> a.toml:"), "{range:?} {told}");
        }
        let nothing = Place::new(&Source::new("gone.toml", "", 0), 0..0);
        assert!(render(&[Problem::error(&nothing, "cannot read it")], false).contains("--> gone.toml\n"));
    }

    #[test]
    fn problems_come_in_the_order_of_the_files_and_once() {
        let (first, second) = (Source::new("a", "xyz", 0), Source::new("b", "xyz", 1));
        let problems = vec![
            Problem::error(&Place::new(&second, 0..1), "three"),
            Problem::warning(&Place::new(&first, 1..2), "two"),
            Problem::error(&Place::new(&first, 0..1), "one"),
            Problem::error(&Place::new(&first, 0..1), "one"),
        ];
        let sorted = sort(problems);
        let told: Vec<_> = sorted.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(told, ["one", "two", "three"]);
        assert_eq!(summary(&sorted), "2 errors, 1 warning");
    }
}
