//! One SMTP session as a machine (RFC 5321): a line in, what to do next out. No socket, no clock.

/// A session.
#[derive(Debug, Default)]
pub(super) struct Session {
    greeted: bool,
    sender: Option<String>,
    recipients: Vec<String>,
    /// The mail so far, while `DATA` is under way.
    data: Option<Data>,
}

#[derive(Debug, Default)]
struct Data {
    bytes: Vec<u8>,
    /// Why it will be refused at its end.
    refusal: Option<&'static str>,
}

/// A mail with its envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
    pub(super) data: Vec<u8>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read on.
    Silence,
    /// Answer.
    Say(&'static str),
    /// Keep the mail, then answer.
    Take(Envelope, &'static str),
    /// Answer and close.
    Quit(&'static str),
}

impl Session {
    pub(super) const GREETING: &'static str = "220 sandbox.invalid ESMTP\r\n";
    /// RFC 5321 section 4.5.3.1.6: a text line with its CRLF.
    pub(super) const MAX_LINE: usize = 1000;
    /// Section 4.5.3.1.4: a command line with its CRLF.
    const MAX_COMMAND: usize = 512;
    /// Section 4.5.3.1.8.
    const MAX_RECIPIENTS: usize = 100;
    /// As `EHLO` says it.
    const MAX_SIZE: usize = 1 << 20;
    const EHLO: &'static str = "250-sandbox.invalid\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 1048576\r\n";

    /// Takes the next line, with its end.
    pub(super) fn line(&mut self, line: &[u8]) -> Next {
        match self.data.is_some() {
            true => self.text(line),
            false => self.command(line),
        }
    }

    fn command(&mut self, line: &[u8]) -> Next {
        if line.len() > Self::MAX_COMMAND {
            return Next::Say("500 5.5.2 line too long\r\n");
        }
        // A bare LF is not the end of a line (section 2.3.8); servers that differ on that let mails be smuggled.
        let Some(line) = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()) else {
            return Next::Say("500 5.5.2 a command is text and ends with CR LF\r\n");
        };
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => self.greet(Self::EHLO),
            "HELO" => self.greet("250 sandbox.invalid\r\n"),
            "MAIL" => self.mail(rest),
            "RCPT" => self.recipient(rest),
            "DATA" if self.recipients.is_empty() => Next::Say("503 5.5.1 first MAIL and RCPT\r\n"),
            "DATA" => {
                self.data = Some(Data::default());
                Next::Say("354 go on, end with a dot on its own line\r\n")
            }
            "RSET" => {
                self.forget();
                Next::Say("250 2.0.0 forgotten\r\n")
            }
            "NOOP" => Next::Say("250 2.0.0 still here\r\n"),
            "QUIT" => Next::Quit("221 2.0.0 bye\r\n"),
            _ => Next::Say("500 5.5.1 this server knows EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP and QUIT\r\n"),
        }
    }

    fn greet(&mut self, reply: &'static str) -> Next {
        self.forget();
        self.greeted = true;
        Next::Say(reply)
    }

    fn mail(&mut self, rest: &str) -> Next {
        let Some((sender, parameters)) = path(rest, "FROM:") else {
            return Next::Say("501 5.5.4 MAIL FROM:<address>\r\n");
        };
        if !self.greeted || self.sender.is_some() {
            return Next::Say("503 5.5.1 first EHLO, and one mail at a time\r\n");
        }
        // RFC 1870: a size that is told beforehand is refused beforehand.
        let size = parameters
            .split(' ')
            .find_map(|parameter| parameter.to_ascii_uppercase().strip_prefix("SIZE=")?.parse().ok());
        if size.is_some_and(|size: usize| size > Self::MAX_SIZE) {
            return Next::Say(TOO_LARGE);
        }
        self.sender = Some(sender.to_owned());
        Next::Say("250 2.1.0 go on\r\n")
    }

    fn recipient(&mut self, rest: &str) -> Next {
        if self.sender.is_none() {
            return Next::Say("503 5.5.1 first MAIL\r\n");
        }
        match path(rest, "TO:") {
            None | Some(("", _)) => Next::Say("501 5.5.4 RCPT TO:<address>\r\n"),
            Some(_) if self.recipients.len() >= Self::MAX_RECIPIENTS => Next::Say("452 4.5.3 too many recipients\r\n"),
            Some((recipient, _)) => {
                self.recipients.push(recipient.to_owned());
                Next::Say("250 2.1.5 go on\r\n")
            }
        }
    }

    fn text(&mut self, line: &[u8]) -> Next {
        let data = self.data.get_or_insert_default();
        if line == b".\r\n" {
            let Data { bytes, refusal } = std::mem::take(data);
            let (sender, recipients) = (self.sender.take().unwrap_or_default(), std::mem::take(&mut self.recipients));
            self.forget();
            return match refusal {
                Some(refusal) => Next::Say(refusal),
                None => Next::Take(Envelope { sender, recipients, data: bytes }, "250 2.0.0 kept\r\n"),
            };
        }
        // Section 4.5.2: the client put a dot before every line that begins with one. That dot does not count for the length.
        let line = line.strip_prefix(b".").unwrap_or(line);
        if line.len() > Self::MAX_LINE {
            data.refusal.get_or_insert("500 5.5.2 a line of the mail is too long\r\n");
        } else if data.bytes.len() + line.len() > Self::MAX_SIZE {
            data.refusal.get_or_insert(TOO_LARGE);
        }
        match data.refusal {
            None => data.bytes.extend_from_slice(line),
            Some(_) => data.bytes = Vec::new(),
        }
        Next::Silence
    }

    fn forget(&mut self) {
        *self = Session { greeted: self.greeted, ..Session::default() };
    }
}

