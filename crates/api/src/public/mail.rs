//! How the panel sends mail.

use super::{answers, choices, requests};

answers! {
    /// How the panel sends mail.
    pub struct MailSettings {
        /// Is there a mail server? Without one nobody is sent anything.
        pub on: bool,
        /// The mail server; empty when there is none.
        pub host: String,
        /// Its port.
        pub port: u16,
        /// How the connection is encrypted.
        pub encryption: MailEncryption,
        /// Who the panel is to the mail server; none when it asks for nobody.
        pub user: Option<String>,
        /// Is there a password for that? It is never shown.
        pub has_password: bool,
        /// The sender of the mails, such as `Undine <panel@example.com>`.
        pub from: String,
        /// Counts its changes; 0 as long as it was never set.
        pub version: i64,
    }

    /// A mail that was sent to try the settings.
    pub struct MailTried {
        /// To whom.
        pub to: String,
    }
}

choices! {
    /// How a connection to the mail server is encrypted.
    #[derive(Default)]
    pub enum MailEncryption {
        /// TLS from the first byte; usually at port 465.
        Tls,
        /// TLS after a first word, and no mail without it; usually at port 587.
        #[default]
        Starttls,
        /// None. A password is sent so to an address of the same machine only.
        None,
    }
}

requests! {
    /// A change of how the panel sends mail; what is left out stays.
    #[derive(Default)]
    pub struct UpdateMailSettings {
        /// The mail server, by name or address; an empty text: no mail any more.
        #[serde(default)]
        pub host: Option<String>,
        /// Its port; unless it was ever set, the usual one of the encryption.
        #[serde(default)]
        pub port: Option<u16>,
        /// How the connection is encrypted.
        #[serde(default)]
        pub encryption: Option<MailEncryption>,
        /// Who the panel is to the mail server; an empty text: nobody.
        #[serde(default)]
        pub user: Option<String>,
        /// The password for that. It must be given again when server or user change, so that it
        /// goes to nobody for whom it was not meant.
        #[serde(default)]
        pub password: Option<String>,
        /// The sender of the mails.
        #[serde(default)]
        pub from: Option<String>,
    }

    /// A wish for a mail that shows that the settings work.
    pub struct TryMail {
        /// To whom.
        pub to: String,
    }
}
