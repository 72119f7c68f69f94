//! What QEMU tells by itself: lost disks, ends, resumptions.

use undine_qemu::qmp;
use undine_qemu::vm::VmEvent;

use super::Actor;
use crate::server::phase::Event;

impl Actor {
    pub(super) fn event(&mut self, event: Option<qmp::Event>) {
        let Some(event) = event else {
            self.events = None;
            return;
        };
        self.note(&event);
        match VmEvent::read(&event) {
            Some(VmEvent::BlockIoError {
                reason, no_space, ..
            }) => {
                let why = if no_space {
                    "no space is left on a replica"
                } else {
                    &reason
                };
                tracing::error!(server = %self.server, why, "the server lost its disk and stands still");
                self.status.send_modify(|status| {
                    status.error = Some(format!("it stands still: its disk failed ({why})"));
                });
                self.apply(Event::Lost);
            }
            Some(VmEvent::ReplicaFailed { node, reason }) => {
                tracing::error!(server = %self.server, node, reason, "a replica failed");
                self.ground.changed.tell();
            }
            Some(VmEvent::Resumed) => {
                self.status.send_modify(|status| status.error = None);
                self.apply(Event::Resumed);
            }
            _ => {}
        }
    }

    pub(super) fn note(&mut self, event: &qmp::Event) {
        match VmEvent::read(event) {
            Some(VmEvent::Shutdown {
                by_guest: true,
                reason,
            }) => {
                self.last_words = Some(format!("the guest ended it, {reason}"));
            }
            Some(VmEvent::Shutdown { reason, .. }) => self.last_words = Some(reason),
            Some(VmEvent::GuestPanicked) => {
                self.last_words = Some("the guest's kernel gave up".to_owned());
            }
            _ => {}
        }
    }
}
