//! A real browser without a window, told what to do by WebDriver (<https://www.w3.org/TR/webdriver2/>): JSON over HTTP.
//!
//! The driver must not outlive the tests: a shell stands between, and kills it when the pipe that we hold closes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Scratch, free_port, server_binary, wait_for_listener};

const KEEPER: &str = r#"
"$DRIVER" --port="$PORT" --log-level=SEVERE </dev/null >/dev/null 2>&1 &
driver=$!
echo started
read -r word
kill -TERM "$driver" 2>/dev/null
wait
"#;
/// For any one command, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// A picture of a page is no higher than this, in pixels.
const HIGHEST: f64 = 1_400.0;

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Pixels.
    pub(crate) width: u32,
    pub(crate) is_dark: bool,
}

/// A browser with one window. Ends with its owner.
pub(crate) struct Browser {
    client: reqwest::Client,
    driver: SocketAddr,
    session: String,
    shell: Child,
    _home: Scratch,
}

impl Browser {
    /// Starts one. `None`: not installed.
    pub(crate) async fn start() -> Option<Browser> {
        let program = server_binary("chromedriver", "chromium-driver")?;
        let chromium = server_binary("chromium", "chromium")?;
        let driver = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let home = Scratch::new("browser");
        let mut shell = Command::new("sh")
            .args(["-c", KEEPER])
            .env("DRIVER", program)
            .env("PORT", driver.port().to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("sh can be started");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("it is piped")).read_line(&mut line).expect("the pipe can be read");
        wait_for_listener(driver).await;
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client can be built");
        let mut browser = Browser { client, driver, session: String::new(), shell, _home: home };
        // Without a sandbox of its own, because the tests may run as root; it is shown nothing but our pages.
        let profile = format!("--user-data-dir={}", browser._home.path().display());
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
        let arguments: Vec<_> = arguments.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.call("", &wanted).await;
        browser.session = session["sessionId"].as_str().expect("a session has an id").to_owned();
        Some(browser)
    }

    /// From now on pages are looked at like this.
    pub(crate) async fn look(&self, look: Look) {
        let height = if look.width < 600 { 844 } else { 900 };
        let size = json!({ "width": look.width, "height": height, "deviceScaleFactor": 1, "mobile": look.width < 600 });
        self.tell("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if look.is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.tell("Emulation.setEmulatedMedia", features).await;
    }

    /// Goes to a page, and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.call("/url", &json!({ "url": url })).await;
    }

    /// What a function's body returns in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// What a function's body gives to its only argument, sooner or later.
    pub(crate) async fn run_until_told(&self, script: &str) -> Value {
        self.call("/execute/async", &json!({ "script": script, "args": [] })).await
    }

    /// What the page's console has got since the last time: errors, and what the page's policy kept from it.
    pub(crate) async fn console(&self) -> Vec<String> {
        let entries = self.call("/se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().expect("a log is a list");
        entries.iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    /// The page as a PNG, from its top.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let size = self.run("const e = document.documentElement; return [e.clientWidth, Math.ceil(e.getBoundingClientRect().height)]").await;
        let height = size[1].as_f64().unwrap_or_default().min(HIGHEST);
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": height, "scale": 1 });
        let shot = self.tell("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip })).await;
        STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64")
    }

    /// A command of the browser's own protocol.
    async fn tell(&self, command: &str, params: Value) -> Value {
        self.call("/goog/cdp/execute", &json!({ "cmd": command, "params": params })).await
    }

    async fn call(&self, command: &str, asked: &Value) -> Value {
        let path = if self.session.is_empty() { String::new() } else { format!("/{}{command}", self.session) };
        let request = self.client.post(format!("http://{}/session{path}", self.driver));
        let answer = request.header("content-type", "application/json").body(asked.to_string()).send().await;
        let text = answer.expect("the driver answers").text().await.expect("the answer is whole");
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"));
        assert!(answer["value"]["error"].is_null(), "{command}: {}", answer["value"]);
        answer["value"].clone()
    }

    /// Has the driver end the browser, which is in no process group of ours. Worth no more than a try.
    fn quit(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.driver, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "DELETE /session/{} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.session, self.driver
        )?;
        let mut answer = [0; 64];
        stream.read(&mut answer).map(drop)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.quit();
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
