//! Questions and answers of DNS as bytes, and what an answer means. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message as Dns, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;

use crate::journey::message::{Message, Trouble};
use crate::journey::outcome::Cause;
use crate::journey::value::Value;

/// The records that can be asked for.
const RECORDS: &[(&str, RecordType)] = &[
    ("A", RecordType::A),
    ("AAAA", RecordType::AAAA),
    ("MX", RecordType::MX),
    ("TXT", RecordType::TXT),
    ("CNAME", RecordType::CNAME),
    ("SOA", RecordType::SOA),
    ("NS", RecordType::NS),
    ("SRV", RecordType::SRV),
    ("PTR", RecordType::PTR),
    ("CAA", RecordType::CAA),
];
/// What fits into one packet on every path: <https://www.dnsflagday.net/2020/>.
const LARGEST_DATAGRAM: u16 = 1_232;

/// What is asked, and the number of the question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    id: u16,
    query: Query,
}

impl Question {
    /// A question for the records of a name. For `PTR` an address will do for the name.
    ///
    /// # Errors
    /// In words: what is no name or no record.
    pub(super) fn new(name: &str, record: &str) -> Result<Question, String> {
        let kind = RECORDS.iter().find(|(text, _)| text.eq_ignore_ascii_case(record)).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| {
            let known: Vec<_> = RECORDS.iter().map(|(text, _)| *text).collect();
            format!("`{record}` is no record that can be asked for; there are {}", known.join(", "))
        })?;
        let address = name.parse::<IpAddr>().ok().filter(|_| kind == RecordType::PTR);
        let mut name = match address {
            Some(address) => Name::from(address),
            None if name.is_empty() => return Err("there is nothing to look up: `lookup` is empty".to_owned()),
            None => Name::from_utf8(name).map_err(|error| format!("`{name}` is no name: {error}"))?,
        };
        // Otherwise a search list would be meant, and we have none.
        name.set_fqdn(true);
        let id = Dns::query().metadata.id;
        Ok(Question { id, query: Query::query(name, kind) })
    }

    /// The name servers of the root, which every server has something to say about.
    pub(super) fn of_the_root() -> Question {
        Question { id: Dns::query().metadata.id, query: Query::query(Name::root(), RecordType::NS) }
    }

    /// The question as bytes: recursion desired, room for more than 512 bytes, and whether the answer is authenticated is of
    /// interest (RFC 6840 section 5.7).
    pub(super) fn bytes(&self) -> Result<Vec<u8>, String> {
        let mut message = Dns::query();
        message.metadata.id = self.id;
        message.metadata.recursion_desired = true;
        message.metadata.authentic_data = true;
        message.add_query(self.query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_DATAGRAM);
        message.set_edns(edns);
        message.to_vec().map_err(|error| format!("the question cannot be written: {error}"))
    }

    /// The answer in these bytes; `None` if they are none to this very question: somebody else's, or garbage.
    pub(super) fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let answer = Dns::from_vec(bytes).ok()?;
        let is_ours = answer.metadata.id == self.id && answer.metadata.message_type == MessageType::Response;
        // A server that does not even understand the question may leave it out (RFC 1035 section 4.1.1).
        let repeats = match &answer.queries[..] {
            [] => answer.metadata.response_code != ResponseCode::NoError,
            [only] => *only == self.query,
            _ => false,
        };
        (is_ours && repeats).then_some(Answer { dns: answer, query: self.query.clone() })
    }
}

/// An answer to our question.
#[derive(Debug)]
pub(super) struct Answer {
    dns: Dns,
    query: Query,
}

impl Answer {
    /// It did not fit, and is to be asked for over TCP.
    pub(super) fn is_truncated(&self) -> bool {
        self.dns.metadata.truncation
    }

    /// What it says in a word: `NOERROR`, `NXDOMAIN`.
    pub(super) fn word(&self) -> String {
        code_word(self.dns.metadata.response_code)
    }

    /// The records that were asked for, as text.
    pub(super) fn found(&self) -> Vec<String> {
        let of_type = |record: &&Record| record.record_type() == self.query.query_type();
        self.dns.answers.iter().filter(of_type).map(|record| text(&record.data)).collect()
    }

