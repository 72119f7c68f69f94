//! How the panel looks and is called: the provider's brand, or a reseller's for its customers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use undine_model::ResellerId;
use undine_store::{Db, Link, ResellerFilter};

use super::colour::Colour;
use super::picture;
use super::sessions::Viewer;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// A brand as it is kept; what is left out is as Undine has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Brand {
    /// What the panel is called.
    #[serde(default)]
    pub name: Option<String>,
    /// Its colour, such as `#0b6678`.
    #[serde(default)]
    pub colour: Option<String>,
    /// A host name of its own for the panel; kept beside the brand, where no two can have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The logo's version; its bytes are a setting of their own.
    #[serde(default)]
    pub logo: Option<String>,
    /// What visitors of a suspended site read: plain text.
    #[serde(default)]
    pub suspended: Option<String>,
}

/// Whose brand: the provider's, or a reseller's.
pub type Owner = Option<ResellerId>;

/// The provider's brand in the settings.
pub(super) const PROVIDER: &str = "brand";
/// What another instance changed is seen after this.
const FRESH: Duration = Duration::from_secs(3);

/// An owner in addresses and keys.
pub(super) fn word(owner: Owner) -> String {
    owner.map_or_else(|| "provider".to_owned(), |id| id.to_string())
}

/// Where the settings have a logo.
pub(super) fn logo_key(owner: Owner) -> String {
    format!("brand.logo.{}", word(owner))
}

/// All brands there are, each with whose it is.
type All = Arc<Vec<(Owner, Brand)>>;

/// All brands, as they were read last. Every page asks for one.
#[derive(Default)]
pub struct Brands(Mutex<Option<(Instant, All)>>);

impl Brands {
    fn known(&self) -> Option<All> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, all) = kept.as_ref()?;
        (at.elapsed() < FRESH).then(|| Arc::clone(all))
    }

    /// Keeps what was read; none: it is to be read again.
    pub(super) fn keep(&self, all: Option<All>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = all.map(|all| (Instant::now(), all));
    }
}

/// A reseller's brand, with the panel's host name.
pub(super) fn of_reseller(reseller: undine_store::Reseller) -> Brand {
    Brand {
        host: reseller.host,
        ..read(reseller.brand)
    }
}

/// A brand from where it was kept.
pub(super) fn read(kept: Option<serde_json::Value>) -> Brand {
    // Checked when it was written; what cannot be read is as if it were not there.
    kept.and_then(|kept| serde_json::from_value(kept).ok())
        .unwrap_or_default()
}

async fn all(control: &Control) -> Result<All> {
    if let Some(known) = control.brands.known() {
        return Ok(known);
    }
    let found = Arc::new(now(control).await?);
    control.brands.keep(Some(Arc::clone(&found)));
    Ok(found)
}

/// All brands there are, each with whose it is, as the store has them now.
pub async fn now(control: &Control) -> Result<Vec<(Owner, Brand)>> {
    let own: Option<serde_json::Value> = control.store.settings().get(PROVIDER).await?;
    let mut found = vec![(None, read(own))];
    for reseller in control
        .store
        .resellers()
        .all(&ResellerFilter::default())
        .await?
    {
        if reseller.brand.is_some() {
            found.push((Some(reseller.id), of_reseller(reseller)));
        }
    }
    Ok(found)
}

/// The brand of this owner.
pub async fn of(control: &Control, owner: Owner) -> Result<Brand> {
    let all = all(control).await?;
    let found = all.iter().find(|(whose, _)| *whose == owner);
    Ok(found.map(|(_, brand)| brand.clone()).unwrap_or_default())
}

/// A brand as a page shows it.
#[derive(Debug, Clone)]
pub struct Look {
    /// What the panel is called.
    pub name: String,
    /// Where its colours are; empty without.
    pub style: String,
    /// Where its logo is; empty without.
    pub logo: String,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            name: "Undine".to_owned(),
            style: String::new(),
            logo: String::new(),
        }
    }
}

