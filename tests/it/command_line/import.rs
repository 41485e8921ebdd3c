//! What others watch with, as journeys that load and run.

use crate::support::command::{Ended, journeyman};
use crate::support::target::Target;
use crate::support::{Scratch, block_on};

async fn taken_over(scratch: &Scratch, arguments: &[&str]) -> Ended {
    let imported = journeyman(scratch.path(), &[&["import"], arguments].concat()).await;
    scratch.write("journeyman.toml", &imported.stdout);
    let check = journeyman(scratch.path(), &["check", "--config", "journeyman.toml"]).await;
    assert_eq!(check.code, 0, "{check:#?}\n{}", imported.stdout);
    imported
}

async fn once(scratch: &Scratch, journey: &str) -> Ended {
    journeyman(scratch.path(), &["once", journey, "--config", "journeyman.toml"]).await
}

#[test]
fn what_gatus_watches_is_watched() {
    block_on(async {
        let target = Target::start(1).await;
        let address = target.url().trim_start_matches("http://");
        let text = format!(
            r#"storage: {{ type: memory }}
alerting:
  slack:
    webhook-url: https://hooks.slack.com/services/T0/B0/x
    default-alert: {{ failure-threshold: 5 }}
  email: {{ from: gatus@example.net, username: gatus, password: secret, host: mail.example.net, port: 587, to: "a@example.net,b@example.net" }}
  telegram: {{ token: x, id: "1" }}
x-defaults: &defaults
  interval: 30s
  client: {{ timeout: 4s }}
  alerts:
    - type: slack
      send-on-resolved: true
    - type: telegram
endpoints:
  - name: shop
    <<: *defaults
    group: core
    url: "http://{address}/0"
    method: GET
    headers: {{ X-Probe: "{{{{yes}}}}" }}
    conditions:
      - "[STATUS] == 204"
      - "[RESPONSE_TIME] < 5000"
      - "[CONNECTED] == true"
      - "[IP] == 127.0.0.1"
  - name: whatever it says
    url: "http://{address}/0"
    conditions: ["[RESPONSE_TIME] < 5000"]
  - name: port
    url: "tcp://{address}"
    conditions: ["[CONNECTED] == true"]
  - name: names
    enabled: false
    url: "192.0.2.53"
    dns: {{ query-name: www.example.net, query-type: MX }}
    conditions: ["[DNS_RCODE] == NOERROR", "[BODY] == 10 mail.example.net."]
  - name: ping
    url: "icmp://192.0.2.1"
    conditions: ["[CONNECTED] == true"]
"#
        );
        let scratch = Scratch::new("import-gatus");
        scratch.write("gatus.yaml", &text);
        let imported = taken_over(&scratch, &["gatus", "gatus.yaml"]).await;
        assert_eq!(imported.code, 65, "{imported:#?}");
        let expected = [
            "gatus.yaml:1: note: `storage` is about Gatus itself",
            "gatus.yaml:7: left out: nobody is told by `telegram`: there is no such notifier",
            "gatus.yaml:17: left out: nobody is told by `telegram`: it is not set up",
            "gatus.yaml:26: left out: `core.shop` does not check `[IP] == 127.0.0.1`: `[IP]` cannot be looked at",
            "gatus.yaml:38: left out: endpoint `ping`: nothing here speaks `icmp`",
        ];
        assert_eq!(imported.stderr.lines().collect::<Vec<_>>(), expected);
        let toml = &imported.stdout;
        for part in [
            "name = \"core.shop\"\nevery = \"30s\"\n",
            "{ status = { equals = 204 } }",
            "notify = [\"slack\"]",
            "alert = { down_after = 5 }",
            "webhook_url = \"https://hooks.slack.com/services/T0/B0/x\"",
            "smtp = \"smtp+starttls://gatus@mail.example.net:587\"",
            "to = [\"a@example.net\", \"b@example.net\"]",
            "timeout = \"4s\"",
            "record = \"MX\"",
            "#   26: `core.shop` does not check",
        ] {
            assert!(toml.contains(part), "`{part}` is not in\n{toml}");
        }
        for journey in ["core.shop", "whatever-it-says", "port"] {
            let run = once(&scratch, journey).await;
            assert_eq!(run.code, 0, "{journey}: {run:#?}\n{toml}");
        }
        let all_of_it =
            "endpoints:\n  - name: a\n    url: http://x.example.net\n    conditions: [\"[STATUS] == 200\"]\n";
        scratch.write("gatus.yaml", all_of_it);
        assert_eq!(taken_over(&scratch, &["gatus", "gatus.yaml"]).await.code, 0);
        for (text, code) in [("endpoints: [", 65), ("a: 1", 65)] {
            scratch.write("gatus.yaml", text);
            let refused = journeyman(scratch.path(), &["import", "gatus", "gatus.yaml"]).await;
            assert!(
                refused.code == code && refused.stdout.is_empty() && refused.stderr.contains("gatus.yaml: "),
                "{refused:#?}"
            );
        }
        assert_eq!(journeyman(scratch.path(), &["import", "gatus", "nothing.yaml"]).await.code, 66);
    });
}

