//! A few bad days on the real store, as control uses it: what is claimed, committed, refused and
//! restored there is what the thousands of days in memory rely on.

use undine_sim::{Bug, Counts};

mod sqlite;

#[test]
fn nothing_is_lost_and_everything_runs_again_on_sqlite() {
    let mut all = Counts::default();
    for seed in 0..20 {
        let (result, trace) = sqlite::replay(seed, None);
        match result {
            Ok(counts) => all.add(&counts),
            Err(found) => {
                let from = trace.len().saturating_sub(200);
                panic!(
                    "seed {seed}: {found}\n{}\nwhole: cargo run -p undine-sim --example simulate replay {seed} --sqlite",
                    trace[from..].join("\n")
                );
            }
        }
    }
    // A world in which nothing happens proves nothing.
    assert!(
        all.faults > 100 && all.moves > 20 && all.joins > 40,
        "{all:?}"
    );
    assert!(all.restores > 3, "{all:?}");
}

#[test]
fn a_restored_store_that_is_trusted_is_found_out_on_sqlite() {
    let found = undine_sim::hunt(sqlite::run, Bug::TrustStore, 0..40);
    let (seed, needed, found) = found.expect("it was not found");
    println!("seed {seed}, after {needed}: {found}");
}
