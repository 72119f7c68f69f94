//! Work with the rights of a site's user.
//!
//! A thread of its own takes on the user's file system ids and gives up every capability. Only
//! those ids: with its real ones the site's programs could send the thread a signal, and that
//! ends the whole agent.

use rustix::process::getuid;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups};
use undine_api::guest::FailureKind;

use crate::fail::{Doing, Outcome, failure};
use crate::sys;

/// Does `work` as this user and comes back.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            become_user(uid)?;
            work()
        });
        thread.join().unwrap_or_else(|_| {
            Err(failure(
                FailureKind::Internal,
                "the work on the site's files broke off",
            ))
        })
    })
}

fn become_user(uid: u32) -> Outcome<()> {
    // Tests run as whoever they run as.
    if getuid().as_raw() == uid {
        return Ok(());
    }
    let wrong = "take on the rights of the site's user";
    set_thread_groups(&[]).doing(wrong)?;
    sys::set_fs_ids(uid, uid).doing(wrong)?;
    // With these a thread ignores quotas, whoever it is.
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).doing(wrong)
}
