//! AWS Signature Version 4 for requests to `/` without a query: all that SQS and SNS need. Pure.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::BTreeMap;
use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs, and for what.
pub(super) struct Signer<'a> {
    /// The access key's id.
    pub(super) id: &'a str,
    /// Its secret.
    pub(super) key: &'a str,
    /// When, as [`date`] writes it.
    pub(super) at: &'a str,
    /// For which region.
    pub(super) region: &'a str,
    /// For which service.
    pub(super) service: &'a str,
}

/// The time as AWS writes it: to the second, in UTC, without separators.
pub(super) fn date(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

impl Signer<'_> {
    /// The `authorization` header of a request that has these headers, all of which are signed. `host` must be among them.
    pub(super) fn authorization(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let day = self.at.split('T').next().unwrap_or_default();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let (canonical, names) = canonical(method, headers, body);
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{}", self.at, hex(&Sha256::digest(canonical)));
        let signature = hex(&mac(&self.signing_key(day), to_sign.as_bytes()));
        format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.id)
    }

    /// Good for one day, one region and one service.
    fn signing_key(&self, day: &str) -> [u8; 32] {
        let first = mac(format!("AWS4{}", self.key).as_bytes(), day.as_bytes());
        [self.region, self.service, "aws4_request"].iter().fold(first, |key, part| mac(&key, part.as_bytes()))
    }
}

/// The canonical request, and the names of the headers in it.
fn canonical(method: &str, headers: &[(&str, &str)], body: &[u8]) -> (String, String) {
    let mut sorted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        sorted.entry(name.to_ascii_lowercase()).or_default().push(value);
    }
    let names = sorted.keys().map(String::as_str).collect::<Vec<_>>().join(";");
    let lines: String = sorted.iter().map(|(name, values)| format!("{name}:{}\n", values.join(","))).collect();
    (format!("{method}\n/\n\n{lines}\n{names}\n{}", hex(&Sha256::digest(body))), names)
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const HOST: (&str, &str) = ("Host", "example.amazonaws.com");
    const DATE: (&str, &str) = ("X-Amz-Date", "20150830T123600Z");
    const FORM: &str = "application/x-www-form-urlencoded";
    /// Of `post-sts-token/post-sts-header-before`.
    const SESSION: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    fn signer<'a>(at: &'a str, service: &'a str) -> Signer<'a> {
        Signer { id: "AKIDEXAMPLE", key: KEY, at, region: "us-east-1", service }
    }

    /// Method, headers beside host and date, body, signature.
    type Vector<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

    /// AWS's own test suite, `aws-sig-v4-test-suite`, the cases whose path is `/` and whose query is empty.
    #[test]
    fn the_vectors_of_the_test_suite() {
        #[rustfmt::skip]
        let vectors: [Vector<'_>; 8] = [
            // get-vanilla
            ("GET", &[], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            // post-vanilla
            ("POST", &[], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            // post-sts-token/post-sts-header-before
            ("POST", &[("X-Amz-Security-Token", SESSION)], "",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"),
            // post-x-www-form-urlencoded
            ("POST", &[("Content-Type", FORM)], "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
            // post-x-www-form-urlencoded-parameters
            ("POST", &[("Content-Type", "application/x-www-form-urlencoded; charset=utf8")], "Param1=value1",
                "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"),
            // post-header-key-sort
            ("POST", &[("My-Header1", "value1")], "",
                "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"),
            // post-header-value-case
            ("POST", &[("My-Header1", "VALUE1")], "",
                "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"),
            // get-header-value-trim
            ("GET", &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")], "",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"),
        ];
        for (method, more, body, signature) in vectors {
            let headers = [&[HOST, DATE], more].concat();
            let authorization = signer(DATE.1, "service").authorization(method, &headers, body.as_bytes());
            let mut names: Vec<_> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
            names.sort_unstable();
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={}, \
                 Signature={signature}",
                names.join(";")
            );
            assert_eq!(authorization, expected, "{method} {more:?} {body}");
        }
    }

    /// AWS documentation, "Examples of how to derive a signing key", of 2012 and of 2015.
    #[test]
    fn the_signing_keys_of_the_documentation() {
        let key = |day: &str| hex(&signer("", "iam").signing_key(day));
        assert_eq!(key("20120215"), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
        assert_eq!(key("20150830"), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn a_header_that_comes_twice_is_one_in_the_order_given() {
        let (canonical, names) = canonical("GET", &[("B", "2"), ("a", "x"), ("b", "1")], b"");
        assert_eq!(names, "a;b");
        assert!(canonical.starts_with("GET\n/\n\na:x\nb:2,1\n\na;b\n"), "{canonical}");
    }

    #[test]
    fn a_date_has_no_separators() {
        assert_eq!(date("2015-08-30T12:36:00.999Z".parse().unwrap()), "20150830T123600Z");
    }
}
