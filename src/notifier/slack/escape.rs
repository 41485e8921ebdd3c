//! Data made safe for Slack's text: no control sequence, no mention, no longer than allowed.
//!
//! Slack reads `&`, `<` and `>` as control characters, in plain text objects too, and wants them as entities; a link, a mention
//! and `<!channel>` all begin with `<`. <https://docs.slack.dev/messaging/formatting-message-text#escaping>

use crate::text::is_direction;

/// Ends a text that was cut.
const ELLIPSIS: char = '…';
/// Shown as nothing, and keeps what stands on both sides of it from being read as one word.
const WORD_JOINER: char = '\u{2060}';
/// Names that alert many people when an `@` stands before them.
const CROWDS: [&str; 3] = ["here", "channel", "everyone"];

/// `text` on one line, at most `limit` long as Slack counts.
pub(super) fn line(text: &str, limit: usize) -> String {
    escape(text, limit, |c| c.is_control())
}

/// `text` with its line ends, for a code block, at most `limit` long as Slack counts.
pub(super) fn block(text: &str, limit: usize) -> String {
    escape(text, limit, |c| c.is_control() && c != '\n')
}

/// How long Slack may think that `text` is: UTF-16 units, which are never fewer than the characters that it documents.
pub(super) fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

fn escape(text: &str, limit: usize, is_blank: impl Fn(char) -> bool) -> String {
    // Before anything else: what stands on both sides of a mark meets when it is gone, and may then be a mention.
    let text = text.replace(is_direction, "");
    let mut out = String::new();
    // Where a cut may be made: the last place that leaves room for the ellipsis and halves no entity.
    let (mut used, mut cut) = (0, 0);
    let mut before = None;
    for (at, c) in text.trim_end().char_indices() {
        // Two backticks in a row could become the three that end a code block.
        let needs_joiner = c == '`' && before == Some('`') || before == Some('@') && is_crowd(&text[at..]);
        before = Some(c);
        let start = out.len();
        if needs_joiner {
            out.push(WORD_JOINER);
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if is_blank(c) => out.push(' '),
            c => out.push(c),
        }
        used += length(&out[start..]);
        if used > limit {
            out.truncate(cut);
            out.push(ELLIPSIS);
            return out;
        }
        if used < limit {
            cut = out.len();
        }
    }
    out
}

fn is_crowd(text: &str) -> bool {
    CROWDS.iter().any(|name| text.get(..name.len()).is_some_and(|word| word.eq_ignore_ascii_case(name)))
}

/// Nothing that Slack would act upon comes out, and nothing that is too long.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for limit in [1, 7, 150, 3_000] {
        for out in [line(&text, limit), block(&text, limit)] {
            assert!(length(&out) <= limit, "{out:?} is longer than {limit}");
            assert!(!out.contains(['<', '>']) && !out.contains("```"), "{out:?}");
            let lower = out.to_ascii_lowercase();
            assert!(CROWDS.iter().all(|crowd| !lower.contains(&format!("@{crowd}"))), "{out:?}");
            let mut entities = out.split('&').skip(1);
            assert!(entities.all(|rest| ["amp;", "lt;", "gt;"].iter().any(|end| rest.starts_with(end))), "{out:?}");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_cannot_link_mention_or_leave_its_block() {
        let cases = [
            ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@U1&gt;"),
            ("hi @here and @Everyone", "hi @\u{2060}here and @\u{2060}Everyone"),
            ("ops@example.org", "ops@example.org"),
            ("```end", "`\u{2060}`\u{2060}`end"),
            ("one\ntwo\tthree\0", "one two three "),
            ("\u{202e}txt.exe", "txt.exe"),
            (
                "@\u{202e}everyone @chan\u{2066}nel `\u{200e}``",
                "@\u{2060}everyone @\u{2060}channel `\u{2060}`\u{2060}`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text, 100), expected);
        }
        assert_eq!(block("one\ntwo\r\n", 100), "one\ntwo");
    }

    #[test]
    fn a_cut_halves_no_entity_and_counts_the_ellipsis() {
        assert_eq!(line("abcd", 4), "abcd");
        assert_eq!(line("abcde", 4), "abc…");
        assert_eq!(line("ab&cd", 8), "ab&amp;…");
        assert_eq!(line("ab&cd", 7), "ab…");
        assert_eq!(line("a😀😀", 4), "a😀…");
    }

    proptest! {
        #[test]
        fn any_text_is_safe_and_short_enough(text in "(<!channel>|@here|```|&amp;|<|>|&|.|\n){0,60}", limit in 1_usize..80) {
            let out = block(&text, limit);
            prop_assert!(length(&out) <= limit);
            prop_assert!(is_safe(&out), "{out:?}");
        }
    }

    /// No bare control character, no mention, no end of a code block.
    pub(in crate::notifier::slack) fn is_safe(text: &str) -> bool {
        let bare = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
        !bare.contains(['<', '>', '&'])
            && !CROWDS.iter().any(|name| bare.to_lowercase().contains(&format!("@{name}")))
            && !bare.contains("```")
    }
}
