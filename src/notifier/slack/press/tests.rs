use serde_json::json;

use super::*;

const SECRET: &[u8] = b"8f742231b10e8888abcd99yyyzzz85a5";
/// The example of Slack's documentation.
const STAMP: &str = "1531420618";
const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                    channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                    response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F\
                    96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

/// Secret, time, signature and body.
type Call = (Vec<u8>, Option<String>, Option<String>, String);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn check(secret: &[u8], stamp: Option<&str>, signature: Option<&str>, body: &str, now: i64) -> Result<(), Denial> {
    verify(secret, stamp, signature, body.as_bytes(), at(now))
}

#[test]
fn the_documented_signature_is_believed_for_five_minutes() {
    for now in [1_531_420_618, 1_531_420_918, 1_531_420_318] {
        assert_eq!(check(SECRET, Some(STAMP), Some(SIGNATURE), BODY, now), Ok(()), "{now}");
    }
    for now in [1_531_420_919, 1_531_420_317, 0] {
        let denied = check(SECRET, Some(STAMP), Some(SIGNATURE), BODY, now).unwrap_err();
        assert_eq!(denied, Denial::Forged("signed too long ago, or a clock is wrong"), "{now}");
    }
}

#[test]
fn nothing_but_what_was_signed_is_believed() {
    let now = 1_531_420_618;
    let hex = SIGNATURE.strip_prefix("v0=").unwrap();
    let mut forged: Vec<Call> = Vec::new();
    let mut with = |stamp: Option<&str>, signature: Option<&str>, body: &str| {
        forged.push((SECRET.to_vec(), stamp.map(str::to_owned), signature.map(str::to_owned), body.to_owned()));
    };
    // Each digit of the signature, and each way to write it otherwise.
    for at in 0..SIGNATURE.len() {
        let mut bytes = SIGNATURE.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        with(Some(STAMP), std::str::from_utf8(&bytes).ok(), BODY);
    }
    let upper = SIGNATURE.to_uppercase();
    let cut = &SIGNATURE[..SIGNATURE.len() - 1];
    let signatures = [
        "",
        "v0",
        "v0=",
        "=",
        hex,
        cut,
        &upper,
        &format!("v1={hex}"),
        &format!("{SIGNATURE}0"),
        &format!(" {SIGNATURE}"),
        &format!("{SIGNATURE} "),
        &format!("v0=v0={hex}"),
        &format!("{SIGNATURE},{SIGNATURE}"),
        &"0".repeat(64),
    ]
    .map(str::to_owned);
    for signature in &signatures {
        with(Some(STAMP), Some(signature), BODY);
    }
    with(Some(STAMP), None, BODY);
    // Each way to write the time otherwise.
    let stamps = [
        "",
        "0",
        "1531420619",
        "01531420618",
        "1531420618 ",
        " 1531420618",
        "+1531420618",
        "-1531420618",
        "1531420618.0",
        "1.531420618e9",
        "0x5b477f8a",
        "1531420618\n",
        "9999999999999",
        "now",
        "１５３１４２０６１８",
    ];
    for stamp in stamps {
        with(Some(stamp), Some(SIGNATURE), BODY);
    }
    with(None, Some(SIGNATURE), BODY);
    // Another body, of which the boundary to the time is part.
    let bodies = [
        "",
        "payload=%7B%7D",
        &BODY[1..],
        &BODY[..BODY.len() - 1],
        &format!("{BODY}&"),
        &format!("{BODY}\n"),
        &format!(":{BODY}"),
    ]
    .map(str::to_owned);
    for body in &bodies {
        with(Some(STAMP), Some(SIGNATURE), body);
    }
    for secret in [&b""[..], b"8f742231b10e8888abcd99yyyzzz85a", b"8f742231b10e8888abcd99yyyzzz85a5\n", b"\0"] {
        forged.push((secret.to_vec(), Some(STAMP.to_owned()), Some(SIGNATURE.to_owned()), BODY.to_owned()));
    }
    assert!(forged.len() > 100, "{}", forged.len());
    for (secret, stamp, signature, body) in &forged {
        let denied = check(secret, stamp.as_deref(), signature.as_deref(), body, now);
        assert!(matches!(denied, Err(Denial::Forged(_))), "{stamp:?} {signature:?} {body:?} {denied:?}");
    }
    assert_eq!(check(SECRET, Some(STAMP), Some(SIGNATURE), BODY, now), Ok(()), "the one that is not forged");
}

#[test]
fn a_payload_is_read_once_or_not_at_all() {
    assert_eq!(payload(b"payload=%7B%22type%22%3A%22block_actions%22%7D"), Ok(json!({ "type": "block_actions" })));
    for body in ["", "payload=", "payload=%7B", "other=%7B%7D", "payload=%7B%7D&payload=%7B%7D", "{\"payload\":{}}"] {
        assert!(matches!(payload(body.as_bytes()), Err(Denial::Unreadable(_))), "{body}");
    }
}

