//! PDUs on a connection. Each is cut out by its length first and read afterwards, so that one that cannot be read costs
//! neither the connection nor the PDUs behind it: an SMS centre would deliver it again on the next bind, for ever.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use rusmpp::tokio_codec::CommandCodec;
use rusmpp::{Command, CommandId, CommandStatus};
use tokio_util::codec::{Decoder, Encoder};

/// Length, id, status, sequence number.
const HEADER: usize = 16;
/// A `message_payload` has up to 64 KiB; nothing else comes near.
const LONGEST: usize = 72 * 1024;

/// What came.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A PDU.
    Pdu(Box<Command>),
    /// One that breaks the protocol.
    Unreadable {
        /// What it says it is.
        id: CommandId,
        /// The status in its header.
        status: CommandStatus,
        /// Its sequence number.
        sequence: u32,
        /// What is wrong with it.
        why: String,
    },
}

/// Cuts and reads PDUs, and writes them.
#[derive(Debug, Default)]
pub(super) struct Pdus;

impl Decoder for Pdus {
    type Item = Incoming;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Incoming>> {
        let Some(mut length) = from.get(..4) else { return Ok(None) };
        let length = length.get_u32() as usize;
        if !(HEADER..=LONGEST).contains(&length) {
            let what = format!("no SMPP: a PDU cannot have {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if from.len() < length {
            from.reserve(length - from.len());
            return Ok(None);
        }
        Ok(Some(read(from.split_to(length))))
    }
}

impl Encoder<Command> for Pdus {
    type Error = io::Error;

