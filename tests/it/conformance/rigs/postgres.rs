//! PostgreSQL: notifications, and tables.

use std::net::SocketAddr;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::postgres::Postgres;

struct Rigged {
    is_table: bool,
    server: Postgres,
}

fn url(address: SocketAddr) -> String {
    format!("postgres://postgres@{address}/postgres?sslmode=disable")
}

impl Rigged {
    fn channel(&self, name: &str, url: &str, to: Option<&str>, from: Option<&str>) -> String {
        let to = to.map(|to| match self.is_table {
            true => format!("query = 'insert into \"{to}\" (token, body) values ($1, $2)'\n"),
            false => format!("notify = \"{to}\"\n"),
        });
        let from = from.map(|from| match self.is_table {
            true => format!("poll = {{ query = 'select id, body from \"{from}\"', every = \"20ms\" }}\n"),
            false => format!("listen = \"{from}\"\n"),
        });
        let (to, from) = (to.unwrap_or_default(), from.unwrap_or_default());
        format!("[channels.{name}]\ntype = \"postgres\"\nurl = \"{url}\"\n{to}{from}")
    }
}

impl Rig for Rigged {
    fn name(&self) -> &'static str {
        if self.is_table { "postgres tables" } else { "postgres notify" }
    }

    fn promises(&self) -> Promises {
        Promises { keeps: self.is_table, redelivers: false, carries_headers: false, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.server.address(), self.server.address())
    }

    async fn prepare(&self, tag: &str) {
        for place in ["work", "back"].iter().filter(|_| self.is_table) {
            let table = format!("create table if not exists \"{tag}.{place}\" (id bigserial, token text, body text)");
            self.server.run("postgres", &table).await;
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        let (work, far) = (format!("{tag}.work"), format!("{tag}.back"));
        self.channel("out", &url(out), Some(&work), None) + &self.channel("in", &url(back), None, Some(&far))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let (work, far, url) = (format!("{tag}.work"), format!("{tag}.back"), url(self.server.address()));
        self.channel("work", &url, None, Some(&work)) + &self.channel("back", &url, Some(&far), None)
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        let url = format!("postgres://probe:wrong@{out}/postgres?sslmode=disable");
        Some(self.channel("out", &url, Some(&format!("{tag}.work")), None))
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        if self.is_table {
            let rows = format!("insert into \"{tag}.back\" (body) select 'stranger' from generate_series(1, {count})");
            self.server.run("postgres", &rows).await;
        }
        self.is_table.then_some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let (client, _driver) = self.server.session("postgres").await;
        let count = format!("select count(*) from \"{tag}.back\" where body = 'stranger'");
        client.query_one(&count, &[]).await.expect("it counts").get::<_, i64>(0) as usize
    }

    async fn kill(&mut self) -> bool {
        self.server.kill();
        true
    }

    async fn revive(&mut self) {
        self.server.start().await;
    }
}

#[test]
fn postgres_tables() {
    block_on(async {
        let Some(server) = Postgres::private().await else { return };
        suite(Rigged { is_table: true, server }).await;
    });
}

#[test]
fn postgres_notify() {
    block_on(async {
        let Some(server) = Postgres::private().await else { return };
        suite(Rigged { is_table: false, server }).await;
    });
}
