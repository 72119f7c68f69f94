//! What the program can be told on its command line.

pub mod import;
pub mod init;
pub mod join;
pub mod keep;
pub mod owner_link;
pub mod run;
pub mod token;

use anyhow::Context;
use undine_store::Store;

use crate::state_dir::{InstanceFile, StateDir};

/// Opens the store that an instance's state directory names.
pub async fn open(state: &StateDir) -> anyhow::Result<(InstanceFile, Store)> {
    let instance = state.instance()?;
    let store = Store::connect(&instance.store_url)
        .await
        .context("the store cannot be opened")?;
    Ok((instance, store))
}
