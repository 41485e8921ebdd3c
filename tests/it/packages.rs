//! What is shipped beside the binary: the manifests for Kubernetes and Compose are sound, agree with the daemon, and what they
//! configure is accepted.

use serde_json::Value;
use tokio::process::Command;

use crate::support::command::{journeyman, run};
use crate::support::daemon::Setup;
use crate::support::prometheus::repository;
use crate::support::{Scratch, block_on, python_server};

const KUBERNETES: &str = "config/kubernetes/journeyman.yml";
const COMPOSE: &str = "config/compose.yml";
/// The daemon drains for at most so long, in seconds.
const DRAIN: u64 = 20;

fn documents(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(repository(path)).expect("it is there");
    text.split("\n---\n")
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect()
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("there is no {kind}"))
}

#[test]
fn what_the_manifests_configure_is_accepted_and_is_where_they_look() {
    block_on(async {
        let documents = documents(KUBERNETES);
        let scratch = Scratch::new("kubernetes");
        let files = of_kind(&documents, "ConfigMap")["data"].as_object().expect("files");
        for (name, text) in files {
            let text =
                text.as_str().expect("text").replace("/etc/journeyman-secrets/", "").replace("/etc/journeyman/", "");
            scratch.write(name, &text.replace("/var/lib/journeyman", &scratch.path().display().to_string()));
        }
        for (name, text) in of_kind(&documents, "Secret")["stringData"].as_object().expect("secrets") {
            scratch.write(name, text.as_str().expect("text"));
        }
        let ended = journeyman(scratch.path(), &["check", "--config", "journeyman.toml"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");

        let main = files["journeyman.toml"].as_str().expect("text");
        let set = of_kind(&documents, "StatefulSet");
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(set["spec"]["replicas"], 1, "two daemons on one file would count twice");
        assert!(pod["terminationGracePeriodSeconds"].as_u64().is_some_and(|grace| grace > DRAIN));
        let container = &pod["containers"][0];
        let ports: Vec<_> =
            container["ports"].as_array().expect("ports").iter().map(|port| port["containerPort"].as_u64()).collect();
        assert_eq!(ports, [Some(9464), Some(9465)]);
        assert!(main.contains("0.0.0.0:9464") && main.contains("0.0.0.0:9465"));
        for (mount, path) in
            [("state", "/var/lib/journeyman"), ("config", "/etc/journeyman"), ("secrets", "/etc/journeyman-secrets")]
        {
            let mounts = container["volumeMounts"].as_array().expect("mounts");
            assert!(mounts.iter().any(|one| one["name"] == mount && one["mountPath"] == path), "{mount}");
            assert!(main.contains(path), "{path}");
        }
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/live", "what does not depend on what is watched");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
        assert_eq!(pod["securityContext"]["runAsUser"], 65532, "the image's user");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        let selector = &of_kind(&documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"];
        assert_eq!(selector, &set["spec"]["template"]["metadata"]["labels"]);
    });
}

#[test]
fn the_health_check_needs_no_certificates() {
    block_on(async {
        let setup = Setup::new("bare");
        let main = "[channels.loop]\ntype = \"memory\"\n";
        let probes = "[[journey]]\nname = \"bare\"\nevery = \"1m\"\ndeadline = \"1s\"\nmuted = true\n\
                      step = [{ send = \"loop\", text = \"{{ token }}\" }, { receive = \"loop\" }]\n";
        let daemon = setup.start(main, probes).await;
        let mut health = Command::new(env!("CARGO_BIN_EXE_journeyman"));
        health.args(["health", "--config", "journeyman.toml"]).current_dir(daemon.directory());
        // As in an image without the package `ca-certificates`.
        health.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nowhere");
        let ended = run(health).await;
        assert_eq!(ended.code, 0, "{ended:?}");
    });
}

#[test]
fn kubernetes_takes_the_manifests() {
    block_on(async {
        let Some(validate) = python_server("kubernetes-validate") else { return };
        let mut command = Command::new(validate);
        command.args(["--strict"]).arg(repository(KUBERNETES));
        let ended = run(command).await;
        assert_eq!(ended.code, 0, "{ended:?}");
    });
}

#[test]
fn compose_mounts_what_is_there_and_gives_time_to_drain() {
    let compose = documents(COMPOSE).remove(0);
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let source = mount.as_str().and_then(|mount| mount.split(':').next()).expect("a mount has a source");
            if source.starts_with('.') {
                let path = repository("config").join(source);
                assert!(path.is_dir(), "{name}: {} is not there", path.display());
            } else {
                assert!(
                    compose["volumes"].as_object().is_some_and(|volumes| volumes.contains_key(source)),
                    "{name}: {source}"
                );
            }
        }
    }
    let daemon = &services["journeyman"];
    let grace = daemon["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
    assert!(grace.is_some_and(|grace| grace > DRAIN));
    assert_eq!(daemon["read_only"], true);
    let recipe = repository("config").join(daemon["build"]["context"].as_str().expect("a context")).join("Dockerfile");
    assert!(recipe.is_file());
    // Grafana's provider looks where the dashboards are mounted.
    let provider = &documents("config/grafana/provisioning/dashboards/journeyman.yml")[0]["providers"][0];
    let folder = provider["options"]["path"].as_str().expect("a path");
    let mounts = services["grafana"]["volumes"].to_string();
    assert!(mounts.contains(&format!(":{folder}:ro")), "{mounts}");
}
