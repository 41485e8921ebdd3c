//! SQS, SNS and IAM as moto serves them: queues and topics that really hold and deliver, and signatures that are checked by
//! another implementation than ours.
//!
//! A server must not outlive the tests, and a static is never dropped: a shell stands between, and kills it by its pid when the
//! pipe that we hold closes, however we ended.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{free_port, python_server, wait_for_listener};

const KEEPER: &str = r#"
"$SERVER" -H 127.0.0.1 -p "$PORT" </dev/null >/dev/null 2>&1 &
server=$!
echo started
read -r word
kill -KILL "$server" 2>/dev/null
wait
"#;
/// Where everything is.
pub(crate) const REGION: &str = "eu-west-1";

/// A server. Ends with its owner.
pub(crate) struct Moto {
    port: u16,
    shell: Child,
    serial: AtomicU32,
}

impl Moto {
    /// The server that all tests of this process share; queues and topics get names of their own. `None`: not installed.
    pub(crate) async fn shared() -> Option<&'static Moto> {
        static SHARED: OnceCell<Option<Moto>> = OnceCell::const_new();
        SHARED.get_or_init(Moto::private).await.as_ref()
    }

    /// A server of the caller's own. `None`: not installed.
    pub(crate) async fn private() -> Option<Moto> {
        Moto::at(free_port()).await
    }

    /// A server on this port. `None`: not installed.
    pub(crate) async fn at(port: u16) -> Option<Moto> {
        let program = python_server("moto_server")?;
        let mut shell = Command::new("sh")
            .args(["-c", KEEPER])
            .env("SERVER", program)
            .env("PORT", port.to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("sh can be started");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("it is piped")).read_line(&mut line).expect("the pipe can be read");
        wait_for_listener(([127, 0, 0, 1], port).into()).await;
        Some(Moto { port, shell, serial: AtomicU32::new(0) })
    }

    /// Kills it with SIGKILL, with all that it held; gives its port.
    pub(crate) fn kill(mut self) -> u16 {
        self.end();
        self.port
    }

    fn end(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().expect("the keeper ends");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// A new queue; gives its URL.
    pub(crate) async fn queue(&self) -> String {
        self.named_queue(&self.name(), json!({})).await
    }

    /// A new FIFO queue; gives its URL.
    pub(crate) async fn fifo_queue(&self) -> String {
        self.named_queue(&format!("{}.fifo", self.name()), json!({ "FifoQueue": "true" })).await
    }

    /// A queue of this name; gives its URL.
    pub(crate) async fn named_queue(&self, name: &str, attributes: Value) -> String {
        let answer = self.sqs("CreateQueue", json!({ "QueueName": name, "Attributes": attributes })).await;
        answer["QueueUrl"].as_str().expect("a queue has a URL").to_owned()
    }

    /// A new topic; gives its ARN.
    pub(crate) async fn topic(&self) -> String {
        element(&self.query("sns", &[("Action", "CreateTopic"), ("Name", &self.name())]).await, "TopicArn")
    }

    /// What is published to the topic goes to the queue from here on.
    pub(crate) async fn subscribe(&self, topic: &str, queue: &str, is_raw: bool) {
        let arn = self.attributes(queue).await["QueueArn"].clone();
        let mut form = vec![("Action", "Subscribe"), ("TopicArn", topic), ("Protocol", "sqs"), ("Endpoint", &arn)];
        if is_raw {
            form.push(("Attributes.entry.1.key", "RawMessageDelivery"));
            form.push(("Attributes.entry.1.value", "true"));
        }
        self.query("sns", &form).await;
    }

    /// What the service knows of a queue.
    pub(crate) async fn attributes(&self, queue: &str) -> BTreeMap<String, String> {
        let answer = self.sqs("GetQueueAttributes", json!({ "QueueUrl": queue, "AttributeNames": ["All"] })).await;
        serde_json::from_value(answer["Attributes"].clone()).expect("attributes are texts")
    }

    /// How many messages a queue holds: those that wait, and those that somebody has.
    pub(crate) async fn held(&self, queue: &str) -> (u32, u32) {
        let attributes = self.attributes(queue).await;
        let number = |name: &str| attributes[name].parse().expect("a number");
        (number("ApproximateNumberOfMessages"), number("ApproximateNumberOfMessagesNotVisible"))
    }

    /// A stranger's message.
    pub(crate) async fn put(&self, queue: &str, body: &str) {
        self.sqs("SendMessage", json!({ "QueueUrl": queue, "MessageBody": body })).await;
    }

    /// A user who may do only these actions; gives the id of an access key, and its secret.
    pub(crate) async fn user(&self, actions: &[&str]) -> (String, String) {
        let name = self.name();
        self.query("iam", &[("Action", "CreateUser"), ("UserName", &name)]).await;
        let policy = json!({
            "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": "*" }],
        });
        let policy = policy.to_string();
        let put =
            [("Action", "PutUserPolicy"), ("UserName", &*name), ("PolicyName", "p"), ("PolicyDocument", &*policy)];
        self.query("iam", &put).await;
        let key = self.query("iam", &[("Action", "CreateAccessKey"), ("UserName", &name)]).await;
        (element(&key, "AccessKeyId"), element(&key, "SecretAccessKey"))
    }

    /// From here on every signature is checked, and every permission.
    pub(crate) async fn check_signatures(&self) {
        let url = format!("http://{}/moto-api/reset-auth", self.address());
        let answer = reqwest::Client::new().post(url).body("0").send().await.expect("moto answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Calls SQS without a valid signature, which nobody checks unless told to.
    pub(crate) async fn sqs(&self, action: &str, asked: Value) -> Value {
        let answer =
            self.call("sqs", asked.to_string(), "application/x-amz-json-1.0", &format!("AmazonSQS.{action}")).await;
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    async fn query(&self, service: &str, form: &[(&str, &str)]) -> String {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.call(service, body, "application/x-www-form-urlencoded", "").await
    }

    async fn call(&self, service: &str, body: String, content_type: &str, target: &str) -> String {
        let credential = format!("Credential=TEST/20260101/{REGION}/{service}/aws4_request");
        let answer = reqwest::Client::new()
            .post(format!("http://{}/", self.address()))
            .header("authorization", format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"))
            .header("content-type", content_type)
            .header("x-amz-target", target)
            .body(body)
            .send()
            .await
            .expect("moto answers");
        let status = answer.status();
        let text = answer.text().await.expect("moto answers text");
        assert!(status.is_success(), "{status} {text}");
        text
    }

    fn name(&self) -> String {
        format!("journeyman-{}", self.serial.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.end();
    }
}

fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once('<').expect("an element ends").0.to_owned()
}