const TOO_LARGE: &str = "552 5.3.4 the mail is larger than 1048576 bytes\r\n";

/// The address in `FROM:<…>` or `TO:<…>`, and the parameters behind it.
fn path<'a>(rest: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let (found, rest) = rest.split_at_checked(word.len())?;
    if !found.eq_ignore_ascii_case(word) {
        return None;
    }
    let (address, parameters) = rest.trim_start().strip_prefix('<')?.split_once('>')?;
    Some((address, parameters.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reply's code for each line.
    fn codes(session: &mut Session, lines: &[&str]) -> Vec<String> {
        lines
            .iter()
            .map(|line| match session.line(format!("{line}\r\n").as_bytes()) {
                Next::Silence => String::new(),
                Next::Say(reply) | Next::Take(_, reply) | Next::Quit(reply) => reply[..3].to_owned(),
            })
            .collect()
    }

    #[test]
    fn commands_have_an_order() {
        let mut session = Session::default();
        let told = codes(
            &mut session,
            &[
                "MAIL FROM:<a@x>",
                "ehlo me",
                "RCPT TO:<b@x>",
                "DATA",
                "mail from:<a@x> SIZE=10",
                "MAIL FROM:<a@x>",
                "DATA",
            ],
        );
        assert_eq!(told, ["503", "250", "503", "503", "250", "503", "503"]);
        let told = codes(
            &mut session,
            &["RCPT TO:b@x", "RCPT TO:<>", "RCPT TO:<b@x>", "NOOP", "RSET", "DATA", "VRFY b", "", "HELO me", "QUIT"],
        );
        assert_eq!(told, ["501", "501", "250", "250", "250", "503", "500", "500", "250", "221"]);
    }

    #[test]
    fn a_mail_loses_the_stuffed_dots_and_nothing_else() {
        let mut session = Session::default();
        codes(
            &mut session,
            &["EHLO me", "MAIL FROM:<>", "RCPT TO:<b@x>", "RCPT TO:<c@x>", "DATA", "Subject: s", "", "..", "...a"],
        );
        // Neither a bare LF around a dot nor a dot in a line ends the mail.
        assert_eq!(session.line(b".\n"), Next::Silence);
        assert_eq!(session.line(b"MAIL FROM:<evil@x>\r\n"), Next::Silence);
        let Next::Take(envelope, reply) = session.line(b".\r\n") else { panic!("a mail") };
        assert_eq!(envelope.data, b"Subject: s\r\n\r\n.\r\n..a\r\n\nMAIL FROM:<evil@x>\r\n");
        assert_eq!(
            (envelope.sender.as_str(), envelope.recipients.as_slice()),
            ("", ["b@x".to_owned(), "c@x".to_owned()].as_slice())
        );
        assert_eq!(reply, "250 2.0.0 kept\r\n");
        // The next mail begins from nothing.
        assert_eq!(codes(&mut session, &["DATA", "MAIL FROM:<d@x>"]), ["503", "250"]);
    }

    #[test]
    fn what_is_too_long_too_large_or_too_many_is_refused() {
        let mut session = Session::default();
        let long = format!("NOOP {}", "x".repeat(600));
        assert_eq!(
            codes(&mut session, &[&long, "EHLO me", "MAIL FROM:<a@x> BODY=8BITMIME SIZE=9999999"]),
            ["500", "250", "552"]
        );
        assert_eq!(session.line(b"NOOP\n"), Next::Say("500 5.5.2 a command is text and ends with CR LF\r\n"));

        codes(&mut session, &["MAIL FROM:<a@x>"]);
        let accepted = (0..200).filter(|_| codes(&mut session, &["RCPT TO:<b@x>"]) == ["250"]).count();
        assert_eq!(accepted, Session::MAX_RECIPIENTS);

        codes(&mut session, &["DATA"]);
        let line = "x".repeat(990);
        for _ in 0..1100 {
            assert_eq!(codes(&mut session, &[&line]), [""]);
        }
        assert_eq!(codes(&mut session, &["."]), ["552"]);

        codes(&mut session, &["MAIL FROM:<a@x>", "RCPT TO:<b@x>", "DATA", &"x".repeat(1200)]);
        assert_eq!(codes(&mut session, &["."]), ["500"]);
    }
}
