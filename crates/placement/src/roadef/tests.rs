//! Tests on a hand-made instance small enough to solve by hand, and on made-up ones.

use std::cell::Cell;

use super::*;

/// Two resources (the second transient), three machines, three services, four processes.
const MODEL: &str = "2
0 10
1 5
3
0 0 10 10 5 5 0 1 1
0 1 10 10 5 5 1 0 1
1 2 10 10 5 5 1 1 0
3
2 0
0 1 0
1 0
4
0 3 2 1
0 3 2 2
1 2 2 1
2 4 4 3
1
0 1 2
7
1 2 3
";

fn tries(most: u32) -> impl Fn() -> f64 {
    let calls = Cell::new(0u32);
    move || {
        calls.set(calls.get() + 1);
        f64::from(calls.get()) / f64::from(most)
    }
}

#[test]
fn the_cost_is_what_a_pencil_says() {
    let model = Model::read(MODEL).unwrap();
    let first = [0, 1, 0, 2];
    // No load above safety; balance 2*free0 - free1: 2*5-6=4, 2*7-8=6, 2*6-6=6; 16*7.
    assert_eq!(cost(&model, &first, &first), Ok(112));
    // Process 3 to machine 0: use 9 and 8: 4*10 + 3*5 load; balance 2*1-2=0, 6, 2*10-10=10: 112;
    // moves 1*3 + 2*1 + 3*1.
    assert_eq!(cost(&model, &first, &[0, 1, 0, 0]), Ok(40 + 15 + 112 + 8));
}

#[test]
fn every_hard_rule_is_told_apart() {
    let model = Model::read(MODEL).unwrap();
    let first = [0, 1, 0, 2];
    let broken = |now: &[usize]| cost(&model, &first, now).unwrap_err();
    assert_eq!(
        broken(&[0, 0, 1, 2]),
        CheckError::Conflict {
            service: 0,
            machine: 0
        }
    );
    assert_eq!(
        broken(&[0, 1, 2, 2]),
        CheckError::Dependency {
            service: 1,
            needs: 0,
            neighbourhood: 1
        }
    );
    assert_eq!(
        broken(&[0, 1, 0]),
        CheckError::Length {
            found: 3,
            wanted: 4
        }
    );
    assert_eq!(
        broken(&[0, 1, 0, 9]),
        CheckError::Machine {
            process: 3,
            machine: 9
        }
    );
    let one_place = Model::read(&MODEL.replace("0 1 10 10", "0 0 10 10")).unwrap();
    assert_eq!(
        cost(&one_place, &first, &first).unwrap_err(),
        CheckError::Spread {
            service: 0,
            found: 1,
            wanted: 2
        }
    );
    let tight = Model::read(&MODEL.replace("1 2 10 10", "1 2 10 5")).unwrap();
    // Process 3 leaves machine 2 but still uses its transient resource there.
    assert_eq!(
        cost(&tight, &first, &[2, 1, 0, 0]).unwrap_err(),
        CheckError::Capacity {
            machine: 2,
            resource: 1,
            by: 1
        }
    );
}

#[test]
fn a_model_is_written_as_it_was_read() {
    let model = Model::read(MODEL).unwrap();
    assert_eq!(model.write(), MODEL);
}

#[test]
fn malformed_files_are_told_by_line() {
    for (text, line, field) in [
        (MODEL.replace("0 3 2 2", "0 3 x 2"), 14, "requirement"),
        (MODEL.replace("0 1 0\n", "0 1 7\n"), 10, "dependency"),
        (MODEL.replace("1 2 3\n", "1 2\n"), 20, "move weight"),
        (MODEL.replace("1 2 3\n", "1 2 3 4\n"), 20, "end"),
        (MODEL.replace("0 1 2\n7", "0 9 2\n7"), 18, "second resource"),
        (
            MODEL.replacen("2\n", "99999999999\n", 1),
            1,
            "number of resources",
        ),
        (MODEL.replacen("0 10\n", "0 -1\n", 1), 2, "load weight"),
    ] {
        let e = Model::read(&text).unwrap_err();
        assert_eq!((e.line, e.field), (line, field), "{e}");
    }
}

#[test]
fn the_small_instance_is_solved_to_the_end() {
    let model = Model::read(MODEL).unwrap();
    let first = [0, 1, 0, 2];
    let found = solve(
        &model,
        &first,
        &Effort {
            seed: 1,
            progress: &tries(20),
        },
    )
    .unwrap();
    let mut best = i64::MAX;
    for code in 0..81usize {
        let now = [code % 3, code / 3 % 3, code / 9 % 3, code / 27];
        best = best.min(cost(&model, &first, &now).unwrap_or(i64::MAX));
    }
    assert_eq!(found.cost, best);
}

#[test]
fn the_solver_and_the_judge_agree_on_the_cost() {
    for seed in 0..5 {
        let (model, first) = generate(20, 200, seed);
        let before = cost(&model, &first, &first).unwrap();
        let found = solve(
            &model,
            &first,
            &Effort {
                seed,
                progress: &tries(40),
            },
        )
        .unwrap();
        assert_eq!(cost(&model, &first, &found.assignment), Ok(found.cost));
        assert!(found.cost < before);
        let again = solve(
            &model,
            &first,
            &Effort {
                seed,
                progress: &tries(40),
            },
        )
        .unwrap();
        assert_eq!(again, found);
    }
}
