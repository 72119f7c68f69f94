//! What the provider decides for the whole cluster.

use serde_json::json;
use undine_api::public::{FailoverPolicy, UpdateFailoverPolicy};
use undine_store::Db;

use super::caller::{Caller, Expected};
use crate::clock::now_ms;
use crate::control::Control;
use crate::policy::Policy;
use crate::refusal::{Refusal, Result};

/// The policy and the version of its setting.
async fn read(db: &impl Db) -> Result<(Policy, i64)> {
    let setting = db.settings().find(Policy::KEY).await?;
    let version = setting.map_or(0, |setting| setting.version);
    Ok((Policy::of(db).await?, version))
}

fn show((policy, version): (Policy, i64)) -> FailoverPolicy {
    FailoverPolicy {
        silence_kvm_ms: policy.silence_kvm_ms,
        silence_tcg_ms: policy.silence_tcg_ms,
        brake_percent: policy.brake_percent,
        brake_window_ms: policy.brake_window_ms,
        replace_after_ms: policy.replace_after_ms,
        limit_bytes_s: policy.limit_bytes_s,
        joins_per_node: policy.joins_per_node,
        scrub_every_days: policy.scrub_every_days,
        scrub_limit_bytes_s: policy.scrub_limit_bytes_s,
        tls: policy.tls,
        version,
    }
}

/// How patient the cluster is with silent nodes, and how it copies disks.
pub async fn failover(control: &Control) -> Result<FailoverPolicy> {
    Ok(show(read(&control.store).await?))
}

/// Changes that, from now on.
pub async fn change_failover(
    control: &Control,
    caller: &Caller,
    expected: Expected,
    wish: UpdateFailoverPolicy,
) -> Result<FailoverPolicy> {
    let tx = control.store.begin().await?;
    let (now, version) = read(&tx).await?;
    expected.check("setting", version)?;
    let next = Policy {
        silence_kvm_ms: wish.silence_kvm_ms.unwrap_or(now.silence_kvm_ms),
        silence_tcg_ms: wish.silence_tcg_ms.unwrap_or(now.silence_tcg_ms),
        brake_percent: wish.brake_percent.unwrap_or(now.brake_percent),
        brake_window_ms: wish.brake_window_ms.unwrap_or(now.brake_window_ms),
        replace_after_ms: wish.replace_after_ms.unwrap_or(now.replace_after_ms),
        limit_bytes_s: wish.limit_bytes_s.unwrap_or(now.limit_bytes_s),
        joins_per_node: wish.joins_per_node.unwrap_or(now.joins_per_node),
        scrub_every_days: wish.scrub_every_days.unwrap_or(now.scrub_every_days),
        scrub_limit_bytes_s: wish.scrub_limit_bytes_s.unwrap_or(now.scrub_limit_bytes_s),
        tls: wish.tls.unwrap_or(now.tls),
    };
    next.check()?;
    let settings = tx.settings();
    if version > 0 {
        settings
            .update(Policy::KEY, &next, version, now_ms())
            .await?;
    } else if !settings.put_new(Policy::KEY, &next, now_ms()).await? {
        return Err(Refusal::unavailable(
            "Somebody else changes it at this moment.",
        ));
    }
    let data = json!({"before": now, "after": next});
    let subject = "settings/failover".to_owned();
    caller
        .did(&tx, "settings.failover", subject, None, data)
        .await?;
    tx.commit().await?;
    Ok(show((next, version + 1)))
}
