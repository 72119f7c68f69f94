//! A copy that differs is found while the guest writes; one that does not is never accused.

use std::io::{Read, Seek, SeekFrom, Write};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use undine_qemu::scrub::{Found, ScrubError, compare};

use super::*;

const BLOCK: u64 = 4 << 10;
/// Filled by the guest, and not written by its storm for a long time after.
const STILL: u64 = (10_240 + 19) * BLOCK;

/// Turns one bit of an image that is in use, as a failing disk would.
fn flip(image: &Path, offset: u64) {
    let mut map = Command::new("qemu-img");
    map.args(["map", "-U", "-f", "qcow2", "--output", "json"]);
    let output = map.arg(image).output().unwrap();
    let map: Value = serde_json::from_slice(&output.stdout).unwrap();
    let stretches = map.as_array().unwrap().iter();
    let mut at = stretches.filter_map(|it| {
        let (start, length) = (it["start"].as_u64()?, it["length"].as_u64()?);
        let inside = it["data"] == true && start <= offset && offset < start + length;
        inside.then(|| it["offset"].as_u64().unwrap() + offset - start)
    });
    let at = at.next().expect("nothing is written there");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.read(true).write(true).open(image).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}

impl Pair {
    async fn scrub(&self) -> Result<Found, ScrubError> {
        let run_dir = RunDir::new(self.host.dir.path().join("relay"));
        let program = self.host.program("qemu-storage-daemon", 64_101);
        let child = self.other.child().await;
        let relay = Relay::start(&program, &run_dir, &child, Access::Read)
            .await
            .unwrap();
        let progress = Arc::new(Progress::default());
        let found = compare(&self.own.daemon, &self.vm, &relay, 0, progress.clone()).await;
        println!("{found:?}, {} of {}", progress.copied(), progress.total());
        relay.end().await.unwrap();
        found
    }

    /// Writes the same few blocks over and over, far faster than any guest under emulation.
    fn hot_writer(&self, from: u64, blocks: u64) -> JoinHandle<()> {
        let vm = self.vm.clone();
        tokio::spawn(async move {
            for turn in 0_u64.. {
                let (pattern, at) = (turn % 251, from + turn % blocks * BLOCK);
                let write = format!(
                    "qemu-io -d /machine/peripheral/data-disk/virtio-backend \
                     \"write -P {pattern} {at} {BLOCK}\""
                );
                let asked = json!({"command-line": write});
                let said = vm.qmp().execute("human-monitor-command", asked).await;
                let Ok(said) = said else { return };
                let said = said.as_str().unwrap_or_default().to_owned();
                assert!(!said.contains("rror"), "{said}");
            }
        })
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_other_image_is_found_under_a_writing_guest_and_nothing_else() {
    let Some(mut pair) = pair(Some(&key("a"))).await else {
        return;
    };
    assert_eq!(pair.agent.ask("fill").await, "filled");
    pair.agent.ask("storm").await;
    pair.goes_on().await;
    assert_eq!(pair.scrub().await.unwrap().differ, [0; 0]);
    flip(&pair.other.config.image, STILL + 77);
    let hot = pair.hot_writer(60 << 20, 3);
    assert_eq!(pair.scrub().await.unwrap().differ, [STILL]);
    hot.abort();
    pair.goes_on().await;
    // Nothing of it stays in the daemon.
    assert_eq!(pair.own.daemon.exports().await.unwrap().len(), 1);
    let nodes = pair.own.daemon.qmp();
    let nodes = nodes.execute("query-named-block-nodes", json!({"flat": true}));
    assert!(!nodes.await.unwrap().to_string().contains("\"look\""));
    assert!(!pair.are_equal().await);
}

#[tokio::test]
async fn a_pair_that_is_equal_is_never_accused_however_fast_it_is_written() {
    let Some(mut pair) = pair(None).await else {
        return;
    };
    assert_eq!(pair.agent.ask("fill").await, "filled");
    pair.agent.ask("storm").await;
    let hot = [(40 << 20, 1), (44 << 20, 7), (50 << 20, 300)];
    let hot = hot.map(|(from, blocks)| pair.hot_writer(from, blocks));
    for _ in 0..8 {
        let found = pair.scrub().await.unwrap();
        assert_eq!(found.differ, [0; 0]);
    }
    for hot in hot {
        assert!(!hot.is_finished());
        hot.abort();
    }
    pair.goes_on().await;
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn a_replica_that_ends_meanwhile_is_an_error_and_no_difference() {
    let Some(mut pair) = pair(None).await else {
        return;
    };
    assert_eq!(pair.agent.ask("fill").await, "filled");
    flip(&pair.other.config.image, STILL);
    let other = pair.other.daemon.clone();
    let ending = tokio::spawn(async move {
        sleep(Duration::from_millis(100)).await;
        other.kill().await.unwrap();
    });
    let run_dir = RunDir::new(pair.host.dir.path().join("relay"));
    let program = pair.host.program("qemu-storage-daemon", 64_101);
    let child = pair.other.child().await;
    let relay = Relay::start(&program, &run_dir, &child, Access::Read)
        .await
        .unwrap();
    // Slow enough for that to happen in the middle.
    let progress = Arc::new(Progress::default());
    let compared = compare(&pair.own.daemon, &pair.vm, &relay, 1 << 20, progress).await;
    println!("{compared:?}");
    compared.unwrap_err();
    ending.await.unwrap();
    relay.end().await.unwrap();
}
