//! Why a step did not end well: something to wait for, or the end.

use undine_link::{CallError, CredentialsError};
use undine_store::StoreError;

use crate::refusal::{Refusal, capital, chain};

/// The result of steps.
pub type Outcome<T> = Result<T, Trouble>;

/// Why a step did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It may end well later: it is tried again.
    #[error("{detail}")]
    Wait {
        /// What happened.
        detail: String,
        /// What to do about it.
        remedy: String,
    },
    /// It will not end well.
    #[error("{detail}")]
    Stop {
        /// What happened.
        detail: String,
        /// What to do about it.
        remedy: String,
    },
    /// Another instance works on it now: let go at once, write nothing.
    #[error("another instance has taken the operation over")]
    Lost,
}

impl Trouble {
    /// It may end well later.
    pub fn wait(detail: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        Self::Wait {
            detail: capital(detail.as_ref()),
            remedy: remedy.into(),
        }
    }

    /// It will not end well.
    pub fn stop(detail: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        Self::Stop {
            detail: capital(detail.as_ref()),
            remedy: remedy.into(),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::LostLease(_) => Self::Lost,
            StoreError::Conflict(_)
            | StoreError::Unavailable(_)
            | StoreError::Unknown(_)
            | StoreError::Stale { .. } => Self::wait(chain(&error), "It is tried again by itself."),
            _ => Self::stop(chain(&error), "Look at the log of control."),
        }
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Refused(problem) => {
                let remedy = problem.remedy.clone().unwrap_or_default();
                if error.is_transient() {
                    Self::wait(&problem.detail, remedy)
                } else {
                    Self::stop(&problem.detail, remedy)
                }
            }
            CallError::Unreachable { peer, .. } => Self::wait(
                format!("{peer} does not answer: {}", chain(&error)),
                "It is tried again by itself; see whether the node is up.",
            ),
            CallError::Unexpected { .. } => Self::stop(
                chain(&error),
                "See that control, node and guest are of versions that fit together.",
            ),
        }
    }
}

impl From<CredentialsError> for Trouble {
    fn from(error: CredentialsError) -> Self {
        Self::stop(chain(&error), "Look at the state directory of control.")
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        let remedy = refusal.0.remedy.clone().unwrap_or_default();
        match refusal.0.status {
            503 | 412 => Self::wait(&refusal.0.detail, remedy),
            _ => Self::stop(&refusal.0.detail, remedy),
        }
    }
}
