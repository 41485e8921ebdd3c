//! The pages as a real browser shows them, of a real daemon that is well, in trouble, in a storm, and blind: on a desk and on a phone,
//! in the light and in the dark. Nothing on the console, nothing that the policy kept out, nothing that axe calls serious, and
//! nothing to scroll sideways.

use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::browser::{Browser, Look};
use crate::support::daemon::{Daemon, Setup};
use crate::support::hook::Hook;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, python_file, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// Set to any value, the pictures of docs/pictures are taken anew.
const UPDATE: &str = "UPDATE_PICTURES";
/// A picture for the documentation is no larger than this.
const LARGEST: usize = 150_000;
const AXE: &str = "axe_core_python/axe.min.js";

const LOOKS: [Look; 4] = [
    Look { width: 1_280, is_dark: false },
    Look { width: 1_280, is_dark: true },
    Look { width: 390, is_dark: false },
    Look { width: 390, is_dark: true },
];

/// What is wrong with a page, in words; asynchronous, because axe is.
const JUDGE: &str = "const told = arguments[arguments.length - 1];
    const root = document.documentElement;
    const wide = root.scrollWidth > root.clientWidth
      ? [...document.querySelectorAll('body *')].filter((e) => !e.ownerSVGElement && e.getBoundingClientRect().right > root.clientWidth + 1)
          .slice(0, 3).map((e) => `wider than the window: ${e.outerHTML.slice(0, 160)}`).concat('scrolls sideways') : [];
    axe.run(document, { resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] }).then((found) => told(wide.concat(found.violations
      .filter((one) => ['serious', 'critical'].includes(one.impact))
      .map((one) => `${one.id} (${one.impact}): ${one.help}: ${one.nodes.slice(0, 3).map((n) => n.html + ' ' + n.failureSummary).join(' | ')}`))),
      (error) => told([`axe: ${error}`]));";

/// A daemon with two systems behind it, and somebody who is told.
struct World {
    daemon: Daemon,
    shop: Target,
    sms: Option<Target>,
    reference: Option<TcpListener>,
    hook: Hook,
}

const JOURNEYS: [(&str, &str, &str, usize); 7] = [
    ("checkout", "Shop", "shop", 0),
    ("search", "Shop", "shop", 1),
    ("order-pipeline", "Shop", "shop", 2),
    ("sms-round-trip", "Messaging", "sms", 0),
    ("sms-receipts", "Messaging", "sms", 1),
    ("partner-north", "Partners", "sms", 2),
    ("partner-south-with-a-name-that-does-not-end-where-it-should", "Partners", "sms", 3),
];

impl World {
    async fn start() -> World {
        let setup = Setup::new("browser");
        setup.write("admin", "the-admin-token");
        let (shop, sms, hook) = (Target::start(4).await, Target::start(4).await, Hook::start([]).await);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let reference = listener.local_addr().expect("a listener has an address").port();
        let config = format!(
            "location = \"zrh-1\"\n\n[http]\nadmin_token = {{ file = \"admin\" }}\n\
             trace_url = \"https://logs.example.net/?q={{{{ trace_id }}}}\"\n\n\
             [observer]\nreference = [\"tcp://127.0.0.1:{reference}\", \"tcp://127.0.0.1:{}\"]\n\
             [alerting]\nnotify = [\"ops\"]\n\
             [notifiers.ops]\ntype = \"webhook\"\nurl = \"{}\"\n\
             [channels.shop]\ntype = \"http\"\nurl = \"{}\"\nrate = \"50/s\"\n[channels.sms]\ntype = \"http\"\nurl = \"{}\"\n\
             [status_page]\ntitle = \"Example services\"\nabout = \"How what we offer works, measured from outside.\"\n\
             [[status_page.component]]\ntitle = \"Text messages\"\ngroup = \"Messaging\"\njourneys = [\"sms-*\"]\n\
             [[status_page.component]]\ntitle = \"Shop\"\njourneys = [\"group=Shop\"]\n",
            crate::support::free_port(),
            hook.url("/ops"),
            shop.url(),
            sms.url(),
        );
        let journey = |(name, group, channel, part): &(&str, &str, &str, usize)| {
            format!(
                "[[journey]]\nname = \"{name}\"\nevery = \"1s\"\nbudget = \"400ms\"\ndeadline = \"900ms\"\nnotify = [\"ops\"]\n\
                 owner = \"{}\"\nlabels = {{ group = \"{group}\", tier = \"gold\" }}\nobjective = {{ delivered = \"99%\" }}\n\
                 alert = {{ down_after = 2, recover_after = 2 }}\nstep = [{{ request = \"{channel}\", path = \"/{part}\" }}]\n",
                group.to_lowercase(),
            )
        };
        let probes: String = JOURNEYS.iter().map(journey).collect();
        let daemon = setup.start(&config, &probes).await;
        World { daemon, shop, sms: Some(sms), reference: Some(listener), hook }
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.daemon.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).expect("the API answers in JSON")
    }

    /// Waits until so many journeys are in this state.
    async fn until(&self, state: &str, least: usize) {
        wait_for(&format!("{least} journeys that are {state}"), SOON, async || {
            let found = self.json(&format!("/api/v1/journeys?state={state}")).await;
            found["journeys"].as_array().filter(|journeys| journeys.len() >= least).map(drop)
        })
        .await;
    }

    async fn last_run(&self, journey: &str) -> String {
        let found = self.json(&format!("/api/v1/journeys/{journey}")).await;
        format!("/runs/{}", found["journey"]["last_run"]["token"].as_str().expect("it has run"))
    }
}

