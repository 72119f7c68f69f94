//! Hand-made clusters on which the right plan is obvious.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use undine_placement::policy::RackRule;
use undine_placement::snapshot::{Load, Node, Resources, Server, Snapshot, Storage};
use undine_placement::{
    Action, Change, PlanError, Policy, capacity, drain, failover, place_server, rebalance, what_if,
};

fn node(id: &str) -> Node {
    let capacity = Resources {
        cpu_milli: 10_000,
        memory_mib: 10_240,
        disk_mib: 102_400,
        ..Resources::default()
    };
    serde_json::from_value(serde_json::json!({ "id": id, "capacity": capacity })).unwrap()
}

fn server(id: &str, owner: &str, cpu: u64, memory: u64) -> Server {
    let r = Resources {
        cpu_milli: 1000,
        memory_mib: memory,
        disk_mib: 1024,
        ..Resources::default()
    };
    let mut s = Server::new(id, r);
    s.owner = Some(owner.to_owned());
    s.storage = Storage::Shared;
    s.measured = Some(Load {
        cpu_milli: cpu,
        memory_mib: memory / 2,
        ..Load::default()
    });
    s
}

fn moves(steps: &[undine_placement::Step]) -> Vec<String> {
    let text = |a: &Action| match a {
        Action::Migrate { server, to, .. } => format!("{server}>{to}"),
        Action::Restart { server, to, .. } => format!("{server}!{to}"),
        Action::MoveReplica { server, from, to } => format!("{server}:{from}>{to}"),
        Action::AddReplica { server, to } => format!("{server}+{to}"),
        Action::Place {
            server,
            owner,
            replicas,
        } => format!("{server}@{owner}{replicas:?}"),
    };
    steps.iter().map(|s| text(&s.action)).collect()
}

#[test]
fn the_cheapest_server_that_is_enough_leaves_an_overloaded_node() {
    let servers = vec![
        server("big", "a", 4000, 4096),
        server("small", "a", 2500, 512),
        server("tiny", "a", 300, 256),
        server("idle", "a", 2000, 1024),
    ];
    let snapshot = Snapshot {
        nodes: vec![node("a"), node("b")],
        servers,
    };
    let plan = rebalance(&snapshot, &Policy::default()).unwrap();
    assert_eq!(moves(&plan.steps), ["small>b"]);
    assert!(
        plan.steps[0].reason.contains("predicted use 88.0 %"),
        "{}",
        plan.steps[0].reason
    );
}

#[test]
fn no_useful_move_is_an_answer_with_its_reason() {
    let calm = Snapshot {
        nodes: vec![node("a"), node("b")],
        servers: vec![server("s", "a", 2000, 512)],
    };
    let plan = rebalance(&calm, &Policy::default()).unwrap();
    assert!(
        plan.steps.is_empty()
            && plan
                .summary
                .starts_with("no useful move: nothing is broken")
    );
    let full = Snapshot {
        nodes: vec![node("a"), node("b")],
        servers: vec![server("s", "a", 9000, 512), server("t", "b", 6500, 512)],
    };
    let plan = rebalance(&full, &Policy::default()).unwrap();
    assert!(plan.steps.is_empty(), "{plan:#?}");
    assert!(
        plan.refused[0].reason.contains("stays at 90.0 %"),
        "{:?}",
        plan.refused
    );
}

#[test]
fn three_of_five_samples_above_the_mark_trigger_and_two_do_not() {
    let policy = Policy {
        evenness_gap: 1000,
        ..Policy::default()
    };
    let mut snapshot = Snapshot {
        nodes: vec![node("a"), node("b")],
        servers: vec![server("s", "a", 3000, 512), server("t", "a", 3000, 512)],
    };
    snapshot.nodes[0].recent = vec![850, 850, 700, 700, 700];
    assert!(rebalance(&snapshot, &policy).unwrap().steps.is_empty());
    snapshot.nodes[0].recent = vec![850, 850, 700, 700, 850];
    assert_eq!(rebalance(&snapshot, &policy).unwrap().steps.len(), 1);
    snapshot.nodes[0].recent = vec![];
    snapshot.nodes[0].pressure.cpu = 600;
    assert_eq!(rebalance(&snapshot, &policy).unwrap().steps.len(), 1);
}

#[test]
fn a_server_that_moved_just_now_rests() {
    let mut snapshot = Snapshot {
        nodes: vec![node("a"), node("b")],
        servers: vec![server("s", "a", 5000, 512), server("t", "a", 4000, 512)],
    };
    for s in &mut snapshot.servers {
        s.moved_ago_s = Some(10);
    }
    assert!(
        rebalance(&snapshot, &Policy::default())
            .unwrap()
            .steps
            .is_empty()
    );
    let drained = drain(&snapshot, &Policy::default(), &["a".into()]).unwrap();
    assert_eq!(drained.steps.len(), 2);
}