    fn encode(&mut self, command: Command, to: &mut BytesMut) -> io::Result<()> {
        CommandCodec::new().encode(command, to).map_err(io::Error::other)
    }
}

fn read(pdu: BytesMut) -> Incoming {
    let mut header = &pdu[4..HEADER];
    let (id, status) = (CommandId::from(header.get_u32()), CommandStatus::from(header.get_u32()));
    let sequence = header.get_u32();
    let attempt = |mut pdu: BytesMut| CommandCodec::new().without_max_length().decode(&mut pdu);
    let why = match attempt(pdu.clone()) {
        Ok(Some(command)) => return Incoming::Pdu(Box::new(command)),
        Ok(None) => "cut short".to_owned(),
        Err(error) => error.to_string(),
    };
    match mended(&pdu, id).map(attempt) {
        Some(Ok(Some(command))) => Incoming::Pdu(Box::new(command)),
        _ => Incoming::Unreadable { id, status, sequence, why },
    }
}

/// Optional parameters that we read, by tag: the rest may be as broken as it likes. SMPP 3.4 section 5.3.2.
const MESSAGE_ID: u16 = 0x001e;
const READ: &[u16] = &[MESSAGE_ID, 0x020c, 0x020e, 0x020f, 0x0423, 0x0424, 0x0427];

/// A PDU with the faults mended that SMS centres are known for: letters beyond ASCII in names and numbers, a message id without
/// its final zero, broken optional parameters. `None` if that cannot help.
fn mended(pdu: &[u8], id: CommandId) -> Option<BytesMut> {
    let mut rest = pdu.get(HEADER..)?;
    let mut out = BytesMut::from(&pdu[..HEADER]);
    match id {
        CommandId::DeliverSm => {
            // service_type; the source's TON, NPI and address; the destination's; esm_class, protocol_id, priority_flag;
            // two times; registered_delivery, replace_if_present, data_coding, sm_default_msg_id, sm_length.
            for (octets, is_text) in [(0, true), (2, true), (2, true), (3, true), (0, true), (5, false)] {
                out.put_slice(rest.split_off(..octets)?);
                if is_text {
                    put_text(&mut out, &mut rest)?;
                }
            }
            let length = usize::from(*out.last()?);
            out.put_slice(rest.split_off(..length)?);
        }
        CommandId::SubmitSmResp => {
            put_text(&mut out, &mut rest).or_else(|| {
                put_ascii(&mut out, rest);
                rest = &[];
                Some(())
            })?;
        }
        _ => return None,
    }
    while let (Some(mut tag), Some(mut length)) = (rest.get(..2), rest.get(2..4)) {
        let (tag, length) = (tag.get_u16(), length.get_u16());
        let Some(value) = rest.get(4..4 + usize::from(length)) else { break };
        rest = &rest[4 + usize::from(length)..];
        if READ.contains(&tag) {
            let lacks_end = tag == MESSAGE_ID && value.last() != Some(&0);
            out.put_u16(tag);
            out.put_u16(length + u16::from(lacks_end));
            out.put_slice(value);
            if lacks_end {
                out.put_u8(0);
            }
        }
    }
    let length = u32::try_from(out.len()).ok()?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Some(out)
}

/// A text up to its final zero.
fn put_text(out: &mut BytesMut, rest: &mut &[u8]) -> Option<()> {
    let length = rest.iter().position(|octet| *octet == 0)?;
    put_ascii(out, &rest[..length]);
    *rest = &rest[length + 1..];
    Some(())
}

fn put_ascii(out: &mut BytesMut, text: &[u8]) {
    out.extend(text.iter().map(|octet| if octet.is_ascii() { *octet } else { b'?' }));
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;
    use rusmpp::Pdu;
    use rusmpp::pdus::{DeliverSm, SubmitSmResp};
    use rusmpp::types::{COctetString, OctetString};

    use super::*;

    fn bytes(pdu: impl Into<Pdu>) -> BytesMut {
        let mut out = BytesMut::new();
        Pdus.encode(Command::new(CommandStatus::EsmeRok, 7, pdu), &mut out).unwrap();
        out
    }

    fn delivery() -> BytesMut {
        let source = COctetString::from_str("Shop").unwrap();
        let text = OctetString::from_slice(b"hello").unwrap();
        bytes(DeliverSm::builder().source_addr(source).short_message(text).build())
    }

    fn with_parameter(mut pdu: BytesMut, tag: u16, length: u16, value: &[u8]) -> BytesMut {
        pdu.put_u16(tag);
        pdu.put_u16(length);
        pdu.put_slice(value);
        let length = pdu.len() as u32;
        pdu[..4].copy_from_slice(&length.to_be_bytes());
        pdu
    }

    fn decoded(mut bytes: BytesMut) -> Incoming {
        let incoming = Pdus.decode(&mut bytes).unwrap().expect("a whole PDU");
        assert!(bytes.is_empty());
        incoming
    }

    #[test]
    fn what_sms_centres_get_wrong_is_mended() {
        let mut umlaut = delivery();
        let at = umlaut.windows(4).position(|window| window == b"Shop").unwrap();
        umlaut[at + 2] = 0xf6;
        let without_end = with_parameter(delivery(), MESSAGE_ID, 3, b"abc");
        let cut = with_parameter(delivery(), 0x1400, 9, b"abc");
        for (name, pdu, source, parameters) in
            [("umlaut", umlaut, "Sh?p", 0), ("no end", without_end, "Shop", 1), ("cut", cut, "Shop", 0)]
        {
            let Incoming::Pdu(command) = decoded(pdu) else { panic!("{name} is unreadable") };
            let Some(Pdu::DeliverSm(delivery)) = command.pdu() else { panic!("{name}: {command:?}") };
            assert_eq!(delivery.source_addr.as_str(), source, "{name}");
            assert_eq!(delivery.short_message().as_ref(), b"hello", "{name}");
            assert_eq!(delivery.tlvs().len(), parameters, "{name}");
        }
        let mut answer = bytes(SubmitSmResp::new(COctetString::from_str("abc").unwrap(), Vec::new()));
        answer.truncate(answer.len() - 1);
        answer[3] -= 1;
        let Incoming::Pdu(command) = decoded(answer) else { panic!("unreadable") };
        let Some(Pdu::SubmitSmResp(answer)) = command.pdu() else { panic!("{command:?}") };
        assert_eq!(answer.message_id().as_str(), "abc");
    }

    #[test]
    fn one_that_cannot_be_read_costs_only_itself() {
        let mut bad = delivery();
        bad.truncate(20);
        bad[3] = 20;
        bad.extend_from_slice(&delivery());
        let first = Pdus.decode(&mut bad).unwrap();
        assert!(matches!(first, Some(Incoming::Unreadable { id: CommandId::DeliverSm, sequence: 7, .. })), "{first:?}");
        assert!(matches!(Pdus.decode(&mut bad).unwrap(), Some(Incoming::Pdu(_))));
        assert!(Pdus.decode(&mut bad).unwrap().is_none());
    }

    #[test]
    fn what_is_no_smpp_is_told_so() {
        let error = Pdus.decode(&mut BytesMut::from(&b"HTTP/1.1 400 Bad Request"[..])).unwrap_err();
        assert_eq!(error.to_string(), "no SMPP: a PDU cannot have 1213486160 bytes");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..120), id in 0u32..16, answer: bool) {
            let mut pdu = BytesMut::new();
            pdu.put_u32(16 + body.len() as u32);
            pdu.put_u32(id | if answer { 0x8000_0000 } else { 0 });
            pdu.put_u32(0);
            pdu.put_u32(1);
            pdu.put_slice(&body);
            prop_assert!(Pdus.decode(&mut pdu).unwrap().is_some());
        }

        #[test]
        fn bent_bytes_never_panic(at in 4usize..200, byte: u8, cut in 0usize..200) {
            let mut pdu = with_parameter(delivery(), MESSAGE_ID, 3, b"ab\0");
            let length = pdu.len();
            pdu[at % length] = byte;
            pdu[0..4].copy_from_slice(&(length as u32).to_be_bytes());
            pdu.truncate(length - cut % (length - 16));
            let length = pdu.len() as u32;
            pdu[0..4].copy_from_slice(&length.to_be_bytes());
            prop_assert!(Pdus.decode(&mut pdu).unwrap().is_some());
        }
    }
}
