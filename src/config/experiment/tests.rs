//! What an experiment's file may say, and what it is told if it says something else.

use super::*;
use crate::config::load_text as load_plan;

const MAIN: &str = r#"
[channels.loop]
type = "memory"

[[journey]]
name = "order"
every = "1m"
deadline = "2s"

[[journey.step]]
send = "loop"
text = "{{ token }}"

[[journey.step]]
receive = "loop"
"#;

const WHOLE: &str = r#"
[experiment]
name = "az-outage"
description = "what is spooled is not lost"
targets = ["staging", "production"]

[target.production]
permission = "Ada, 2026-11-20"

[steady]
for = "10s"

[traffic]
journey = "order"
rate = "100/s"
ramp = "5s"
drain = "30s"

[hypothesis]
delivered = "100%"
lost = 0
late = "5%"
duplicate = { equals = 3 }
p99 = "2s"
prometheus = [{ url = "http://127.0.0.1:9090", query = "up", at_least = 1 }]

[abort]
overdue = 1000
error_rate = "50%"

[proxy.broker]
listen = "127.0.0.1:7001"
to = "127.0.0.1:5672"

[[phase]]
name = "cut"
run = ["ip", "link", "set", "veth0", "down"]
undo = "ip link set veth0 up"
faults = [{ proxy = "broker", fault = "down" }]
proof = { tcp = "127.0.0.1:7001", fails = true, within = "5s" }
least = "20s"
until = "restart"

[[phase]]
name = "restart"
confirm = "restart the collector"
over = { run = "true" }
least = "5s"
longest = "20s"
"#;

fn load(text: &str) -> Result<ExperimentPlan, String> {
    let (plan, _) = load_plan("journeyman.toml", MAIN, &[], Path::new("")).expect("the configuration is good");
    let loaded = load_text("az.toml", text, &plan, Path::new(""));
    loaded.map(|(experiment, _)| experiment).map_err(|problems| crate::config::render(&problems, false))
}

#[test]
fn a_whole_file_is_read() {
    let experiment = load(WHOLE).unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(experiment.pace, Some(Pace { rate: 100.0, ramp: second * 5 }));
    assert_eq!((experiment.script.steady, experiment.script.drain), (Some(second * 10), second * 30));
    let bounds: Vec<_> = experiment.hypothesis.bounds.iter().map(ToString::to_string).collect();
    let expected =
        ["delivered at least 100%", "lost at most 0", "late at most 5%", "duplicate exactly 3", "p99 at most 2s"];
    assert_eq!(bounds, expected);
    assert_eq!(experiment.hypothesis.queries[0].to_string(), "up at least 1");
    assert_eq!(experiment.abort.bounds[1].to_string(), "error_rate at most 50%");
    let [cut, restart] = &experiment.script.phases[..] else { panic!("{:?}", experiment.script) };
    assert_eq!((cut.until, cut.proof, cut.least, cut.longest), (1, Some(second * 5), second * 20, second * 20));
    assert!(restart.asks && restart.looks && !restart.acts);
    assert_eq!(experiment.phases[0].undo, Some(["sh", "-c", "ip link set veth0 up"].map(str::to_owned).to_vec()));
    assert_eq!(
        experiment.target(Some("production")),
        Ok(("production".to_owned(), Some("Ada, 2026-11-20".to_owned())))
    );
    let refused = experiment.target(Some("prod")).unwrap_err();
    assert!(refused.contains("may not run against `prod`: its `targets` are `staging`, `production`"), "{refused}");
    assert!(experiment.target(None).unwrap_err().contains("--target"));
}

#[test]
fn whatever_is_wrong_is_told_with_what_to_do() {
    let table: &[(&str, &str, &[&str])] = &[
        ("journey = \"order\"", "journey = \"ordr\"", &["has no journey `ordr`", "did you mean `order`?"]),
        ("targets = [\"staging\", ", "targts = [\"staging\", ", &["unknown key `targts`", "did you mean `targets`?"]),
        ("permission = \"Ada, 2026-11-20\"", "", &["nobody has allowed this to run against `production`"]),
        ("[target.production]", "[target.prodution]", &["`prodution` is none of its `targets`", "`production`?"]),
        ("rate = \"100/s\"", "rate = \"2000/s\"", &["2000 a second is more than 1000"]),
        ("rate = \"100/s\"", "", &["a `ramp` leads to a `rate`, and there is none"]),
        ("overdue = 1000", "lost = 3", &["`lost` cannot be in [abort]", "write `overdue`"]),
        ("lost = 0", "overdue = 0", &["`overdue` cannot be in [hypothesis]"]),
        ("p99 = \"2s\"", "p99 = 2", &["`p99` must be a length of time"]),
        ("p99 = \"2s\"", "p98 = \"2s\"", &["unknown key `p98`", "did you mean `p90`?"]),
        ("error_rate = \"50%\"", "error_rate = 5", &["`error_rate` must be a share"]),
        ("undo = \"ip link set veth0 up\"", "", &["`undo` is missing: what is cut must be healed", "`undo = false`"]),
        ("fault = \"down\"", "fault = \"dwn\"", &["no fault is called `dwn`"]),
        ("proxy = \"broker\", fault", "proxy = \"brokr\", fault", &["no `[proxy.brokr]`", "did you mean `broker`?"]),
        ("until = \"restart\"", "until = \"restrt\"", &["no later phase is called `restrt`", "`restart`?"]),
        ("longest = \"20s\"", "", &["`longest` is missing: it might never be over"]),
        ("longest = \"20s\"", "longest = \"1s\"", &["`longest` is shorter than `least`, which is 5s"]),
        ("over = { run = \"true\" }", "", &["nothing says when the phase may be over"]),
        ("over = { run = \"true\" }", "over = { run = [] }", &["`run` must be a command"]),
        ("over = { run = \"true\" }", "over = { tcp = \"x\" }", &["`x` is no host with a port"]),
        ("name = \"restart\"", "name = \"cut\"", &["there is a phase `cut` already"]),
        ("at_least = 1", "at_least = \"1\"", &["`at_least` must be a number"]),
    ];
    for (from, to, said) in table {
        assert_eq!(WHOLE.matches(from).count(), 1, "{from}");
        let told = load(&WHOLE.replace(from, to)).map(|_| ()).expect_err(to);
        for said in *said {
            assert!(told.contains(said), "`{to}`:\n{told}");
        }
        assert!(told.contains("az.toml:"), "{told}");
    }
    let without = WHOLE.split("[[phase]]").next().unwrap_or_default().replace("[steady]\nfor = \"10s\"\n", "");
    let told = load(&without).unwrap_err();
    assert!(told.contains("neither a phase nor `[steady]`"), "{told}");
    let told = load("[experiment]\nname = \"a\"\ntargets = [\"x\"]\n[traffic]\njourney = \"order\"\n").unwrap_err();
    assert!(told.contains("there is no hypothesis: nothing could fail"), "{told}");
}
