//! What servers and sites are made from: profiles, images, applications. All of it is data that
//! is imported; a new one needs no new program.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde_json::json;
use undine_api::node::ImageManifest;
use undine_api::public::{App, Image, List, Profile};
use undine_manifest::load::{self, Files};
use undine_model::{Bytes, Slug};
use undine_store::{
    Db, ImageFilter, ProfileFilter, ServerFilter, SiteFilter, Store, StoreError, Tx,
};

use super::caller::{Caller, Expected};
use super::paging::{PageWish, list};
use crate::blobs::Blobs;
use crate::clock::{new_id, now_ms, sha256};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// The setting that holds the catalogue of applications.
const APPS: &str = "apps";

fn show_profile(kept: undine_store::Profile) -> Option<Profile> {
    let profile: undine_manifest::Profile = serde_json::from_value(kept.definition).ok()?;
    Some(Profile {
        name: kept.name,
        title: profile.title,
        image: profile.image,
        memory: profile.memory,
        vcpus: profile.vcpus,
        cpu: profile.cpu,
        disk: profile.disk,
        runtimes: profile
            .runtimes
            .iter()
            .map(|(name, r)| (name.to_string(), r.title.clone()))
            .collect(),
        hash: kept.hash,
        created_at: kept.created_at,
        version: kept.version,
    })
}

/// One page of the profiles.
pub async fn profiles(control: &Control, wish: &PageWish) -> Result<List<Profile>> {
    let page = control
        .store
        .profiles()
        .list(&ProfileFilter::default(), wish.request(false)?)
        .await?;
    let next = page.next.map(|id| id.to_string());
    Ok(List {
        items: page.items.into_iter().filter_map(show_profile).collect(),
        next,
    })
}

/// One profile.
pub async fn profile(control: &Control, name: &Slug) -> Result<Profile> {
    let filter = ProfileFilter {
        name: Some(name.clone()),
    };
    let kept = control.store.profiles().find_by(&filter).await?;
    kept.and_then(show_profile)
        .ok_or_else(|| Refusal::not_found("profile", name.as_str()))
}

/// Puts a profile in, or renews it.
pub async fn update_profile(
    control: &Control,
    caller: &Caller,
    name: &Slug,
    expected: Expected,
    wish: undine_manifest::Profile,
) -> Result<Profile> {
    if wish.name != *name {
        return Err(Refusal::invalid(
            "name",
            format!("The path says {name}, the body {}.", wish.name),
        ));
    }
    let filter = ProfileFilter {
        name: Some(name.clone()),
    };
    let tx = control.store.begin().await?;
    if let Some(kept) = tx.profiles().find_by(&filter).await? {
        expected.check("profile", kept.version)?;
    }
    let servers = servers_of(&tx, name).await?;
    for server in &servers {
        keeps_runtimes(&tx, server, &wish).await?;
    }
    if put_profile(&tx, &wish).await? {
        // No things at all: each server is sent everything, the profile with it.
        for server in &servers {
            tx.manifests().changed(server.id, &[]).await?;
        }
    }
    caller
        .did(
            &tx,
            "profile.put",
            format!("profile/{name}"),
            None,
            json!({}),
        )
        .await?;
    tx.commit().await?;
    profile(control, name).await
}

/// Removes a profile that no server has.
pub async fn delete_profile(
    control: &Control,
    caller: &Caller,
    name: &Slug,
    expected: Expected,
) -> Result<()> {
    let tx = control.store.begin().await?;
    let kept = hold_profile(&tx, name)
        .await?
        .ok_or_else(|| Refusal::not_found("profile", name.as_str()))?;
    expected.check("profile", kept.version)?;
    let servers = servers_of(&tx, name).await?;
    if let Some(one) = servers.first() {
        let detail = format!(
            "{} servers have the profile {name}, {} among them.",
            servers.len(),
            one.name
        );
        return Err(Refusal::conflict("in-use", "The profile is in use", detail)
            .remedy("Delete these servers first."));
    }
    tx.profiles().delete(kept.id, Some(kept.version)).await?;
    caller
        .did(
            &tx,
            "profile.delete",
            format!("profile/{name}"),
            None,
            json!({}),
        )
        .await?;
    tx.commit().await?;
    Ok(())
}

/// A profile, held until the transaction ends: it is not removed while a server is made from it.
pub async fn hold_profile(tx: &Tx, name: &Slug) -> Result<Option<undine_store::Profile>> {
    let filter = ProfileFilter {
        name: Some(name.clone()),
    };
    let Some(found) = tx.profiles().find_by(&filter).await? else {
        return Ok(None);
    };
    match tx.profiles().lock(found.id).await {
        Err(StoreError::NotFound { .. }) => Ok(None),
        held => Ok(Some(held?)),
    }
}

async fn servers_of(tx: &Tx, profile: &Slug) -> Result<Vec<undine_store::Server>> {
    let filter = ServerFilter {
        profile: Some(profile.clone()),
        ..ServerFilter::default()
    };
    Ok(tx.servers().all(&filter).await?)
}

