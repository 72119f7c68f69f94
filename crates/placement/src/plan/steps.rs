//! Collecting steps while the working copy changes with them, and dividing them into waves.

use std::collections::HashMap;

use crate::cluster::{Cluster, Place};
use crate::snapshot::Storage;

use super::score::{self, Score};
use super::{Action, Plan, Refused, Step};

/// A plan in the making.
pub(super) struct Draft {
    pub steps: Vec<Step>,
    pub refused: Vec<Refused>,
    before: Score,
    waves: Waves,
}

#[derive(Default)]
struct Waves {
    into: HashMap<usize, usize>,
    out_of: HashMap<usize, usize>,
    server: HashMap<usize, usize>,
}

impl Waves {
    /// The first wave in which nothing else enters `to` or leaves `from`, and everything that made
    /// room on `to` has left.
    fn next(&mut self, server: usize, from: Option<usize>, to: &[usize]) -> usize {
        let after = |map: &HashMap<usize, usize>, key| map.get(&key).map_or(0, |w| w + 1);
        let mut wave = after(&self.server, server);
        for &t in to {
            wave = wave.max(after(&self.into, t)).max(after(&self.out_of, t));
        }
        if let Some(f) = from {
            wave = wave.max(after(&self.out_of, f));
            self.out_of.insert(f, wave);
        }
        for &t in to {
            self.into.insert(t, wave);
        }
        self.server.insert(server, wave);
        wave
    }
}

impl Draft {
    pub fn new(c: &Cluster<'_>) -> Self {
        Self {
            steps: vec![],
            refused: vec![],
            before: score::of(c),
            waves: Waves::default(),
        }
    }

    pub fn refuse(&mut self, subject: &str, reason: impl Into<String>) {
        let refused = Refused {
            subject: subject.to_owned(),
            reason: reason.into(),
        };
        if !self.refused.contains(&refused) {
            self.refused.push(refused);
        }
    }

    pub fn place(&mut self, c: &mut Cluster<'_>, server: usize, place: Place, reason: String) {
        let Some(owner) = place.owner else { return };
        let mut to = place.copies.clone();
        to.push(owner);
        let wave = self.waves.next(server, None, &to);
        let ids = |nodes: &[usize]| nodes.iter().map(|&n| c.node_id(n).to_owned()).collect();
        let action = Action::Place {
            server: c.server_id(server).to_owned(),
            owner: c.node_id(owner).to_owned(),
            replicas: ids(&place.copies),
        };
        self.steps.push(Step {
            wave,
            action,
            reason,
            copies_mib: 0,
            seconds: 0,
        });
        c.set(server, place);
    }

    pub fn migrate(&mut self, c: &mut Cluster<'_>, server: usize, to: usize, reason: String) {
        let Some(from) = c.servers[server].place.owner else {
            return;
        };
        let (place, copies_disk) = after_migration(c, server, to);
        let r = &c.server_info[server].reserved;
        let step = Step {
            wave: self.waves.next(server, Some(from), &[to]),
            action: Action::Migrate {
                server: c.server_id(server).to_owned(),
                from: c.node_id(from).to_owned(),
                to: c.node_id(to).to_owned(),
                copies_disk,
            },
            reason,
            copies_mib: migration_mib(c, server, to),
            seconds: c.server_info[server]
                .migration_seconds(c.policy.bandwidth_mib_s, copies_disk)
                .unwrap_or(r.memory_mib),
        };
        self.steps.push(step);
        c.servers[server].moved = true;
        c.set(server, place);
    }

    pub fn move_replica(
        &mut self,
        c: &mut Cluster<'_>,
        server: usize,
        (from, to): (usize, usize),
        reason: String,
    ) {
        let wave = self.waves.next(server, Some(from), &[to]);
        let action = Action::MoveReplica {
            server: c.server_id(server).to_owned(),
            from: c.node_id(from).to_owned(),
            to: c.node_id(to).to_owned(),
        };
        let mut place = c.servers[server].place.clone();
        for n in &mut place.copies {
            if *n == from {
                *n = to;
            }
        }
        self.copy_step(c, server, wave, action, reason);
        c.set(server, place);
    }

    pub fn add_replica(&mut self, c: &mut Cluster<'_>, server: usize, to: usize, reason: String) {
        let wave = self.waves.next(server, None, &[to]);
        let action = Action::AddReplica {
            server: c.server_id(server).to_owned(),
            to: c.node_id(to).to_owned(),
        };
        let mut place = c.servers[server].place.clone();
        if place.owner == Some(to) {
            place.local = true;
        } else {
            place.copies.push(to);
        }
        self.copy_step(c, server, wave, action, reason);
        c.set(server, place);
    }

    fn copy_step(
        &mut self,
        c: &Cluster<'_>,
        server: usize,
        wave: usize,
        action: Action,
        reason: String,
    ) {
        let disk = c.server_info[server].reserved.disk_mib;
        let seconds = disk.div_ceil(c.policy.bandwidth_mib_s.max(1));
        self.steps.push(Step {
            wave,
            action,
            reason,
            copies_mib: disk,
            seconds,
        });
    }

    pub fn restart(
        &mut self,
        c: &mut Cluster<'_>,
        server: usize,
        (from, to): (usize, usize),
        reason: String,
    ) {
        let mut place = c.servers[server].place.clone();
        let local_copy = place.copies.contains(&to);
        place.copies.retain(|&n| n != to);
        place.local = local_copy;
        place.owner = Some(to);
        let wave = self.waves.next(server, None, &[to]);
        let action = Action::Restart {
            server: c.server_id(server).to_owned(),
            from: c.node_id(from).to_owned(),
            to: c.node_id(to).to_owned(),
            local_copy,
        };
        self.steps.push(Step {
            wave,
            action,
            reason,
            copies_mib: 0,
            seconds: 0,
        });
        c.servers[server].moved = true;
        c.set(server, place);
    }

    pub fn finish(mut self, c: &Cluster<'_>, summary: impl FnOnce(&Self) -> String) -> Plan {
        let summary = summary(&self);
        self.steps.sort_by_key(|s| s.wave);
        Plan {
            steps: self.steps,
            summary,
            refused: self.refused,
            before: self.before,
            after: score::of(c),
        }
    }
}

/// The place after a migration, and whether the disk has to be copied.
pub(super) fn after_migration(c: &Cluster<'_>, server: usize, to: usize) -> (Place, bool) {
    let mut place = c.servers[server].place.clone();
    if c.server_info[server].storage == Storage::Shared {
        place.owner = Some(to);
        return (place, false);
    }
    let from = place.owner.replace(to);
    if let Some(k) = place.copies.iter().position(|&n| n == to) {
        place.copies.remove(k);
        if place.local {
            place.copies.extend(from);
        }
        place.local = true;
        return (place, false);
    }
    place.local = true;
    (place, true)
}

/// MiB that a migration copies.
pub(super) fn migration_mib(c: &Cluster<'_>, server: usize, to: usize) -> u64 {
    let r = &c.server_info[server].reserved;
    let disk = c.server_info[server].storage == Storage::Replicated
        && !c.servers[server].place.copies.contains(&to);
    r.memory_mib + if disk { r.disk_mib } else { 0 }
}
