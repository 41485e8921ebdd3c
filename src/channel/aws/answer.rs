//! What AWS means by its answers: codes as causes. Pure.

use crate::channel::refusal::Refusal;
use crate::channel::web::words;
use crate::journey::outcome::Cause;

/// What an answer that is not 200 says. SQS answers JSON, SNS XML, and whatever stands in front of them anything at all.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html>
pub(super) fn refusal(status: u16, body: &str, peer: &str) -> Refusal {
    let (code, said) = code(body).unwrap_or_default();
    let cause = cause(status, code.as_str());
    let code = if code.is_empty() { format!("HTTP {status}") } else { words(&code) };
    let said = if said.is_empty() { String::new() } else { format!(": {}", words(&said)) };
    let advice = match cause {
        Cause::Auth if said.contains("expired") || said.contains("not yet current") => {
            "; is this machine's clock right?"
        }
        _ => "",
    };
    let detail = format!("{peer} refused it ({code}){said}{advice}");
    // A fault of theirs in the middle of the work is no word on whether it was done; "not now" is.
    let is_verdict = !matches!(status, 500 | 502 | 504);
    Refusal { cause, detail, is_verdict }
}

fn cause(status: u16, code: &str) -> Cause {
    // `com.amazonaws.sqs#QueueDoesNotExist`, `AWS.SimpleQueueService.NonExistentQueue`
    let code = code.rsplit(['#', '.']).next().unwrap_or_default();
    match code {
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthorizationError"
        | "AuthorizationErrorException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSecurity"
        | "InvalidSecurityException"
        | "InvalidSignatureException"
        | "KMSAccessDenied"
        | "KMSAccessDeniedException"
        | "KmsAccessDenied"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Cause::Auth,
        "KMSThrottling"
        | "KMSThrottlingException"
        | "KmsThrottled"
        | "OverLimit"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "Throttled"
        | "ThrottledException"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => Cause::Throttled,
        "NonExistentQueue"
        | "QueueDoesNotExist"
        | "QueueDeletedRecently"
        | "NotFound"
        | "NotFoundException"
        | "ResourceNotFoundException" => Cause::Unroutable,
        _ => Cause::of_status(status).unwrap_or(Cause::Refused),
    }
}

/// The code and the words of an answer, where it has them.
fn code(body: &str) -> Option<(String, String)> {
    if let Ok(answer) = serde_json::from_str::<serde_json::Value>(body) {
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        return Some((text("__type")?, text("message").or_else(|| text("Message")).unwrap_or_default()));
    }
    Some((element(body, "Code")?, element(body, "Message").unwrap_or_default()))
}

/// The text of the first element of that name, which has no attributes: all the XML that AWS's answers need.
pub(in crate::channel) fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(text.trim().to_owned(), |text, (entity, plain)| text.replace(entity, plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(code: &str, words: &str) -> String {
        serde_json::json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": words }).to_string()
    }

    fn xml(code: &str, words: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>{words}</Message></Error></ErrorResponse>"
        )
    }

    #[test]
    fn the_code_decides_the_cause_and_the_words_are_kept() {
        #[rustfmt::skip]
        let cases = [
            (400, json("AccessDeniedException", "User is not authorized"), Cause::Auth, true),
            (403, json("InvalidClientTokenId", "The security token included in the request is invalid"), Cause::Auth, true),
            (403, xml("SignatureDoesNotMatch", "The request signature we calculated"), Cause::Auth, true),
            (400, json("ExpiredTokenException", "The security token is expired"), Cause::Auth, true),
            (403, xml("AuthorizationError", "is not authorized to perform: SNS:Publish"), Cause::Auth, true),
            (400, json("KmsAccessDenied", "The ciphertext refers to a key"), Cause::Auth, true),
            (400, json("ThrottlingException", "Rate exceeded"), Cause::Throttled, true),
            (403, json("OverLimit", "Too many messages in flight"), Cause::Throttled, true),
            (400, json("RequestThrottled", "slow down"), Cause::Throttled, true),
            (429, "<html>".to_owned(), Cause::Throttled, true),
            (400, json("QueueDoesNotExist", "The specified queue does not exist."), Cause::Unroutable, true),
            (400, xml("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist"), Cause::Unroutable, true),
            (404, xml("NotFound", "Topic does not exist"), Cause::Unroutable, true),
            (400, json("InvalidMessageContents", "The message contains characters"), Cause::Refused, true),
            (400, xml("InvalidParameter", "Invalid parameter: Message too long"), Cause::Refused, true),
            (301, String::new(), Cause::Refused, true),
            (503, json("ServiceUnavailable", "try later"), Cause::Rejected, true),
            (500, json("InternalFailure", "unknown"), Cause::Rejected, false),
            (502, "Bad Gateway".to_owned(), Cause::Rejected, false),
        ];
        for (status, body, cause, is_verdict) in cases {
            let refusal = refusal(status, &body, "sqs.test");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, is_verdict), "{body} {refusal:?}");
        }
        let told = refusal(404, &xml("NotFound", "Topic &quot;t&quot; &amp; &lt;more&gt;"), "sns.test").detail;
        assert_eq!(told, "sns.test refused it (NotFound): Topic \"t\" & <more>");
        assert_eq!(refusal(418, "tea", "sqs.test").detail, "sqs.test refused it (HTTP 418)");
    }

    #[test]
    fn a_clock_that_is_wrong_is_suspected() {
        let told =
            refusal(403, &json("InvalidSignatureException", "Signature expired: 20150830T123600Z is now earlier"), "s");
        assert!(told.detail.ends_with("is this machine's clock right?"), "{told:?}");
    }

    #[test]
    fn hostile_answers_do_not_panic() {
        for body in ["", "{", "[]", "{\"__type\":7}", "<Code>", "</Code><Code>", "<Code></Code>"] {
            let _ = refusal(400, body, "s");
        }
    }
}
