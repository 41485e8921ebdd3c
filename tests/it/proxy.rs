//! `journeyman proxy` on the command line: the rehearsal of its page, what it says at the end, and what it refuses.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::command::journeyman;
use crate::support::document::{adapt, toml_blocks};
use crate::support::{Process, Scratch, block_on, free_port, wait_for};

const BOUND: Duration = Duration::from_secs(30);

/// A shop that is well.
struct Shop {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Shop {
    async fn open() -> Shop {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut tasks = JoinSet::new();
        let routes = Router::new().route("/orders", get(async || "[]"));
        tasks.spawn(async move { axum::serve(listener, routes).await.expect("the shop is open") });
        Shop { address, _tasks: tasks }
    }
}

/// `journeyman proxy` with these arguments, and what it prints.
struct Running {
    process: Process,
    log: std::path::PathBuf,
}

impl Running {
    async fn start(scratch: &Scratch, name: &str, arguments: &[&str]) -> Running {
        let log = scratch.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_journeyman"));
        command.arg("proxy").args(arguments);
        let running = Running { process: Process::start("journeyman proxy", &mut command, &log), log };
        wait_for("the proxy to listen", BOUND, async || running.printed().contains("listening").then_some(())).await;
        running
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it; what it has printed.
    async fn end(mut self) -> String {
        self.process.signal("TERM");
        assert_eq!(self.process.wait_for_exit(BOUND).await, 0);
        self.printed()
    }
}

#[test]
fn the_rehearsal_of_the_page_comes_out_as_the_page_says() {
    block_on(async {
        let (scratch, shop) = (Scratch::new("proxy"), Shop::open().await);
        let listen = format!("127.0.0.1:{}", free_port());
        let blocks = toml_blocks("docs/proxy.md");
        let [main, probe] = &blocks[..] else { panic!("the page has {} TOML blocks", blocks.len()) };
        scratch.write("shop.toml", &adapt(main, &[("127.0.0.1:7001", &listen)]));
        scratch.write("shop-probe.toml", probe);
        let to = shop.address.to_string();
        let act = async |name: &str, fault: &[&str]| {
            let proxy = Running::start(&scratch, name, &[&["--listen", &listen, "--to", &to], fault].concat()).await;
            let once = journeyman(scratch.path(), &["once", "order", "--config", "shop.toml"]).await;
            (once, proxy.end().await)
        };

        let (well, printed) = act("well", &["--seed", "1"]).await;
        assert_eq!(well.code, 0, "{well:#?}");
        assert!(printed.starts_with(&format!("listening on {listen}, before {to}; seed 1\n1 connection")), "{printed}");

        let (slow, printed) = act("slow", &["--fault", "latency=400ms"]).await;
        assert_eq!(slow.code, 1, "{slow:#?}");
        assert!(printed.contains("\nlatency=400ms struck 1 connection\n"), "{printed}");

        let (failed, printed) = act("cut", &["--fault", "to-client:reset", "--format", "json"]).await;
        assert_eq!(failed.code, 2, "{failed:#?}");
        assert!(failed.stdout.contains("unreachable"), "{failed:#?}");
        let lines: Vec<Value> =
            printed.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        let [begun, ended] = &lines[..] else { panic!("{printed}") };
        assert_eq!(begun["listening"], listen.as_str());
        assert_eq!(begun["faults"][0], "to-client:reset");
        let connections = &ended["went_through"]["connections"];
        assert!(connections.as_u64() > Some(0), "{ended:#}");
        assert_eq!(&ended["went_through"]["reset"], connections);
        assert_eq!(&ended["struck"][0]["connections"], connections);
        assert_eq!(ended["went_through"]["to_client"]["went"], 0);
    });
}

#[test]
fn what_it_cannot_do_it_says_and_does_nothing() {
    block_on(async {
        let scratch = Scratch::new("proxy-refused");
        let holder = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let taken = holder.local_addr().expect("it is bound").to_string();
        // No name is that long: nobody is asked for it.
        let nowhere = format!("{}:5672", "n".repeat(80));
        let table: [(&[&str], i32, &str); 5] = [
            (
                &["--to", "127.0.0.1:1", "--fault", "latncy=1s"],
                64,
                "no fault is called `latncy`; there are latency=200ms",
            ),
            (&["--to", "127.0.0.1"], 64, "write a host and a port, as in broker.example.net:5672"),
            (&["--fault", "hold"], 64, "--to <HOST:PORT>"),
            (&["--to", &nowhere], 69, "n:5672 cannot be found: "),
            (&["--to", "127.0.0.1:1", "--listen", &taken], 69, "another address, or port 0 for a free one, may do"),
        ];
        for (arguments, code, said) in table {
            let ended = journeyman(scratch.path(), &[&["proxy"], arguments].concat()).await;
            assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{ended:#?}");
            assert!(ended.stderr.contains(said), "{ended:#?}");
        }
    });
}
