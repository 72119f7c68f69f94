//! `import`: takes in profiles, applications and images; what is there already is renewed.

use std::path::PathBuf;

use undine_store::Store;

use crate::app::catalogue;
use crate::blobs::Blobs;
use crate::state_dir::StateDir;

/// What to take in.
#[derive(Debug, Clone, Default)]
pub struct Imports {
    /// A folder of profiles.
    pub profiles: Option<PathBuf>,
    /// A folder of applications.
    pub apps: Option<PathBuf>,
    /// Folders with an `image.json` and its files.
    pub images: Vec<PathBuf>,
}

/// Takes it in and says what came.
pub async fn import(store: &Store, state: &StateDir, imports: &Imports) -> anyhow::Result<()> {
    if let Some(folder) = &imports.profiles {
        let names = catalogue::import_profiles(store, folder).await?;
        eprintln!("profiles: {}", names.join(", "));
    }
    if let Some(folder) = &imports.apps {
        let names = catalogue::import_apps(store, folder).await?;
        eprintln!("applications: {}", names.join(", "));
    }
    let blobs = Blobs::new(state.blobs());
    for folder in &imports.images {
        let hash = catalogue::import_image(store, &blobs, folder).await?;
        eprintln!("image: {hash}");
    }
    Ok(())
}
