//! NSD from Debian's package: an authoritative DNS server for one zone, on a free port of the loopback.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::{Process, START, Scratch, free_port, server_binary, wait_for};

/// A server. Ends with its owner.
pub(crate) struct Nsd {
    // Told to end before its directory goes.
    process: Process,
    address: SocketAddr,
    _scratch: Scratch,
}

impl Nsd {
    /// Serves `zone`, the text of a zone file for `example.net`. `None`: not installed.
    pub(crate) async fn start(zone: &str) -> Option<Nsd> {
        let program = server_binary("nsd", "nsd")?;
        let scratch = Scratch::new("nsd");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let directory = scratch.path().display();
        // No limit on the rate of answers, no change of user, nothing written but in the directory.
        let configuration = format!(
            "server:\n  ip-address: 127.0.0.1@{}\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"{directory}/nsd.pid\"\n  \
             zonesdir: \"{directory}\"\n  zonelistfile: \"{directory}/zone.list\"\n  xfrdfile: \"\"\n  xfrdir: \"{directory}\"\n  \
             database: \"\"\n  server-count: 1\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n\
             zone:\n  name: example.net\n  zonefile: example.net.zone\n",
            address.port()
        );
        scratch.write("example.net.zone", zone);
        let configuration = scratch.write("nsd.conf", &configuration);
        let log = scratch.path().join("nsd.log");
        let mut command = Command::new(program);
        command.args(["-d", "-c"]).arg(configuration);
        let mut process = Process::start("nsd", &mut command, &log);
        wait_for("NSD to start", START, async || {
            let told = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(process.exit_code().is_none(), "NSD ended at its start:\n{}", told());
            std::net::TcpStream::connect(address).ok()
        })
        .await;
        Some(Nsd { process, address, _scratch: scratch })
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // It has children, which it takes along only if it is asked.
        self.process.signal("TERM");
        for _ in 0..200 {
            if self.process.exit_code().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
