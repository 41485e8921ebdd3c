//! Whether a call is from whom it claims to be. Pure but for the secrets, which may be read anew from their files.

mod slack;
mod twilio;
mod vonage;

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use crate::channel::webhook::{Algorithm, Encoding, Verify, VonageMethod};
use crate::secret::{Secret, base64};

impl Verify {
    /// Whether the proof covers the query of the URL, too; otherwise it could be anyone's.
    pub(super) fn covers_query(&self) -> bool {
        match self {
            Verify::None | Verify::Bearer { .. } | Verify::Twilio { .. } => true,
            Verify::Hmac { .. } | Verify::Slack { .. } => false,
            Verify::Vonage { method, .. } => matches!(method, VonageMethod::Sig(_)),
        }
    }

    /// Judges a call by its head and the raw bytes of its body. The reason of a refusal holds nothing that the caller sent.
    pub(super) fn check(&self, head: &Parts, body: &[u8], now: Timestamp) -> Result<(), &'static str> {
        match self {
            Verify::None => Ok(()),
            Verify::Bearer { secrets } => {
                // Hashed, so that not even the length of the secret shows in the time that the comparison takes.
                let token = Sha256::digest(bearer(&head.headers, AUTHORIZATION.as_str())?);
                any(secrets, |secret| Sha256::digest(secret).ct_eq(&token)).then_some(()).ok_or("wrong bearer token")
            }
            Verify::Hmac { secrets, header, algorithm, encoding, prefix } => {
                let value = the_only(&head.headers, header)?;
                let sent = value.strip_prefix(prefix.as_str()).ok_or("signature without its prefix")?;
                let sent = match encoding {
                    Encoding::Hex => sent.to_ascii_lowercase(),
                    Encoding::Base64 => sent.to_owned(),
                };
                // Ours is encoded rather than theirs decoded: there is then one spelling of the right answer.
                let is_right = |secret: &[u8]| {
                    let digest = match algorithm {
                        Algorithm::Sha256 => mac::<Hmac<Sha256>>(secret, body),
                        Algorithm::Sha512 => mac::<Hmac<Sha512>>(secret, body),
                    };
                    let expected = match encoding {
                        Encoding::Hex => hex(&digest),
                        Encoding::Base64 => base64(&digest),
                    };
                    expected.as_bytes().ct_eq(sent.as_bytes())
                };
                any(secrets, is_right).then_some(()).ok_or("wrong signature")
            }
            Verify::Twilio { secrets, url } => twilio::check(secrets, url, head, body),
            Verify::Vonage { secrets, method, tolerance } => {
                vonage::check(secrets, method, *tolerance, head, body, now)
            }
            Verify::Slack { secrets, tolerance } => slack::check(secrets, *tolerance, head, body, now),
        }
    }

    /// What a verified call wants to hear back, if it is a question and no message.
    pub(super) fn answer(&self, body: &[u8]) -> Option<String> {
        if matches!(self, Verify::Slack { .. }) { slack::challenge(body) } else { None }
    }
}

/// The bearer token in a header.
fn bearer<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, &'static str> {
    // The scheme is compared without case (RFC 9110 section 11.1).
    let (scheme, token) = the_only(headers, name)?.split_once(' ').ok_or("no bearer token")?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("not a bearer token");
    }
    Ok(token.trim_start_matches(' '))
}

/// Seconds since the epoch in their one spelling: digits, and not more than they can be.
fn seconds(text: &str) -> Option<i64> {
    let is_spelt = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_spelt { text.parse().ok() } else { None }
}

/// Whether what was signed at `at`, in seconds since the epoch, may still be believed. It bounds how long a call that somebody
/// recorded can be played again; within that, copies are seen as copies.
fn fresh(at: i64, tolerance: Duration, now: Timestamp) -> Result<(), &'static str> {
    let age = now.as_second().saturating_sub(at);
    if u64::try_from(age).is_ok_and(|age| age > tolerance.as_secs()) {
        return Err("what is signed is too old");
    }
    if age < 0 && age.unsigned_abs() > tolerance.as_secs() {
        return Err("what is signed is from the future");
    }
    Ok(())
}

/// The value of a header that must be there exactly once: of two, a proxy and we might each believe another.
fn the_only<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err("no signature header"),
        (Some(value), None) => value.to_str().map_err(|_| "signature header is not text"),
        (Some(_), Some(_)) => Err("signature header more than once"),
    }
}

/// Whether any secret fits; tries them all, so that the time does not tell which one did.
fn any(secrets: &[Secret], fits: impl Fn(&[u8]) -> Choice) -> bool {
    secrets.iter().fold(Choice::from(0), |found, secret| found | fits(secret.reveal().as_bytes())).into()
}

