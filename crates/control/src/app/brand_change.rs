//! Changing a brand: what may be one, and who is told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use undine_model::DomainName;
use undine_model::lifecycle::SiteState;
use undine_store::{AccountFilter, Db, SiteFilter, StoreError, Tx};

use super::brand::{self, Brand, Owner, PROVIDER, logo_key, of_reseller, read, with_host, word};
use super::caller::Caller;
use super::colour::Colour;
use super::picture;
use super::reseller_suspend::is_off;
use crate::clock::{now_ms, sha256};
use crate::control::Control;
use crate::refusal::{Refusal, Result};
use crate::routes::sites_changed;

const NAME: usize = 40;
const WORDS: usize = 300;

fn owner(caller: &Caller) -> Result<Owner> {
    if caller.sells() {
        return Ok(caller.reseller());
    }
    Err(Refusal::forbidden("Only whoever sells has a brand."))
}

/// The brand that the caller may change.
pub async fn own(control: &Control, caller: &Caller) -> Result<(Owner, Brand)> {
    let owner = owner(caller)?;
    Ok((owner, brand::of(control, owner).await?))
}

fn checked(wish: &Brand) -> Result<()> {
    if let Some(name) = &wish.name
        && (name.chars().count() > NAME || name.chars().any(char::is_control))
    {
        return Err(Refusal::invalid("name", "A name has 1 to 40 characters."));
    }
    if let Some(text) = &wish.suspended
        && (text.chars().count() > WORDS || text.chars().any(char::is_control))
    {
        return Err(Refusal::invalid(
            "suspended",
            "Visitors read one paragraph of 300 characters at most.",
        ));
    }
    if let Some(text) = &wish.colour {
        let colour: Colour = text
            .parse()
            .map_err(|why| Refusal::invalid("colour", why))?;
        if !colour.fits_light() {
            return Err(Refusal::invalid(
                "colour",
                "Text in this colour could not be read by everybody: it is too light.",
            )
            .remedy(format!("{} is the nearest that can.", colour.for_light())));
        }
    }
    Ok(())
}

/// A host name for the panel that nobody else has.
async fn free_host(control: &Control, tx: &Tx, owner: Owner, host: &str) -> Result<()> {
    let name: DomainName = host
        .parse()
        .map_err(|_| Refusal::invalid("host", "This is no host name."))?;
    let other = tx.resellers().find_by(&with_host(name.as_str())).await?;
    let taken = name.as_str() == control.cluster.panel_host()
        || tx.sites().by_name(name.as_str()).await?.is_some()
        || other.is_some_and(|it| Some(it.id) != owner);
    if taken {
        return Err(host_taken(name.as_str()));
    }
    Ok(())
}

fn host_taken(name: &str) -> Refusal {
    Refusal::conflict(
        "domain-taken",
        "The name is taken",
        format!("{name} is a site or a panel already."),
    )
    .field("host")
    .remedy("Choose another name for the panel.")
}

/// Changes the caller's own brand, but for its logo.
pub async fn change(control: &Control, caller: &Caller, wish: Brand) -> Result<()> {
    let owner = owner(caller)?;
    checked(&wish)?;
    if owner.is_none() && wish.host.is_some() {
        return Err(Refusal::invalid(
            "host",
            "The provider's panel has its name from the cluster.",
        ));
    }
    let tx = control.store.begin().await?;
    if let (Some(host), Some(id)) = (&wish.host, owner) {
        // In this order everywhere, so that nobody waits for each other: the reseller, then names.
        tx.resellers().lock(id).await?;
        tx.names_for_a_panel().await?;
        free_host(control, &tx, owner, host).await?;
    }
    let mut before = Brand::default();
    let kept = written(&tx, owner, |brand| {
        before = brand.clone();
        let logo = brand.logo.take();
        *brand = Brand { logo, ..wish };
    })
    .await?;
    if before.suspended != kept.suspended {
        tell_edges(&tx, owner).await?;
    }
    let data = json!(kept);
    caller
        .did_for(&tx, "brand.change", subject(owner), owner, data)
        .await?;
    tx.commit().await?;
    control.brands.keep(None);
    Ok(())
}

/// Suspended sites of this owner's customers are to be told to the edges anew.
async fn tell_edges(tx: &Tx, owner: Owner) -> Result<()> {
    let filter = AccountFilter {
        reseller: owner,
        ..AccountFilter::default()
    };
    let mut accounts = tx.accounts().all(&filter).await?;
    accounts.retain(|account| account.reseller == owner);
    for account in accounts {
        let filter = SiteFilter {
            account: Some(account.id),
            ..SiteFilter::default()
        };
        let mut sites = tx.sites().all(&filter).await?;
        let off = is_off(tx, &account).await?;
        sites.retain(|site| off || site.state == SiteState::Suspended);
        sites_changed(tx, &sites).await?;
    }
    Ok(())
}

fn subject(owner: Owner) -> String {
    format!("brand/{}", word(owner))
}

/// Within a transaction: the brand changed and kept.
async fn written(tx: &Tx, owner: Owner, change: impl FnOnce(&mut Brand)) -> Result<Brand> {
    let now = now_ms();
    match owner {
        None => {
            let mut brand = read(tx.settings().get(PROVIDER).await?);
            change(&mut brand);
            tx.settings().put(PROVIDER, &brand, now).await?;
            Ok(brand)
        }
        Some(id) => {
            let mut reseller = tx.resellers().lock(id).await?;
            let mut brand = of_reseller(reseller.clone());
            change(&mut brand);
            reseller.host = brand.host.clone();
            reseller.brand = Some(json!(Brand {
                host: None,
                ..brand.clone()
            }));
            match tx.resellers().update(&reseller, now).await {
                Ok(_) => Ok(brand),
                // Another reseller was quicker by a moment.
                Err(StoreError::Taken { field, value, .. }) if field == "host" => {
                    Err(host_taken(&value))
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Puts a logo in place of the caller's, or takes it away.
pub async fn set_logo(control: &Control, caller: &Caller, bytes: Option<&[u8]>) -> Result<()> {
    let owner = owner(caller)?;
    if let Some(bytes) = bytes {
        picture::kind(bytes)?;
    }
    let version = bytes.map(|bytes| sha256(bytes).chars().take(12).collect::<String>());
    let tx = control.store.begin().await?;
    match bytes {
        Some(bytes) => {
            let text = STANDARD.encode(bytes);
            tx.settings().put(&logo_key(owner), &text, now_ms()).await?;
        }
        None => tx.settings().remove(&logo_key(owner)).await?,
    }
    let data = json!({"logo": version});
    written(&tx, owner, |brand| brand.logo = version).await?;
    caller
        .did_for(&tx, "brand.logo", subject(owner), owner, data)
        .await?;
    tx.commit().await?;
    control.brands.keep(None);
    Ok(())
}
