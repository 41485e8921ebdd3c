//! What docs/experiments.md shows of a network namespace, word for word. It all happens in a network and among mounts
//! of its own, so that the page's names and addresses are nobody else's, and nothing is left of them.

use super::*;
use crate::support::command::run;
use crate::support::document::{adapt, shell_blocks};
use crate::support::rabbitmq::RabbitMq;
use crate::support::{not_tested, server_binary};

/// What comes to one address goes on to another, and back. A path is a socket of the machine, whatever network it is
/// called from.
const PIPE: &str = r#"
import socket, sys, threading

def opened(address):
    if address.startswith("/"):
        return socket.socket(socket.AF_UNIX), address
    host, port = address.split(":")
    return socket.socket(), (host, int(port))

def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()

listener, here = opened(sys.argv[1])
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(here)
listener.listen(64)
while True:
    caller, _ = listener.accept()
    callee, there = opened(sys.argv[2])
    callee.connect(there)
    for pair in ((caller, callee), (callee, caller)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"#;

/// The zone as the page makes it, the broker's port in it and beside it, the collector, and the experiment.
const STAGE: &str = r#"
set -e
mount -t tmpfs tmpfs /run/netns
ip link set lo up
. ./zone.sh
python3 pipe.py 127.0.0.1:5672 "$BROKER" &
ip netns exec zone-b python3 pipe.py 10.0.2.2:5672 "$BROKER" &
/usr/bin/python3 collector.py start state --port 7002 --amqp "amqp://guest:guest@10.0.2.2:5672/$VHOST"
code=0
"$JOURNEYMAN" experiment az-outage.toml --config journeyman.toml --format json || code=$?
/usr/bin/python3 collector.py stop state
exit $code
"#;

/// Declares the exchange that both the collector and the channel publish to.
const DECLARE: &str = "
import pika, sys
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
for exchange in ('orders', 'work', 'done'):
    channel.exchange_declare(exchange, 'topic', durable=True)
";

#[test]
fn a_zone_in_a_namespace_is_cut_as_the_page_shows() {
    block_on(async {
        if server_binary("ip", "iproute2").is_none() || server_binary("unshare", "util-linux").is_none() {
            return;
        }
        let apart = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut allowed = tokio::process::Command::new("unshare");
        allowed.args(apart).arg("true");
        let allowed = run(allowed).await;
        if allowed.code != 0 {
            return not_tested(&format!(
                "this machine makes no namespaces ({}); run the tests as root",
                allowed.stderr
            ));
        }
        let Some(broker) = RabbitMq::shared().await else { return };
        let vhost = broker.vhost().await;
        let mut declare = tokio::process::Command::new("/usr/bin/python3");
        declare.args(["-c", DECLARE, &vhost.url()]);
        let declared = run(declare).await;
        assert_eq!(declared.code, 0, "{}", declared.stderr);

        let scratch = Scratch::new("zone");
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
        let read = |name: &str| std::fs::read_to_string(recipes.join(name)).expect("it is there");
        for name in ["collector.py", "background.py"] {
            scratch.write(name, &read(name));
        }
        let name = vhost.url().rsplit('/').next().expect("it has one").to_owned();
        let plain = "amqp://guest:guest@127.0.0.1:5672";
        scratch.write("journeyman.toml", &adapt(&read("journeyman.toml"), &[(plain, &format!("{plain}/{name}"))]));
        scratch.write("pipe.py", PIPE);
        scratch.write("zone.sh", &shell_blocks("docs/experiments.md").pop().expect("it shows how a zone is made"));
        // The page's phase in place of the recipe's, and no proxy.
        // A slower one: what waits meanwhile is drained one by one.
        let less = [("/tmp/journeyman-az-outage", "state"), ("100/s", "25/s")];
        let recipe = adapt(&read("az-outage.toml"), &less);
        let (before, rest) = recipe.split_once("[proxy.zone]\n").expect("it has a proxy");
        let after = rest.find("[[phase]]\nname  = \"restart\"").expect("it has that phase");
        let phase = toml_blocks("docs/experiments.md").pop().expect("it shows a phase");
        scratch.write("az-outage.toml", &format!("{before}{phase}\n{}", &rest[after..]));

        let socket = scratch.path().join("broker");
        let mut pipe = Command::new("python3");
        let address = broker.address().to_string();
        let pipe = pipe.arg(scratch.path().join("pipe.py")).arg(&socket).arg(address);
        let _pipe = Process::start("pipe", pipe, &scratch.path().join("pipe.log"));
        wait_for("the way to the broker", BOUND, async || socket.exists().then_some(())).await;
        let mut stage = tokio::process::Command::new("unshare");
        stage.args(apart).args(["sh", "-c", STAGE]).current_dir(scratch.path());
        stage.env("BROKER", &socket).env("VHOST", name).env("JOURNEYMAN", env!("CARGO_BIN_EXE_journeyman"));
        let ended = run(stage).await;
        assert_eq!(ended.code, 0, "{ended:#?}");
        let report = report(&ended);
        let tally = &report["tally"];
        assert_eq!((&tally["lost"], &tally["unseen"]), (&0.into(), &0.into()), "{tally:#}");
        assert!(tally["late"].as_u64().is_some_and(|late| late > 100), "{tally:#}");
        let acts = report["acts"].as_array().expect("a list");
        let undone = acts.iter().any(|act| act["what"].as_str().is_some_and(|what| what.contains("eth0 up")));
        assert!(undone, "{acts:#?}");
    });
}
