//! The host of a whole address: written out, so that no message can choose whom we call.

use std::collections::BTreeSet;

use crate::journey::template::Template;

/// Whether no value of a message is in the host of an address, or where it could become a part of it.
pub(super) fn is_host_written_out(address: &str) -> bool {
    // Names and functions of our own do no harm: a host of its own for each run.
    Template::parse(authority(address), &BTreeSet::new()).is_ok()
}

/// What says whom an address is for: everything up to the path, and as URL parsers find it, who skip any number of slashes of either
/// kind before it (<https://url.spec.whatwg.org/#special-authority-ignore-slashes-state>).
fn authority(address: &str) -> &str {
    let after = address.split_once(':').map_or(address, |(_, after)| after);
    let after = after.trim_start_matches(['/', '\\', '\t', '\r', '\n']);
    after.split(['/', '\\', '?', '#']).next().unwrap_or(after)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use url::Url;

    use super::*;
    use crate::journey::template::{Medium, Scope};
    use crate::journey::token::Token;

    #[test]
    fn a_message_has_its_place_behind_the_host() {
        for good in [
            "https://shop.example/",
            "https://shop.example/orders/{{ id }}",
            "https://shop.example?id={{ id }}",
            "https://{{ token }}.probe.example/",
            "https://user:pass@shop.example:8443/{{ id }}",
        ] {
            assert!(is_host_written_out(good), "{good}");
        }
        for bad in [
            "https://{{ host }}/",
            "https://{{ host }}.shop.example/",
            "https://shop.example{{ path }}",
            "https://shop.example:{{ port }}/",
            "https://{{ user }}@shop.example/",
            "https:////{{ host }}/",
            "https:/\\{{ host }}/",
            "https://\n/{{ host }}/",
            "https://{{ host ~ '/x' }}",
            "https://{{ '/' ~ host }}/",
        ] {
            assert!(!is_host_written_out(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_value_changes_whom_an_accepted_address_is_for(
            before in "(https?:)[/\\\\]{0,4}[a-z.:@/?#\\\\]{0,12}",
            after in "[a-z.:@/?#\\\\]{0,12}",
            value in "\\PC{0,20}|[a-z.:@/?#%\\\\]{0,12}",
        ) {
            let source = format!("{before}{{{{ x }}}}{after}");
            if !is_host_written_out(&source) {
                return Ok(());
            }
            let template = Template::parse(&source, &BTreeSet::from(["x".to_owned()])).unwrap();
            let whom = |value: &str| {
                let mut scope = Scope::new(Token::from_bits(1), "j".into(), Timestamp::UNIX_EPOCH, 1);
                scope.set("x", value.to_owned());
                let url = Url::parse(&template.render(&scope, Medium::Url).unwrap()).ok()?;
                Some((url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port(), url.username().to_owned()))
            };
            prop_assert_eq!(whom(&value), whom("harmless"), "{}", source);
        }
    }
}
