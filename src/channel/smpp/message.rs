//! Messages to and from SMPP: a text out as one PDU or several, a delivery in as a [`Message`]. Pure.

use std::str::FromStr;
use std::time::Duration;

use rusmpp::pdus::{DeliverSm, SubmitSm};
use rusmpp::tlvs::TlvValue;
use rusmpp::types::{AnyOctetString, COctetString, EmptyOrFullCOctetString, OctetString};
use rusmpp::values::{DataCoding, EsmClass, MessagePayload, Npi, RegisteredDelivery, Ton};

use super::alphabet::{self, Encoded};
use super::receipt::Receipt;
use super::{Alphabet, Long, NumberKind, SmppSettings};
use crate::channel::life::time_to_live;
use crate::journey::Outgoing;
use crate::journey::message::{Hop, Message, Part};

/// A receipt when the message has reached its last state, whatever that is (SMPP 3.4 section 5.2.17).
const FINAL_RECEIPT: u8 = 1;
/// A user data header comes before the text (SMPP 3.4 section 5.2.12).
const HAS_HEADER: u8 = 0x40;
/// The kind of message in `esm_class`, and two of them.
const KIND: u8 = 0x3c;
const RECEIPT: u8 = 0x04;
const NOTIFICATION: u8 = 0x20;
/// The longest number or name that SMPP has room for.
const LONGEST_ADDRESS: usize = 20;
/// What a `message_payload` has room for.
const LONGEST_PAYLOAD: usize = 65_535;
/// A header can count so many parts.
const MOST_PARTS: usize = 255;

/// One message as it goes out.
#[derive(Debug)]
pub(super) struct Submit {
    /// The PDU.
    pub(super) pdu: SubmitSm,
    /// Which part of the text it is, if we divided it.
    pub(super) part: Option<Part>,
    /// To which number.
    pub(super) to: String,
}

/// The messages for `outgoing`; its fields `to` and `from` go before the channel's. `reference` ties parts together.
///
/// # Errors
/// What SMPP has no room for, in words.
pub(super) fn submits(outgoing: &Outgoing, settings: &SmppSettings, reference: u8) -> Result<Vec<Submit>, String> {
    let field = |name: &str, otherwise: &str| outgoing.fields.get(name).map_or(otherwise, String::as_str).to_owned();
    let (from, to) = (field("from", &settings.from), field("to", &settings.to));
    if to.is_empty() {
        return Err("there is no number to send to; give the channel or the step a `to`".to_owned());
    }
    let text = std::str::from_utf8(&outgoing.body).map_err(|_| "a text message must be text, in UTF-8".to_owned())?;
    let encoded = Encoded::new(text, settings.alphabet);
    let (room, room_of_part) = encoded.room(settings.alphabet);
    let (source, destination) = (address("from", &from, settings.from_kind)?, address("to", &to, settings.to_kind)?);
    let base = SubmitSm::builder()
        .source_addr_ton(source.ton)
        .source_addr_npi(source.npi)
        .source_addr(source.text)
        .dest_addr_ton(destination.ton)
        .dest_addr_npi(destination.npi)
        .destination_addr(destination.text)
        // Not the type's default, which claims to be an acknowledgement.
        .esm_class(EsmClass::from(0))
        .validity_period(validity(time_to_live(outgoing.timeout)))
        .registered_delivery(RegisteredDelivery::from(FINAL_RECEIPT))
        .data_coding(DataCoding::from(encoded.data_coding))
        .build();
    let octets = encoded.octets();
    let whole = |pdu| vec![Submit { pdu, part: None, to: to.clone() }];
    if octets.len() <= room {
        return Ok(whole(base.with_short_message(short(&octets)?)));
    }
    match settings.long {
        Long::Payload if octets.len() > LONGEST_PAYLOAD => {
            Err(format!("the text has {} bytes; SMPP has room for {LONGEST_PAYLOAD}", octets.len()))
        }
        Long::Payload => {
            let mut pdu = base;
            pdu.push_tlv(rusmpp::tlvs::MessageSubmissionRequestTlvValue::MessagePayload(MessagePayload::new(
                AnyOctetString::from_vec(octets),
            )));
            Ok(whole(pdu))
        }
        Long::Split => {
            let pieces = encoded.pieces(room_of_part);
            let count = pieces.len();
            if count > MOST_PARTS {
                return Err(format!("the text makes {count} parts; a text message has at most {MOST_PARTS}"));
            }
            let parts = pieces.into_iter().enumerate().map(|(index, piece)| {
                // 3GPP TS 23.040 section 9.2.3.24.1: length of the header, element 0, its length, reference, how many, which.
                let mut octets = vec![5, 0, 3, reference, count as u8, index as u8 + 1];
                octets.extend(piece);
                let mut pdu = base.clone().with_short_message(short(&octets)?);
                pdu.esm_class = EsmClass::from(HAS_HEADER);
                let part = Part { index: index as u32, of: count as u32 };
                Ok(Submit { pdu, part: Some(part), to: to.clone() })
            });
            parts.collect()
        }
    }
}

