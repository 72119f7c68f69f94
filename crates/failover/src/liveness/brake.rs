//! The brake: when many nodes fall silent together, it is rather the network or control itself
//! than the nodes, and fencing them would make it worse (protocols §5).

use super::{Judgement, Life, Watch};

impl Watch {
    /// Why nothing is fenced now, if so. Nodes fenced earlier count on neither side. A node counts
    /// as falling silent from half the silence on, so that the first of many is not judged before
    /// the others are seen.
    pub(super) fn braked(&self, now_ms: u64) -> Option<String> {
        let counted: Vec<&Life> = self.nodes.values().filter(|it| !it.is_fenced).collect();
        let mut falls: Vec<u64> = counted
            .iter()
            .filter(|it| it.age_ms(now_ms) >= it.silence_ms / 2)
            .map(|it| it.last_ms)
            .collect();
        falls.sort_unstable();
        let window = self.policy.brake_window_ms;
        let most = (0..falls.len())
            .map(|at| {
                falls[at..]
                    .iter()
                    .take_while(|it| **it - falls[at] <= window)
                    .count()
            })
            .max()
            .unwrap_or(0);
        let limit = self.policy.brake_limit(counted.len());
        (most > limit).then(|| {
            format!(
                "{most} of {} nodes fell silent together, more than {limit}: check the network, then say which nodes are dead",
                counted.len()
            )
        })
    }
}

impl Judgement {
    /// Its servers may be taken over.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Dead(_) | Self::Fenced)
    }
}
