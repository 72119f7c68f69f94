//! Resellers.

use anyhow::Result;
use undine_api::public::{CreateReseller, ResellerLimits, SuspendReseller, UpdateReseller};
use undine_client::new_key;

use super::{ANY, Context, confirm, every, file};
use crate::args::{LimitFlags, Reseller};

const RESELLERS: [(&str, &str); 9] = [
    ("NAME", "name"),
    ("STATE", "state"),
    ("ACCOUNTS", "uses.accounts"),
    ("OF", "limits.accounts"),
    ("SITES", "uses.sites"),
    ("OF", "limits.sites"),
    ("DATABASES", "uses.databases"),
    ("OF", "limits.databases"),
    ("ID", "id"),
];

pub async fn run(context: &Context, command: Reseller) -> Result<()> {
    match command {
        Reseller::List => context.list(
            &every!(context, every_resellers, ListResellersQuery),
            &RESELLERS,
        ),
        Reseller::Show { reseller } => {
            let id = context.reseller(&reseller).await?;
            context.tell(&context.client.get_reseller(id).await?)
        }
        Reseller::Create { name, file: limits } => {
            let limits = file(&limits)?;
            let wish = CreateReseller { name, limits };
            let answer = context.client.create_reseller(&new_key(), &wish).await?;
            context.tell(&answer)
        }
        Reseller::Limits { reseller, limits } => change(context, &reseller, limits).await,
        Reseller::Suspend {
            reseller,
            with_customers,
        } => {
            let id = context.reseller(&reseller).await?;
            let (client, wish) = (&context.client, SuspendReseller { with_customers });
            let answer = client.suspend_reseller(id, ANY, &new_key(), &wish).await?;
            context.tell(&answer)
        }
        Reseller::Unsuspend { reseller } => {
            let id = context.reseller(&reseller).await?;
            let (client, key) = (&context.client, new_key());
            let answer = client.unsuspend_reseller(id, ANY, &key).await?;
            context.tell(&answer)
        }
        Reseller::Delete { reseller, sure } => {
            confirm(&sure, "deleting a reseller")?;
            let id = context.reseller(&reseller).await?;
            context.client.delete_reseller(id, ANY).await?;
            context.tell(&())
        }
    }
}

async fn change(context: &Context, reseller: &str, flags: LimitFlags) -> Result<()> {
    let id = context.reseller(reseller).await?;
    let now = context.client.get_reseller(id).await?;
    let limits = match &flags.file {
        Some(path) => file(path)?,
        None => next(now.limits, &flags),
    };
    // What stays as it was is what was read: a change by somebody else meanwhile is not undone.
    let version = now.version.to_string();
    let wish = UpdateReseller { limits };
    let answer = context.client.update_reseller(id, &version, &wish).await?;
    context.tell(&answer)
}

/// The limits after a change of some of them.
fn next(now: ResellerLimits, flags: &LimitFlags) -> ResellerLimits {
    let mut next = now;
    next.accounts = flags.accounts.unwrap_or(next.accounts);
    next.sites = flags.sites.unwrap_or(next.sites);
    next.databases = flags.databases.unwrap_or(next.databases);
    next.site.cpu = flags.cpu.unwrap_or(next.site.cpu);
    next.site.memory = flags.memory.unwrap_or(next.site.memory);
    next.site.disk = flags.disk.unwrap_or(next.site.disk);
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use undine_model::Bytes;

    fn limits() -> ResellerLimits {
        let site = json!({
            "cpu": 500, "memory": 64 << 20, "processes": 50, "io_bytes_per_s": 1 << 20,
            "iops": 100, "disk": 64 << 20, "inodes": 1000,
        });
        let all = json!({"accounts": 1, "sites": 2, "databases": 3, "site": site});
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn limits_that_are_not_named_stay_as_they_are() {
        assert_eq!(next(limits(), &LimitFlags::default()), limits());
        let flags = LimitFlags {
            sites: Some(20),
            disk: Some(Bytes::gib(1)),
            ..LimitFlags::default()
        };
        let mut wanted = limits();
        wanted.sites = 20;
        wanted.site.disk = Bytes::gib(1);
        assert_eq!(next(limits(), &flags), wanted);
    }
}
