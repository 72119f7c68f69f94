//! The support bundle: what helps to find a fault, without secrets and without content.

use serde_json::json;
use undine_api::public::SupportBundle;
use undine_store::Db;

use super::caller::Caller;
use super::paging::PageWish;
use super::{capacity, cluster, nodes, observe, operations, servers};
use crate::clock::now_ms;
use crate::control::{Control, PROGRAM};
use crate::refusal::Result;

const EVENTS: u64 = 200;

/// The bundle as of now.
pub async fn bundle(control: &Control, caller: &Caller) -> Result<SupportBundle> {
    let page = PageWish {
        limit: Some(200),
        cursor: None,
    };
    let newest = control.store.events().newest().await?;
    let records = json!({
        "cluster": control.cluster,
        "instances": cluster::instances(control, &page).await?.items,
        "edges": cluster::edges(control, &page).await?.items,
        "nodes": nodes::all(control, &page, None).await?.items,
        "servers": servers::all(control, &page, None).await?.items,
        "operations": operations::all(control, caller, &page, None, None).await?.items,
        "events": observe::events(control, caller, newest.saturating_sub(EVENTS)).await?,
        "capacity": capacity::capacity(control).await?,
    });
    Ok(SupportBundle {
        made_at: now_ms(),
        program: PROGRAM.to_owned(),
        store: control.store.kind().to_owned(),
        records,
    })
}
