//! Mistakes that are planted on purpose, to see that they are found.

/// A planted mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The store takes a change in place of whatever version.
    SkipCompareAndSet,
    /// The owner's node goes on without a failed replica and has it committed afterwards.
    CommitAfterSwap,
    /// When no replica in sync can be reached, a stale one is promoted.
    PromoteStale,
    /// A guard lets its servers go on as soon as control answers.
    ResumeWithoutConfirming,
    /// A promotion leaves the dead node's copy among those in sync.
    ForgetDeadCopy,
    /// A frozen bitmap is dropped before a flush on every replica.
    BitmapDroppedEarly,
    /// A joined replica that failed leaves its slot although its joining may be committed.
    JoinLeavesUnsaid,
    /// After an unclean end all replicas in sync are kept so.
    KeepAll,
    /// A store that came back is trusted without asking.
    TrustStore,
    /// A bitmap counts although its daemon was started anew.
    BitmapOfAnotherDaemon,
    /// A daemon that starts again exports under its old name.
    SameIncarnation,
    /// A guard is confirmed what its node owns, and whoever declares the node dead does not know.
    ConfirmUncommitted,
    /// Nodes take orders that were read from the store before it went back.
    NoTerms,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::SkipCompareAndSet,
        Self::CommitAfterSwap,
        Self::PromoteStale,
        Self::ResumeWithoutConfirming,
        Self::ForgetDeadCopy,
        Self::BitmapDroppedEarly,
        Self::JoinLeavesUnsaid,
        Self::KeepAll,
        Self::TrustStore,
        Self::BitmapOfAnotherDaemon,
        Self::SameIncarnation,
        Self::ConfirmUncommitted,
        Self::NoTerms,
    ];
}
