//! False alarms: nodes that control cannot hear, but that are well. No server stops answering, and
//! none moves.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use undine_e2e::{CutFromControl, Node, Summary, Undine, Watch, eventually};

/// Several times what a node may be silent before it may be declared dead.
const CUT: Duration = Duration::from_secs(15);

/// Where each server runs, and under which epoch.
fn owners(undine: &Undine) -> Result<Vec<(Value, Value, Value)>> {
    let all = undine.list(&["server", "list"])?;
    let mut owners: Vec<_> = all
        .iter()
        .map(|it| (it["name"].clone(), it["node"].clone(), it["epoch"].clone()))
        .collect();
    owners.sort_by_key(|(name, ..)| name.to_string());
    Ok(owners)
}

/// Cuts these off for a while, under visitors; nothing may come of it.
async fn nothing_happens(summary: &Summary, cut_off: &[&Node]) -> Result<()> {
    let undine = Undine::provider(summary);
    let before = owners(&undine)?;
    let watches = ["landing", "shop", "blog"].map(|label| Watch::begin(summary, label));
    let cuts: Result<Vec<_>> = cut_off
        .iter()
        .map(|node| CutFromControl::cut(node))
        .collect();
    let cuts = cuts?;
    tokio::time::sleep(CUT).await;
    // It is a cut indeed: what control has to ask the node for, it cannot tell.
    let (asked, shop) = (summary.clone(), summary.site("shop")?.host.clone());
    let logs = move || Undine::provider(&asked).run(&["site", "logs", &shop]);
    assert!(tokio::task::spawn_blocking(logs).await?.is_err());
    drop(cuts);
    for watch in watches {
        let met = watch?.end().await?;
        assert!(met.came > 5 && met.unserved.is_empty(), "{met:?}");
    }
    eventually(Duration::from_secs(60), || async {
        for node in undine.list(&["node", "list"])? {
            ensure!(node["state"] == "ready", "{node}");
        }
        for server in undine.list(&["server", "list"])? {
            ensure!(server["state"] == "running", "{server}");
        }
        Ok(())
    })
    .await?;
    assert_eq!(owners(&undine)?, before);
    Ok(())
}

#[tokio::test]
async fn control_that_hears_no_node_at_all_moves_no_server() -> Result<()> {
    let summary = Summary::read()?;
    let all: Vec<&Node> = summary.nodes.iter().collect();
    nothing_happens(&summary, &all).await
}

#[tokio::test]
async fn a_node_that_only_control_cannot_hear_keeps_its_servers() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let place = undine.place_of(&summary, "web-2")?;
    nothing_happens(&summary, &[place]).await
}