    /// As a journey reads it: the code as status, the records as JSON, those asked for as the value.
    pub(super) fn message(&self, server: &str) -> Message {
        let mut found = self.found();
        found.sort_unstable();
        let records: Vec<_> = self.dns.answers.iter().map(shown).collect();
        let metadata = &self.dns.metadata;
        let document = json!({
            "server": server,
            "name": self.query.name().to_string(),
            "record": self.query.query_type().to_string(),
            "rcode": self.word(),
            "authoritative": metadata.authoritative,
            "authentic_data": metadata.authentic_data,
            "recursion_available": metadata.recursion_available,
            "ttl": self.dns.answers.iter().map(|record| record.ttl).min(),
            "answers": records,
        });
        let mut message = Message::new(document.to_string());
        message.status = Some(metadata.response_code.into());
        message.trouble = self.trouble(found.is_empty(), server).map(Box::new);
        message.facts.insert("value", Value::List(found.into_iter().map(Value::Text).collect()));
        message
    }

    /// Why this is no answer to be content with.
    fn trouble(&self, is_empty: bool, server: &str) -> Option<Trouble> {
        let (name, record) = (self.query.name(), self.query.query_type());
        let (cause, detail) = match self.dns.metadata.response_code {
            ResponseCode::NoError if is_empty => (Cause::Refused, format!("{name} has no {record} record")),
            ResponseCode::NoError => return None,
            ResponseCode::NXDomain => (Cause::Refused, format!("there is no name {name} (NXDOMAIN)")),
            ResponseCode::Refused => (Cause::Refused, "it does not answer us (REFUSED)".to_owned()),
            code @ (ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS) => {
                (Cause::Refused, format!("it does not understand the question ({})", code_word(code)))
            }
            ResponseCode::ServFail => {
                (Cause::Rejected, "it could not find out (SERVFAIL): its own servers, or DNSSEC".to_owned())
            }
            code => (Cause::Rejected, format!("it answers {}", code_word(code))),
        };
        Some(Trouble { cause, detail: format!("{server}: {detail}") })
    }
}

/// As `dig` and the registry write it.
fn code_word(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        code => format!("RCODE{}", u16::from(code)),
    }
}

fn shown(record: &Record) -> serde_json::Value {
    let kind = record.record_type().to_string();
    json!({ "name": record.name.to_string(), "type": kind, "ttl": record.ttl, "data": text(&record.data) })
}

/// A record's content as `dig +short` writes it, but for texts, which stand without quotes, their pieces joined.
fn text(data: &RData) -> String {
    data.to_string()
}

