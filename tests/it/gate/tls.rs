//! TLS on a listener: which versions and which callers come in, and a certificate that is changed under load.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::gate::{Door, TurnedAway, Web};
use reqwest::Client;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::http_pages::stage::Stage;
use crate::support::certificate::{Authority, Certificate};
use crate::support::{Scratch, block_on, wait_for};

const BOUND: Duration = Duration::from_secs(30);

fn door(file: &Path) -> Door {
    Door { web: Some(Arc::new(Web::open(file, Clock::system()).unwrap())), ..Door::default() }
}

fn web(certificate: &Path, key: &Path, more: &str) -> String {
    format!("tls_server_config:\n  cert_file: {}\n  key_file: {}\n{more}", certificate.display(), key.display())
}

/// A client of these versions that trusts `ca`, and shows a certificate if it has one.
fn client(ca: &Path, versions: &[&'static SupportedProtocolVersion], own: Option<(&Path, &Path)>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    };
    Client::builder().no_proxy().tls_backend_preconfigured(config).timeout(BOUND).build().unwrap()
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

async fn comes_in(stage: &Stage, client: &Client) -> bool {
    let url = format!("{}/live", stage.url.replace("http:", "https:"));
    client.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
}

#[test]
fn the_versions_are_those_of_the_file_and_plain_http_is_none() {
    block_on(async {
        let scratch = Scratch::new("versions");
        let pair = Certificate::new(&scratch, &["127.0.0.1"]);
        let old = client(&pair.certificate, &[&rustls::version::TLS12], None);
        let new = client(&pair.certificate, &[&rustls::version::TLS13], None);
        for (more, expected) in
            [("", [true, true]), ("  min_version: TLS13\n", [false, true]), ("  max_version: TLS12\n", [true, false])]
        {
            let door = door(&scratch.write("web.yml", &web(&pair.certificate, &pair.key, more)));
            let tally = door.tally.clone();
            let stage = Stage::behind(door, None).await;
            assert_eq!([comes_in(&stage, &old).await, comes_in(&stage, &new).await], expected, "{more}");
            let plain = Client::builder().no_proxy().build().unwrap().get(format!("{}/live", stage.url)).send().await;
            assert!(plain.is_err(), "plain HTTP is not spoken where TLS is");
            let turned_away = 1 + u64::from(expected != [true, true]);
            // A caller hears of it before it is counted.
            let counted = async || (tally.of(TurnedAway::Tls) == turned_away).then_some(());
            wait_for("what was turned away to be counted", BOUND, counted).await;
            stage.stop().await;
        }
    });
}

#[test]
fn a_caller_shows_a_certificate_of_the_right_issuer_and_name_or_stays_out() {
    block_on(async {
        let scratch = Scratch::new("callers");
        let pair = Certificate::new(&scratch, &["127.0.0.1"]);
        let (ours, theirs) = (Authority::new("ours", scratch.path()), Authority::new("theirs", scratch.path()));
        let of = |authority: &Authority, file: &str, name: &str, is_expired| {
            let (certificate, key) = authority.issue(&[name], is_expired);
            (
                scratch.write(&format!("{file}.pem"), &certificate.pem()),
                scratch.write(&format!("{file}.key"), &key.serialize_pem()),
            )
        };
        let callers = [
            ("nobody", None),
            ("prometheus", Some(of(&ours, "a", "prometheus.example", false))),
            ("somebody else of ours", Some(of(&ours, "b", "other.example", false))),
            ("an address of ours", Some(of(&ours, "c", "192.0.2.7", false))),
            ("prometheus of theirs", Some(of(&theirs, "d", "prometheus.example", false))),
            ("prometheus, expired", Some(of(&ours, "e", "prometheus.example", true))),
        ];
        let ca = format!("  client_ca_file: {}\n", ours.ca_file.display());
        let always = format!("{ca}  client_auth_type: RequireAndVerifyClientCert\n");
        let named = format!("{always}  client_allowed_sans: [prometheus.example, 192.0.2.7]\n");
        let if_given = format!("{ca}  client_auth_type: VerifyClientCertIfGiven\n");
        for (more, expected) in [
            (String::new(), [true, true, true, true, true, true]),
            (if_given, [true, true, true, true, false, false]),
            (always, [false, true, true, true, false, false]),
            (named, [false, true, false, true, false, false]),
        ] {
            let stage =
                Stage::behind(door(&scratch.write("web.yml", &web(&pair.certificate, &pair.key, &more))), None).await;
            for ((who, own), expected) in callers.iter().zip(expected) {
                let own = own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
                // Twice: a session that is resumed is no way round.
                let client = client(&pair.certificate, BOTH, own);
                assert_eq!(comes_in(&stage, &client).await, expected, "{who}: {more}");
                assert_eq!(comes_in(&stage, &client).await, expected, "{who}: {more}");
            }
            stage.stop().await;
        }
    });
}

#[test]
fn a_certificate_is_changed_under_load_without_a_failed_request() {
    block_on(async {
        let scratch = Scratch::new("rotation");
        let authority = Authority::new("authority", scratch.path());
        let issue = |scratch: &Scratch| {
            let (certificate, key) = authority.issue(&["127.0.0.1"], false);
            // Certificates and keys are replaced one after the other, as any tool does it: for a moment they do not go together.
            scratch.write("tls.pem", &certificate.pem());
            scratch.write("tls.key", &key.serialize_pem());
            certificate.der().to_vec()
        };
        let first = issue(&scratch);
        let file = scratch.write("web.yml", &web(&scratch.path().join("tls.pem"), &scratch.path().join("tls.key"), ""));
        let stage = Stage::behind(door(&file), None).await;
        let url = format!("{}/live", stage.url.replace("http:", "https:"));
        let (done, asked) = (AtomicBool::new(false), AtomicU32::new(0));
        // One keeps its connection, the others make one for each request.
        let load = async |keeps: bool| {
            let kept = client(&authority.ca_file, BOTH, None);
            while !done.load(Ordering::Relaxed) {
                let client = if keeps { kept.clone() } else { client(&authority.ca_file, BOTH, None) };
                let answer = client.get(&url).send().await.unwrap_or_else(|error| panic!("{error:?}"));
                assert_eq!(answer.status(), 200);
                answer.bytes().await.unwrap();
                asked.fetch_add(1, Ordering::Relaxed);
            }
        };
        let shown = async || {
            let client = Client::builder()
                .no_proxy()
                .tls_info(true)
                .tls_backend_preconfigured(journeyman::tls::client(Some(&authority.ca_file)).unwrap())
                .build()
                .unwrap();
            let answer = client.get(&url).send().await.unwrap();
            answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
        };
        let rotate = async {
            assert_eq!(shown().await, first);
            for _ in 0..3 {
                let next = issue(&scratch);
                wait_for("the new certificate", BOUND, async || (shown().await == next).then_some(())).await;
            }
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(load(true), load(false), load(false), rotate);
        assert!(asked.load(Ordering::Relaxed) > 50, "{asked:?}");
        stage.stop().await;
    });
}
