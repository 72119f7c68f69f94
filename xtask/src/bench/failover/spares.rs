//! Spares of the nodes: a round begins when they are as whole as the disks, for real nodes do not
//! die minutes apart.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::cluster::Node;
use crate::up::layout;

const LOOK: Duration = Duration::from_secs(1);
/// A busy machine makes none for a while; then the round begins without.
const PATIENCE: Duration = Duration::from_secs(120);
/// So long without a new one, and there will be none.
const STILL: Duration = Duration::from_secs(30);

/// Waits until none is in the making any more, and tells how many there are.
pub fn wait(nodes: &[Node]) -> Result<()> {
    let begun = Instant::now();
    let mut still = Instant::now();
    let mut before = count(nodes);
    while begun.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
        let now = count(nodes);
        if now != before || now.making > 0 {
            (before, still) = (now, Instant::now());
        }
        if still.elapsed() > STILL {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("  {} spares are ready after {seconds:.0} s", before.ready);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Count {
    ready: usize,
    making: usize,
}

fn count(nodes: &[Node]) -> Count {
    let folders = nodes.iter().flat_map(|node| {
        let folder = Path::new(layout::RUNTIME).join(&node.name).join("spare");
        std::fs::read_dir(folder).into_iter().flatten().flatten()
    });
    let (ready, making): (Vec<_>, Vec<_>) =
        folders.partition(|entry| entry.path().join("ready").exists());
    Count {
        ready: ready.len(),
        making: making.len(),
    }
}
