//! What control is told when a replica cannot be had.

use undine_api::Problem;
use undine_qemu::sidecar::SidecarError;
use undine_qemu::storage::StorageError;

use crate::problems;

/// The sidecar's.
pub(super) fn sidecar_problem(error: SidecarError) -> Problem {
    match error {
        SidecarError::LowerEpoch { asked, seen } => problems::stale_epoch(asked, seen),
        other => problems::internal(problems::chain(&other)),
    }
}

/// The storage daemon's, or its image's.
pub(super) fn storage(error: StorageError) -> Problem {
    match error {
        StorageError::Sidecar(error) => sidecar_problem(error),
        StorageError::Lost { .. } => Problem::new(
            409,
            "replica-lost",
            "The replica is lost",
            error.to_string(),
        ),
        StorageError::OtherSize { .. } => Problem::new(
            409,
            "other-size",
            "The replica has another size",
            error.to_string(),
        )
        .field("size"),
        other => Problem::new(
            500,
            "storage-failed",
            "The disk could not be served",
            problems::chain(&other),
        ),
    }
}
