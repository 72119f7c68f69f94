//! What a VM is doing, and the events that tell of a change.

use serde::{Deserialize, Serialize};

use crate::qmp::Event;

/// QEMU's run state, as far as it makes a difference to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// The guest runs.
    Running,
    /// Somebody stopped it.
    Paused,
    /// Never ran yet.
    Prelaunch,
    /// Waits for, or receives, memory.
    InMigrate,
    /// Its memory has been written out.
    PostMigrate,
    /// Stopped itself, because a replica failed.
    IoError,
    /// Its kernel gave up.
    GuestPanicked,
    /// Powered off, or on its way.
    Shutdown,
    /// Something else; the guest does not run.
    Other,
}

impl RunState {
    /// Reads QEMU's word for it.
    pub fn named(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "paused" | "save-vm" | "restore-vm" | "finish-migrate" => Self::Paused,
            "prelaunch" => Self::Prelaunch,
            "inmigrate" => Self::InMigrate,
            "postmigrate" => Self::PostMigrate,
            "io-error" => Self::IoError,
            "guest-panicked" => Self::GuestPanicked,
            "shutdown" => Self::Shutdown,
            _ => Self::Other,
        }
    }

    /// Whether guest code runs.
    pub fn is_running(self) -> bool {
        self == Self::Running
    }
}

/// The events that a VM's keeper acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    /// The guest stands still; [`super::Vm::state`] tells why.
    Stopped,
    /// The guest runs again.
    Resumed,
    /// A disk request failed and the guest was stopped for it.
    BlockIoError {
        /// The device, for example `data-disk`.
        device: String,
        /// Whether it was a write.
        write: bool,
        /// Whether there was no space left.
        no_space: bool,
        /// The system's words.
        reason: String,
    },
    /// One child of the data disk's quorum failed.
    ReplicaFailed {
        /// The child's block node, for example `data-c1`.
        node: String,
        /// The system's words; empty when the child merely disagreed.
        reason: String,
    },
    /// QEMU is about to end.
    Shutdown {
        /// Whether the guest asked for it.
        by_guest: bool,
        /// QEMU's word: `guest-shutdown`, `guest-reset`, `host-qmp-quit`, …
        reason: String,
    },
    /// The guest's kernel gave up.
    GuestPanicked,
}

impl VmEvent {
    /// Reads an event; `None` for those that nobody acts on.
    pub fn read(event: &Event) -> Option<Self> {
        let text = |name: &str| event.data[name].as_str().unwrap_or_default().to_owned();
        Some(match event.name.as_str() {
            "STOP" => Self::Stopped,
            "RESUME" => Self::Resumed,
            "BLOCK_IO_ERROR" => Self::BlockIoError {
                // Devices added by `device_add` are told by their path only.
                device: text("qom-path")
                    .split('/')
                    .nth(3)
                    .unwrap_or_default()
                    .to_owned(),
                write: event.data["operation"] == "write",
                no_space: event.data["nospace"] == true,
                reason: text("reason"),
            },
            "QUORUM_REPORT_BAD" => Self::ReplicaFailed {
                node: text("node-name"),
                reason: text("error"),
            },
            "SHUTDOWN" => Self::Shutdown {
                by_guest: event.data["guest"] == true,
                reason: text("reason"),
            },
            "GUEST_PANICKED" => Self::GuestPanicked,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::qmp::Timestamp;

    fn event(name: &str, data: serde_json::Value) -> Option<VmEvent> {
        VmEvent::read(&Event {
            name: name.into(),
            data,
            timestamp: Timestamp::default(),
        })
    }

    #[test]
    fn a_disk_error_names_its_device() {
        let data = json!({"device": "", "qom-path": "/machine/peripheral/data-disk/virtio-backend",
            "node-name": "data", "reason": "Input/output error", "operation": "write",
            "action": "stop", "nospace": false});
        let device = "data-disk".to_owned();
        let reason = "Input/output error".to_owned();
        let wanted = VmEvent::BlockIoError {
            device,
            write: true,
            no_space: false,
            reason,
        };
        assert_eq!(event("BLOCK_IO_ERROR", data), Some(wanted));
    }

    #[test]
    fn a_guests_own_end_is_told_from_ours() {
        let told = event("SHUTDOWN", json!({"guest": true, "reason": "guest-reset"}));
        let reason = "guest-reset".to_owned();
        assert_eq!(
            told,
            Some(VmEvent::Shutdown {
                by_guest: true,
                reason
            })
        );
    }

    #[test]
    fn events_that_nobody_acts_on_are_passed_over() {
        assert_eq!(event("RTC_CHANGE", json!({"offset": 1})), None);
    }

    #[test]
    fn unknown_states_do_not_count_as_running() {
        assert_eq!(RunState::named("io-error"), RunState::IoError);
        assert!(!RunState::named("something-new").is_running());
    }
}