/// An answer to a question for addresses; its id is taken for the question's.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let [high, low, ..] = data else { return };
    let Ok(question) = Question::new("example.com", "A") else { return };
    let question = Question { id: u16::from_be_bytes([*high, *low]), ..question };
    if let Some(answer) = question.answer(data) {
        let _ = (answer.is_truncated(), answer.word(), answer.found());
        let _ = answer.message("127.0.0.1:53").json();
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::{A, CNAME, MX, TXT};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// An answer of this code with these records.
    fn reply(question: &Question, code: ResponseCode, records: Vec<(&str, RData)>) -> Dns {
        let mut dns = Dns::response(question.id, OpCode::Query);
        dns.metadata.response_code = code;
        dns.add_query(question.query.clone());
        dns.add_answers(records.into_iter().map(|(owner, data)| Record::from_rdata(name(owner), 300, data)));
        dns
    }

    fn read(question: &Question, dns: &Dns) -> Option<Message> {
        Some(question.answer(&dns.to_vec().unwrap())?.message("192.0.2.53:53"))
    }

    #[test]
    fn a_question_is_checked_and_an_address_is_turned_round() {
        let of =
            |name: &str, record: &str| Question::new(name, record).map(|question| question.query.name().to_string());
        assert_eq!(of("www.example.net", "aaaa").unwrap(), "www.example.net.");
        assert_eq!(of("192.0.2.7", "PTR").unwrap(), "7.2.0.192.in-addr.arpa.");
        assert!(of("2001:db8::7", "PTR").unwrap().ends_with(".8.b.d.0.1.0.0.2.ip6.arpa."));
        assert!(of("www", "AXFR").unwrap_err().contains("there are A, AAAA, MX"));
        assert!(of("", "A").unwrap_err().contains("`lookup` is empty"));
        assert!(of(&"a".repeat(64), "A").unwrap_err().contains("is no name"));
        let question = Question::new("www.example.net", "A").unwrap();
        let sent = Dns::from_vec(&question.bytes().unwrap()).unwrap();
        assert!(sent.metadata.recursion_desired && sent.metadata.authentic_data);
        assert_eq!((sent.max_payload(), sent.queries.len()), (1_232, 1));
    }

    #[test]
    fn only_an_answer_to_the_very_question_is_one() {
        let question = Question::new("www.example.net", "A").unwrap();
        let good = reply(&question, ResponseCode::NoError, vec![("www.example.net.", RData::A(A::new(192, 0, 2, 7)))]);
        assert!(read(&question, &good).is_some());
        let changed = |change: &dyn Fn(&mut Dns)| {
            let mut dns = good.clone();
            change(&mut dns);
            read(&question, &dns)
        };
        assert!(changed(&|dns| dns.metadata.id ^= 1).is_none(), "another id");
        assert!(changed(&|dns| dns.metadata.message_type = MessageType::Query).is_none(), "a question");
        assert!(changed(&|dns| dns.queries[0] = Query::query(name("evil.example.net."), RecordType::A)).is_none());
        assert!(changed(&|dns| dns.queries[0] = Query::query(name("www.example.net."), RecordType::MX)).is_none());
        assert!(changed(&|dns| dns.queries.clear()).is_none(), "no question, and no error");
        assert!(changed(&|dns| dns.queries[0] = Query::query(name("WWW.example.NET."), RecordType::A)).is_some());
        let refusal = |dns: &mut Dns| {
            dns.queries.clear();
            dns.metadata.response_code = ResponseCode::FormErr;
        };
        assert!(changed(&refusal).is_some(), "a server that did not understand the question need not repeat it");
    }

    #[test]
    fn records_are_a_sorted_list_of_texts_and_a_document() {
        let question = Question::new("example.net", "MX").unwrap();
        let mx = |preference, host: &str| RData::MX(MX::new(preference, name(host)));
        let records = vec![
            ("example.net.", RData::CNAME(CNAME(name("real.example.net.")))),
            ("real.example.net.", mx(20, "b.example.net.")),
            ("real.example.net.", mx(10, "a.example.net.")),
        ];
        let mut dns = reply(&question, ResponseCode::NoError, records);
        dns.metadata.authentic_data = true;
        dns.answers[1].ttl = 60;
        let message = read(&question, &dns).unwrap();
        let texts = ["10 a.example.net.", "20 b.example.net."].map(Value::from);
        assert_eq!((message.status, &message.facts["value"]), (Some(0), &Value::List(texts.into())));
        assert!(message.trouble.is_none());
        let json = message.json().unwrap();
        assert_eq!(
            (&json["authentic_data"], &json["authoritative"], &json["ttl"]),
            (&true.into(), &false.into(), &60.into())
        );
        assert_eq!(json["answers"][0]["data"], "real.example.net.");
        assert_eq!((&json["answers"][2]["type"], &json["answers"][2]["ttl"]), (&"MX".into(), &300.into()));

        let question = Question::new("example.net", "TXT").unwrap();
        let txt = RData::TXT(TXT::new(vec!["v=spf1 ".to_owned(), "-all".to_owned()]));
        let message = read(&question, &reply(&question, ResponseCode::NoError, vec![("example.net.", txt)])).unwrap();
        assert_eq!(message.facts["value"], Value::List(vec![Value::from("v=spf1 -all")]));
    }

    #[test]
    fn a_code_says_what_went_wrong_and_nothing_found_is_wrong_too() {
        let question = Question::new("www.example.net", "A").unwrap();
        let cases = [
            (ResponseCode::NoError, 0, Cause::Refused, "www.example.net. has no A record"),
            (ResponseCode::FormErr, 1, Cause::Refused, "does not understand the question (FORMERR)"),
            (ResponseCode::ServFail, 2, Cause::Rejected, "SERVFAIL"),
            (ResponseCode::NXDomain, 3, Cause::Refused, "there is no name www.example.net. (NXDOMAIN)"),
            (ResponseCode::NotImp, 4, Cause::Refused, "NOTIMP"),
            (ResponseCode::Refused, 5, Cause::Refused, "does not answer us (REFUSED)"),
            (ResponseCode::NotAuth, 9, Cause::Rejected, "RCODE9"),
        ];
        for (code, status, cause, words) in cases {
            let message = read(&question, &reply(&question, code, Vec::new())).unwrap();
            let trouble = message.trouble.unwrap();
            assert_eq!((message.status, trouble.cause), (Some(status), cause), "{code:?}");
            assert!(trouble.detail.starts_with("192.0.2.53:53: ") && trouble.detail.contains(words), "{trouble:?}");
            assert_eq!(message.facts["value"], Value::List(Vec::new()));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, at in 0usize..80, byte: u8) {
            let question = Question::new("www.example.net", "A").unwrap();
            let records = vec![("www.example.net.", RData::A(A::new(192, 0, 2, 7)))];
            let mut bent = reply(&question, ResponseCode::NoError, records).to_vec().unwrap();
            let length = bent.len();
            bent[at % length] = byte;
            for bytes in [bytes, bent] {
                if let Some(answer) = question.answer(&bytes) {
                    let _ = answer.message("192.0.2.53:53");
                }
            }
        }
    }
}
