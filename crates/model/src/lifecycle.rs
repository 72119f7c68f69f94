//! Lifecycles: pure functions from a state and an event to the next state and what to do.
//!
//! An event that a state does not know is refused with both named; nothing is ever guessed.

use serde::{Deserialize, Serialize};

/// The event does not apply in this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not possible while {state}")]
pub struct Refused {
    /// The state, in words.
    pub state: String,
    /// The event, in words.
    pub event: String,
}

/// What came of an event: the next state and what is to be done, in order.
pub type Step<S, E> = Result<(S, Vec<E>), Refused>;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The value as it is written in the API and in the store.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = Refused;
            fn from_str(text: &str) -> Result<Self, Refused> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| Refused {
                    state: text.to_owned(),
                    event: concat!("reading a ", stringify!($name)).to_owned(),
                })
            }
        }
    };
}

words! {
    /// What a server is doing.
    ServerState {
        /// Recorded; nothing runs yet.
        Creating = "creating",
        /// A start is under way; it ends when the guest answers for itself.
        Starting = "starting",
        /// The guest answered: data disk mounted, manifest applied.
        Running = "running",
        /// A stop is under way.
        Stopping = "stopping",
        /// Stopped on purpose.
        Stopped = "stopped",
        /// The last step failed; the operation says why.
        Failed = "failed",
        /// Being deleted with its disk.
        Deleting = "deleting",
    }
}

words! {
    /// What happens to a server.
    ServerEvent {
        /// Somebody wants it up.
        Start = "start",
        /// Its guest answered.
        Answered = "answered",
        /// Somebody wants it down.
        Stop = "stop",
        /// Its VM ended as wanted.
        Ended = "ended",
        /// Its VM ended unasked, or a step failed for good.
        Fail = "fail",
        /// Its node died: another one owns it now.
        FailOver = "fail_over",
        /// Somebody wants it gone.
        Delete = "delete",
    }
}

words! {
    /// What control does when a server's state changes.
    ServerEffect {
        /// Let visitors in.
        OpenRoute = "open_route",
        /// Show visitors the friendly page instead.
        CloseRoute = "close_route",
        /// Ask the node to start the VM.
        StartVm = "start_vm",
        /// Ask the node to stop the VM.
        StopVm = "stop_vm",
        /// Remove VM, disk and addresses.
        Remove = "remove",
    }
}

impl ServerState {
    /// The next state of a server, and what is to be done about it.
    pub fn on(self, event: ServerEvent) -> Step<Self, ServerEffect> {
        use {ServerEffect as X, ServerEvent as E, ServerState as S};
        let step = match (self, event) {
            (S::Creating | S::Stopped | S::Failed, E::Start) => (S::Starting, vec![X::StartVm]),
            (S::Starting | S::Running, E::Start) => (self, vec![]),
            (S::Starting, E::Answered) => (S::Running, vec![X::OpenRoute]),
            (S::Running, E::Answered) => (S::Running, vec![]),
            (S::Running | S::Starting | S::Failed, E::Stop) => {
                (S::Stopping, vec![X::CloseRoute, X::StopVm])
            }
            (S::Deleting, E::FailOver) => {
                return Err(Refused {
                    state: self.to_string(),
                    event: event.to_string(),
                });
            }
            (_, E::FailOver) => (S::Starting, vec![X::CloseRoute, X::StartVm]),
            (S::Creating, E::Stop) => (S::Stopped, vec![]),
            (S::Stopping | S::Stopped, E::Stop) => (self, vec![]),
            (S::Stopping, E::Ended) => (S::Stopped, vec![]),
            (S::Stopped, E::Ended) => (S::Stopped, vec![]),
            (S::Running | S::Starting, E::Ended) => (S::Failed, vec![X::CloseRoute]),
            (S::Deleting, E::Delete | E::Fail | E::Ended) => (S::Deleting, vec![]),
            (_, E::Delete) => (S::Deleting, vec![X::CloseRoute, X::Remove]),
            (S::Stopped, E::Fail) => (S::Stopped, vec![]),
            (_, E::Fail) => (S::Failed, vec![X::CloseRoute]),
            (state, event) => {
                return Err(Refused {
                    state: state.to_string(),
                    event: event.to_string(),
                });
            }
        };
        Ok(step)
    }
}

words! {
    /// What a hardware node may be used for.
    NodeState {
        /// Joined; takes servers.
        Ready = "ready",
        /// Keeps what it has, takes nothing new.
        Cordoned = "cordoned",
        /// Has not been heard of lately.
        Silent = "silent",
        /// Declared dead: its servers run elsewhere until it has come back and been cleaned.
        Fenced = "fenced",
        /// Removed by the operator; its certificate counts no more.
        Removed = "removed",
    }
}

words! {
    /// What a site is doing.
    SiteState {
        /// Recorded; not yet on its server.
        Creating = "creating",
        /// Answers visitors.
        Active = "active",
        /// Visitors see the page for suspended sites.
        Suspended = "suspended",
        /// Its server could not apply it; the reason stands beside.
        Failed = "failed",
        /// Off, its content kept for a day in which that can be undone.
        Deleted = "deleted",
        /// Being removed with its content.
        Deleting = "deleting",
    }
}

impl SiteState {
    /// Was it deleted? Whether it can be undone or not.
    pub const fn is_leaving(self) -> bool {
        matches!(self, Self::Deleted | Self::Deleting)
    }
}

words! {
    /// How an operation stands.
    OperationState {
        /// Waits for an instance to take it.
        Pending = "pending",
        /// An instance works on it.
        Running = "running",
        /// Ended well.
        Succeeded = "succeeded",
        /// Ended with an error that it tells.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = ServerEvent> {
        proptest::sample::select(ServerEvent::ALL)
    }

    proptest! {
        #[test]
        fn a_route_is_open_only_while_running(events in proptest::collection::vec(event(), 0..40)) {
            let (mut state, mut open) = (ServerState::Creating, false);
            for event in events {
                let Ok((next, effects)) = state.on(event) else { continue };
                for effect in effects {
                    match effect {
                        ServerEffect::OpenRoute => open = true,
                        ServerEffect::CloseRoute => open = false,
                        _ => {}
                    }
                }
                state = next;
                prop_assert_eq!(open, state == ServerState::Running);
            }
        }

        #[test]
        fn nothing_brings_a_deleted_server_back(events in proptest::collection::vec(event(), 0..20)) {
            let mut state = ServerState::Deleting;
            for event in events {
                if let Ok((next, _)) = state.on(event) {
                    state = next;
                }
                prop_assert_eq!(state, ServerState::Deleting);
            }
        }

        #[test]
        fn an_event_said_twice_changes_nothing_more(
            state in proptest::sample::select(ServerState::ALL), event in event(),
        ) {
            if let Ok((once, _)) = state.on(event)
                && let Ok((twice, effects)) = once.on(event)
            {
                prop_assert_eq!(once, twice);
                // Each fail-over is another owner's: the next one starts the server again.
                let again = event == ServerEvent::FailOver;
                prop_assert!(again || effects.iter().all(|e| *e == ServerEffect::CloseRoute));
            }
        }
    }
}
