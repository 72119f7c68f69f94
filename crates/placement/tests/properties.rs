//! Properties of every plan, over many random clusters.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use undine_placement::judge::{Context, Finding, judge};
use undine_placement::plan::{score, what_if};
use undine_placement::rng::Rng;
use undine_placement::snapshot::Snapshot;
use undine_placement::{
    Action, Change, Plan, PlanError, Policy, drain, failover, place_server, rebalance,
};

const CLUSTERS: u64 = 300;

fn cases() -> impl Iterator<Item = (u64, Snapshot, Policy)> {
    (0..CLUSTERS).map(|seed| {
        let mut rng = Rng::new(seed);
        let snapshot = common::snapshot(&mut rng);
        (seed, snapshot, common::policy(&mut rng))
    })
}

#[track_caller]
fn fine(seed: u64, plan: &Plan, findings: &[Finding]) {
    assert!(findings.is_empty(), "seed {seed}: {findings:#?}\n{plan:#?}");
}

/// Every prefix of a plan is a plan of its own.
fn judge_prefixes(
    seed: u64,
    snapshot: &Snapshot,
    policy: &Policy,
    plan: &Plan,
    context: &Context<'_>,
) {
    fine(seed, plan, &judge(snapshot, policy, plan, context));
    let lax = Policy {
        survive_losses: 0,
        ..policy.clone()
    };
    for k in 0..plan.steps.len() {
        let mut prefix = plan.clone();
        prefix.steps.truncate(k);
        fine(seed, &prefix, &judge(snapshot, &lax, &prefix, context));
    }
}

#[test]
fn every_rebalancing_passes_the_judge_and_so_does_every_prefix() {
    let mut moves = 0;
    for (seed, snapshot, policy) in cases() {
        let plan = rebalance(&snapshot, &policy).unwrap();
        moves += plan.steps.len();
        judge_prefixes(seed, &snapshot, &policy, &plan, &Context::default());
        assert!(plan.after <= plan.before, "seed {seed}: {plan:#?}");
        assert!(
            !plan.steps.is_empty() || plan.summary.starts_with("no useful move"),
            "{plan:?}"
        );
    }
    assert!(
        moves > 300,
        "the clusters are too tame to prove anything: {moves} moves"
    );
}

#[test]
fn planning_again_right_after_gives_nothing() {
    for (seed, snapshot, policy) in cases() {
        let plan = rebalance(&snapshot, &policy).unwrap();
        let next = snapshot.after(&plan, &[]).unwrap();
        next.check().unwrap();
        assert_eq!(score(&next, &policy).unwrap(), plan.after, "seed {seed}");
        let again = rebalance(&next, &policy).unwrap();
        assert!(
            again.steps.is_empty(),
            "seed {seed}: {again:#?} after {plan:#?}"
        );
    }
}

#[test]
fn the_same_input_gives_the_same_plan() {
    for (_, snapshot, policy) in cases().take(60) {
        assert_eq!(
            rebalance(&snapshot, &policy),
            rebalance(&snapshot.clone(), &policy)
        );
    }
}

#[test]
fn renaming_nodes_changes_nothing_but_names() {
    for (seed, snapshot, policy) in cases() {
        let new = |id: &str| format!("z{}-renamed", 100 - id[1..].parse::<i32>().unwrap());
        let mut renamed = snapshot.clone();
        for n in &mut renamed.nodes {
            n.id = new(&n.id);
        }
        for s in &mut renamed.servers {
            s.owner = s.owner.as_deref().map(new);
            s.replicas = s.replicas.iter().map(|r| new(r)).collect();
        }
        let plain = rebalance(&snapshot, &policy).unwrap();
        let other = rebalance(&renamed, &policy).unwrap();
        let key = |p: &Plan, name: &dyn Fn(&str) -> String| -> Vec<String> {
            let ends = |a: &Action| match a {
                Action::Migrate {
                    server, from, to, ..
                } => {
                    format!("{server} {} {}", name(from), name(to))
                }
                other => format!("{other:?}"),
            };
            p.steps
                .iter()
                .map(|s| format!("{} {}", s.wave, ends(&s.action)))
                .collect()
        };
        assert_eq!(
            key(&plain, &new),
            key(&other, &|id| id.to_owned()),
            "seed {seed}"
        );
        assert_eq!(plain.after, other.after);
    }
}

