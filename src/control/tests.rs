use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn matchers_hold_as_in_prometheus() {
    let gold = labels(&[("journey", "sms-round-trip"), ("tier", "gold")]);
    let table = [
        ("sms-round-trip", true),
        ("sms-*", true),
        ("*", true),
        ("sms", false),
        ("tier=gold", true),
        ("tier=\"gold\"", true),
        ("tier!=gold", false),
        ("journey=~sms-.*", true),
        ("journey=~sms", false),
        ("journey!~\"mail-.*\"", true),
        ("owner=", true),
        ("owner!=", false),
        ("sms.round-trip", false),
    ];
    for (text, expected) in table {
        let matcher = Matcher::parse(text).unwrap();
        assert_eq!(matcher.holds(&gold), expected, "{text}");
        assert_eq!(Matcher::parse(&matcher.to_string()).unwrap(), matcher, "{text} is written as it is read");
    }
    for text in ["", "=x", "a b=c", "tier!gold", "tier=~(", "tier=~(a{1000}){1000}"] {
        assert!(Matcher::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_first_route_that_matches_decides_unless_it_goes_on() {
    let route_to = |text: &str, name: &str, goes_on| Route {
        matchers: vec![Matcher::parse(text).unwrap()],
        notify: vec![name.into()],
        goes_on,
        ..Route::default()
    };
    let routes = [route_to("tier=gold", "a", true), route_to("*", "b", false), route_to("*", "c", false)];
    let now = Timestamp::UNIX_EPOCH;
    let told = |labels: &Labels| route(&routes, &["default".into()], labels, now).0;
    let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
    assert_eq!(told(&labels(&[("tier", "gold"), ("journey", "x")])), names(&["a", "b"]));
    assert_eq!(told(&labels(&[("journey", "x")])), names(&["b"]));
    assert_eq!(route(&[], &["default".into()], &labels(&[]), now).0, names(&["default"]));
}

#[test]
fn a_route_hides_those_after_it_that_ask_for_more() {
    let of = |matchers: &[&str]| Route {
        matchers: matchers.iter().map(|text| Matcher::parse(text).unwrap()).collect(),
        ..Route::default()
    };
    let table: [(&[&str], &[&str], bool); 9] = [
        (&[], &["tier=gold"], true),
        (&["tier=gold"], &[], false),
        (&["tier=gold"], &["tier=gold"], true),
        (&["tier=gold"], &["severity=critical", "tier=gold"], true),
        (&["tier=gold", "severity=critical"], &["tier=gold"], false),
        (&["sms-*"], &["sms-eu"], true),
        (&["journey=~sms.*"], &["journey=~sms-.*"], false),
        (&["tier!=silver"], &["tier=gold"], true),
        (&["tier!=gold"], &["tier=gold"], false),
    ];
    for (first, second, expected) in table {
        assert_eq!(of(first).hides(&of(second)), expected, "{first:?} {second:?}");
        assert!(!Route { goes_on: true, ..of(first) }.hides(&of(second)), "{first:?} lets others be asked");
    }
    let hours = |from: i8| {
        let (from, until) = (Time::constant(from, 0, 0, 0), Time::constant(18, 0, 0, 0));
        Some(Hours { days: vec![Weekday::Monday], from, until, zone: TimeZone::UTC })
    };
    let at = |hours| Route { hours, ..of(&["tier=gold"]) };
    assert!(at(None).hides(&at(hours(9))) && at(hours(9)).hides(&at(hours(9))));
    assert!(!at(hours(9)).hides(&at(None)) && !at(hours(9)).hides(&at(hours(8))));
}

#[test]
fn a_grant_is_for_what_it_was_signed_for_and_nothing_else() {
    use grant::{Deed, Grant};
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let until = Timestamp::from_second(1_790_000_600).unwrap();
    let grant = Grant { deed: Deed::Acknowledge, incident: "2b09461e35f5".to_owned(), until };
    let text = grant.sign(b"key");
    assert_eq!(Grant::verify(&text, b"key", now), Ok(grant.clone()));
    assert!(Grant::verify(&text, b"other", now).is_err());
    assert_eq!(Grant::verify(&text, b"key", until), Err(grant::Invalid::Expired));
    for at in 0..text.len() {
        let mut forged = text.clone().into_bytes();
        forged[at] ^= 1;
        assert!(Grant::verify(&String::from_utf8_lossy(&forged), b"key", now).is_err(), "byte {at}");
        assert!(Grant::verify(&text[..at], b"key", now).is_err());
    }
    let silence = Grant { deed: Deed::Silence, ..grant }.sign(b"key");
    assert_ne!(silence.rsplit('.').next(), text.rsplit('.').next());
}

#[test]
fn one_of_some_values_is_exactly_these_and_is_read_as_it_is_written() {
    let values = ["sms".to_owned(), "mail.in: error budget".to_owned(), "channel: a|b".to_owned()];
    for count in 1..=values.len() {
        let matcher = Matcher::one_of("subject", &values[..count]).unwrap();
        for (at, value) in values.iter().enumerate() {
            assert_eq!(matcher.holds(&labels(&[("subject", value)])), at < count, "{matcher} and {value}");
        }
        for other in ["", "s", "smsx", "mailxin: error budget", "channel: a", "b"] {
            assert!(!matcher.holds(&labels(&[("subject", other)])), "{matcher} and {other}");
        }
        assert_eq!(Matcher::parse(&matcher.to_string()).unwrap(), matcher);
    }
    assert!(Matcher::one_of("subject", &[]).is_err());
    let many: Vec<_> = (0..100_000).map(|serial| format!("journey-{serial}")).collect();
    assert!(Matcher::one_of("subject", &many).is_err(), "it could not be read again");
}
