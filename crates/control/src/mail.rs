//! The mail server: how it is set, and one conversation with it for each mail.

use std::net::IpAddr;
use std::time::Duration;

use lettre::address::{Address, Envelope};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc2822;
use undine_api::public::MailEncryption;
use undine_store::Db;
use uuid::Uuid;

use crate::clock::now_utc;
use crate::control::Control;
use crate::refusal::{Refusal, Result, capital, chain};

/// No answer of the mail server takes longer.
const ANSWER: Duration = Duration::from_secs(20);
/// No conversation takes longer.
pub const WHOLE: Duration = Duration::from_secs(60);
/// The password opens for this only.
const PURPOSE: &str = "settings/mail";

/// The mail server, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smtp {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub encryption: MailEncryption,
    /// Who we are to it.
    pub user: Option<String>,
    /// The password for that, sealed.
    pub sealed: Option<String>,
    /// The sender.
    pub from: String,
}

impl Smtp {
    /// The setting that holds it.
    pub const KEY: &'static str = "mail";

    /// As it is set; none when no mail is sent.
    pub async fn of(db: &impl Db) -> Result<Option<Self>> {
        let kept: Option<Self> = db.settings().get(Self::KEY).await?;
        Ok(kept.filter(|smtp| !smtp.host.is_empty()))
    }

    /// Keeps a password.
    pub fn seal(&mut self, control: &Control, password: &str) {
        self.sealed = Some(control.secrets.seal(PURPOSE, password.as_bytes()));
    }

    /// Refuses what cannot work or would give the password away.
    pub fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if self.host.len() > 253 || !self.host.chars().all(plain) {
            return Err(Refusal::invalid("host", "This is no host.")
                .remedy("Write a name like mail.example.com, or an address."));
        }
        if self.port == 0 {
            return Err(Refusal::invalid("port", "A port is 1 to 65535."));
        }
        mailbox("from", &self.from)?;
        if self.user.is_some() != self.sealed.is_some() {
            let missing = if self.user.is_some() {
                "password"
            } else {
                "user"
            };
            return Err(Refusal::invalid(
                missing,
                "A user and a password go together.",
            ));
        }
        if self.encryption == MailEncryption::None && self.user.is_some() && !self.is_here() {
            return Err(Refusal::invalid(
                "encryption",
                "The password would cross the network for anybody to read.",
            )
            .remedy("Choose tls or starttls."));
        }
        Ok(())
    }

    /// In a sentence. A host may be a bare word, which is not to look like a sentence's first.
    fn called(&self) -> String {
        format!("the mail server {} at port {}", self.host, self.port)
    }

    fn is_here(&self) -> bool {
        let address: Option<IpAddr> = self.host.parse().ok();
        self.host == "localhost" || address.is_some_and(|it| it.is_loopback())
    }

    fn transport(&self, control: &Control) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
        let parameters = || {
            TlsParameters::new(self.host.clone()).map_err(|error| failed(chain(&error), false).0)
        };
        let tls = match self.encryption {
            MailEncryption::Tls => Tls::Wrapper(parameters()?),
            MailEncryption::Starttls => Tls::Required(parameters()?),
            MailEncryption::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(ANSWER))
            .hello_name(ClientId::Domain(control.cluster.panel_host()));
        if let (Some(user), Some(sealed)) = (&self.user, &self.sealed) {
            let password = control.secrets.open(PURPOSE, sealed);
            let password = password.map_err(|error| Refusal::internal(&error))?;
            builder = builder.credentials(Credentials::new(user.clone(), password.to_string()));
        }
        Ok(builder.build())
    }
}

/// An address with or without a name before it.
#[derive(Debug, Clone)]
pub struct Mailbox {
    name: String,
    /// The address.
    pub email: Address,
}

impl std::fmt::Display for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "<{}>", self.email),
            name => write!(f, "\"{name}\" <{}>", self.email),
        }
    }
}

/// Reads an address with or without a name before it.
pub fn mailbox(field: &str, text: &str) -> Result<Mailbox> {
    let wrong = || {
        Refusal::invalid(field, "This is no mail address.")
            .remedy("Write it like ann@example.com or Ann <ann@example.com>, the name in ASCII.")
    };
    let text = text.trim();
    if text.len() > 300 || text.chars().any(char::is_control) {
        return Err(wrong());
    }
    let (name, email) = match text.strip_suffix('>').and_then(|it| it.split_once('<')) {
        Some((name, email)) => (name.trim().trim_matches('"'), email),
        None => ("", text),
    };
    // These stand between quotation marks in a header as they are.
    let plain = |c: char| c.is_ascii_graphic() && !"\"\\<>".contains(c) || c == ' ';
    if !name.chars().all(plain) || email.contains(['<', '>']) {
        return Err(wrong());
    }
    let email = email.trim().parse().map_err(|_| wrong())?;
    let name = name.to_owned();
    Ok(Mailbox { name, email })
}