/// Sites go on running as they do: a runtime in use cannot be taken out of a profile.
async fn keeps_runtimes(
    tx: &Tx,
    server: &undine_store::Server,
    wish: &undine_manifest::Profile,
) -> Result<()> {
    let filter = SiteFilter {
        server: Some(server.id),
        ..SiteFilter::default()
    };
    let sites = tx.sites().all(&filter).await?;
    let Some(stranded) = sites
        .iter()
        .find(|site| !wish.runtimes.contains_key(&site.runtime))
    else {
        return Ok(());
    };
    let detail = format!(
        "{} on {} runs `{}`, which the profile would no longer have.",
        stranded.domain, server.name, stranded.runtime
    );
    Err(Refusal::invalid("runtimes", detail).remedy("Keep the runtime, or move such sites first."))
}

/// One page of the images.
pub async fn images(control: &Control, wish: &PageWish) -> Result<List<Image>> {
    let servers = control
        .store
        .servers()
        .all(&ServerFilter::default())
        .await?;
    let page = control
        .store
        .images()
        .list(&ImageFilter::default(), wish.request(false)?)
        .await?;
    Ok(list(page, |image| {
        let manifest: Option<ImageManifest> = serde_json::from_value(image.manifest).ok();
        let files = manifest
            .as_ref()
            .map(|m| [&m.files.root, &m.files.kernel, &m.files.initrd]);
        Image {
            size: Bytes(files.map_or(0, |files| files.iter().map(|file| file.size).sum())),
            release: manifest
                .as_ref()
                .map(|m| m.release.clone())
                .unwrap_or_default(),
            packages: manifest.as_ref().map_or(0, |m| m.packages.len() as u32),
            servers: servers
                .iter()
                .filter(|s| s.image_hash.as_ref() == Some(&image.hash))
                .count() as u32,
            hash: image.hash,
            name: image.name,
            created_at: image.created_at,
        }
    }))
}

/// The catalogue, whole.
pub async fn kept_apps(store: &Store) -> Result<Vec<undine_manifest::app::App>> {
    Ok(store.settings().get(APPS).await?.unwrap_or_default())
}

/// The catalogue as the API shows it.
pub async fn apps(control: &Control) -> Result<List<App>> {
    let items = kept_apps(&control.store)
        .await?
        .into_iter()
        .map(|app| App {
            name: app.name,
            title: app.title,
            runtime: app.runtime,
            database: app.database,
            questions: app.questions,
        })
        .collect();
    Ok(List { items, next: None })
}

/// Takes in every profile of a folder; tells their names.
pub async fn import_profiles(store: &Store, folder: &Path) -> anyhow::Result<Vec<String>> {
    let profiles = load::profiles(&read_files(folder)?)?;
    let mut names = Vec::new();
    for profile in profiles {
        names.push(profile.name.to_string());
        put_profile(store, &profile).await?;
    }
    Ok(names)
}

/// Says whether it is another one than before.
async fn put_profile(
    store: &impl Db,
    profile: &undine_manifest::Profile,
) -> undine_store::Result<bool> {
    let definition = json!(profile);
    let hash = sha256(definition.to_string());
    let now = now_ms();
    let filter = ProfileFilter {
        name: Some(profile.name.clone()),
    };
    match store.profiles().find_by(&filter).await? {
        Some(kept) if kept.hash == hash => return Ok(false),
        Some(mut kept) => {
            kept.hash = hash;
            kept.definition = definition;
            store.profiles().update(&kept, now).await?;
        }
        None => {
            let record = undine_store::Profile {
                id: new_id(),
                version: 1,
                created_at: now,
                updated_at: now,
                name: profile.name.clone(),
                hash,
                definition,
            };
            store.profiles().insert(&record).await?;
        }
    }
    Ok(true)
}

/// Takes in every application of a folder; tells their names.
pub async fn import_apps(store: &Store, folder: &Path) -> anyhow::Result<Vec<String>> {
    let apps = load::apps(&read_files(folder)?)?;
    let mut kept: BTreeMap<Slug, _> = kept_apps(store)
        .await?
        .into_iter()
        .map(|app| (app.name.clone(), app))
        .collect();
    let names = apps.iter().map(|app| app.name.to_string()).collect();
    kept.extend(apps.into_iter().map(|app| (app.name.clone(), app)));
    let all: Vec<_> = kept.into_values().collect();
    store.settings().put(APPS, &all, now_ms()).await?;
    Ok(names)
}

/// Takes in the image of a folder, its files into the blobs; tells its hash.
pub async fn import_image(store: &Store, blobs: &Blobs, folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("image.json");
    let text =
        std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let manifest: ImageManifest =
        serde_json::from_slice(&text).with_context(|| format!("{} is no image", path.display()))?;
    for file in [
        &manifest.files.root,
        &manifest.files.kernel,
        &manifest.files.initrd,
    ] {
        blobs.import(&folder.join(&file.file), &file.sha256).await?;
    }
    let filter = ImageFilter {
        hash: Some(manifest.hash.clone()),
        ..ImageFilter::default()
    };
    if store.images().find_by(&filter).await?.is_none() {
        let now = now_ms();
        let image = undine_store::Image {
            id: new_id(),
            version: 1,
            created_at: now,
            updated_at: now,
            hash: manifest.hash.clone(),
            name: manifest.name.clone(),
            manifest: json!(manifest),
            source: "blobs".to_owned(),
        };
        store.images().insert(&image).await?;
    }
    Ok(manifest.hash)
}

/// Every text file below a folder, by its path from there.
fn read_files(folder: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = std::fs::read_dir(&next)
            .with_context(|| format!("{} cannot be read", next.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let name = path
                    .strip_prefix(folder)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                files.insert(name, text);
            }
        }
    }
    Ok(files)
}
