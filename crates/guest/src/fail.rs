//! Failures as the node hears them.

use std::fmt::Display;

use undine_api::guest::{Failure, FailureKind};

/// The result of anything that a request asks for.
pub type Outcome<T> = Result<T, Failure>;

/// A failure of a kind.
pub fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}

/// Says what was being done when something failed in the server.
pub trait Doing<T> {
    /// `what` reads after "could not": `could not make /srv/sites: …`.
    fn doing(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: std::error::Error> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| {
            let mut message = format!("could not {what}: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                message.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            failure(kind_of(&error), message)
        })
    }
}

/// A full disk is told apart: its remedy is another one.
fn kind_of(error: &(impl std::error::Error + ?Sized)) -> FailureKind {
    let text = error.to_string();
    if text.contains("os error 28") || text.contains("os error 122") {
        FailureKind::Full
    } else {
        FailureKind::Internal
    }
}
