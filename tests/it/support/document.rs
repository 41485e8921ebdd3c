//! The configuration that a page of the documentation shows, so that tests run what people read.

use std::path::Path;

/// The TOML blocks of a page of the documentation, in order, their indentation within a list taken off.
pub fn toml_blocks(page: &str) -> Vec<String> {
    blocks(page, "```toml")
}

/// The blocks of a page that are for a shell, as [`toml_blocks`].
pub fn shell_blocks(page: &str) -> Vec<String> {
    blocks(page, "```sh")
}

fn blocks(page: &str, opens: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim()) {
            (None, fence) if fence == opens => open = Some((indent, String::new())),
            (None, _) => {}
            (Some((_, block)), "```") => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            (Some((fence, block)), _) => {
                block.push_str(&line[indent.min(*fence)..]);
                block.push('\n');
            }
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    assert!(!blocks.is_empty(), "{page} has no block {opens}");
    blocks
}

/// The channels that the comment at the top of an example names, uncommented.
pub fn commented_channels(example: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(example);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let comment =
        text.lines().map_while(|line| line.strip_prefix('#')).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let channels =
        comment.skip_while(|line| !line.starts_with("[channels.")).map(|line| format!("{line}\n")).collect::<String>();
    assert!(!channels.is_empty(), "{example} names no channel at its top");
    channels
}

/// An example below `probes/`: what its first comment shows of the daemon's file, indented, and the probe file itself.
pub fn example(path: &str) -> (String, String) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    let comment = text.lines().take_while(|line| line.starts_with('#'));
    let main = comment.filter_map(|line| line.strip_prefix("#   ")).collect::<Vec<_>>().join("\n");
    assert!(main.contains("[channels."), "{path} shows no channel");
    (main, text)
}

/// `text` with each of `replaced` in place of what it names. What is not there any more is a panic: then the page and the test
/// have to be brought together again.
pub fn adapt(text: &str, replaced: &[(&str, &str)]) -> String {
    replaced.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the documentation does not say `{from}` any more:\n{text}");
        text.replace(from, to)
    })
}

/// Loads the first channel of a kind's page with the steps that the page shows below it, and then the worked example of the kind with
/// the channel in its comment. `secrets` are the files that both name.
pub fn page_and_example_load(kind: &str, secrets: &[&str]) {
    let scratch = super::Scratch::new(&format!("{kind}-example"));
    for secret in secrets {
        scratch.write(secret, "a-secret-of-nobody");
    }
    let load = |what: &str, channel: &str, journeys: &str| {
        let loaded = journeyman::config::load_text("journeyman.toml", channel, &[(what, journeys)], scratch.path());
        let (plan, problems) =
            loaded.unwrap_or_else(|problems| panic!("{what}:\n{}", journeyman::config::render(&problems, false)));
        assert!(problems.is_empty(), "{what}:\n{}", journeyman::config::render(&problems, false));
        assert_eq!(plan.journeys.len(), 1, "{what}");
    };
    let page = format!("docs/channels/{kind}.md");
    let blocks = toml_blocks(&page);
    load(&page, &blocks[0], &format!("[[journey]]\nname = \"page\"\nevery = \"1m\"\nmuted = true\n{}", blocks[1]));
    let example = format!("probes/examples/{kind}.toml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&example)).expect("it is there");
    let comment = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim_start);
    let channel: Vec<_> = comment.skip_while(|line| !line.starts_with("[channels.")).collect();
    load(&example, &channel.join("\n"), &text);
}

#[test]
fn blocks_are_found_and_their_indentation_is_taken_off() {
    let blocks = toml_blocks("README.md");
    assert!(blocks[0].starts_with("probes = ["), "{}", blocks[0]);
    assert!(blocks[1].starts_with("[[journey]]\nname "), "{}", blocks[1]);
    assert!(blocks[1].contains("\n  [[journey.step]]\n  send "), "its own indentation stays:\n{}", blocks[1]);
    assert_eq!(adapt("a b a", &[("a", "c"), ("b", "d")]), "c d c");
}

/// Checks that a configuration loads without an error; gives its warnings.
pub fn loads(text: &str) -> Vec<String> {
    let scratch = super::Scratch::new("document");
    match journeyman::config::load(&scratch.write("journeyman.toml", text)) {
        Ok((_, problems)) => problems.iter().map(|problem| format!("{problem:?}")).collect(),
        Err(problems) => panic!("{}\n{text}", journeyman::config::render(&problems, false)),
    }
}
