//! Mail that waits to be sent. It holds no secret: what a mail carries is made when it is sent.

use undine_model::Id;

use crate::record::{record, words};

/// Marks the id of a mail that waits.
pub enum MailKind {}
/// The id of a mail that waits.
pub type MailId = Id<MailKind>;

words! {
    /// What a mail is about.
    MailAbout {
        /// Somebody at this address may have forgotten their password: whether there is such a
        /// person is looked up by whoever sends it.
        Reset = "reset",
        /// The password was changed by a link.
        Changed = "changed",
    }
}

record! {
    /// A mail that waits to be sent.
    Mail, "mail" in "mails", id MailId {
        /// To whom, in lower case.
        address: String,
        /// About what.
        about: MailAbout,
        /// How often it was tried.
        tries: i64,
        /// Not before this; whoever tries moves it on first, so that others leave it alone.
        not_before: i64,
        /// Why it was not sent the last time.
        error: Option<String>,
    }
    /// Which mails.
    filter MailFilter { address: String, about: MailAbout }
    frozen {}
}
