//! Fuzzing of everything that reads bytes from outside: an error or a result, never a panic.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use proptest::prelude::*;
use undine_placement::generate::{Storage, cluster};
use undine_placement::htools::{Options, Text, balance, score};
use undine_placement::plan::{self, Change};
use undine_placement::roadef::{Effort, Model, cost, generate, read_assignment, solve};
use undine_placement::{Policy, Snapshot, drain, failover, rebalance};

/// A text with some of its bytes replaced, removed or doubled.
fn spoiled(text: &str, edits: &[(usize, u8, u8)]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for &(at, kind, byte) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = at % bytes.len();
        match kind % 4 {
            0 => bytes[at] = byte,
            1 => {
                bytes.remove(at);
            }
            2 => bytes.insert(at, byte),
            _ => {
                bytes[at] = *b"0123456789-|.eNYD\n "
                    .get(byte as usize % 19)
                    .unwrap_or(&b'0');
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6)
}

fn snapshot_json() -> String {
    let files = cluster(4, 12, Storage::Mirrored, 1);
    let mut text = Text::parse(&files.data).unwrap();
    text.apply_load(&files.load).unwrap();
    serde_json::to_string(&Snapshot::from_htools(&text)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = Text::parse(&text);
        let _ = Snapshot::from_json(&text);
        let _ = Model::read(&text);
        let _ = serde_json::from_str::<Policy>(&text);
        let _ = serde_json::from_str::<Vec<Change>>(&text);
    }

    #[test]
    fn a_spoiled_ganeti_text_is_refused_or_balanced(edits in edits(), spoil_load in any::<bool>()) {
        let files = cluster(4, 12, Storage::Mirrored, 1);
        let (data, load) = if spoil_load {
            (files.data.clone(), spoiled(&files.load, &edits))
        } else {
            (spoiled(&files.data, &edits), files.load.clone())
        };
        let Ok(mut text) = Text::parse(&data) else { return Ok(()) };
        let _ = text.apply_load(&load);
        prop_assert!(score(&text).is_finite());
        let options = Options { effort: Some(20), ..Options::default() };
        let found = balance(&text, &options);
        prop_assert!(found.score_after <= found.score_before + 1e-6);
        prop_assert!(Text::parse(&text.render(&found.places)).is_ok() || edits.len() > 1);
        let snapshot = Snapshot::from_htools(&text);
        let _ = rebalance(&snapshot, &Policy::default());
    }

    #[test]
    fn a_spoiled_snapshot_is_refused_or_planned(edits in edits()) {
        let Ok(snapshot) = Snapshot::from_json(&spoiled(&snapshot_json(), &edits)) else {
            return Ok(());
        };
        let policy = Policy::default();
        let nodes = [snapshot.nodes[0].id.clone()];
        prop_assert!(rebalance(&snapshot, &policy).is_ok());
        prop_assert!(drain(&snapshot, &policy, &nodes).is_ok());
        prop_assert!(failover(&snapshot, &policy, &nodes).is_ok());
        prop_assert!(plan::least_relief_mib(&snapshot, &policy).is_ok());
    }

    #[test]
    fn a_spoiled_roadef_file_is_refused_or_solved(edits in edits(), of_model in any::<bool>()) {
        let (model, first) = generate(5, 20, 1);
        let list = first.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let (text, list) = if of_model {
            (spoiled(&model.write(), &edits), list)
        } else {
            (model.write(), spoiled(&list, &edits))
        };
        let Ok(model) = Model::read(&text) else { return Ok(()) };
        let Ok(first) = read_assignment(&list, &model) else { return Ok(()) };
        let calls = std::cell::Cell::new(0.0);
        let progress = || {
            calls.set(calls.get() + 0.25);
            calls.get()
        };
        if let Ok(found) = solve(&model, &first, &Effort { seed: 1, progress: &progress }) {
            prop_assert_eq!(cost(&model, &first, &found.assignment), Ok(found.cost));
        }
    }
}

#[test]
fn a_broken_snapshot_is_told_by_its_place() {
    let json = snapshot_json();
    let told = |text: &str| Snapshot::from_json(text).unwrap_err().to_string();
    let negative = told(&json.replacen("\"memory_mib\":", "\"memory_mib\":-", 1));
    assert!(
        negative.contains("line 1, column") && negative.contains("-"),
        "{negative}"
    );
    let unknown = told(&json.replacen("\"owner\":\"node", "\"owner\":\"nowhere", 1));
    assert!(
        unknown.contains("nowhere") && unknown.contains("not in the snapshot"),
        "{unknown}"
    );
    let missing = told("{\"nodes\":[{\"id\":\"a\"}]}");
    assert!(missing.contains("capacity"), "{missing}");
    let homeless =
        told(r#"{"nodes":[],"servers":[{"id":"s","reserved":{"cpu_milli":1,"memory_mib":1}}]}"#);
    assert!(homeless.contains("stands on no node"), "{homeless}");
    let nan = told("{\"nodes\":[{\"id\":\"a\",\"capacity\":{\"cpu_milli\":NaN}}]}");
    assert!(nan.starts_with("line 1, column"), "{nan}");
}
