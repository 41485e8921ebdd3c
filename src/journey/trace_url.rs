//! Where the logs and traces of a run are: an address with the run's ids in it.

use url::{Position, Url};

use crate::journey::token::Token;

/// What may stand between braces: a run's trace id (32 hexadecimal digits), and its token.
const NAMES: [&str; 2] = ["trace_id", "token"];

/// An address with places for the ids of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceUrl(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    TraceId,
    Token,
}

impl TraceUrl {
    /// Reads `https://logs.example.net/?q={{ trace_id }}`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<TraceUrl, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or("`{{` without a closing `}}`")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name.trim() {
                "trace_id" => Part::TraceId,
                "token" => Part::Token,
                other => {
                    return Err(format!(
                        "nothing named `{other}` is known here; there are `{}`",
                        NAMES.join("` and `")
                    ));
                }
            });
            rest = after;
        }
        if parts.is_empty() {
            return Err("every run would have the same address: `{{ trace_id }}` is nowhere in it".to_owned());
        }
        parts.push(Part::Text(rest.to_owned()));
        let url = TraceUrl(parts);
        let [one, other] =
            [Token::from_bits(1), Token::from_bits(u128::MAX >> 1)].map(|token| Url::parse(&url.of(token)));
        match (one, other) {
            (Ok(one), Ok(other)) if !matches!(one.scheme(), "http" | "https") || one.scheme() != other.scheme() => {
                Err("an address begins with https:// or http://".to_owned())
            }
            // Whose address it is must not depend on the run.
            (Ok(one), Ok(other)) if one[..Position::BeforePath] != other[..Position::BeforePath] => {
                Err("the host of an address is written out".to_owned())
            }
            (Ok(_), Ok(_)) => Ok(url),
            (Err(why), _) | (_, Err(why)) => Err(format!("this is no address: {why}")),
        }
    }

    /// The address of this run.
    pub fn of(&self, token: Token) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::TraceId => token.trace_id(),
            Part::Token => token.to_string(),
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_one_run_and_of_one_host() {
        let token = Token::from_bits(0xabc);
        let url = TraceUrl::parse("https://logs.example.net/run/{{token}}?q={{ trace_id }}&from=now-1h").unwrap();
        let expected = format!("https://logs.example.net/run/{token}?q=00000000000000000000000000000abc&from=now-1h");
        assert_eq!(url.of(token), expected);
        for (bad, why) in [
            ("https://logs.example.net/", "same address"),
            ("https://{{ trace_id }}.example.net/", "host"),
            ("https://logs.example.net:{{ trace_id }}/", "no address"),
            ("{{ trace_id }}", "no address"),
            ("javascript:alert({{ trace_id }})", "begins with"),
            ("https://logs.example.net/{{ journey }}", "`journey`"),
            ("https://logs.example.net/{{ trace_id", "closing"),
        ] {
            let said = TraceUrl::parse(bad).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
