//! Invitations: who may let whom in, as what, and to which part of an account.

use serde_json::json;
use undine_model::{AccountId, ResellerId};
use undine_store::{Db, Link, Member, Staff};

use super::people::may;
use super::sessions::Viewer;
use super::welcome::fresh_link;
use super::{accounts, resellers, sites};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// Who a link is for.
#[derive(Debug, Default)]
pub struct Invitation {
    /// As what.
    pub role: String,
    /// From a seller to the first owner of one of its accounts.
    pub account: Option<AccountId>,
    /// From the provider to somebody of a reseller.
    pub reseller: Option<ResellerId>,
    /// The domains of the only sites that they are to reach.
    pub sites: Vec<String>,
}

/// Makes a link for somebody new; answers its path, which is shown once.
pub async fn invite(control: &Control, viewer: &Viewer, wish: Invitation) -> Result<String> {
    let (link, secret) = match (wish.account, wish.reseller) {
        (Some(account), _) if viewer.caller.sells() => {
            accounts::reach(control, &viewer.caller, account).await?;
            fresh_link(Staff::None, Some(account), Member::Owner)
        }
        (_, Some(reseller)) if viewer.caller.sells() => {
            resellers::reach(control, &viewer.caller, reseller).await?;
            link_of_reseller(reseller)
        }
        _ => link_of_own(control, viewer, &wish).await?,
    };
    let tx = control.store.begin().await?;
    tx.links().insert(&link).await?;
    let data = json!({"staff": link.staff, "role": link.role, "sites": link.sites});
    let (caller, subject) = (&viewer.caller, format!("link/{}", link.id));
    match link.account {
        Some(account) => {
            let account = Some(account);
            caller
                .did(&tx, "person.invite", subject, account, data)
                .await?;
        }
        None => {
            caller
                .did_for(&tx, "person.invite", subject, link.reseller, data)
                .await?;
        }
    }
    tx.commit().await?;
    Ok(format!("/welcome/{secret}"))
}

fn link_of_reseller(reseller: ResellerId) -> (Link, String) {
    let (mut link, secret) = fresh_link(Staff::Reseller, None, Member::Reader);
    link.reseller = Some(reseller);
    (link, secret)
}

/// A link into what the viewer is of: the provider, a reseller, an account or some of its sites.
async fn link_of_own(
    control: &Control,
    viewer: &Viewer,
    wish: &Invitation,
) -> Result<(Link, String)> {
    may(viewer)?;
    let unknown = |why: String| Refusal::invalid("role", crate::refusal::capital(&why));
    if let Some(reseller) = viewer.caller.reseller() {
        return Ok(link_of_reseller(reseller));
    }
    let Some(own) = viewer.caller.account() else {
        let staff: Staff = wish.role.parse().map_err(unknown)?;
        if !matches!(staff, Staff::Owner | Staff::Operator | Staff::Support) {
            return Err(Refusal::invalid(
                "role",
                "Choose owner, operator or support.",
            ));
        }
        return Ok(fresh_link(staff, None, Member::Reader));
    };
    let role: Member = wish.role.parse().map_err(unknown)?;
    let (mut link, secret) = fresh_link(Staff::None, Some(own), role);
    if !wish.sites.is_empty() {
        if matches!(role, Member::Owner | Member::Billing) {
            return Err(Refusal::invalid(
                "role",
                "Of single sites somebody is manager, deployer or reader.",
            ));
        }
        link.sites = Some(sites::named(control, own, &wish.sites).await?);
    }
    Ok((link, secret))
}
