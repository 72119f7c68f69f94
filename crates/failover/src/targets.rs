//! Where the servers of a dead node go: each to a node that holds a copy of it with every
//! acknowledged write, important ones first, spread by the memory that stays free. Simple and
//! fair; a server that fits nowhere is started all the same where most is free, and says so:
//! crowded is better than down.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use undine_model::{Bytes, NodeId, ServerId};

/// A node that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Which one.
    pub node: NodeId,
    /// Its name, for reasons.
    pub name: String,
    /// Memory that no server was promised.
    pub free: Bytes,
    /// May it take servers? A cordoned node only as the last way out.
    pub open: bool,
}

/// A server whose node is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Homeless {
    /// Which one.
    pub server: ServerId,
    /// 0 to 9; the highest first.
    pub importance: u8,
    /// Memory that it takes.
    pub memory: Bytes,
    /// Servers of one group keep apart where they can.
    pub group: Option<String>,
    /// Living nodes with a copy that may be promoted.
    pub candidates: Vec<NodeId>,
}

/// Where a server goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which one.
    pub server: ServerId,
    /// There; none when no candidate lives.
    pub node: Option<NodeId>,
    /// Why, in words.
    pub reason: String,
}

/// Chooses for all of them, in the order in which they are to be started.
pub fn spread(homeless: &[Homeless], rooms: &[Room]) -> Vec<Target> {
    let mut order: Vec<&Homeless> = homeless.iter().collect();
    // Those with the fewest ways out first, so that others do not take their only room.
    order.sort_by_key(|server| {
        (
            Reverse(server.importance),
            server.candidates.len(),
            Reverse(server.memory),
            server.server,
        )
    });
    let mut state = State {
        free: rooms
            .iter()
            .map(|room| (room.node, i128::from(room.free.0)))
            .collect(),
        taken: BTreeMap::new(),
        groups: BTreeMap::new(),
    };
    order
        .into_iter()
        .map(|server| choose(server, rooms, &mut state))
        .collect()
}

struct State {
    free: BTreeMap<NodeId, i128>,
    taken: BTreeMap<NodeId, u32>,
    groups: BTreeMap<(NodeId, String), u32>,
}

fn choose(server: &Homeless, rooms: &[Room], state: &mut State) -> Target {
    let needs = i128::from(server.memory.0);
    let alike = |state: &State, node| {
        let group = server.group.clone().unwrap_or_default();
        state.groups.get(&(node, group)).copied().unwrap_or(0)
    };
    let best = rooms
        .iter()
        .filter(|room| server.candidates.contains(&room.node))
        .min_by_key(|room| {
            let left = state.free[&room.node] - needs;
            let crowded = left < 0;
            let taken = state.taken.get(&room.node).copied().unwrap_or(0);
            (
                crowded,
                !room.open,
                alike(state, room.node),
                taken,
                Reverse(left),
                room.node,
            )
        });
    let Some(room) = best else {
        return Target {
            server: server.server,
            node: None,
            reason: "no living node holds a copy with every acknowledged write".to_owned(),
        };
    };
    let left = state.free.entry(room.node).or_default();
    *left -= needs;
    let left = *left;
    *state.taken.entry(room.node).or_default() += 1;
    if let Some(group) = &server.group {
        *state.groups.entry((room.node, group.clone())).or_default() += 1;
    }
    Target {
        server: server.server,
        node: Some(room.node),
        reason: reason(room, left, server.candidates.len()),
    }
}

fn reason(room: &Room, left: i128, ways: usize) -> String {
    let name = &room.name;
    let of = match ways {
        1 => "it alone holds a copy".to_owned(),
        ways => format!("of {ways} nodes that hold a copy"),
    };
    match u64::try_from(left) {
        Ok(left) => format!("{name}, {of}: {} of memory stay free", Bytes(left)),
        Err(_) => {
            let over = Bytes(u64::try_from(-left).unwrap_or(u64::MAX));
            format!("{name}, {of}: it is {over} short of memory, but crowded is better than down")
        }
    }
}

#[cfg(test)]
mod tests {
    use undine_model::Id;

    use super::*;

    fn node(n: u8) -> NodeId {
        Id::from_parts(1, [n; 10])
    }

    fn room(n: u8, free_mib: u64) -> Room {
        Room {
            node: node(n),
            name: format!("node-{n}"),
            free: Bytes::mib(free_mib),
            open: true,
        }
    }

    fn server(n: u8, importance: u8, nodes: &[u8]) -> Homeless {
        Homeless {
            server: Id::from_parts(2, [n; 10]),
            importance,
            memory: Bytes::mib(512),
            group: None,
            candidates: nodes.iter().copied().map(node).collect(),
        }
    }

    #[test]
    fn servers_spread_and_the_important_ones_come_first() {
        let servers = [
            server(1, 5, &[2, 3]),
            server(2, 9, &[2, 3]),
            server(3, 5, &[2]),
        ];
        let targets = spread(&servers, &[room(2, 4096), room(3, 3000)]);
        let order: Vec<ServerId> = targets.iter().map(|target| target.server).collect();
        assert_eq!(
            order,
            [servers[1].server, servers[2].server, servers[0].server]
        );
        let nodes: Vec<_> = targets.iter().map(|target| target.node).collect();
        assert_eq!(nodes, [Some(node(2)), Some(node(2)), Some(node(3))]);
    }

    #[test]
    fn a_server_without_a_living_copy_goes_nowhere_and_says_why() {
        let targets = spread(&[server(1, 5, &[4])], &[room(2, 4096)]);
        assert_eq!(targets[0].node, None);
        assert!(targets[0].reason.contains("copy"), "{}", targets[0].reason);
    }

    #[test]
    fn crowded_is_better_than_down() {
        let targets = spread(&[server(1, 5, &[2])], &[room(2, 100), room(3, 9000)]);
        assert_eq!(targets[0].node, Some(node(2)));
        assert!(
            targets[0].reason.contains("412 MiB short"),
            "{}",
            targets[0].reason
        );
    }

    #[test]
    fn servers_of_one_group_keep_apart() {
        let mut servers = [server(1, 5, &[2, 3]), server(2, 5, &[2, 3])];
        for server in &mut servers {
            server.group = Some("shop".to_owned());
        }
        let targets = spread(&servers, &[room(2, 9000), room(3, 2000)]);
        assert_ne!(targets[0].node, targets[1].node);
    }

    #[test]
    fn a_cordoned_node_is_the_last_way_out() {
        let mut rooms = [room(2, 9000), room(3, 1000)];
        rooms[0].open = false;
        let targets = spread(&[server(1, 5, &[2, 3])], &rooms);
        assert_eq!(targets[0].node, Some(node(3)));
    }
}
