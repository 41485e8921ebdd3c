//! Forged calls, more than forty for each scheme, as the internet makes them: none is handed over, and neither the answers nor
//! the log tell a forger anything. What Twilio, Slack, Vonage and GitHub themselves send is accepted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod forged;

use std::collections::BTreeSet;
use std::time::Duration;

use hmac::Hmac;
use journeyman::channel::webhook::{CallResult, Limits, TOLERANCE, Verify, WebhookSettings};
use journeyman::journey::expect::Query;
use journeyman::journey::value::Value;
use sha2::{Digest, Sha256};

use crate::support::block_on;
use crate::support::daemon::Setup;
use crate::support::table::Table;
use crate::webhook_channel::{exchange, find, hex, secret, settings, status, with_gate};
use forged::{Call, FORM, KEYS, PUBLIC_URL, Scheme, mac, now, schemes, twilio_sign};

#[test]
fn no_forged_call_is_handed_over_under_any_scheme() {
    let mut table = Table::new("security", "t15", &["scheme", "forged calls", "refused", "handed over"]);
    for scheme in schemes() {
        let distinct: BTreeSet<_> = scheme.forged.iter().map(|(_, call)| call).collect();
        assert!(distinct.len() >= 40 && !distinct.contains(&scheme.good), "{}: {}", scheme.name, distinct.len());
        let settings = WebhookSettings { max_body: 4_096, ..settings(scheme.path, scheme.verify.clone()) };
        block_on(with_gate(settings, Limits::default(), 8, async |gate| {
            for (what, forged) in &scheme.forged {
                let told = exchange(gate.address, &forged.bytes()).await;
                assert_eq!(status(&told), 401, "{}: {what}", scheme.name);
                assert!(told.ends_with("\r\n\r\n") && told.contains("content-length: 0"), "nothing is said: {told}");
                assert!(!told.contains(&scheme.signature) && !told.contains("canary"), "{told}");
            }
            assert!(gate.arrivals.try_recv().is_err(), "{}: nothing was handed over", scheme.name);
            let refused = gate.counts.of(CallResult::RefusedSignature);
            assert_eq!(refused, scheme.forged.len() as u64);
            table.row(&[&scheme.name, &distinct.len(), &refused, &gate.counts.of(CallResult::Accepted)]);
            // A call that is right is taken, and so is its copy, which the journey counts.
            for _ in 0..2 {
                assert_eq!(status(&exchange(gate.address, &scheme.good.bytes()).await), 204, "{}", scheme.name);
                assert_eq!(gate.arrivals.recv().await.unwrap().message.text(), scheme.good.body);
            }
        }));
    }
}

#[test]
fn nothing_of_a_secret_is_in_the_log_of_a_daemon_that_says_all_it_can() {
    block_on(async {
        let schemes = schemes();
        let setup = Setup::new("forged");
        for (index, key) in KEYS.iter().enumerate() {
            setup.write(&format!("key-{index}"), &format!("{key}\n"));
        }
        let mut config = format!("[hooks]\npublic_url = \"{PUBLIC_URL}\"\n\n[log]\nlevel = \"trace\"\n");
        let mut probes = String::new();
        for Scheme { name, path, written, .. } in &schemes {
            config += &format!(
                "\n[channels.{name}]\ntype = \"webhook\"\npath = \"{path}\"\nverify = {written}\nrespond = 202\n"
            );
            probes += &format!(
                "[[journey]]\nname = \"{name}\"\nevery = \"1h\"\nmuted = true\n[[journey.step]]\nreceive = \"{name}\"\n\n"
            );
        }
        let probes = probes.replace(
            "[[journey.step]]\n",
            "[[journey.step]]\nsend = \"out\"\ntext = \"{{ token }}\"\n[[journey.step]]\n",
        );
        config += "\n[channels.out]\ntype = \"memory\"\n";
        // The first table needs a line before it for the setup to find it.
        let mut daemon = setup.start(&format!("\n{config}"), &probes).await;
        let address = daemon.hook_url("").trim_start_matches("http://").parse().unwrap();
        for Scheme { name, good, forged, .. } in &schemes {
            for (what, call) in forged.iter().step_by(3) {
                assert_eq!(status(&exchange(address, &call.bytes()).await), 401, "{name}: {what}");
            }
            assert_eq!(status(&exchange(address, &good.bytes()).await), 202, "{name}");
        }
        let refused = [("result", "refused_signature")];
        crate::support::wait_for("the refusals to be counted", Duration::from_secs(20), async || {
            let expected: usize = schemes.iter().map(|scheme| scheme.forged.len().div_ceil(3)).sum();
            let counted = daemon.metric("journeyman_webhook_requests_total", &refused).await?;
            (counted == expected as f64).then_some(())
        })
        .await;
        let log = daemon.log();
        assert!(log.contains("wrong signature") && log.contains("wrong bearer token"), "it says why");
        for scheme in &schemes {
            assert!(!log.contains(&scheme.signature), "the signature of {} is in the log", scheme.name);
        }
        assert!(!KEYS.iter().any(|key| log.contains(key)), "a key is in the log");
        assert_eq!(daemon.terminate().await, 0);
    });
}