fn look(owner: Owner, brand: &Brand) -> Look {
    let path = |version: &str, kind: &str| format!("/brands/{}.{kind}?{version}", word(owner));
    Look {
        name: brand.name.clone().unwrap_or_else(|| Look::default().name),
        style: brand
            .colour
            .as_deref()
            .map(|colour| path(colour.trim_start_matches('#'), "css"))
            .unwrap_or_default(),
        logo: brand
            .logo
            .as_deref()
            .map(|version| path(version, "logo"))
            .unwrap_or_default(),
    }
}

/// How the panel looks at this host name.
pub async fn at_host(control: &Control, host: &str) -> Result<Look> {
    let all = all(control).await?;
    let host = host.split(':').next().unwrap_or_default();
    let found = all.iter().find(|(_, it)| it.host.as_deref() == Some(host));
    let provider = || all.iter().find(|(owner, _)| owner.is_none());
    Ok(found
        .or_else(provider)
        .map(|(owner, brand)| look(*owner, brand))
        .unwrap_or_default())
}

/// How the panel looks to whoever comes by a link.
pub async fn of_link(control: &Control, link: &Link, host: &str) -> Result<Look> {
    let account = match link.account {
        Some(id) => control.store.accounts().find(id).await?,
        None => None,
    };
    let sold_by = account.and_then(|account| account.reseller);
    if let Some(owner) = link.reseller.or(sold_by) {
        let brand = of(control, Some(owner)).await?;
        if brand != Brand::default() {
            return Ok(look(Some(owner), &brand));
        }
    }
    at_host(control, host).await
}

/// How the panel looks to somebody: as whoever sells to them has it, else by host name. Whoever
/// only acts for an account keeps their own.
pub async fn to(control: &Control, viewer: &Viewer, sold_by: Owner) -> Result<Look> {
    // Who reaches single sites has no account of which the page would know.
    let sold_by = match (viewer.caller.token.account, &viewer.caller.sites) {
        (Some(account), Some(_)) => {
            let account = control.store.accounts().find(account).await?;
            account.and_then(|account| account.reseller)
        }
        _ => sold_by,
    };
    let own = viewer.person.reseller.or(sold_by);
    if let Some(reseller) = own.filter(|_| viewer.acts_for().is_none() || sold_by.is_none()) {
        let brand = of(control, Some(reseller)).await?;
        if brand != Brand::default() {
            return Ok(look(Some(reseller), &brand));
        }
    }
    at_host(control, &viewer.host).await
}

/// A file of a brand, by name: its kind and its bytes.
pub async fn file(control: &Control, name: &str) -> Result<(&'static str, Vec<u8>)> {
    let missing = || Refusal::not_found("file", "of this name");
    let (whose, kind) = name.split_once('.').ok_or_else(missing)?;
    let owner = match whose {
        "provider" => None,
        id => Some(id.parse().map_err(|_| missing())?),
    };
    match kind {
        "css" => {
            let brand = of(control, owner).await?;
            let colour = brand.colour.and_then(|text| text.parse::<Colour>().ok());
            let style = colour.ok_or_else(missing)?.style();
            Ok(("text/css; charset=utf-8", style.into_bytes()))
        }
        "logo" => {
            let kept: Option<String> = control.store.settings().get(&logo_key(owner)).await?;
            let bytes = kept.and_then(|text| STANDARD.decode(text).ok());
            let bytes = bytes.ok_or_else(missing)?;
            Ok((picture::kind(&bytes)?, bytes))
        }
        _ => Err(missing()),
    }
}

/// The reseller whose panel has this host name.
pub(super) fn with_host(name: &str) -> ResellerFilter {
    ResellerFilter {
        host: Some(name.to_owned()),
        ..ResellerFilter::default()
    }
}

/// Is this host name a reseller's panel?
pub async fn is_panel(db: &impl Db, name: &str) -> Result<bool> {
    Ok(db.resellers().find_by(&with_host(name)).await?.is_some())
}
