//! `type = "sqs"` and `type = "sns"`.

use url::Url;

use crate::channel::Settings;
use crate::channel::sns::SnsSettings;
use crate::channel::sqs::{Credentials, SqsSettings};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::Section;
use crate::config::problem::Problem;

pub(super) const SQS: Grammar = Grammar {
    kind: "sqs",
    keys: &["queue", "region", "endpoint", "access_key_id", "secret_access_key", "session_token", "ca_file"],
    tables: &[],
    read: read_sqs,
};

pub(super) const SNS: Grammar = Grammar {
    kind: "sns",
    keys: &["topic", "region", "endpoint", "access_key_id", "secret_access_key", "session_token", "ca_file"],
    tables: &[],
    read: read_sns,
};

fn read_sqs(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let (credentials, ca_file, endpoint) = (credentials(section), ca_file(section), endpoint(section));
    let hint = "the queue's URL, as in \"https://sqs.eu-west-1.amazonaws.com/123456789012/journeyman\"";
    let queue = section.require("queue", hint).and_then(|node| {
        let url = context.url(node, "queue", &["https", "http"])?;
        let names_a_queue = url.path().trim_matches('/').contains(|c: char| c.is_ascii_alphanumeric());
        if !names_a_queue {
            context.add(Problem::error(&node.place, "`queue` names no queue: it has no path").hint(hint));
        }
        names_a_queue.then_some(url)
    });
    let named = section.text("region").map(str::to_owned);
    let region = named.or_else(|| region_of(queue.as_ref()?.host_str()?));
    if queue.is_some() && region.is_none() {
        section
            .require("region", "the region that requests are signed for, as in \"eu-west-1\"; `queue` does not say it");
    }
    let (queue, endpoint) = (queue?, endpoint.ok()?);
    channel.host = host(endpoint.as_ref().unwrap_or(&queue));
    Some(Settings::Sqs(SqsSettings { queue, region: region?, endpoint, credentials: credentials?, ca_file }))
}

fn read_sns(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let (credentials, ca_file, endpoint) = (credentials(section), ca_file(section), endpoint(section));
    let hint = "the topic's ARN, as in \"arn:aws:sns:eu-west-1:123456789012:orders\"";
    let node = section.require("topic", hint)?;
    let topic = context.text(node, "topic")?.to_owned();
    let parts: Vec<_> = topic.split(':').collect();
    let ["arn", _, "sns", home, account, name] = parts[..] else {
        context.add(Problem::error(&node.place, "`topic` is not the ARN of a topic").hint(hint));
        return None;
    };
    if [home, account, name].iter().any(|part| part.is_empty()) {
        context.add(Problem::error(&node.place, "`topic` is not the ARN of a topic").hint(hint));
        return None;
    }
    let region = section.text("region").unwrap_or(home).to_owned();
    // <https://docs.aws.amazon.com/general/latest/gr/sns.html>: China's domain is its own.
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = match endpoint.ok()? {
        Some(endpoint) => endpoint,
        None => match Url::parse(&format!("https://sns.{region}.{domain}/")) {
            Ok(url) => url,
            Err(_) => {
                context.add(Problem::error(section.place_of("region"), format!("`{region}` cannot be a region")));
                return None;
            }
        },
    };
    channel.host = host(&endpoint);
    Some(Settings::Sns(SnsSettings { topic, region, endpoint, credentials: credentials?, ca_file }))
}

fn credentials(section: &Section<'_>) -> Option<Credentials> {
    let secret = |key: &str, hint: &str| section.require(key, hint).and_then(|node| section.context.secret(node, key));
    let access_key_id = secret("access_key_id", "the access key's id, `AKIA…`");
    let secret_access_key = secret("secret_access_key", "the access key's secret");
    let session_token = section.get("session_token").map(|node| section.context.secret(node, "session_token"));
    Some(Credentials {
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
        session_token: match session_token {
            Some(token) => Some(token?),
            None => None,
        },
    })
}

/// It was wrong, and that was told.
struct Told;

fn endpoint(section: &Section<'_>) -> Result<Option<Url>, Told> {
    let Some(node) = section.get("endpoint") else { return Ok(None) };
    let url = section.context.url(node, "endpoint", &["https", "http"]).ok_or(Told)?;
    if url.path() != "/" || url.query().is_some() {
        let problem = Problem::error(&node.place, "`endpoint` has a path; requests go to the root of a server");
        section.context.add(problem.hint("write `https://host:port`; the queue's own path stays in `queue`"));
        return Err(Told);
    }
    Ok(Some(url))
}

/// `sqs.REGION.amazonaws.com`, and the older `REGION.queue.amazonaws.com`.
fn region_of(host: &str) -> Option<String> {
    let (name, _) = host.split_once(".amazonaws.com")?;
    let region =
        name.strip_prefix("sqs.").or_else(|| name.strip_prefix("sqs-fips.")).or_else(|| name.strip_suffix(".queue"));
    region.filter(|region| !region.is_empty() && !region.contains('.')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_host_says_the_region() {
        for (host, region) in [
            ("sqs.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("sqs-fips.us-east-2.amazonaws.com", Some("us-east-2")),
            ("eu-central-1.queue.amazonaws.com", Some("eu-central-1")),
            ("queue.amazonaws.com", None),
            ("vpce-1.sqs.eu-west-1.vpce.amazonaws.com", None),
            ("localhost", None),
        ] {
            assert_eq!(region_of(host).as_deref(), region, "{host}");
        }
    }
}
