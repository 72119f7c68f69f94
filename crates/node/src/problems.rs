//! The problems that the agent tells control, one function a kind.

use undine_api::Problem;
use undine_model::ServerId;

use crate::cgroup::CgroupError;
use crate::files::FileError;
use crate::uids::UidError;

/// An error with everything that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The request is of an owner that has been replaced.
pub fn stale_epoch(asked: u64, seen: u64) -> Problem {
    Problem::new(
        409,
        "stale-epoch",
        "The epoch is over",
        format!("the request is of epoch {asked}; this node has seen epoch {seen}"),
    )
    .field("epoch")
    .remedy("read the server's record again")
}

/// The request is of an epoch under which the server does not run here.
pub fn other_epoch(asked: u64, runs: u64) -> Problem {
    Problem::new(
        409,
        "other-epoch",
        "The server runs under another epoch",
        format!("the request is of epoch {asked}; the server is here under epoch {runs}"),
    )
    .field("epoch")
}

/// No such server here.
pub fn absent(server: ServerId) -> Problem {
    Problem::new(
        404,
        "server-absent",
        "The server is not on this node",
        format!("no server {server} is known here"),
    )
}

/// The state folder failed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "used as an argument of map_err"
)]
pub fn files(error: FileError) -> Problem {
    internal(chain(&error))
}

/// Control groups failed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "used as an argument of map_err"
)]
pub fn cgroup(error: CgroupError) -> Problem {
    internal(chain(&error))
}

/// No user id is left.
#[expect(
    clippy::needless_pass_by_value,
    reason = "used as an argument of map_err"
)]
pub fn uids(error: UidError) -> Problem {
    Problem::new(507, "no-user-ids", "No user id is left", chain(&error))
}

/// Something in the node failed.
pub fn internal(detail: String) -> Problem {
    Problem::new(500, "node-failed", "Something on the node failed", detail)
}