#[test]
fn what_the_blackbox_exporter_probes_is_probed() {
    block_on(async {
        let target = Target::start(1).await;
        let address = target.url().trim_start_matches("http://").to_owned();
        let scratch = Scratch::new("import-blackbox");
        scratch.write(
            "blackbox.yml",
            r#"modules:
  http_2xx:
    prober: http
    timeout: 5s
    http:
      preferred_ip_protocol: ip4
      fail_if_body_matches_regexp: ["error"]
      headers: {Accept-Language: en-US}
  http_post:
    prober: http
    http: {method: POST, body: '{}', valid_status_codes: [200, 204], basic_auth: {username: a, password: b}}
  tcp_connect:
    prober: tcp
  smtp_banner:
    prober: tcp
    tcp:
      query_response:
        - expect: "^220 "
  dns_soa:
    prober: dns
    dns: {query_name: example.net, query_type: SOA, valid_rcodes: [NOERROR, NXDOMAIN]}
  icmp:
    prober: icmp
"#,
        );
        scratch.write(
            "prometheus.yml",
            &format!(
                r#"global: {{scrape_interval: 15s}}
scrape_configs:
  - job_name: web
    metrics_path: /probe
    params: {{module: [http_2xx]}}
    static_configs:
      - targets: ["http://{address}/0", "{address}/0"]
  - job_name: ports
    scrape_interval: 20s
    metrics_path: /probe
    params: {{module: [tcp_connect]}}
    file_sd_configs: [{{files: [targets.json]}}]
    static_configs: [{{targets: ["{address}"]}}]
  - job_name: node
    static_configs: [{{targets: ["localhost:9100"]}}]
"#
            ),
        );
        let imported = taken_over(&scratch, &["blackbox", "blackbox.yml", "--targets", "prometheus.yml"]).await;
        assert_eq!(imported.code, 65, "{imported:#?}");
        for part in ["`basic_auth` of module `http_post`", "nothing here probes `icmp`", "targets of `file_sd_configs`"]
        {
            assert!(imported.stderr.contains(part), "{part}: {}", imported.stderr);
        }
        let toml = &imported.stdout;
        for part in [
            "every = \"15s\"",
            "every = \"20s\"",
            "labels = { \"job\" = \"web\" }",
            "{ regex = \"error\", exists = false }",
            "enabled = false",
        ] {
            assert!(toml.contains(part), "`{part}` is not in\n{toml}");
        }
        let host = address.replace(':', "-");
        for journey in [format!("http_2xx.{host}-0"), format!("http_2xx.{host}-0-2"), format!("tcp_connect.{host}")] {
            let run = once(&scratch, &journey).await;
            assert_eq!(run.code, 0, "{journey}: {run:#?}\n{toml}");
        }
        assert!(!toml.contains("9100"), "jobs of other exporters are not ours");
    });
}
