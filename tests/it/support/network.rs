//! Hosts with a network of their own: namespaces of the kernel, joined by two bridges. Over one the hosts reach the
//! store, over the other everything else, so that a host can be cut off from the store alone, both ways or one way.
//!
//! Servers stay where the tests run, at an address on each bridge. Nothing leads out of here.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::{not_tested, server_binary};

/// A network card that nobody has: what is sent to it vanishes.
const NOBODY: &str = "02:00:00:00:de:ad";
/// Names of ours begin with this, then comes the process that made them.
const MARK: &str = "jm-";

/// What becomes of the packets between a host and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The cable is pulled.
    Both,
    /// What the host sends vanishes; it still hears.
    Outgoing,
    /// What is sent to the host vanishes; it is still heard.
    Incoming,
}

/// Two bridges. Everything goes with its last owner; what a process left that was killed goes when the next begins.
pub(crate) struct Network {
    /// The namespace of the bridges is `NAME-hub`, that of a host `NAME-1`.
    name: String,
    /// Our ends of the two cables to the bridges.
    ends: [String; 2],
    /// The first three bytes of every address. Those below 128 are of the store's bridge.
    prefix: [u8; 3],
    hosts: AtomicU8,
}

impl Network {
    /// A new one. `None`: this machine does not let us.
    pub(crate) fn new() -> Option<Arc<Network>> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        server_binary("ip", "iproute2")?;
        server_binary("nsenter", "util-linux")?;
        sweep();
        let (process, serial) = (std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let name = format!("{MARK}{process}-{serial}");
        let ends = ["s", "w"].map(|bridge| format!("jm{process}x{serial}{bridge}"));
        if let Err(why) = ip(&format!("netns add {name}-hub")) {
            not_tested(&format!("this machine makes no network namespaces ({why}); run the tests as root"));
            return None;
        }
        let network = Network { name, ends, prefix: free_prefix(process + serial), hosts: AtomicU8::new(0) };
        let hub = network.hub();
        for ((bridge, end), address) in
            ["store", "world"].iter().zip(&network.ends).zip([network.store(), network.world()])
        {
            must(&format!("-n {hub} link add {bridge} type bridge"));
            must(&format!("-n {hub} link set {bridge} up"));
            must(&format!("link add {end} type veth peer name {bridge}0 netns {hub}"));
            must(&format!("-n {hub} link set {bridge}0 master {bridge} up"));
            must(&format!("addr add {address}/25 dev {end}"));
            must(&format!("link set {end} up"));
        }
        Some(Arc::new(network))
    }

    /// Our address on the store's bridge.
    pub(crate) fn store(&self) -> IpAddr {
        self.address(1)
    }

    /// Our address on the other bridge.
    pub(crate) fn world(&self) -> IpAddr {
        self.address(129)
    }

    /// A new host.
    pub(crate) fn host(self: &Arc<Network>) -> Host {
        let number = 1 + self.hosts.fetch_add(1, Ordering::Relaxed);
        assert!(number < 125, "no address is left");
        let host =
            Host { network: self.clone(), name: format!("{}-{number}", self.name), number, cut: Mutex::default() };
        let (hub, name) = (self.hub(), &host.name);
        must(&format!("netns add {name}"));
        must(&format!("-n {name} link set lo up"));
        for (bridge, address) in [("store", host.at_the_store()), ("world", host.address())] {
            must(&format!("-n {name} link add {bridge} type veth peer name {bridge}{number} netns {hub}"));
            must(&format!("-n {hub} link set {bridge}{number} master {bridge} up"));
            must(&format!("-n {name} addr add {address}/25 dev {bridge}"));
            must(&format!("-n {name} link set {bridge} up"));
        }
        host
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn address(&self, last: u8) -> IpAddr {
        let [one, two, three] = self.prefix;
        Ipv4Addr::new(one, two, three, last).into()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = ip(&format!("link del {end}"));
        }
        let _ = ip(&format!("netns del {}", self.hub()));
    }
}