#[test]
fn what_twilio_sends_is_read_by_name_with_and_without_a_body() {
    let verify = Verify::Twilio { secrets: vec![secret(KEYS[1])], url: format!("{PUBLIC_URL}/twilio") };
    block_on(with_gate(settings("/twilio", verify), Limits::default(), 4, async |gate| {
        // Repeated by Twilio after a failure: the same form under the same signature, in whatever order.
        let signature =
            twilio_sign(KEYS[1], &format!("{PUBLIC_URL}/twilio"), "From=%2B44&To=%2B45&Body=probe+jm01&MediaUrl=");
        for form in ["Body=probe+jm01&MediaUrl=&From=%2B44&To=%2B45", "To=%2B45&From=%2B44&MediaUrl=&Body=probe%20jm01"]
        {
            let headers = [
                ("x-twilio-signature", signature.as_str()),
                ("content-type", FORM),
                ("i-twilio-idempotency-token", "t-1"),
            ];
            assert_eq!(status(&exchange(gate.address, &Call::post("/twilio", &headers, form).bytes()).await), 204);
            let message = gate.arrivals.recv().await.unwrap().message;
            assert_eq!(find(Query::Form("Body".to_owned()), &message), Some(Value::from("probe jm01")));
            assert_eq!(find(Query::Form("To".to_owned()), &message), Some(Value::from("+45")));
            assert_eq!(message.header("I-Twilio-Idempotency-Token"), Some("t-1"));
        }
        // By GET everything is in the query, which is signed with the URL; the port may be signed, too.
        for port in ["", ":443"] {
            let url = format!("https://hooks.example.net{port}/twilio?From=%2B44&Body=probe+jm02");
            let signature = twilio_sign(KEYS[1], &url, "");
            let mut call = Call::post("/twilio?From=%2B44&Body=probe+jm02", &[("x-twilio-signature", &signature)], "");
            call.method = "GET";
            assert_eq!(status(&exchange(gate.address, &call.bytes()).await), 204);
            let message = gate.arrivals.recv().await.unwrap().message;
            assert_eq!(find(Query::Form("Body".to_owned()), &message), Some(Value::from("probe jm02")));
        }
        // A body of another kind has its hash in the query.
        let body = r#"{"Body":"probe jm03"}"#;
        let query = format!("bodySHA256={}", hex(&Sha256::digest(body)));
        let signature = twilio_sign(KEYS[1], &format!("{PUBLIC_URL}/twilio?{query}"), "");
        let call = Call::post(&format!("/twilio?{query}"), &[("x-twilio-signature", &signature)], body);
        assert_eq!(status(&exchange(gate.address, &call.bytes()).await), 204);
        assert_eq!(gate.arrivals.recv().await.unwrap().message.text(), body);
    }));
}

#[test]
fn slack_is_answered_when_it_asks_whose_address_it_is_and_only_then() {
    let verify = Verify::Slack { secrets: vec![secret(KEYS[1])], tolerance: TOLERANCE };
    block_on(with_gate(settings("/slack", verify), Limits::default(), 4, async |gate| {
        let question = r#"{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV","type":"url_verification"}"#;
        let at = now().to_string();
        let signed = |body: &str| {
            let signature = format!("v0={}", hex(&mac::<Hmac<Sha256>>(KEYS[1], &["v0:", &at, ":", body])));
            Call::post("/slack", &[("x-slack-signature", &signature), ("x-slack-request-timestamp", &at)], body)
        };
        let told = exchange(gate.address, &signed(question).bytes()).await;
        assert_eq!(status(&told), 200);
        assert!(told.contains("content-type: text/plain") && told.ends_with("\r\n\r\n3eZbrw1aBm2rZgRNFdxV"), "{told}");
        assert_eq!(gate.counts.of(CallResult::Answered), 1);
        assert!(gate.arrivals.try_recv().is_err(), "it is no message");
        // To somebody else it says nothing.
        let told = exchange(gate.address, &signed("{}").body(question).bytes()).await;
        assert_eq!(status(&told), 401);
        assert!(!told.contains("3eZbrw1aBm2rZgRNFdxV"), "{told}");
        // Bodies are signed and queries are not: by GET nothing is.
        let mut get = signed("");
        get.method = "GET";
        assert_eq!(status(&exchange(gate.address, &get.target("/slack?text=jm01").bytes()).await), 405);
    }));
}
