//! Text from outside, made harmless for people's eyes and terminals.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal;

/// Text with what could hide or turn around the rest of it shown as what it is: control characters, with which a terminal is
/// commanded, and the marks that override or embed a direction (Unicode TR 9 section 2). Line ends and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

/// As [`visible`], on one line.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

/// Whether colours may be written there: people look at it, and have not said that they want none (<https://no-color.org>).
pub fn takes_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether a character is not seen, or makes others look like what they are not.
pub fn is_hidden(c: char) -> bool {
    c.is_control() || is_direction(c) || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Whether a character turns the direction of what stands behind it, so that what is read is not what is written.
pub fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_shown = |c: char| is_hidden(c) && !stays(c);
    if !text.contains(is_shown) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // A line that ends as Windows ends lines.
            '\r' if rest.peek() == Some(&'\n') => {}
            c if is_shown(c) => {
                let _ = write!(out, "⟨U+{:04X}⟩", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_named_and_the_rest_stays() {
        for (text, expected) in [
            ("plain, größe 日本語 😀", "plain, größe 日本語 😀"),
            ("a\tb\r\nc", "a\tb\nc"),
            ("pay\u{202e}gpj.exe\u{7}", "pay⟨U+202E⟩gpj.exe⟨U+0007⟩"),
            ("\u{1b}[2J\u{9b}31m\u{7f}", "⟨U+001B⟩[2J⟨U+009B⟩31m⟨U+007F⟩"),
            ("over\rwritten", "over⟨U+000D⟩written"),
        ] {
            assert_eq!(visible(text), expected);
        }
        assert_eq!(visible_line("one\ntwo\u{2028}three\t"), "one⟨U+000A⟩two⟨U+2028⟩three⟨U+0009⟩");
    }
}
