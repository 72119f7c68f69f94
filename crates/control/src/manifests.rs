//! What each server must run, made from the records and pushed to it: only what changed, or all
//! of it when the server asks for that.
//!
//! Pushes to one server go one after the other. Whoever waits for a version finds it applied when
//! a push before it carried it along, so a hundred changes at once cost few pushes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use undine_api::guest::{Answer, Applied, Ask, FailureKind};
use undine_link::CallError;
use undine_manifest::{
    Caps, DatabaseSpec, FORMAT, Manifest, ManifestDelta, SiteSettings, SiteSpec,
};
use undine_model::lifecycle::{ServerState, SiteState};
use undine_model::{AccountId, DomainName, ServerId, SiteId};
use undine_store::{
    Database, DatabaseFilter, Db, ManifestChange, ManifestChanges, ProfileFilter, Server, Site,
    SiteFilter, StoreError,
};

use crate::app::plans::limits_of;
use crate::app::reseller_suspend::is_off;
use crate::control::Control;
use crate::operations::{Outcome, Trouble};

/// One push at a time to each server.
#[derive(Default)]
pub struct PushLocks(Mutex<HashMap<ServerId, Arc<tokio::sync::Mutex<()>>>>);

impl PushLocks {
    fn of(&self, server: ServerId) -> Arc<tokio::sync::Mutex<()>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(server)
            .or_default()
            .clone()
    }
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The server runs the version, or a later one.
    Applied,
    /// The server is not up; it gets everything when it starts.
    Later,
}

/// How often a push tries again when others push at the same time.
const TRIES: u32 = 6;