fn short(octets: &[u8]) -> Result<OctetString<0, 255>, String> {
    OctetString::from_slice(octets).map_err(|error| error.to_string())
}

/// A number or name with its kind.
struct Address {
    text: COctetString<1, 21>,
    ton: Ton,
    npi: Npi,
}

/// The address as SMPP writes it. What is not said goes by what it looks like: a name is alphanumeric, a short code is the
/// network's own, and every other number is international, without its plus.
fn address(key: &str, text: &str, kind: NumberKind) -> Result<Address, String> {
    let number = text.strip_prefix('+').unwrap_or(text);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let (ton, npi) = match (is_number, text.starts_with('+') || number.len() > LONGEST_SHORT_CODE) {
        _ if text.is_empty() => (0, 0),
        (false, _) => (5, 0),
        (true, true) => (1, 1),
        (true, false) => (3, 0),
    };
    let text = if is_number { number } else { text };
    if text.len() > LONGEST_ADDRESS || !text.is_ascii() || text.contains('\0') {
        return Err(format!(
            "`{key}` is `{text}`; SMPP takes up to {LONGEST_ADDRESS} digits, or letters without accents"
        ));
    }
    Ok(Address {
        text: COctetString::from_str(text).map_err(|error| format!("`{key}` cannot be sent: {error}"))?,
        ton: Ton::from(kind.ton.unwrap_or(ton)),
        npi: Npi::from(kind.npi.unwrap_or(npi)),
    })
}

/// Short codes have three to six digits.
const LONGEST_SHORT_CODE: usize = 6;

/// A duration as SMPP writes it: `YYMMDDhhmmss000R` (SMPP 3.4 section 7.1.1.2), with days only, which mean the same everywhere.
fn validity(life: Duration) -> EmptyOrFullCOctetString<17> {
    const LONGEST: u64 = 30 * 86_400;
    let seconds = life.as_secs().min(LONGEST);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let text = format!("0000{days:02}{:02}{:02}{:02}000R", rest / 3_600, rest / 60 % 60, rest % 60);
    EmptyOrFullCOctetString::from_str(&text).unwrap_or_default()
}

/// What came.
#[derive(Debug)]
pub(super) struct Delivered {
    /// As a journey reads it.
    pub(super) message: Message,
    /// What it says of another message, if it is a receipt.
    pub(super) receipt: Option<Receipt>,
}

/// The delivery as a journey reads it.
pub(super) fn read(delivery: &DeliverSm, default: Alphabet) -> Delivered {
    let esm_class = u8::from(delivery.esm_class);
    let data_coding = u8::from(delivery.data_coding);
    let parameters = || delivery.tlvs().iter().filter_map(|parameter| parameter.value());
    let payload = parameters().find_map(|parameter| match parameter {
        TlvValue::MessagePayload(payload) => Some(payload.value.as_ref()),
        _ => None,
    });
    let octets = payload.unwrap_or(delivery.short_message().as_ref());
    let (header, octets) = if esm_class & HAS_HEADER == 0 { (&[][..], octets) } else { split_header(octets) };

    let is_receipt = matches!(esm_class & KIND, RECEIPT | NOTIFICATION)
        || parameters().any(|parameter| matches!(parameter, TlvValue::ReceiptedMessageId(_)));
    let mut message = Message::new(alphabet::decode(octets, data_coding, default));
    let mut tell = |name: &str, value: String| message.headers.push((name.to_owned(), value));
    tell("message-type", if is_receipt { "receipt" } else { "message" }.to_owned());
    tell("from", delivery.source_addr.as_str().to_owned());
    tell("to", delivery.destination_addr.as_str().to_owned());
    tell("data-coding", data_coding.to_string());
    if let Some((reference, of, index)) = parts_in_header(header).or_else(|| parts_in_parameters(parameters())) {
        tell("part-reference", reference.to_string());
        tell("part", index.to_string());
        tell("parts", of.to_string());
    }
    if !is_receipt {
        return Delivered { message, receipt: None };
    }
    let receipt = Receipt::read(&message.text(), parameters());
    let told = [
        ("message-id", receipt.id.as_ref().or(receipt.id_in_text.as_ref())),
        ("stat", receipt.stat.as_ref()),
        ("err", receipt.err.as_ref()),
        ("submit-date", receipt.submit_date.as_ref()),
        ("done-date", receipt.done_date.as_ref()),
    ];
    let told = told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
    message.headers.extend(told);
    message.hops = receipt.network().map(|took| Hop { name: "network".to_owned(), took }).into_iter().collect();
    message.trouble = receipt.trouble().map(Box::new);
    Delivered { message, receipt: Some(receipt) }
}

