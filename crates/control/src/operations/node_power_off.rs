//! `node.power_off`: the power of a node that was declared dead is cut, where somebody said how.
//! Its servers do not wait for this: epochs fence them. A node that is back meanwhile is left alone.
//!
//! | step | does | undo |
//! |---|---|---|
//! | cut | its fence agent switches it off; off already is success | none: somebody looks at a dead machine before it is switched on |

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_model::NodeId;
use undine_model::lifecycle::NodeState;
use undine_store::Db;

use super::new::event_of;
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, step};
use crate::power::Switch;

/// A dead node's power is cut.
pub const POWER_OFF: Kind = Kind {
    name: "node.power_off",
    steps: &[step!("cut", cut, keep "somebody looks at a dead machine before it is switched on")],
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn cut(work: &mut Work) -> Outcome<()> {
    let id: NodeId = work.param("node")?;
    let control = work.control.clone();
    let Some(node) = control.store.nodes().find(id).await? else {
        return Ok(());
    };
    let Some(kept) = node.bmc.filter(|_| node.state == NodeState::Fenced) else {
        return work
            .progress("it is back, or nobody says how any more")
            .await;
    };
    let broken = |refusal: crate::refusal::Refusal| {
        Trouble::stop(refusal.to_string(), "Say again how its power is cut.")
    };
    let switch = Switch::open(&control.secrets, id, &kept).map_err(broken)?;
    let program = switch.program(&control.fence_agents).ok_or_else(|| {
        let what = format!("{} is not on {}", switch.agent, control.name);
        Trouble::wait(
            what,
            "Install Debian's fence-agents on each of control's machines.",
        )
    })?;
    switch.cut(&program).await.map_err(|why| {
        Trouble::wait(
            why,
            "See whether its management controller can be reached; cut its power by hand.",
        )
    })?;
    work.progress("its power is off").await?;
    let data = json!({"name": node.name, "agent": switch.agent});
    let event = event_of("node.powered_off", id.uuid(), None, data);
    control.store.events().announce(vec![event]).await?;
    Ok(())
}

/// It has said what there is to say.
fn failed(_: &mut Work, _: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async { Ok(()) })
}