/// Looks at pages in every look, and collects what is wrong with them.
struct Critic {
    browser: Browser,
    axe: String,
    faults: Vec<String>,
    looked: usize,
}

impl Critic {
    /// Each page is loaded once, and then looked at in every way: what changes is the window, as when somebody turns a phone.
    async fn look_at(&mut self, world: &World, state: &str, paths: &[&str]) {
        for path in paths {
            self.browser.open(&format!("{}{path}", world.daemon.http_url())).await;
            let open = "document.querySelectorAll('details').forEach((d) => { d.open = true }); return document.title";
            let title = self.browser.run(open).await;
            assert!(title.as_str().is_some_and(|title| !title.is_empty()), "{path} has no title");
            self.browser.run(&self.axe).await;
            for look in LOOKS {
                self.browser.look(look).await;
                let found = self.browser.run_until_told(JUDGE).await;
                let place = format!("{state}, {path} at {} px{}", look.width, if look.is_dark { ", dark" } else { "" });
                let found = found.as_array().expect("a list").iter().filter_map(|fault| fault.as_str());
                self.faults.extend(found.map(|fault| format!("{place}: {fault}")));
                self.looked += 1;
            }
            // A page that says that it is not there is no fault of it.
            let console = self.browser.console().await.into_iter().filter(|line| !line.contains("404 (Not Found)"));
            self.faults.extend(console.map(|line| format!("{state}, {path}: {line}")));
        }
    }

    /// A picture for the documentation, where they are wanted.
    async fn picture(&self, world: &World, path: &str, name: &str, look: Look) {
        if std::env::var_os(UPDATE).is_none() {
            return;
        }
        self.browser.look(look).await;
        self.browser.open(&format!("{}{path}", world.daemon.http_url())).await;
        let picture = self.browser.picture().await;
        assert!(picture.len() < LARGEST, "{name}: {} bytes", picture.len());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures").join(format!("{name}.png"));
        std::fs::write(file, picture).expect("a picture can be written");
    }
}