/// A mail in plain ASCII: nothing of what people say of themselves is in it.
pub struct Letter {
    /// To whom.
    pub to: Mailbox,
    /// About what.
    pub subject: String,
    /// The text.
    pub text: String,
}

/// Why a mail was not sent, and whether there is any use in trying again.
pub struct Failed(pub Refusal, pub Again);

/// Is there any use in trying again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The mail server may be back later.
    Later,
    /// It does not want this mail.
    Never,
}

fn failed(detail: impl Into<String>, for_good: bool) -> Failed {
    let refusal = Refusal::of(
        502,
        "mail-failed",
        "The mail was not sent",
        capital(&detail.into()),
    );
    let refusal = refusal.remedy("Check the settings of the mail server, and the server itself.");
    Failed(refusal, if for_good { Again::Never } else { Again::Later })
}

/// Hands a mail to the mail server: done when that has taken it.
pub async fn send(control: &Control, smtp: &Smtp, letter: Letter) -> Result<(), Failed> {
    let transport = smtp
        .transport(control)
        .map_err(|refusal| Failed(refusal, Again::Later))?;
    let from = mailbox("from", &smtp.from).map_err(|refusal| Failed(refusal, Again::Later))?;
    let text = written(control, &from, &letter)?;
    let envelope = Envelope::new(Some(from.email), vec![letter.to.email]);
    let envelope = envelope.map_err(|error| failed(chain(&error), true))?;
    let sending = transport.send_raw(&envelope, text.as_bytes());
    match tokio::time::timeout(WHOLE, sending).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(
            format!("{}: {error}", smtp.called()),
            error.is_permanent(),
        )),
        Err(_) => Err(failed(format!("{} takes too long", smtp.called()), false)),
    }
}

/// Few headers and short lines of ASCII need no library to write them.
fn written(control: &Control, from: &Mailbox, letter: &Letter) -> Result<String, Failed> {
    let now = now_utc().format(&Rfc2822);
    let now = now.map_err(|error| failed(chain(&error), true))?;
    let id = format!("<{}@{}>", Uuid::now_v7(), control.cluster.panel_host());
    let to = &letter.to;
    let subject = &letter.subject;
    let text = letter.text.replace('\n', "\r\n");
    Ok(format!(
        "From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {now}\r\n\
         Message-ID: {id}\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n{text}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(host: &str, encryption: MailEncryption) -> Smtp {
        Smtp {
            host: host.to_owned(),
            port: 25,
            encryption,
            user: Some("panel".to_owned()),
            sealed: Some("sealed".to_owned()),
            from: "Undine <panel@example.com>".to_owned(),
        }
    }

    #[test]
    fn a_password_crosses_no_network_in_the_clear() {
        use MailEncryption as E;
        assert!(smtp("mail.example.com", E::Starttls).check().is_ok());
        assert!(smtp("127.0.0.1", E::None).check().is_ok());
        let refused = smtp("mail.example.com", E::None).check().unwrap_err();
        assert_eq!(refused.0.field.as_deref(), Some("encryption"));
        let mut nobody = smtp("mail.example.com", E::None);
        (nobody.user, nobody.sealed) = (None, None);
        assert!(nobody.check().is_ok());
    }

    #[test]
    fn a_mail_server_s_name_is_told_as_it_was_set() {
        for host in ["mail.example.org", "localhost", "relay"] {
            let said = failed(
                format!("{}: refused", smtp(host, MailEncryption::Tls).called()),
                false,
            );
            let wanted = format!("The mail server {host} at port 25: refused.");
            assert_eq!(said.0.0.detail, wanted);
        }
    }

    #[test]
    fn addresses_that_would_write_headers_are_refused() {
        for bad in [
            "ann",
            "ann@example.com\r\nBcc: all@example.com",
            "a b@c.d",
            "Ann \"Lee <ann@example.com>",
            "Ann <ann@example.com> <eve@example.com>",
            "",
        ] {
            assert!(mailbox("to", bad).is_err(), "{bad:?}");
        }
        let ann = mailbox("to", "Ann Lee <ann@example.com>").unwrap();
        assert_eq!(ann.to_string(), "\"Ann Lee\" <ann@example.com>");
        let bare = mailbox("to", "ann@example.com").unwrap();
        assert_eq!(bare.to_string(), "<ann@example.com>");
    }
}
