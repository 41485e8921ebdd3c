//! blackbox_exporter, and Prometheus that scrapes it once a second for each target: how most people watch from outside.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::{Processes, free_port, wait_for_port};

/// One request to each of `targets` paths below `url` a second, with a new connection each (it has no other way).
pub(crate) fn start(place: &Path, url: &str, targets: usize) -> Processes {
    let (blackbox, prometheus) = (free_port(), free_port());
    let probes =
        "modules:\n  http_2xx:\n    prober: http\n    timeout: 5s\n    http:\n      preferred_ip_protocol: ip4\n";
    std::fs::write(place.join("blackbox.yml"), probes).expect("a file");
    let mut scrapes = format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n- job_name: web\n  metrics_path: /probe\n  \
         params: {{ module: [http_2xx] }}\n  relabel_configs:\n  - source_labels: [__address__]\n    target_label: __param_target\n  \
         - source_labels: [__param_target]\n    target_label: instance\n  - target_label: __address__\n    \
         replacement: 127.0.0.1:{blackbox}\n  static_configs:\n  - targets:\n"
    );
    for n in 0..targets {
        let _ = writeln!(scrapes, "    - {url}{n}");
    }
    std::fs::write(place.join("prometheus.yml"), scrapes).expect("a file");
    let mut exporter = Command::new("prometheus-blackbox-exporter");
    exporter
        .current_dir(place)
        .args(["--config.file=blackbox.yml", &format!("--web.listen-address=127.0.0.1:{blackbox}")]);
    let mut server = Command::new("prometheus");
    server.current_dir(place).args([
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=tsdb",
        &format!("--web.listen-address=127.0.0.1:{prometheus}"),
    ]);
    let processes = Processes::start([exporter, server]);
    wait_for_port(blackbox);
    wait_for_port(prometheus);
    processes
}
