//! Of table T7 of the fault matrix: every error that Slack documents for a message, and what follows. The rest: `delivery::t7`.

use super::*;

/// <https://docs.slack.dev/reference/methods/chat.postMessage#errors>, by what must follow; what is `gone` is a thread.
const CODES: [(&str, &str); 5] = [
    (
        "never",
        "access_denied account_inactive as_user_not_supported cant_broadcast_message channel_not_found deprecated_endpoint \
         ekm_access_denied enterprise_is_restricted invalid_arg_name invalid_array_arg invalid_auth invalid_charset \
         invalid_form_data invalid_metadata_format invalid_metadata_schema invalid_post_type is_archived is_inactive \
         markdown_text_conflict messages_tab_disabled metadata_must_be_sent_from_app metadata_too_large method_deprecated \
         missing_post_type missing_scope no_permission not_allowed_token_type not_authed not_in_channel org_login_required \
         restricted_action restricted_action_read_only_channel restricted_action_thread_only_channel \
         slack_connect_canvas_sharing_blocked slack_connect_file_link_sharing_blocked slack_connect_lists_sharing_blocked \
         team_access_not_granted team_not_found token_expired token_revoked too_many_contact_cards two_factor_setup_required",
    ),
    ("after 30", "message_limit_exceeded rate_limited ratelimited"),
    (
        "backoff",
        "accesslimited external_channel_migrating fatal_error internal_error request_timeout service_unavailable \
         streaming_state_conflict team_added_to_org",
    ),
    (
        "less",
        "attachment_payload_limit_exceeded block_mismatch invalid_arguments invalid_attachments invalid_blocks \
         invalid_blocks_format msg_blocks_too_long msg_too_long no_text too_many_attachments",
    ),
    (
        "gone",
        "cannot_reply_to_message message_not_found restricted_action_non_threadable_channel \
         restricted_action_thread_locked thread_not_found",
    ),
];

#[test]
fn every_documented_error_has_its_consequence() {
    block_on(async {
        let mut table = Table::new("slack", "4-errors", &["Slack's error", "requests", "in Slack", "then"]);
        let codes =
            CODES.into_iter().flat_map(|(wanted, codes)| codes.split_whitespace().map(move |code| (code, wanted)));
        for (code, wanted) in codes {
            let fake = FakeSlack::start().await;
            let slack = bot(&fake.url());
            let mut notice = delivery(1, NotifyReason::First);
            if wanted == "gone" {
                notice = delivery(2, NotifyReason::Worse);
                notice.root =
                    Some(Receipt { id: fake.say(CHANNEL, "x"), place: CHANNEL.to_owned(), ..Receipt::default() });
            }
            fake.script(POST, [Answer::Refuse(code)]);
            let found = class(slack.notify(&notice).await);
            let (requests, messages) = (fake.count(POST), fake.messages(CHANNEL));
            let ours: Vec<_> = messages.iter().filter(|message| message.delivery() == Some(&notice.id)).collect();
            let then = match (&*found, requests, &*ours) {
                ("never", 1, []) => "never",
                ("backoff", 1, []) => "backoff",
                ("after 30", 1, []) => "after 30",
                ("ok", 2, [message]) if wanted == "gone" && message.thread_ts.is_none() => "gone",
                ("ok", 2, [message]) if !message.shown().contains("data_visualization") => "less",
                _ => "something else",
            };
            assert_eq!(then, wanted, "{code}: {found}, {requests} requests, {messages:#?}");
            let then = match then {
                "never" => "the fallback tells it, and it is not tried again",
                "backoff" => "tried again after the back-off",
                "after 30" => "tried again after 30 s",
                "less" => "told with less in it",
                _ => "told outside of the thread",
            };
            table.row(&[&code, &requests, &ours.len(), &then]);
        }
    });
}
