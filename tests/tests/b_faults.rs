//! Programs are killed with -9; visitors must not notice.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use undine_e2e::{Summary, Undine, Visitor, eventually};

fn kill(pid: u32) {
    let status = Command::new("kill")
        .args(["-s", "KILL", &pid.to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "process {pid} could be killed"
    );
}

/// The supervisor, held: what is killed stays dead until this is dropped. Otherwise it would be
/// back within the first few requests, and the rest would prove nothing.
struct Held(u32);

impl Held {
    fn supervisor(summary: &Summary) -> Self {
        let held = Self(summary.pid("supervisor").expect("it runs"));
        held.signal("STOP");
        held
    }

    fn signal(&self, signal: &str) {
        let _ = Command::new("kill")
            .args(["-s", signal, &self.0.to_string()])
            .status();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

/// `count` requests of a site, as fast as they are answered; how many failed.
async fn failures(summary: &Summary, label: &str, count: usize) -> Result<usize> {
    let site = summary.site(label)?;
    let visitor = Visitor::at(&summary.edges[0].address)?;
    let mut failed = 0;
    for _ in 0..count {
        let page = visitor.get(&site.host, "/").await;
        let is_right =
            page.is_ok_and(|page| page.status == 200 && page.body.contains(&site.expect));
        failed += usize::from(!is_right);
    }
    Ok(failed)
}

async fn control_answers(summary: &Summary) -> Result<()> {
    let undine = Undine::provider(summary);
    eventually(Duration::from_secs(60), || async {
        Ok(undine.list(&["node", "list"])?)
    })
    .await?;
    Ok(())
}

/// The servers' processes, by number. Spares are nobody's, and go with their agent.
fn machines() -> Vec<u32> {
    let run = Path::new("/run/undine-up");
    let folders = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<u32> = folders(run)
        .flat_map(|node| folders(&node.path().join("vm")))
        .filter_map(|server| std::fs::read_to_string(server.path().join("process.pid")).ok())
        .filter_map(|pid| pid.trim().parse().ok())
        .filter(|pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("qemu-system"))
        })
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test]
async fn sites_go_on_while_every_control_instance_is_dead() -> Result<()> {
    let summary = Summary::read()?;
    let held = Held::supervisor(&summary);
    for index in 1..=summary.control.len() {
        kill(summary.pid(&format!("control-{index}")).expect("it runs"));
    }
    assert_eq!(failures(&summary, "landing", 500).await?, 0);
    let asked = Undine::provider(&summary).list(&["node", "list"]);
    assert!(asked.is_err(), "control was dead all the while");
    drop(held);
    control_answers(&summary).await
}

#[tokio::test]
async fn servers_never_notice_that_their_agents_die() -> Result<()> {
    let summary = Summary::read()?;
    let before = machines();
    ensure!(before.len() >= 3, "three servers run");
    let held = Held::supervisor(&summary);
    for node in &summary.nodes {
        kill(
            summary
                .pid(&format!("{}-agent", node.name))
                .expect("it runs"),
        );
    }
    assert_eq!(failures(&summary, "landing", 100).await?, 0);
    // While they come back, too: an agent that has just started must not call its servers absent.
    drop(held);
    assert_eq!(failures(&summary, "landing", 1000).await?, 0);
    control_answers(&summary).await?;
    let undine = Undine::provider(&summary);
    eventually(Duration::from_secs(60), || async {
        let servers = undine.list(&["server", "list"])?;
        ensure!(
            servers.iter().all(|server| server["state"] == "running"),
            "{servers:?}"
        );
        // The agent works again: it answers for the site's log.
        undine.run(&["site", "logs", &summary.site("landing")?.host])?;
        Ok(())
    })
    .await?;
    assert_eq!(machines(), before, "the same virtual machines run");
    Ok(())
}

#[tokio::test]
async fn one_edge_is_enough() -> Result<()> {
    let summary = Summary::read()?;
    ensure!(summary.edges.len() >= 2, "two edges are up");
    let held = Held::supervisor(&summary);
    kill(summary.pid("edge-2").expect("it runs"));
    assert_eq!(failures(&summary, "landing", 50).await?, 0);
    drop(held);
    let other = summary.edges[1].address.clone();
    let landing = summary.site("landing")?;
    eventually(Duration::from_secs(30), || async {
        let page = Visitor::at(&other)?.get(&landing.host, "/").await?;
        ensure!(page.status == 200, "status {}", page.status);
        Ok(())
    })
    .await
}
