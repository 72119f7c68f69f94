//! A snapshot as it will be once a plan is carried out.

use std::collections::{BTreeSet, HashMap};

use crate::error::InputError;
use crate::snapshot::{Server, Snapshot, Storage};

use super::{Action, Plan};

impl Snapshot {
    /// The snapshot after `plan`. `new` are the servers that its `place` steps are about.
    ///
    /// Moved servers count as moved just now, and the samples of nodes that the plan touched are
    /// dropped, as they describe a past that is gone.
    ///
    /// # Errors
    /// A step that names what the snapshot does not have.
    pub fn after(&self, plan: &Plan, new: &[Server]) -> Result<Self, InputError> {
        let mut next = self.clone();
        let mut at: HashMap<String, usize> = next
            .servers
            .iter()
            .enumerate()
            .map(|(i, s)| (s.id.clone(), i))
            .collect();
        let mut touched = BTreeSet::new();
        for step in &plan.steps {
            let id = step.action.server();
            if let Action::Place {
                owner, replicas, ..
            } = &step.action
            {
                let found = new.iter().find(|s| s.id == id).ok_or_else(|| unknown(id))?;
                let mut server = found.clone();
                server.owner = Some(owner.clone());
                server.replicas.clone_from(replicas);
                touched.insert(owner.clone());
                at.insert(id.to_owned(), next.servers.len());
                next.servers.push(server);
                continue;
            }
            let server = at.get(id).and_then(|&i| next.servers.get_mut(i));
            carry_out(
                server.ok_or_else(|| unknown(id))?,
                &step.action,
                &mut touched,
            );
        }
        for n in next.nodes.iter_mut().filter(|n| touched.contains(&n.id)) {
            n.recent.clear();
            n.pressure = crate::snapshot::Pressure::default();
        }
        Ok(next)
    }
}

fn unknown(id: &str) -> InputError {
    InputError::Unknown {
        by: "the plan".to_owned(),
        kind: "server",
        id: id.to_owned(),
    }
}

fn carry_out(s: &mut Server, action: &Action, touched: &mut BTreeSet<String>) {
    match action {
        Action::Place { .. } => {}
        Action::Migrate { from, to, .. } => {
            let held = s.replicas.iter().position(|r| r == to);
            if let Some(k) = held {
                s.replicas.remove(k);
                if s.owner_has_copy && s.storage == Storage::Replicated {
                    s.replicas.push(from.clone());
                }
            }
            s.owner_has_copy = true;
            s.owner = Some(to.clone());
            s.moved_ago_s = Some(0);
            touched.extend([from.clone(), to.clone()]);
        }
        Action::MoveReplica { from, to, .. } => {
            for r in s.replicas.iter_mut().filter(|r| *r == from) {
                r.clone_from(to);
            }
        }
        Action::AddReplica { to, .. } => {
            if s.owner.as_ref() == Some(to) {
                s.owner_has_copy = true;
            } else {
                s.replicas.push(to.clone());
            }
        }
        Action::Restart {
            from,
            to,
            local_copy,
            ..
        } => {
            s.replicas.retain(|r| r != to);
            s.owner_has_copy = *local_copy || s.storage == Storage::Shared;
            s.owner = Some(to.clone());
            s.moved_ago_s = Some(0);
            touched.extend([from.clone(), to.clone()]);
        }
    }
}
