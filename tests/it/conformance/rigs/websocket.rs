//! WebSocket: rooms of a server in this process.

use std::net::SocketAddr;
use std::path::Path;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::rooms::{Rooms, SUBSCRIBE};

struct Sockets(Rooms);

fn sends(name: &str, scheme: &str, address: SocketAddr, room: &str) -> String {
    format!("[channels.{name}]\ntype = \"websocket\"\nurl = \"{scheme}://{address}/{room}\"\n")
}

fn receives(name: &str, address: SocketAddr, room: &str) -> String {
    sends(name, "ws", address, room) + &format!("subscribe = ['{SUBSCRIBE}']\nready_when = 'subscribed'\n")
}

impl Rig for Sockets {
    fn name(&self) -> &'static str {
        "websocket"
    }

    fn promises(&self) -> Promises {
        Promises { acknowledges: false, keeps: false, redelivers: false, carries_headers: false, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.0.address(), self.0.address())
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        sends("out", "ws", out, &format!("{tag}.work")) + &receives("in", back, &format!("{tag}.back"))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let address = self.0.address();
        receives("work", address, &format!("{tag}.work")) + &sends("back", "ws", address, &format!("{tag}.back"))
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        Some(sends("out", "ws", out, tag) + "headers = { authorization = { env = \"PATH\" } }\n")
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        Some(sends("out", "wss", out, tag) + &format!("ca_file = \"{}\"\n", ca_file.display()))
    }

    async fn kill(&mut self) -> bool {
        self.0.kill().await;
        true
    }

    async fn revive(&mut self) {
        self.0.open().await;
    }
}

#[test]
fn websocket() {
    block_on(async { suite(Sockets(Rooms::start().await)).await });
}
