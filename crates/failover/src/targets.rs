//! Where the servers of dead nodes start again: simple and fair. The most important are placed
//! first; each goes to a node that holds a replica in sync and has the room. Every choice has its
//! reason in words.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use undine_model::{Bytes, NodeId, ServerId};

/// A server that needs a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Homeless {
    /// Which one.
    pub server: ServerId,
    /// Higher ones are placed first.
    pub importance: u32,
    /// Memory that it needs.
    pub memory: Bytes,
    /// Hash of its image.
    pub image: Option<String>,
    /// Servers of one group should not share a node.
    pub apart: Option<String>,
    /// Nodes that hold a replica in sync.
    pub holders: Vec<NodeId>,
}

/// A node that is alive and takes servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Which one.
    pub node: NodeId,
    /// Memory that is free for servers.
    pub free: Bytes,
    /// Hashes of the images at hand.
    pub images: BTreeSet<String>,
    /// The groups of the servers there, one entry a server.
    pub groups: Vec<String>,
}

/// Where a server goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which server.
    pub server: ServerId,
    /// There; none when it must wait.
    pub target: Option<NodeId>,
    /// Why, in words.
    pub reason: String,
}

/// How well a node suits; lower is better, compared from the top.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fitness {
    lacks_image: bool,
    of_its_group: usize,
    restarts: usize,
    left: Reverse<Bytes>,
    node: NodeId,
}

/// A target for each, in the order in which they should be started.
pub fn spread(homeless: &[Homeless], rooms: &[Room]) -> Vec<Choice> {
    let mut rooms: BTreeMap<NodeId, (Room, usize)> = rooms
        .iter()
        .map(|room| (room.node, (room.clone(), 0)))
        .collect();
    let mut order: Vec<&Homeless> = homeless.iter().collect();
    order.sort_by_key(|it| (Reverse(it.importance), Reverse(it.memory), it.server));
    order.into_iter().map(|it| place(it, &mut rooms)).collect()
}

fn place(it: &Homeless, rooms: &mut BTreeMap<NodeId, (Room, usize)>) -> Choice {
    let alive = it
        .holders
        .iter()
        .filter(|node| rooms.contains_key(node))
        .count();
    let best = it
        .holders
        .iter()
        .filter_map(|node| fitness(it, rooms.get(node)?))
        .min();
    let Some(best) = best else {
        let reason = if alive == 0 {
            "waiting: no node with a replica in sync is there".to_owned()
        } else {
            format!(
                "waiting: {alive} nodes hold a replica in sync, none has {} MiB of memory free",
                it.memory.0 >> 20
            )
        };
        return Choice {
            server: it.server,
            target: None,
            reason,
        };
    };
    let reason = format!(
        "best of {alive} nodes with a replica in sync: image {}, {} of its group there, {} other restarts, {} MiB left",
        if best.lacks_image {
            "to be fetched"
        } else {
            "at hand"
        },
        best.of_its_group,
        best.restarts,
        best.left.0.0 >> 20,
    );
    if let Some((room, restarts)) = rooms.get_mut(&best.node) {
        room.free = best.left.0;
        room.groups.extend(it.apart.clone());
        *restarts += 1;
    }
    Choice {
        server: it.server,
        target: Some(best.node),
        reason,
    }
}

fn fitness(it: &Homeless, (room, restarts): &(Room, usize)) -> Option<Fitness> {
    let left = room.free.0.checked_sub(it.memory.0)?;
    let is_of_group = |group: &&String| it.apart.as_ref() == Some(*group);
    Some(Fitness {
        lacks_image: it
            .image
            .as_ref()
            .is_some_and(|hash| !room.images.contains(hash)),
        of_its_group: room.groups.iter().filter(is_of_group).count(),
        restarts: *restarts,
        left: Reverse(Bytes(left)),
        node: room.node,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, server};

    fn homeless(number: u64, importance: u32, holders: &[u64]) -> Homeless {
        Homeless {
            server: server(number),
            importance,
            memory: Bytes::gib(1),
            image: Some("abc".to_owned()),
            apart: None,
            holders: holders.iter().copied().map(node).collect(),
        }
    }

    fn room(number: u64, gib: u64) -> Room {
        Room {
            node: node(number),
            free: Bytes::gib(gib),
            images: BTreeSet::from(["abc".to_owned()]),
            groups: Vec::new(),
        }
    }

    fn targets(choices: &[Choice]) -> Vec<Option<NodeId>> {
        choices.iter().map(|it| it.target).collect()
    }

    #[test]
    fn restarts_are_spread_and_the_important_come_first() {
        let all = [
            homeless(1, 1, &[2, 3]),
            homeless(2, 9, &[2, 3]),
            homeless(3, 1, &[2, 3]),
        ];
        let choices = spread(&all, &[room(2, 8), room(3, 4)]);
        assert_eq!(choices[0].server, server(2));
        assert_eq!(
            targets(&choices),
            [Some(node(2)), Some(node(3)), Some(node(2))]
        );
    }

    #[test]
    fn only_nodes_with_a_replica_in_sync_and_room_are_chosen() {
        let all = [
            homeless(1, 9, &[2]),
            homeless(2, 1, &[2]),
            homeless(3, 1, &[7]),
        ];
        let choices = spread(&all, &[room(2, 1), room(3, 64)]);
        assert_eq!(targets(&choices), [Some(node(2)), None, None]);
        assert!(
            choices[1].reason.contains("1024 MiB"),
            "{}",
            choices[1].reason
        );
        assert!(choices[2].reason.contains("no node with a replica"));
    }

    #[test]
    fn groups_stay_apart_and_an_image_at_hand_is_preferred() {
        let mut it = homeless(1, 1, &[2, 3]);
        it.apart = Some("shop".to_owned());
        let mut rooms = [room(2, 64), room(3, 2)];
        rooms[0].groups.push("shop".to_owned());
        assert_eq!(targets(&spread(&[it.clone()], &rooms)), [Some(node(3))]);
        rooms[1].images.clear();
        assert_eq!(targets(&spread(&[it], &rooms)), [Some(node(2))]);
    }
}