/// A namespace with a cable to each bridge.
pub(crate) struct Host {
    network: Arc<Network>,
    name: String,
    number: u8,
    cut: Mutex<Option<Cut>>,
}

impl Host {
    /// Its address on the bridge to everything but the store.
    pub(crate) fn address(&self) -> IpAddr {
        self.network.address(129 + self.number)
    }

    /// Its address on the bridge to the store.
    pub(crate) fn at_the_store(&self) -> IpAddr {
        self.network.address(1 + self.number)
    }

    /// A command that becomes this program, in here and with these environment variables: its process id is the
    /// program's, which alone has the variables.
    pub(crate) fn command(&self, program: &str, environment: &[(String, String)]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("env");
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
        command
    }

    /// Cuts it off from the store, in this way alone.
    pub(crate) fn cut(&self, cut: Cut) {
        self.heal();
        must(&match cut {
            Cut::Both => format!("-n {} link set store{} down", self.network.hub(), self.number),
            Cut::Outgoing => {
                format!(
                    "-n {} neigh replace {} lladdr {NOBODY} dev store nud permanent",
                    self.name,
                    self.network.store()
                )
            }
            Cut::Incoming => {
                let end = &self.network.ends[0];
                format!("neigh replace {} lladdr {NOBODY} dev {end} nud permanent", self.at_the_store())
            }
        });
        *self.cut.lock().expect("no panic while held") = Some(cut);
    }

    /// Makes it as if it had never been cut off.
    pub(crate) fn heal(&self) {
        let Some(cut) = self.cut.lock().expect("no panic while held").take() else { return };
        must(&match cut {
            Cut::Both => format!("-n {} link set store{} up", self.network.hub(), self.number),
            Cut::Outgoing => format!("-n {} neigh del {} dev store", self.name, self.network.store()),
            Cut::Incoming => format!("neigh del {} dev {}", self.at_the_store(), self.network.ends[0]),
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What we know of it is ours, and would outlive it.
        let _ = ip(&format!("neigh del {} dev {}", self.at_the_store(), self.network.ends[0]));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// Three bytes that no address of this machine begins with, of the range that is for tests of networks (RFC 2544).
fn free_prefix(chance: u32) -> [u8; 3] {
    let taken = ip("-o -4 addr show").expect("addresses can be listed");
    let prefix = |nth: u32| [198, 18 + (nth / 256 % 2) as u8, (nth % 256) as u8];
    let is_free = |[one, two, three]: &[u8; 3]| !taken.contains(&format!(" {one}.{two}.{three}."));
    (0..512).map(|nth| prefix(chance.wrapping_add(nth))).find(is_free).expect("a range of addresses is free")
}

/// Removes what processes left that are gone, and ends what they left running in it.
fn sweep() {
    for name in ip("netns list").unwrap_or_default().lines().filter_map(|line| line.split_whitespace().next()) {
        let process = name.strip_prefix(MARK).and_then(|rest| rest.split('-').next());
        let Some(process) = process.filter(|process| process.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        if Path::new("/proc").join(process).exists() {
            continue;
        }
        for left in ip(&format!("netns pids {name}")).unwrap_or_default().lines() {
            let _ = Command::new("kill").args(["-KILL", left]).status();
            forget_clock(left);
        }
        // Another may be sweeping, too.
        let _ = ip(&format!("netns del {name}"));
    }
}

/// Removes what libfaketime leaves of a process that is killed; of others it leaves nothing.
pub(crate) fn forget_clock(process: &str) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        let _ = std::fs::remove_file(format!("/dev/shm/{name}{process}"));
    }
}

fn must(arguments: &str) {
    ip(arguments).unwrap_or_else(|why| panic!("ip {arguments}: {why}"));
}

/// What `ip` says, or why not.
fn ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(words(&output.stdout)) } else { Err(words(&output.stderr)) }
}
