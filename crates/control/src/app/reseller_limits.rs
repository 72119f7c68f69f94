//! The limits of resellers, where something is added: a plan, an account, a site, a database.

use undine_api::public::{PlanLimits, ResellerLimits};
use undine_manifest::Caps;
use undine_model::ResellerId;
use undine_store::{Account, Db, Tx};

use super::resellers::{limits_of, uses_of};
use crate::refusal::{Refusal, Result};

/// Where a plan goes beyond what its reseller may give: the field and its limit.
pub(super) fn beyond(most: &ResellerLimits, plan: &PlanLimits) -> Option<(&'static str, u64)> {
    let caps = |of: &Caps| {
        [
            u64::from(of.cpu.0),
            of.memory.0,
            u64::from(of.processes),
            of.io_bytes_per_s.0,
            u64::from(of.iops),
            of.disk.0,
            of.inodes,
        ]
    };
    let names = [
        "site.cpu",
        "site.memory",
        "site.processes",
        "site.io_bytes_per_s",
        "site.iops",
        "site.disk",
        "site.inodes",
    ];
    let sums = [
        ("sites", u64::from(plan.sites), u64::from(most.sites)),
        (
            "databases",
            u64::from(plan.databases),
            u64::from(most.databases),
        ),
    ];
    let each = names
        .into_iter()
        .zip(caps(&plan.site))
        .zip(caps(&most.site));
    let each = each.map(|((name, wish), most)| (name, wish, most));
    sums.into_iter()
        .chain(each)
        .find(|(_, wish, most)| wish > most)
        .map(|(name, _, most)| (name, most))
}

/// Within a transaction: holds the reseller, and its plan may be like this.
pub async fn allows_plan(tx: &Tx, id: ResellerId, plan: &PlanLimits) -> Result<()> {
    let reseller = tx.resellers().lock(id).await?;
    match beyond(&limits_of(&reseller), plan) {
        None => Ok(()),
        Some((field, most)) => Err(Refusal::invalid(
            &format!("limits.{field}"),
            format!("A plan of {} has at most {most} here.", reseller.name),
        )
        .remedy("Choose less, or ask the provider for more.")),
    }
}

fn enough(reseller: &undine_store::Reseller, what: &str, have: u64, most: u32) -> Result<()> {
    if have < u64::from(most) {
        return Ok(());
    }
    Err(Refusal::conflict(
        "reseller-exceeded",
        "The reseller's limits allow no more",
        format!(
            "{} has {have} of the {most} {what} that it may have in all.",
            reseller.name
        ),
    )
    .remedy("Remove one, or ask the provider for more."))
}

/// Within a transaction: holds the reseller, and it may have one more account, with what that has.
pub async fn allows_account(tx: &Tx, id: ResellerId, comes_with: (u32, u32)) -> Result<()> {
    let reseller = tx.resellers().lock(id).await?;
    let (limits, uses) = (limits_of(&reseller), uses_of(tx, id).await?);
    enough(
        &reseller,
        "accounts",
        u64::from(uses.accounts),
        limits.accounts,
    )?;
    let after = |has: u32, more: u32| u64::from(has) + u64::from(more.saturating_sub(1));
    if comes_with.0 > 0 {
        enough(
            &reseller,
            "sites",
            after(uses.sites, comes_with.0),
            limits.sites,
        )?;
    }
    if comes_with.1 > 0 {
        enough(
            &reseller,
            "databases",
            after(uses.databases, comes_with.1),
            limits.databases,
        )?;
    }
    Ok(())
}

/// Within a transaction that holds the account: its reseller may have one more site.
pub async fn allows_site(tx: &Tx, account: &Account) -> Result<()> {
    let Some(id) = account.reseller else {
        return Ok(());
    };
    let reseller = tx.resellers().lock(id).await?;
    let have = tx.resellers().sites_of(id).await?;
    enough(&reseller, "sites", have, limits_of(&reseller).sites)
}

/// Within a transaction that holds the account: its reseller may have one more database.
pub async fn allows_database(tx: &Tx, account: &Account) -> Result<()> {
    let Some(id) = account.reseller else {
        return Ok(());
    };
    let reseller = tx.resellers().lock(id).await?;
    let have = tx.resellers().databases_of(id).await?;
    enough(&reseller, "databases", have, limits_of(&reseller).databases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use undine_model::{Bytes, MilliCpu};

    fn caps(memory: u64) -> Caps {
        Caps {
            cpu: MilliCpu(500),
            memory: Bytes(memory),
            processes: 50,
            io_bytes_per_s: Bytes(1 << 20),
            iops: 100,
            disk: Bytes(1 << 30),
            inodes: 1_000,
        }
    }

    #[test]
    fn a_plan_goes_nowhere_beyond_what_its_reseller_may_give() {
        let most = ResellerLimits {
            accounts: 2,
            sites: 5,
            databases: 5,
            site: caps(100),
        };
        let plan = |sites, memory| PlanLimits {
            sites,
            databases: 5,
            site: caps(memory),
        };
        assert_eq!(beyond(&most, &plan(5, 100)), None);
        assert_eq!(beyond(&most, &plan(6, 100)), Some(("sites", 5)));
        assert_eq!(beyond(&most, &plan(5, 101)), Some(("site.memory", 100)));
    }
}