#[test]
fn a_new_server_gets_its_copies_in_another_rack() {
    let mut nodes: Vec<Node> = ["a", "b", "c"].map(node).into();
    for (n, rack) in nodes.iter_mut().zip(["r1", "r1", "r2"]) {
        n.rack = Some(rack.to_owned());
    }
    let snapshot = Snapshot {
        nodes,
        servers: vec![],
    };
    let mut new = server("new", "x", 500, 1024);
    new.storage = Storage::Replicated;
    let plan = place_server(&snapshot, &Policy::default(), &new).unwrap();
    assert_eq!(moves(&plan.steps), ["new@a[\"c\"]"]);
    assert!(
        plan.steps[0].reason.contains("in other racks"),
        "{}",
        plan.steps[0].reason
    );
}

#[test]
fn a_full_pool_says_by_how_much() {
    let snapshot = Snapshot {
        nodes: vec![node("a")],
        servers: vec![server("s", "a", 100, 8192)],
    };
    let policy = Policy {
        survive_losses: 0,
        ..Policy::default()
    };
    let error = place_server(&snapshot, &policy, &server("t", "", 100, 4096)).unwrap_err();
    let PlanError::Impossible { subject, reason } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (subject.as_str(), reason.as_str()),
        (
            "t",
            "refused on 1 node by memory (short by 2048 MiB at least)",
        )
    );
}

#[test]
fn the_most_important_servers_start_first_and_on_their_copies() {
    let mut servers = vec![
        server("low", "a", 100, 6144),
        server("high", "a", 100, 6144),
    ];
    for s in &mut servers {
        s.storage = Storage::Replicated;
        s.replicas = vec!["b".into()];
    }
    servers[1].importance = 9;
    let snapshot = Snapshot {
        nodes: vec![node("a"), node("b"), node("c")],
        servers,
    };
    let plan = failover(&snapshot, &Policy::default(), &["a".into()]).unwrap();
    assert_eq!(moves(&plan.steps)[..2], ["high!b", "low!c"]);
    assert!(
        plan.steps[1].reason.contains("no node with a copy has"),
        "{:?}",
        plan.steps[1]
    );
    // Both are short of a copy and get one again.
    assert_eq!(moves(&plan.steps)[2..].len(), 2);
}

#[test]
fn a_server_without_a_copy_in_reach_waits() {
    let mut only = server("only", "a", 100, 512);
    only.storage = Storage::Replicated;
    let snapshot = Snapshot {
        nodes: vec![node("a"), node("b")],
        servers: vec![only],
    };
    let plan = failover(&snapshot, &Policy::default(), &["a".into()]).unwrap();
    assert!(plan.steps.is_empty());
    assert!(plan.refused[0].reason.starts_with("waits for a replica"));
}

#[test]
fn capacity_keeps_room_for_a_lost_node() {
    let snapshot = Snapshot {
        nodes: vec![node("a"), node("b")],
        servers: vec![],
    };
    let size = server("size", "", 100, 2048);
    let counted = capacity(&snapshot, &Policy::default(), &size, 0.5).unwrap();
    // Ten would fit; five survive the loss of either node.
    assert_eq!(counted.fit, 5);
    assert_eq!(counted.full_in_days, Some(10.0));
    assert!(
        counted.stopped_by.contains("loss of a node"),
        "{}",
        counted.stopped_by
    );
    assert_eq!(counted.advice[0].more, 5);
    let lax = Policy {
        survive_losses: 0,
        ..Policy::default()
    };
    assert_eq!(capacity(&snapshot, &lax, &size, 0.0).unwrap().fit, 10);
}

#[test]
fn required_racks_refuse_what_preferred_racks_allow() {
    let mut nodes: Vec<Node> = ["a", "b"].map(node).into();
    nodes.iter_mut().for_each(|n| n.rack = Some("r".into()));
    let snapshot = Snapshot {
        nodes,
        servers: vec![],
    };
    let mut new = server("new", "", 100, 512);
    new.storage = Storage::Replicated;
    assert!(place_server(&snapshot, &Policy::default(), &new).is_ok());
    let strict = Policy {
        racks: RackRule::Require,
        ..Policy::default()
    };
    let error = place_server(&snapshot, &strict, &new)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the rack of another copy"), "{error}");
}

#[test]
fn imagined_changes_leave_the_snapshot_alone_and_tell_the_end() {
    let snapshot = Snapshot {
        nodes: vec![node("a"), node("b"), node("c")],
        servers: vec![server("s", "a", 3000, 2048), server("t", "b", 3000, 2048)],
    };
    let kept = snapshot.clone();
    let told = what_if(
        &snapshot,
        &Policy::default(),
        &[
            Change::LoseNodes {
                nodes: vec!["a".into()],
            },
            Change::ScaleLoad { to: 2000 },
        ],
    )
    .unwrap();
    assert_eq!(snapshot, kept);
    assert_eq!(moves(&told.plans[0].steps), ["s!c"]);
    assert_eq!(told.after.highest_use, 600);
}