fn grant(deed: Deed, until: i64) -> String {
    Grant { deed, incident: "7f3a00c0ffee".to_owned(), until: at(until) }.sign(b"key")
}

fn pressed(value: &str) -> Value {
    json!({
        "type": "block_actions", "team": { "id": "T1" }, "api_app_id": "A1",
        "user": { "id": "U1", "username": "ada", "name": "ada.l", "team_id": "T1" },
        "container": { "type": "message", "channel_id": "C1", "message_ts": "1.2" },
        "actions": [
            { "action_id": "somebody_elses", "value": "x" },
            { "action_id": "journeyman_ack", "type": "button", "value": value },
        ],
    })
}

#[test]
fn a_press_asks_for_what_the_grant_allows() {
    let press = read(&pressed(&grant(Deed::Acknowledge, 2_000))).unwrap();
    let Ok(Wanted::Change(Request::Acknowledge { incident, ack })) = judge(&press, "T1", b"key", at(1_000)) else {
        panic!("{press:?}")
    };
    assert_eq!(
        (incident.as_str(), ack),
        ("7f3a00c0ffee", Ack { by: "@ada (Slack)".to_owned(), at: at(1_000), until: None, note: None })
    );
    let press = read(&pressed(&grant(Deed::Silence, 2_000))).unwrap();
    let Ok(Wanted::Change(Request::SilenceMembers { incident, silence })) = judge(&press, "T1", b"key", at(1_000))
    else {
        panic!("{press:?}")
    };
    assert_eq!((incident.as_str(), silence.author.as_str()), ("7f3a00c0ffee", "@ada (Slack)"));
    assert_eq!((silence.from, silence.until, silence.exclude_from_slo), (at(1_000), at(4_600), false));
    let press = read(&pressed(&grant(Deed::RunAgain, 2_000))).unwrap();
    let Ok(Wanted::Run { which, by }) = judge(&press, "T1", b"key", at(1_000)) else { panic!("{press:?}") };
    assert_eq!((which, by.as_str()), (Which::Incident("7f3a00c0ffee".to_owned()), "@ada (Slack)"));
}

#[test]
fn a_press_that_may_not_is_refused_in_words() {
    for deed in Deed::ALL {
        may_not(*deed);
    }
}

fn may_not(deed: Deed) {
    let good = grant(deed, 2_000);
    let judged =
        |payload: &Value, key: &[u8], now: i64| judge(&read(payload).unwrap(), "T1", key, at(now)).unwrap_err();
    let mut stranger = pressed(&good);
    stranger["team"]["id"] = "T2".into();
    let mut guest = pressed(&good);
    guest["user"]["team_id"] = "T2".into();
    let mut nowhere = pressed(&good);
    nowhere["team"] = Value::Null;
    for payload in [stranger, guest, nowhere] {
        assert!(judged(&payload, b"key", 1_000).contains("people of the workspace"), "{payload}");
    }
    assert_eq!(judged(&pressed(&good), b"key", 2_000), "this button has expired");
    let forged = "this is not a button that this Journeyman made";
    assert_eq!(judged(&pressed(&good), b"another installation's", 1_000), forged);
    let mut values: Vec<String> = (0..good.len())
        .map(|at| {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            String::from_utf8(bytes).unwrap()
        })
        .collect();
    values.extend(["", ".", "...", "ack.7f3a00c0ffee.2000.", "silence.7f3a00c0ffee.2000"].map(str::to_owned));
    let others = Deed::ALL.iter().filter(|other| **other != deed);
    values.extend(others.map(|other| good.replacen(deed.as_str(), other.as_str(), 1)));
    values.push(good.replacen("7f3a00c0ffee", "7f3a00c0ffef", 1));
    values.push(good.replacen("2000", "9000", 1));
    assert!(values.len() >= 40);
    for value in values {
        assert_eq!(judged(&pressed(&value), b"key", 1_000), forged, "{value}");
    }
}

#[test]
fn what_is_no_button_of_ours_is_nothing() {
    let good = pressed("x");
    let without = |path: &str| {
        let mut payload = good.clone();
        *payload.pointer_mut(path).unwrap() = Value::Null;
        payload
    };
    assert!(read(&good).is_some());
    for path in ["/type", "/user", "/user/id", "/actions", "/actions/1/value", "/actions/1/action_id"] {
        assert_eq!(read(&without(path)), None, "{path}");
    }
    for odd in [json!(null), json!([]), json!("block_actions"), json!({ "type": "view_submission" })] {
        assert_eq!(read(&odd), None, "{odd}");
    }
    let mut named = good.clone();
    named["user"]["username"] = format!("a\u{0}\n{}", "x".repeat(200)).into();
    assert_eq!(read(&named).unwrap().name.chars().count(), 60, "a name is cut, and on one line");
}