/// Makes the server run at least this version.
pub async fn push(control: &Control, id: ServerId, at_least: u64) -> Outcome<Pushed> {
    let lock = control.pushes.of(id);
    let _one = lock.lock().await;
    let mut whole = false;
    for _ in 0..TRIES {
        let Some(server) = control.store.servers().find(id).await? else {
            return Ok(Pushed::Later);
        };
        if server.state != ServerState::Running {
            return Ok(Pushed::Later);
        }
        if server.manifest_applied >= at_least {
            return Ok(Pushed::Applied);
        }
        let before = server.manifest_applied;
        let (ask, sites) = next_ask(control, &server, whole).await?;
        match ask_server(control, &server, ask).await {
            Ok(applied) => record(control, id, &applied, &sites).await?,
            Err(CallError::Refused(problem)) if needs_whole(&problem.kind) => {
                // Another instance may just have pushed: then its version is the new base.
                let (_, now) = control.store.manifests().versions(id).await?;
                whole = now == before;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Trouble::wait(
        format!("server {id} gets many changes at once"),
        "It is tried again.",
    ))
}

async fn next_ask(control: &Control, server: &Server, whole: bool) -> Outcome<(Ask, Vec<SiteId>)> {
    let from = if whole { 0 } else { server.manifest_applied };
    match control.store.manifests().after(server.id, from).await? {
        ManifestChanges::Delta { version, changes } => {
            let delta = delta(control, server, version, &changes).await?;
            let sites = delta.sites.iter().map(|site| site.id).collect();
            Ok((Ask::ApplyDelta(Box::new(delta)), sites))
        }
        ManifestChanges::Everything { .. } => {
            let manifest = self::whole(control, server).await?;
            let sites = manifest.sites.iter().map(|site| site.id).collect();
            Ok((Ask::Apply(Box::new(manifest)), sites))
        }
    }
}

async fn ask_server(control: &Control, server: &Server, ask: Ask) -> Result<Applied, CallError> {
    let unexpected = |detail: String| CallError::Unexpected {
        peer: server.name.to_string(),
        detail,
    };
    let node = match server.node {
        Some(node) => control.store.nodes().find(node).await,
        None => Ok(None),
    };
    let node = node
        .map_err(|error| unexpected(error.to_string()))?
        .ok_or_else(|| unexpected("the server has no node".to_owned()))?;
    let client = control
        .nodes
        .of(&node)
        .map_err(|error| unexpected(error.to_string()))?;
    match client.guest(server.id, server.epoch, ask).await? {
        Answer::Applied(applied) => Ok(applied),
        other => Err(unexpected(format!("{other:?} instead of `applied`"))),
    }
}

fn needs_whole(kind: &str) -> bool {
    let word = serde_json::to_value(FailureKind::NeedsWhole).unwrap_or_default();
    let word = word.as_str().unwrap_or_default();
    kind.replace('-', "_").ends_with(word)
}

/// Writes down what a server said to run: each failure at its own site only.
pub async fn record(
    control: &Control,
    server: ServerId,
    applied: &Applied,
    sent: &[SiteId],
) -> Outcome<()> {
    let failed: BTreeMap<SiteId, &str> = applied
        .failed
        .iter()
        .map(|failure| (failure.site, failure.error.as_str()))
        .collect();
    for (site, error) in &failed {
        let written = control
            .store
            .sites()
            .modify(*site, crate::clock::now_ms(), |record| {
                if !record.state.is_leaving() {
                    record.state = SiteState::Failed;
                    record.error = Some((*error).to_owned());
                }
                Ok(())
            })
            .await;
        match written {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let well: Vec<SiteId> = sent
        .iter()
        .copied()
        .filter(|site| !failed.contains_key(site))
        .collect();
    control
        .store
        .sites()
        .applied(&well, applied.version)
        .await?;
    control
        .store
        .servers()
        .manifest_applied(server, applied.version)
        .await?;
    Ok(())
}

/// Everything that a server must run.
pub async fn whole(control: &Control, server: &Server) -> Outcome<Manifest> {
    // The version before the records: what changes meanwhile is sent once more, never lost.
    let (version, _) = control.store.manifests().versions(server.id).await?;
    let profile = profile_of(control, server).await?;
    let filter = SiteFilter {
        server: Some(server.id),
        ..SiteFilter::default()
    };
    let mut sites = control.store.sites().all(&filter).await?;
    sites.retain(|site| site.state != SiteState::Deleting);
    let filter = DatabaseFilter {
        server: Some(server.id),
        ..DatabaseFilter::default()
    };
    let mut databases = control.store.databases().all(&filter).await?;
    databases.retain(|it| !is_going(it) && sites.iter().any(|site| site.id == it.site));
    Ok(Manifest {
        format: FORMAT,
        version,
        server: server.id,
        profile,
        sites: site_specs(control, &sites).await?,
        databases: databases
            .iter()
            .map(|database| database_spec(control, database))
            .collect::<Outcome<_>>()?,
    })
}

/// The profile of a server.
pub async fn profile_of(control: &Control, server: &Server) -> Outcome<undine_manifest::Profile> {
    let filter = ProfileFilter {
        name: Some(server.profile.clone()),
    };
    let profile = control
        .store
        .profiles()
        .find_by(&filter)
        .await?
        .ok_or_else(|| {
            Trouble::stop(
                format!(
                    "the profile {} of server {} is gone",
                    server.profile, server.name
                ),
                "Import the profile again.",
            )
        })?;
    serde_json::from_value(profile.definition)
        .map_err(|error| Trouble::stop(error.to_string(), "Import the profile again."))
}

async fn delta(
    control: &Control,
    server: &Server,
    version: u64,
    changes: &[ManifestChange],
) -> Outcome<ManifestDelta> {
    let mut delta = ManifestDelta {
        format: FORMAT,
        from: server.manifest_applied,
        to: version,
        sites: Vec::new(),
        removed_sites: Vec::new(),
        databases: Vec::new(),
        removed_databases: Vec::new(),
    };
    let mut sites = Vec::new();
    for change in changes {
        match change {
            ManifestChange::Site(id) => match control.store.sites().find(*id).await? {
                Some(site) if site.state != SiteState::Deleting => sites.push(site),
                _ => delta.removed_sites.push(*id),
            },
            ManifestChange::Database(id) => match control.store.databases().find(*id).await? {
                Some(database) if !is_going(&database) => {
                    delta.databases.push(database_spec(control, &database)?);
                }
                _ => delta.removed_databases.push(*id),
            },
        }
    }
    delta.sites = site_specs(control, &sites).await?;
    Ok(delta)
}

/// A database whose password was wiped is on its way out.
pub fn is_going(database: &Database) -> bool {
    database.encrypted_password.is_empty()
}

fn database_spec(control: &Control, database: &Database) -> Outcome<DatabaseSpec> {
    let password = control
        .secrets
        .open(
            &format!("database/{}", database.id),
            &database.encrypted_password,
        )
        .map_err(|error| {
            Trouble::stop(
                error.to_string(),
                "Restore the key of the secrets that belongs to this store.",
            )
        })?;
    Ok(DatabaseSpec {
        id: database.id,
        site: database.site,
        name: database.name.clone(),
        user: database.username.clone(),
        password: password.to_string(),
    })
}

async fn site_specs(control: &Control, sites: &[Site]) -> Outcome<Vec<SiteSpec>> {
    let mut aliases = control.store.sites().aliases(sites).await?;
    let mut accounts: BTreeMap<AccountId, (Caps, bool)> = BTreeMap::new();
    let mut specs = Vec::with_capacity(sites.len());
    for site in sites {
        let (caps, suspended) = match accounts.get(&site.account) {
            Some(known) => known.clone(),
            None => {
                let read = account_caps(control, site.account).await?;
                accounts.insert(site.account, read.clone());
                read
            }
        };
        let names = aliases.remove(&site.id).unwrap_or_default();
        specs.push(site_spec(site, names, caps, suspended));
    }
    Ok(specs)
}

async fn account_caps(control: &Control, id: AccountId) -> Outcome<(Caps, bool)> {
    let account = control.store.accounts().get(id).await?;
    let plan = control.store.plans().get(account.plan).await?;
    let suspended = is_off(&control.store, &account).await?;
    Ok((limits_of(&plan).site, suspended))
}

fn site_spec(site: &Site, aliases: Vec<DomainName>, caps: Caps, suspended: bool) -> SiteSpec {
    SiteSpec {
        id: site.id,
        account: site.account,
        uid: site.uid,
        domain: site.domain.clone(),
        aliases,
        runtime: site.runtime.clone(),
        settings: settings_of(site),
        caps,
        // A deleted site keeps its files until its day is over, and runs nothing.
        suspended: suspended || matches!(site.state, SiteState::Suspended | SiteState::Deleted),
        release: site.current_release,
    }
}

/// What a site's owner set.
pub fn settings_of(site: &Site) -> SiteSettings {
    serde_json::from_value(site.settings.clone()).unwrap_or_default()
}