fn mac<M: Mac + KeyInit>(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(body);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Redactor;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 4231 section 4, cases 1 to 4, 6 and 7: key, data, HMAC-SHA-256, HMAC-SHA-512.
    #[test]
    fn the_vectors_of_rfc_4231() {
        let cases: [(Vec<u8>, Vec<u8>, &str, &str); 6] = [
            (
                vec![0x0b; 20],
                b"Hi There".to_vec(),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
            (
                vec![0xaa; 20],
                vec![0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ),
            (
                unhex("0102030405060708090a0b0c0d0e0f10111213141516171819"),
                vec![0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
                "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ),
            (
                vec![0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.".to_vec(),
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
                "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
            ),
        ];
        for (key, data, sha256, sha512) in cases {
            assert_eq!(hex(&mac::<Hmac<Sha256>>(&key, &data)), sha256);
            assert_eq!(hex(&mac::<Hmac<Sha512>>(&key, &data)), sha512);
        }
    }

    /// A call as the listener takes it.
    pub(super) struct Call(axum::http::request::Builder, String);

    impl Call {
        pub(super) fn post(target: &str, body: &str) -> Call {
            Call(axum::http::Request::post(target), body.to_owned())
        }

        pub(super) fn header(self, name: &str, value: &str) -> Call {
            Call(self.0.header(name, value), self.1)
        }

        pub(super) fn taken(self) -> (Parts, Vec<u8>) {
            let (head, body) = self.0.body(self.1).unwrap().into_parts();
            (head, body.into_bytes())
        }
    }

    pub(super) fn secrets(values: &[&str]) -> Vec<Secret> {
        values.iter().map(|value| Secret::new((*value).to_owned(), &Redactor::new())).collect()
    }

    #[test]
    fn either_of_two_secrets_is_right_and_no_secret_is_never() {
        let check = |secrets: &[Secret], value| {
            let (head, body) = Call::post("/", "").header("authorization", value).taken();
            Verify::Bearer { secrets: secrets.to_vec() }.check(&head, &body, Timestamp::UNIX_EPOCH)
        };
        let two = secrets(&["old-secret", "new-secret"]);
        assert_eq!(check(&two, "Bearer old-secret"), Ok(()));
        assert_eq!(check(&two, "bearer  new-secret"), Ok(()));
        for wrong in ["Bearer", "Bearer ", "Bearer new-secre", "Bearer new-secret2", "Basic new-secret", "new-secret"] {
            assert!(check(&two, wrong).is_err(), "{wrong}");
        }
        assert!(check(&[], "Bearer ").is_err());
    }

    /// From GitHub's documentation.
    #[test]
    fn the_published_vector_of_github() {
        let key = secrets(&["old", "It's a Secret to Everybody"]);
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let (head, body) = Call::post("/", "Hello, World!").header("X-Hub-Signature-256", signature).taken();
        assert_eq!(Verify::github(key).check(&head, &body, Timestamp::UNIX_EPOCH), Ok(()));
        assert!(Verify::github(secrets(&["old"])).check(&head, &body, Timestamp::UNIX_EPOCH).is_err());
    }

    /// Welch's t of two samples.
    fn welch(one: &[f64], other: &[f64]) -> f64 {
        let moments = |sample: &[f64]| {
            let count = sample.len() as f64;
            let mean = sample.iter().sum::<f64>() / count;
            (mean, sample.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0) / count)
        };
        let ((mean, error), (other_mean, other_error)) = (moments(one), moments(other));
        (mean - other_mean) / (error + other_error).sqrt()
    }

    /// What dudect does (Reparaz and others, 2017): the time of a comparison does not tell how much of a signature is right. Both
    /// classes take turns by chance, and the slowest tenth, in which the machine did something else, is left out.
    #[test]
    #[ignore = "measures time, which a busy machine disturbs: `cargo test --release --lib -- --ignored t_of_a_comparison --nocapture`"]
    #[expect(clippy::disallowed_methods, reason = "it measures real time")]
    fn t_of_a_comparison() {
        const CALLS: usize = 200_000;
        let (key, body) = (secrets(&["k3y-one"]), "payload jm01");
        let right = format!("sha256={}", hex(&mac::<Hmac<Sha256>>(b"k3y-one", body.as_bytes())));
        let other = |at: usize| {
            let digit = if &right[at..=at] == "0" { "1" } else { "0" };
            format!("{}{digit}{}", &right[..at], &right[at + 1..])
        };
        let verify = Verify::github(key);
        let classes = [other("sha256=".len()), other(right.len() - 1)]
            .map(|value| Call::post("/", body).header("X-Hub-Signature-256", &value).taken());
        let mut chance = fastrand::Rng::with_seed(7);
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..CALLS {
            let class = chance.usize(0..2);
            let (head, body) = &classes[class];
            let began = std::time::Instant::now();
            let told = std::hint::black_box(verify.check(std::hint::black_box(head), body, Timestamp::UNIX_EPOCH));
            took[class].push(began.elapsed().as_nanos() as f64);
            assert!(told.is_err());
        }
        for sample in &mut took {
            sample.sort_by(f64::total_cmp);
            sample.truncate(sample.len() * 9 / 10);
        }
        let t = welch(&took[0], &took[1]);
        println!("wrong in the first digit against wrong in the last: t = {t:.2} of {CALLS} calls");
        assert!(t.abs() < 4.5, "{t}");
    }

    #[test]
    fn a_time_has_one_spelling_and_two_ends() {
        assert_eq!((seconds("1531420618"), seconds("0")), (Some(1_531_420_618), Some(0)));
        for other in ["", "-1", "+1", " 1", "1 ", "1.0", "1e9", "0x1", "１", "9999999999999"] {
            assert_eq!(seconds(other), None, "{other:?}");
        }
        let judged = |at| fresh(at, Duration::from_secs(300), Timestamp::from_second(1_000).unwrap());
        assert_eq!((judged(700), judged(1_000), judged(1_300)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(
            (judged(699), judged(i64::MIN)),
            (Err("what is signed is too old"), Err("what is signed is too old"))
        );
        let future = Err("what is signed is from the future");
        assert_eq!((judged(1_301), judged(i64::MAX)), (future, future));
    }
}
