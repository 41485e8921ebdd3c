//! Topic names and topic filters (MQTT 5 section 4.7). Pure.

/// What keeps `topic` from being published to, in words.
pub(crate) fn wrong_name(topic: &str) -> Option<&'static str> {
    match topic {
        "" => Some("a topic has at least one character"),
        _ if topic.contains(['+', '#']) => Some("a topic to publish to has no wildcards (`+`, `#`)"),
        _ => wrong_text(topic),
    }
}

/// What keeps `filter` from being subscribed to, in words.
pub(crate) fn wrong_filter(filter: &str) -> Option<&'static str> {
    if filter.is_empty() {
        return Some("a topic filter has at least one character");
    }
    if filter == "$share" || filter.starts_with("$share/") {
        return Some(
            "a shared subscription gives each message to one member of the group only: it would take messages from the others",
        );
    }
    let levels: Vec<_> = filter.split('/').collect();
    for (index, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || index + 1 != levels.len()) {
            return Some("`#` stands alone in the last level");
        }
        if level.contains('+') && *level != "+" {
            return Some("`+` stands alone in its level");
        }
    }
    wrong_text(filter)
}

fn wrong_text(text: &str) -> Option<&'static str> {
    if text.len() > usize::from(u16::MAX) {
        return Some("MQTT allows 65535 bytes");
    }
    text.contains('\0').then_some("MQTT allows no NUL character")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_wildcards() {
        for topic in ["orders", "/", "orders/created", "$SYS/x", "ü"] {
            assert_eq!(wrong_name(topic), None, "{topic}");
        }
        for topic in ["", "orders/+", "#", "a\0b", &"x".repeat(65_536)] {
            assert!(wrong_name(topic).is_some(), "{topic}");
        }
    }

    #[test]
    fn wildcards_stand_alone_and_shared_subscriptions_are_refused() {
        for filter in ["orders", "+", "#", "orders/#", "+/created/+", "$SYS/#", "/"] {
            assert_eq!(wrong_filter(filter), None, "{filter}");
        }
        for filter in ["", "a#", "#/a", "a/b+", "+a/b", "$share/group/orders", "$share", "a\0"] {
            assert!(wrong_filter(filter).is_some(), "{filter}");
        }
    }
}