/// A user data header, without its length, and the text behind it.
fn split_header(octets: &[u8]) -> (&[u8], &[u8]) {
    match octets.split_first() {
        Some((length, rest)) => rest.split_at_checked(usize::from(*length)).unwrap_or((&[], octets)),
        None => (&[], octets),
    }
}

/// Reference, how many parts, which of them from 1: 3GPP TS 23.040 sections 9.2.3.24.1 and 9.2.3.24.8.
fn parts_in_header(mut header: &[u8]) -> Option<(u16, u8, u8)> {
    while let [element, length, rest @ ..] = header {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        match (element, value) {
            (0, [reference, of, index]) => return Some((u16::from(*reference), *of, *index)),
            (8, [high, low, of, index]) => return Some((u16::from_be_bytes([*high, *low]), *of, *index)),
            _ => header = rest,
        }
    }
    None
}

/// The same in SMPP's own parameters.
fn parts_in_parameters<'a>(parameters: impl Iterator<Item = &'a TlvValue>) -> Option<(u16, u8, u8)> {
    let (mut reference, mut of, mut index) = (None, None, None);
    for parameter in parameters {
        match parameter {
            TlvValue::SarMsgRefNum(value) => reference = Some(*value),
            TlvValue::SarTotalSegments(value) => of = Some(*value),
            TlvValue::SarSegmentSeqnum(value) => index = Some(*value),
            _ => {}
        }
    }
    Some((reference?, of?, index?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rusmpp::tlvs::MessageDeliveryRequestTlvValue;

    use super::*;
    use crate::channel::smpp::{Account, Version};
    use crate::journey::token::Token;

    fn settings(long: Long) -> SmppSettings {
        let account =
            Account { host: "smsc".into(), port: 2775, tls: false, system_id: "probe".into(), password: None };
        SmppSettings {
            account,
            receiver: None,
            version: Version::V34,
            system_type: String::new(),
            from: "Shop".to_owned(),
            to: "+4915112345678".to_owned(),
            from_kind: NumberKind::default(),
            to_kind: NumberKind::default(),
            alphabet: Alphabet::Gsm,
            long,
            ca_file: None,
        }
    }

    fn outgoing(text: &str) -> Outgoing {
        Outgoing {
            token: Token::from_bits(1),
            body: text.as_bytes().to_vec(),
            fields: BTreeMap::new(),
            ..Outgoing::empty(Duration::from_secs(10))
        }
    }

    #[test]
    fn a_short_text_is_one_message_that_asks_for_a_receipt_and_does_not_outlive_us() {
        let submits = submits(&outgoing("Code jm1 {x}"), &settings(Long::Payload), 1).unwrap();
        let [Submit { pdu, part: None, to }] = &submits[..] else { panic!("{submits:?}") };
        assert_eq!(to, "+4915112345678");
        assert_eq!(pdu.short_message().as_ref(), b"Code jm1 \x1b\x28x\x1b\x29");
        assert_eq!(u8::from(pdu.esm_class), 0);
        assert_eq!(u8::from(pdu.registered_delivery), 1);
        assert_eq!(u8::from(pdu.data_coding), 0);
        assert_eq!(pdu.validity_period.as_str(), "000000010000000R");
        assert_eq!((pdu.source_addr.as_str(), pdu.destination_addr.as_str()), ("Shop", "4915112345678"));
        assert_eq!((pdu.source_addr_ton, pdu.source_addr_npi), (Ton::Alphanumeric, Npi::Unknown));
        assert_eq!((pdu.dest_addr_ton, pdu.dest_addr_npi), (Ton::International, Npi::Isdn));
        assert_eq!(validity(Duration::from_secs(93_784)).as_str(), "000001020304000R");
        assert_eq!(validity(Duration::MAX).as_str(), "000030000000000R");
    }

    /// Written out by the tables of SMPP 3.4 section 4.4.1, by no library.
    #[test]
    fn a_submit_is_on_the_wire_as_the_standard_has_it() {
        let submits = submits(&outgoing("Hi @"), &settings(Long::Payload), 1).unwrap();
        let mut bytes = bytes::BytesMut::new();
        let command = rusmpp::Command::new(rusmpp::CommandStatus::EsmeRok, 5, submits[0].pdu.clone());
        tokio_util::codec::Encoder::encode(&mut super::super::wire::Pdus, command, &mut bytes).unwrap();
        let mut expected = vec![0, 0, 0, 70, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5];
        expected.extend(b"\0");
        expected.extend(b"\x05\x00Shop\0");
        expected.extend(b"\x01\x014915112345678\0");
        expected.extend([0, 0, 0]);
        expected.extend([0]);
        expected.extend(b"000000010000000R\0");
        expected.extend([1, 0, 0, 0]);
        expected.extend(b"\x04Hi \0");
        assert_eq!(bytes.to_vec(), expected);
    }

    #[test]
    fn an_address_goes_by_what_it_looks_like_unless_it_is_said() {
        for (text, on_the_wire, ton, npi) in [
            ("+4915112345678", "4915112345678", 1, 1),
            ("4915112345678", "4915112345678", 1, 1),
            ("72727", "72727", 3, 0),
            ("+72727", "72727", 1, 1),
            ("Shop24", "Shop24", 5, 0),
            ("+", "+", 5, 0),
            ("", "", 0, 0),
        ] {
            let found = address("from", text, NumberKind::default()).unwrap();
            assert_eq!((found.text.as_str(), u8::from(found.ton), u8::from(found.npi)), (on_the_wire, ton, npi));
        }
        let said = address("to", "72727", NumberKind { ton: Some(0), npi: Some(1) }).unwrap();
        assert_eq!((said.ton, said.npi), (Ton::Unknown, Npi::Isdn));
        for text in ["Größe", "123456789012345678901", "a\0b"] {
            assert!(address("to", text, NumberKind::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_text_goes_whole_or_in_parts() {
        let text = "0123456789".repeat(20);
        let whole = submits(&outgoing(&text), &settings(Long::Payload), 1).unwrap();
        let [Submit { pdu, part: None, .. }] = &whole[..] else { panic!("{whole:?}") };
        assert_eq!(pdu.sm_length(), 0);
        let payload = TlvValue::MessagePayload(MessagePayload::new(AnyOctetString::from_slice(text.as_bytes())));
        assert_eq!(pdu.tlvs()[0].value(), Some(&payload));

        let parts = submits(&outgoing(&text), &settings(Long::Split), 9).unwrap();
        let told: Vec<_> = parts.iter().map(|part| (part.part, part.pdu.short_message().len())).collect();
        assert_eq!(told, [(Some(Part { index: 0, of: 2 }), 159), (Some(Part { index: 1, of: 2 }), 53)]);
        assert_eq!(parts[1].pdu.short_message().as_ref()[..8], *b"\x05\x00\x03\x09\x02\x0234");
        assert_eq!(u8::from(parts[1].pdu.esm_class), 0x40);

        for (long, octets, said) in [
            (Long::Split, 153 * 255 + 1, "the text makes 256 parts; a text message has at most 255"),
            (Long::Payload, 65_536, "the text has 65536 bytes; SMPP has room for 65535"),
        ] {
            let error = submits(&outgoing(&"x".repeat(octets)), &settings(long), 1).unwrap_err();
            assert_eq!(error, said);
        }
        assert!(submits(&outgoing(&"x".repeat(153 * 255)), &settings(Long::Split), 1).is_ok());
        let (gsm, ucs2) = ("x".repeat(160), "я".repeat(70));
        for text in [gsm, ucs2] {
            assert_eq!(submits(&outgoing(&text), &settings(Long::Split), 1).unwrap().len(), 1);
            let parts = submits(&outgoing(&format!("{text}я")), &settings(Long::Split), 1).unwrap();
            assert!(parts.len() > 1 && parts[0].part.is_some());
        }
    }

    #[test]
    fn what_cannot_be_sent_is_said_in_words() {
        let mut settings = settings(Long::Payload);
        settings.to.clear();
        let error = submits(&outgoing("x"), &settings, 1).unwrap_err();
        assert_eq!(error, "there is no number to send to; give the channel or the step a `to`");
        let mut step = outgoing("x");
        step.fields.insert("to".to_owned(), "1234567".to_owned());
        assert_eq!(submits(&step, &settings, 1).unwrap()[0].to, "1234567");
        step.body = vec![0xff];
        assert!(submits(&step, &settings, 1).unwrap_err().contains("UTF-8"));
    }

    fn delivery(esm_class: u8, data_coding: u8, octets: &[u8]) -> DeliverSm {
        let mut delivery = DeliverSm::builder()
            .source_addr(COctetString::from_str("4915112345678").unwrap())
            .destination_addr(COctetString::from_str("72727").unwrap())
            .esm_class(EsmClass::from(esm_class))
            .data_coding(DataCoding::from(data_coding))
            .build();
        delivery.set_short_message(OctetString::from_slice(octets).unwrap());
        delivery
    }

    fn text(delivery: &DeliverSm) -> Message {
        let delivered = read(delivery, Alphabet::Gsm);
        assert_eq!(delivered.receipt, None);
        delivered.message
    }

    #[test]
    fn a_text_from_a_handset_is_read_with_its_numbers_and_its_part() {
        let message = text(&delivery(0, 8, &[0, 0x48, 0, 0x69, 4, 0x14]));
        assert_eq!(message.text(), "HiД");
        for (name, value) in
            [("message-type", "message"), ("from", "4915112345678"), ("to", "72727"), ("data-coding", "8")]
        {
            assert_eq!(message.header(name), Some(value));
        }
        assert_eq!((message.header("part"), &message.trouble, message.token), (None, &None, None));

        let message = text(&delivery(0x40, 0, b"\x05\x00\x03\x09\x02\x01Hello"));
        assert_eq!(message.text(), "Hello");
        let part =
            |message: &Message| ["part-reference", "part", "parts"].map(|name| message.header(name).map(str::to_owned));
        assert_eq!(part(&message), ["9", "1", "2"].map(|value| Some(value.to_owned())));
        let message = text(&delivery(0x40, 0, b"\x06\x08\x04\x01\x00\x03\x02Hello"));
        assert_eq!(part(&message), ["256", "2", "3"].map(|value| Some(value.to_owned())));
        let mut sar = delivery(0, 0, b"x");
        sar.push_tlv(MessageDeliveryRequestTlvValue::SarMsgRefNum(7));
        sar.push_tlv(MessageDeliveryRequestTlvValue::SarTotalSegments(4));
        sar.push_tlv(MessageDeliveryRequestTlvValue::SarSegmentSeqnum(3));
        assert_eq!(part(&text(&sar)), ["7", "3", "4"].map(|value| Some(value.to_owned())));
        // A header that is longer than the message is none.
        assert_eq!(text(&delivery(0x40, 0, b"\x3fHi")).text(), "?Hi");
    }

    #[test]
    fn a_receipt_is_told_by_its_class_or_its_parameter() {
        let octets = b"id:7b sub:001 dlvrd:000 submit date:2611210930 done date:2611210931 stat:UNDELIV err:011 text:";
        let Delivered { message, receipt } = read(&delivery(RECEIPT, 0, octets), Alphabet::Gsm);
        assert_eq!(receipt.expect("a receipt").id_in_text.as_deref(), Some("7b"));
        for (name, value) in [
            ("message-type", "receipt"),
            ("message-id", "7b"),
            ("stat", "UNDELIV"),
            ("err", "011"),
            ("submit-date", "2611210930"),
            ("done-date", "2611210931"),
        ] {
            assert_eq!(message.header(name), Some(value));
        }
        assert_eq!(message.hops, [Hop { name: "network".to_owned(), took: Duration::from_secs(60) }]);
        assert!(message.trouble.is_some());
        let mut unmarked = delivery(0, 0, b"");
        let id = COctetString::from_str("7b").unwrap();
        unmarked.push_tlv(MessageDeliveryRequestTlvValue::ReceiptedMessageId(id));
        assert!(read(&unmarked, Alphabet::Gsm).receipt.is_some());
        assert!(read(&delivery(NOTIFICATION, 0, b"id:1 stat:ENROUTE"), Alphabet::Gsm).receipt.is_some());
    }

    proptest! {
        #[test]
        fn any_delivery_is_read_somehow(esm_class: u8, data_coding: u8, octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = read(&delivery(esm_class, data_coding, &octets), Alphabet::Gsm);
        }
    }
}