#[test]
fn every_page_is_whole_and_readable_in_every_state_of_the_world() {
    block_on(async {
        let Some(axe) = python_file(AXE) else { return };
        let Some(browser) = Browser::start().await else { return };
        let axe = std::fs::read_to_string(axe).expect("axe can be read");
        let mut critic = Critic { browser, axe, faults: Vec::new(), looked: 0 };
        let mut world = World::start().await;
        let [desk, dark, phone, _] = LOOKS;

        world.until("ok", JOURNEYS.len()).await;
        critic
            .look_at(&world, "all good", &["/", "/journeys/checkout", "/channels", "/incidents", "/status", "/report"])
            .await;
        critic.picture(&world, "/", "page-overview", desk).await;

        world.shop.set(0, Mode::Fails);
        world.until("down", 1).await;
        wait_for("the notice", SOON, async || (!world.hook.requests().is_empty()).then_some(())).await;
        let incident = wait_for("the incident with its notice", SOON, async || {
            let found = world.json("/api/v1/incidents").await["incidents"][0]["id"].as_str().map(str::to_owned)?;
            let told = world.json("/api/v1/outbox?status=sent").await["notices"].as_array()?.len();
            (told > 0).then(|| format!("/incidents/{found}"))
        })
        .await;
        let run = world.last_run("checkout").await;
        let pages = [
            "/",
            "/?group=owner&label=tier%3Dgold",
            "/journeys/checkout",
            "/journeys/checkout?page=2",
            &run,
            "/incidents",
            &incident,
            "/channels",
            "/alerts/outbox",
            "/report",
            "/status",
            "/nowhere",
        ];
        critic.look_at(&world, "one incident", &pages).await;
        critic.picture(&world, "/journeys/checkout", "page-journey", desk).await;
        critic.picture(&world, &run, "page-run", desk).await;
        critic.picture(&world, &incident, "page-incident", dark).await;
        critic.picture(&world, "/status", "page-status", desk).await;
        critic.picture(&world, "/channels", "page-channels", desk).await;
        critic.picture(&world, "/", "page-phone", phone).await;

        world.shop.set_all(Mode::Fails);
        world.sms.as_ref().expect("it is there").set_all(Mode::Fails);
        world.until("down", JOURNEYS.len()).await;
        critic.look_at(&world, "storm", &["/", "/journeys/sms-receipts", "/incidents", "/status"]).await;

        world.shop.set_all(Mode::Well);
        world.sms.as_ref().expect("it is there").set_all(Mode::Well);
        world.until("ok", JOURNEYS.len()).await;
        (world.reference, world.sms) = (None, None);
        wait_for("the daemon to say that it is blind", SOON, async || {
            let health: Value = serde_json::from_str(&world.daemon.get("/health").await.1).expect("JSON");
            (health["components"]["network"]["ok"] == false).then_some(())
        })
        .await;
        world.until("unknown", 1).await;
        critic.look_at(&world, "blind", &["/", "/journeys/sms-receipts", "/status"]).await;

        assert!(critic.looked > 90, "{}", critic.looked);
        let faults = critic.faults.join("\n");
        assert!(faults.is_empty(), "{} faults:\n{faults}", critic.faults.len());
    });
}

#[test]
fn an_open_page_follows_what_happens_and_keeps_what_somebody_writes() {
    block_on(async {
        let Some(browser) = Browser::start().await else { return };
        let world = World::start().await;
        world.until("ok", JOURNEYS.len()).await;
        browser.open(&format!("{}/journeys/checkout", world.daemon.http_url())).await;
        wait_for("the page to be live", SOON, async || {
            (browser.run("return document.documentElement.dataset.live").await == "on").then_some(())
        })
        .await;
        world.shop.set(0, Mode::Fails);
        wait_for("the page to say that it is down", SOON, async || {
            (browser.run("return !!document.querySelector('h1 .state.down')").await == true).then_some(())
        })
        .await;
        let write = "const d = document.querySelector('#pause'); d.open = true;
            const field = d.querySelector('[name=reason]'); field.value = 'half a sentence'; window.before = document.querySelector('main'); return true";
        browser.run(write).await;
        world.shop.set(0, Mode::Well);
        world.until("ok", JOURNEYS.len()).await;
        let kept = "return document.querySelector('main') === window.before && document.querySelector('#pause [name=reason]').value";
        assert_eq!(browser.run(kept).await, "half a sentence", "what is written is not taken away");
        // The form, as somebody sends it.
        let send = "const d = document.querySelector('#pause'); const set = (name, value) => { d.querySelector(`[name=${name}]`).value = value };
            set('by', 'ada'); set('token', 'the-admin-token'); set('reason', 'moving house'); d.querySelector('button').click(); return true";
        browser.run(send).await;
        wait_for("the journey to be paused", SOON, async || {
            (browser.run("return !!document.querySelector('p.paused')").await == true).then_some(())
        })
        .await;
        assert!(browser.console().await.is_empty(), "nothing was kept out by the policy");
        let found = world.json("/api/v1/silences").await;
        assert_eq!((&found["silences"][0]["author"], &found["silences"][0]["pauses"]), (&"ada".into(), &true.into()));
    });
}
