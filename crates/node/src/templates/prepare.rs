//! Templates at hand before a server needs them: fetched from another node, else taken here at low
//! weight. One at a time; asking again tells how far it is.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use undine_api::node::{TemplateState, TemplateStatus, TemplateWish};
use undine_qemu::command::Boot;
use undine_qemu::template::TemplateKey;

use super::peers::{self, Peers};
use super::{Pace, Templates, shape};
use crate::problems::chain;
use crate::server::Ground;

/// What is being prepared.
pub(super) type UnderWay = std::sync::Mutex<HashMap<String, Progress>>;

/// How far one is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    state: TemplateState,
    have: u64,
    total: u64,
}

/// Sees to it that this template is here, and tells how far it is.
pub async fn prepare(ground: &Arc<Ground>, wish: TemplateWish) -> TemplateStatus {
    let (boot, key) = match shape::boot(&ground.host, &ground.images, (&wish).into()).await {
        Ok(found) => found,
        Err(reason) => {
            return TemplateStatus {
                name: String::new(),
                state: TemplateState::Absent,
                have: 0,
                total: 0,
                error: Some(reason),
            };
        }
    };
    let templates = &ground.templates;
    if let Some(status) = templates.known(&key) {
        if status.state == TemplateState::Present {
            ground.spares.wish(&wish, &key, &boot);
        }
        return status;
    }
    let name = key.file_name();
    let first = Progress {
        state: TemplateState::Fetching,
        have: 0,
        total: 0,
    };
    templates.under_way().insert(name.clone(), first);
    let ground = ground.clone();
    tokio::spawn(async move {
        // Whatever becomes of it: this one is no longer under way.
        let _done = Done(&ground.templates, key.file_name());
        ground.templates.provide(&wish, &key, &boot).await;
    });
    told(name, first)
}

fn told(name: String, progress: Progress) -> TemplateStatus {
    TemplateStatus {
        name,
        state: progress.state,
        have: progress.have,
        total: progress.total,
        error: None,
    }
}

struct Done<'a>(&'a Templates, String);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.under_way().remove(&self.1);
    }
}

impl Templates {
    /// How a template stands, if nothing must be begun for it.
    fn known(&self, key: &TemplateKey) -> Option<TemplateStatus> {
        let name = key.file_name();
        let status = |state, error| TemplateStatus {
            name: name.clone(),
            state,
            have: 0,
            total: 0,
            error,
        };
        if self.store.find(key).is_some() {
            return Some(status(TemplateState::Present, None));
        }
        if let Some(progress) = self.under_way().get(&name) {
            return Some(told(name.clone(), *progress));
        }
        let reason = self.failed_lately(key)?;
        Some(status(TemplateState::Failed, Some(reason)))
    }

    async fn provide(&self, wish: &TemplateWish, key: &TemplateKey, boot: &Boot) {
        let _one_at_a_time = self.taking.lock().await;
        if self.store.find(key).is_some() || self.fetched(wish, key).await {
            return;
        }
        self.progress(key, TemplateState::Making, 0, 0);
        // Its failure is noted where it happens.
        let _ = self.take_once(key, boot, Pace::Background).await;
    }

    /// Copies it from the first node that has it.
    async fn fetched(&self, wish: &TemplateWish, key: &TemplateKey) -> bool {
        let Some(source) = &self.peers else {
            return false;
        };
        for peer in &wish.peers {
            let arrived = self.fetch(source.as_ref(), peer, key).await;
            match arrived {
                Ok(true) => return true,
                Ok(false) => {}
                Err(reason) => {
                    tracing::warn!(from = %peer.node, reason, "a template could not be fetched");
                }
            }
        }
        false
    }

    async fn fetch(
        &self,
        source: &dyn Peers,
        peer: &undine_api::node::TemplatePeer,
        key: &TemplateKey,
    ) -> Result<bool, String> {
        let name = key.file_name();
        let path = self.store.incoming(key);
        let progress = |have, total| self.progress(key, TemplateState::Fetching, have, total);
        if !peers::gather(source, peer, &name, &path, progress).await? {
            return Ok(false);
        }
        let (store, key, origin) = (self.store.clone(), key.clone(), peer.node.to_string());
        let placed = tokio::task::spawn_blocking(move || store.arrived(key, &origin)).await;
        placed
            .map_err(|error| chain(&error))?
            .map_err(|error| chain(&error))?;
        tracing::info!(template = name, from = %peer.node, "template fetched");
        Ok(true)
    }

    fn progress(&self, key: &TemplateKey, state: TemplateState, have: u64, total: u64) {
        if let Some(progress) = self.under_way().get_mut(&key.file_name()) {
            *progress = Progress { state, have, total };
        }
    }

    pub(super) fn under_way(&self) -> std::sync::MutexGuard<'_, HashMap<String, Progress>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
