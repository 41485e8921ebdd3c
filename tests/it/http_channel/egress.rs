//! Where a response may lead: nowhere that only we can reach. And where the environment may lead: nowhere.

use super::*;
use crate::support::daemon::Setup;

/// A channel that follows redirects, and by the configuration also to these hosts.
fn following(url: &str, hosts: &[&str]) -> Http {
    open(HttpSettings {
        url: Some(url.parse().unwrap()),
        redirects: 3,
        redirect_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        ..HttpSettings::default()
    })
}

#[test]
fn a_redirect_leads_to_no_address_that_only_we_can_reach() {
    block_on(async {
        let secret = Target::always(vec![answer("200 OK", "the secret")]);
        let port = secret.address.port();
        for (host, words) in [
            ("localhost", "this machine itself"),
            ("LOCALHOST", "this machine itself"),
            ("127.0.0.2", "this machine itself"),
            ("2130706434", "this machine itself"),
            ("0x7f000002", "this machine itself"),
            ("0177.0.0.2", "this machine itself"),
            ("[::1]", "this machine itself"),
            ("[::ffff:127.0.0.2]", "this machine itself"),
            ("[64:ff9b::7f00:2]", "this machine itself"),
            ("0", "nobody's address"),
            ("10.0.0.1", "in a private network"),
            ("192.168.0.1", "in a private network"),
            ("100.64.0.1", "behind a carrier's"),
            ("169.254.169.254", "where clouds keep"),
            ("[fd00:ec2::254]", "where clouds keep"),
        ] {
            let there = format!("http://{host}:{port}/latest/meta-data");
            let start = Target::always(vec![redirect("/", 302, &there)]);
            let fault = following(&start.url(), &[]).request(&outgoing()).await.unwrap_err();
            assert_eq!(fault.cause, Cause::Refused, "{host}: {}", fault.detail);
            assert!(fault.detail.contains(words), "{host}: {}", fault.detail);
        }
        assert!(secret.requests().is_empty(), "nobody asked it");

        // A host that was harmless a moment ago leads on: it is judged again.
        let second = Target::always(vec![redirect("/two", 302, &format!("http://localhost:{port}/"))]);
        let second_url = format!("http://localhost:{}/two", second.address.port());
        let start = Target::always(vec![redirect("/", 302, &second_url)]);
        let fault = following(&start.url(), &["elsewhere"]).request(&outgoing()).await.unwrap_err();
        assert_eq!((fault.cause, second.requests().len()), (Cause::Refused, 0), "{}", fault.detail);
    });
}

#[test]
fn whom_the_configuration_names_may_be_anywhere() {
    block_on(async {
        let end = Target::always(vec![answer("200 OK", "end")]);
        let there = format!("http://localhost:{}/", end.address.port());
        let start = Target::always(vec![redirect("/", 302, &there)]);
        let reply = following(&start.url(), &["localhost"]).request(&outgoing()).await.unwrap();
        assert_eq!(reply.message.unwrap().text(), "end");
        // The first host is named by its very URL, also by a name that leads to this machine.
        let named = format!("http://localhost:{}/", end.address.port());
        assert!(following(&named, &[]).request(&outgoing()).await.is_ok());
        let back = Target::always(vec![redirect("/", 302, &end.url())]);
        assert!(following(&back.url(), &[]).request(&outgoing()).await.is_ok(), "another port of the same host");
    });
}

#[test]
fn no_value_in_a_path_changes_whom_a_request_is_for() {
    block_on(async {
        let target = Target::always(vec![answer("200 OK", "")]);
        let other = Target::always(vec![answer("200 OK", "")]);
        let at = other.address;
        let http = channel(&target.url());
        for path in [
            format!("//{at}/"),
            format!("/\\{at}/"),
            format!("@{at}/"),
            format!(":80@{at}/"),
            format!("http://{at}/"),
            format!("/%2f%2f{at}/"),
            format!("/x\r\nHost: {at}\r\n\r\nGET http://{at}/"),
            format!("?http://{at}/"),
            format!("#@{at}/"),
            format!("/\t//{at}/"),
        ] {
            let query = vec![("url".to_owned(), format!("http://{at}/"))];
            // Taken there as a path, or refused as none.
            let _ = http.request(&Outgoing { path: Some(path), query, ..outgoing() }).await;
        }
        assert!(target.requests().len() >= 6 && other.requests().is_empty(), "{:?}", other.requests());
        for url in
            ["file:///etc/passwd", "gopher://h/1", "data:text/plain,x", "ftp://h/", "unix:/run/x", "javascript:1"]
        {
            let fault = http.request(&Outgoing { url: Some(url.to_owned()), ..outgoing() }).await.unwrap_err();
            assert!(fault.detail.contains("is not a scheme"), "{url}: {}", fault.detail);
        }
    });
}

#[test]
fn no_proxy_of_the_environment_is_asked() {
    block_on(async {
        let target = Target::always(vec![answer("200 OK", "")]);
        let trap = Target::always(vec![answer("200 OK", "")]);
        let mut setup = Setup::new("proxy");
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            setup = setup.environment(name, &trap.url());
        }
        let config = format!(
            "\n[channels.target]\ntype = \"http\"\nurl = \"{url}/run\"\n\n[notifiers.hook]\ntype = \"webhook\"\n\
             url = \"{url}/notice\"\n\n[notifiers.alerts]\ntype = \"alertmanager\"\nurl = \"{url}\"\n",
            url = target.url()
        );
        let probes = "[[journey]]\nname = \"one\"\nevery = \"1s\"\nnotify = [\"hook\", \"alerts\"]\n\
                      alert = { down_after = 1 }\nstep = [{ request = \"target\", expect = [{ status = 500 }] }]\n";
        let mut daemon = setup.start(&config, probes).await;
        for path in ["GET /run ", "POST /notice ", "POST /api/v2/alerts "] {
            wait_for(path, BOUND, async || target.requests().iter().any(|told| told.starts_with(path)).then_some(()))
                .await;
        }
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        assert!(trap.requests().is_empty(), "{:?}", trap.requests());
    });
}
