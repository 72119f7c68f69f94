//! Applications, profiles, images.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;
use undine_api::public::InstallApp;
use undine_client::new_key;

use super::{ANY, Context, confirm, every};
use crate::args::{App, Profile};

const APPS: [(&str, &str); 4] = [
    ("NAME", "name"),
    ("TITLE", "title"),
    ("RUNTIME", "runtime"),
    ("DATABASE", "database"),
];
const PROFILES: [(&str, &str); 4] = [
    ("NAME", "name"),
    ("TITLE", "title"),
    ("MEMORY", "memory"),
    ("IMAGE", "image"),
];
const IMAGES: [(&str, &str); 4] = [
    ("NAME", "name"),
    ("HASH", "hash"),
    ("SIZE", "size"),
    ("SERVERS", "servers"),
];

pub async fn app(context: &Context, command: App) -> Result<()> {
    match command {
        App::List => context.list(&context.client.list_apps().await?.items, &APPS),
        App::Install {
            app,
            site,
            answers: given,
            answer,
            waiting,
        } => {
            let mut answers: BTreeMap<String, String> = match given {
                Some(path) => super::file(&path)?,
                None => BTreeMap::new(),
            };
            for pair in &answer {
                let (name, value) = pair
                    .split_once('=')
                    .with_context(|| format!("--answer takes name=value, not `{pair}`"))?;
                answers.insert(name.to_owned(), value.to_owned());
            }
            let id = context.site(&site).await?;
            let answer = context
                .client
                .install_app(id, ANY, &new_key(), &InstallApp { app, answers })
                .await?;
            context.follow(answer, &waiting).await
        }
    }
}

pub async fn profile(context: &Context, command: Profile) -> Result<()> {
    match command {
        Profile::List => context.list(
            &every!(context, every_profiles, ListProfilesQuery),
            &PROFILES,
        ),
        Profile::Put { folder } => {
            let name = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let profile = undine_manifest::load::profile(&name, &files_of(&folder)?)
                .with_context(|| format!("{} is no profile", folder.display()))?;
            let name = profile.name.as_str();
            let answer = context
                .client
                .put_profile(name, ANY, &json!(profile))
                .await?;
            context.tell(&answer)
        }
        Profile::Delete { profile, sure } => {
            confirm(&sure, "deleting a profile")?;
            context.client.delete_profile(profile.as_str(), ANY).await?;
            context.tell(&())
        }
    }
}

/// Every text file of a profile's folder and of the folder `common` beside it, which profiles may
/// share templates in.
fn files_of(folder: &Path) -> Result<BTreeMap<String, String>> {
    let name = folder
        .file_name()
        .context("name the profile's folder")?
        .to_string_lossy();
    let mut files = BTreeMap::new();
    read_into(&mut files, folder, &name)?;
    let common = folder.with_file_name("common");
    if common.is_dir() {
        read_into(&mut files, &common, "common")?;
    }
    Ok(files)
}

fn read_into(files: &mut BTreeMap<String, String>, folder: &Path, prefix: &str) -> Result<()> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_into(files, &entry.path(), &name)?;
        } else {
            let text = std::fs::read_to_string(entry.path())
                .with_context(|| format!("{} is no text", entry.path().display()))?;
            files.insert(name, text);
        }
    }
    Ok(())
}

pub async fn images(context: &Context) -> Result<()> {
    context.list(&every!(context, every_images, ListImagesQuery), &IMAGES)
}