#[test]
fn every_drain_passes_the_judge_and_leaves_nothing_or_says_what() {
    for (seed, snapshot, policy) in cases() {
        let nodes = [snapshot.nodes[seed as usize % snapshot.nodes.len()]
            .id
            .clone()];
        let plan = drain(&snapshot, &policy, &nodes).unwrap();
        let context = Context {
            drained: &nodes,
            ..Context::default()
        };
        judge_prefixes(seed, &snapshot, &policy, &plan, &context);
        let next = snapshot.after(&plan, &[]).unwrap();
        for s in &next.servers {
            if s.owner.as_ref() == Some(&nodes[0]) || s.replicas.contains(&nodes[0]) {
                assert!(
                    plan.refused.iter().any(|r| r.subject == s.id),
                    "seed {seed}: {}",
                    s.id
                );
            }
        }
        let again = drain(&next, &policy, &nodes).unwrap();
        assert!(
            again.steps.is_empty(),
            "seed {seed}: {again:#?} after {plan:#?}"
        );
    }
}

#[test]
fn every_failover_passes_the_judge_and_accounts_for_every_server() {
    for (seed, snapshot, policy) in cases() {
        let lost: Vec<String> = snapshot
            .nodes
            .iter()
            .take(1 + seed as usize % 2)
            .map(|n| n.id.clone())
            .collect();
        let plan = failover(&snapshot, &policy, &lost).unwrap();
        let context = Context {
            lost: &lost,
            ..Context::default()
        };
        judge_prefixes(seed, &snapshot, &policy, &plan, &context);
        for s in snapshot
            .servers
            .iter()
            .filter(|s| lost.contains(s.owner.as_ref().unwrap()))
        {
            let started = plan
                .steps
                .iter()
                .any(|x| matches!(&x.action, Action::Restart { server, .. } if *server == s.id));
            let refused = plan.refused.iter().any(|r| r.subject == s.id);
            assert!(started != refused, "seed {seed}: {} {plan:#?}", s.id);
        }
    }
}

#[test]
fn every_placement_passes_the_judge_or_says_which_limit_is_short() {
    let (mut placed, mut refused) = (0, 0);
    for (seed, snapshot, policy) in cases() {
        let mut rng = Rng::new(seed + 10_000);
        let mut server = common::server(&mut rng, 9999);
        if seed % 10 == 0 {
            server.reserved.memory_mib = 1 << 40;
        }
        match place_server(&snapshot, &policy, &server) {
            Ok(plan) => {
                placed += 1;
                let new = [server];
                let context = Context {
                    new: &new,
                    ..Context::default()
                };
                fine(seed, &plan, &judge(&snapshot, &policy, &plan, &context));
                snapshot.after(&plan, &new).unwrap().check().unwrap();
            }
            Err(PlanError::Impossible { reason, .. }) => {
                refused += 1;
                assert!(reason.contains(" by "), "{reason}");
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(
        placed > 100 && refused > 20,
        "{placed} placed, {refused} refused"
    );
}

#[test]
fn imagining_changes_never_fails_on_a_sound_cluster() {
    for (seed, snapshot, policy) in cases().take(60) {
        let mut rng = Rng::new(seed);
        let changes = [
            Change::ScaleLoad { to: 1200 },
            Change::AddServers {
                like: Box::new(common::server(&mut rng, 5000)),
                count: 3,
            },
            Change::LoseNodes {
                nodes: vec![snapshot.nodes[0].id.clone()],
            },
            Change::DrainNodes {
                nodes: vec![snapshot.nodes[1].id.clone()],
            },
            Change::Rebalance,
        ];
        what_if(&snapshot, &policy, &changes).unwrap();
    }
}
