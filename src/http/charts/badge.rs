//! A badge: a label and a word, for other people's pages. Complete in itself, because nothing else of ours is loaded there.

/// What the word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Tone {
    Good,
    Middling,
    Bad,
    Unknown,
}

impl Tone {
    /// Dark enough for white text (WCAG AA).
    fn colour(self) -> &'static str {
        match self {
            Tone::Good => "#2a6f41",
            Tone::Middling => "#855300",
            Tone::Bad => "#b3231a",
            Tone::Unknown => "#565d69",
        }
    }
}

/// About as wide as the text is in the fonts that browsers take for `Verdana,sans-serif`, in pixels.
fn width(text: &str) -> usize {
    text.chars().map(|letter| if "iljtf.,:;'|! ".contains(letter) { 4 } else { 7 }).sum::<usize>() + 12
}

/// `label` comes from the configuration; both are escaped.
pub(in crate::http) fn badge(label: &str, word: &str, tone: Tone) -> String {
    let (left, right) = (width(label), width(word));
    let (whole, colour) = (left + right, tone.colour());
    let [label, word] = [label, word].map(escape);
    let (middle, last) = (left / 2, left + right / 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{whole}\" height=\"20\" role=\"img\" aria-label=\"{label}: {word}\">\
         <title>{label}: {word}</title><rect width=\"{left}\" height=\"20\" fill=\"#3b4048\"/>\
         <rect x=\"{left}\" width=\"{right}\" height=\"20\" fill=\"{colour}\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
         <text x=\"{middle}\" y=\"14\">{label}</text><text x=\"{last}\" y=\"14\">{word}</text></g></svg>\n"
    )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_is_text_whatever_it_says() {
        let badge = badge("<a href=\"x\">&", "up", Tone::Good);
        assert!(badge.contains("&lt;a href=&quot;x&quot;&gt;&amp;") && !badge.contains("<a"), "{badge}");
        assert!(badge.len() < 1_500 && badge.contains("#2a6f41"), "{badge}");
    }
}
