//! Which blocks were written since when: the bitmaps of a replica's daemon.
//!
//! ```text
//! always          every write since the replicas were last known to be equal; persistent
//! always-next     for as long as a rotation takes (see `rotate_begin`)
//! pass-0, -1, …   what a copy still has to bring over; one a pass
//! look            what was written while a scrub looked; finer than the others
//! ```
//!
//! All changes are transactions: QEMU lets requests in flight end first, so that each write is in
//! the old bitmap or in the new one.

use std::fmt;

use serde_json::{Value, json};

use super::launch::query_nodes;
use super::{ALWAYS_BITMAP, IMAGE_NODE, StorageDaemon, StorageError};
use crate::qmp::QmpError;

const NEXT: &str = "always-next";
const PASS: &str = "pass-";
const SOURCE: &str = "copy.";
const LOOK: &str = "look";
const LOOK_SOURCE: &str = "scrub.";
/// A block of a guest's file system: what was written all the time is known that finely.
pub const LOOK_BYTES: u64 = 4 << 10;

/// What a copy begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Everything.
    Everything,
    /// What the bitmap [`ALWAYS_BITMAP`] holds.
    Always,
}

/// A read-only export that a copy reads from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    name: String,
    bitmap: Option<String>,
}

impl SourceName {
    /// The name of the metadata that tells what to copy: a bitmap, or what is in use at all.
    pub fn context(&self) -> String {
        match &self.bitmap {
            Some(bitmap) => format!("qemu:dirty-bitmap:{bitmap}"),
            None => "base:allocation".to_owned(),
        }
    }

    /// Does it tell the writes of a time, and not what is in use?
    pub fn is_bitmap(&self) -> bool {
        self.bitmap.is_some()
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl StorageDaemon {
    /// Begins to record for a copy: what is to be copied first is frozen (nothing for
    /// [`Base::Everything`]), and every write from now on goes into `pass-1`.
    ///
    /// What an earlier copy left is cleared away first. Dying inside leaves bitmaps that the next
    /// call, or [`end_passes`](Self::end_passes), clears.
    pub async fn begin_passes(&self, base: Base) -> Result<(), StorageError> {
        self.end_passes().await?;
        let mut actions = vec![add(&pass(1), true)];
        if base == Base::Always {
            actions.push(add(&pass(0), false));
            actions.push(merge(&pass(0), ALWAYS_BITMAP));
        }
        self.transaction(actions).await
    }

    /// Freezes what was written during the pass before: `pass-<number>` is what the pass `number`
    /// copies, and writes from now on go into the next one.
    pub async fn freeze_pass(&self, number: u32) -> Result<(), StorageError> {
        let disable = action("block-dirty-bitmap-disable", &pass(number));
        self.transaction(vec![add(&pass(number + 1), true), disable])
            .await
    }

    /// Exports the image read-only, with the frozen bitmap of a pass or, without a number, for
    /// copying what is in use.
    pub async fn open_source(&self, number: Option<u32>) -> Result<SourceName, StorageError> {
        self.open_reading(SOURCE, number.map(pass)).await
    }

    async fn open_reading(
        &self,
        prefix: &str,
        bitmap: Option<String>,
    ) -> Result<SourceName, StorageError> {
        let name = format!("{prefix}{}", bitmap.as_deref().unwrap_or("all"));
        let bitmaps: Vec<&String> = bitmap.iter().collect();
        let arguments = json!({"type": "nbd", "id": name, "node-name": IMAGE_NODE, "name": name,
            "writable": false, "bitmaps": bitmaps});
        self.qmp.execute("block-export-add", arguments).await?;
        Ok(SourceName { name, bitmap })
    }

    /// Exports the image read-only for a scrub. What an earlier one left is cleared away first.
    pub async fn begin_scrub(&self) -> Result<SourceName, StorageError> {
        self.end_scrub().await?;
        self.open_reading(LOOK_SOURCE, None).await
    }

    /// Every write from now on is recorded, block by block, until [`end_look`](Self::end_look).
    pub async fn begin_look(&self) -> Result<(), StorageError> {
        self.transaction(vec![add_of(LOOK, true, LOOK_BYTES)]).await
    }

    /// Exports what was recorded since [`begin_look`](Self::begin_look);
    /// [`close_source`](Self::close_source) ends the look.
    pub async fn end_look(&self) -> Result<SourceName, StorageError> {
        let disable = action("block-dirty-bitmap-disable", LOOK);
        self.transaction(vec![disable]).await?;
        self.open_reading(LOOK_SOURCE, Some(LOOK.to_owned())).await
    }

    /// Drops a look that nobody needs any more.
    pub async fn drop_look(&self) -> Result<(), StorageError> {
        self.remove_bitmap(LOOK).await
    }

    /// Clears away all that a scrub needed, also one that its maker did not end. Repeating is
    /// harmless.
    pub async fn end_scrub(&self) -> Result<(), StorageError> {
        self.end_exports(LOOK_SOURCE).await?;
        self.remove_bitmap(LOOK).await
    }

    async fn end_exports(&self, prefix: &str) -> Result<(), StorageError> {
        for export in self.listed().await? {
            if export.id.starts_with(prefix) {
                self.delete_export_id(&export.id).await?;
            }
        }
        Ok(())
    }

    /// Ends an export of [`open_source`](Self::open_source) and drops its bitmap.
    pub async fn close_source(&self, source: &SourceName) -> Result<(), StorageError> {
        self.delete_export_id(&source.name).await?;
        match &source.bitmap {
            Some(bitmap) => self.remove_bitmap(bitmap).await,
            None => Ok(()),
        }
    }

    /// Clears away all that a copy needed, also one that its maker did not end. Repeating is
    /// harmless.
    pub async fn end_passes(&self) -> Result<(), StorageError> {
        self.end_exports(SOURCE).await?;
        for (name, _) in self.bitmaps().await? {
            if name.starts_with(PASS) {
                self.remove_bitmap(&name).await?;
            }
        }
        Ok(())
    }

    /// First half of a rotation of [`ALWAYS_BITMAP`]: writes are recorded a second time from now
    /// on. Then the caller sees to it that every write from before is flushed on every replica
    /// ([`crate::vm::Vm::settle`]), and only then calls [`rotate_end`](Self::rotate_end).
    pub async fn rotate_begin(&self) -> Result<(), StorageError> {
        if self.bitmaps().await?.iter().any(|(name, _)| name == NEXT) {
            self.remove_bitmap(NEXT).await?;
        }
        self.transaction(vec![add(NEXT, true)]).await
    }

    /// Second half: [`ALWAYS_BITMAP`] forgets what was written before the first half. Dying
    /// between the halves leaves it with more than it needs, which is always safe.
    pub async fn rotate_end(&self) -> Result<(), StorageError> {
        self.transaction(vec![
            action("block-dirty-bitmap-clear", ALWAYS_BITMAP),
            merge(ALWAYS_BITMAP, NEXT),
            action("block-dirty-bitmap-remove", NEXT),
        ])
        .await
    }

    /// How many bytes [`ALWAYS_BITMAP`] would have copied.
    pub async fn recorded_bytes(&self) -> Result<u64, StorageError> {
        let bitmaps = self.bitmaps().await?;
        let always = bitmaps.iter().find(|(name, _)| name == ALWAYS_BITMAP);
        always
            .map(|(_, bytes)| *bytes)
            .ok_or(StorageError::Unexpected {
                what: "the replica has no bitmap",
            })
    }

    /// How many bytes were written since the freeze of the pass before this one.
    pub async fn pass_bytes(&self, number: u32) -> Result<u64, StorageError> {
        let wanted = pass(number);
        let bitmaps = self.bitmaps().await?;
        let found = bitmaps.iter().find(|(name, _)| *name == wanted);
        found
            .map(|(_, bytes)| *bytes)
            .ok_or(StorageError::Unexpected {
                what: "a copy's bitmap is gone",
            })
    }

    async fn bitmaps(&self) -> Result<Vec<(String, u64)>, StorageError> {
        let nodes = query_nodes(&self.qmp).await?;
        let node = nodes.iter().find(|node| node["node-name"] == IMAGE_NODE);
        let bitmaps = node.and_then(|node| node["dirty-bitmaps"].as_array());
        let read = |bitmap: &Value| {
            let name = bitmap["name"].as_str()?.to_owned();
            Some((name, bitmap["count"].as_u64().unwrap_or_default()))
        };
        Ok(bitmaps
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter_map(read)
            .collect())
    }

    async fn remove_bitmap(&self, name: &str) -> Result<(), StorageError> {
        let arguments = json!({"node": IMAGE_NODE, "name": name});
        match self
            .qmp
            .execute("block-dirty-bitmap-remove", arguments)
            .await
        {
            Err(error @ QmpError::Refused { .. }) => {
                // Not there, as it should be.
                let gone = self.bitmaps().await?.iter().all(|(there, _)| there != name);
                if gone { Ok(()) } else { Err(error.into()) }
            }
            other => Ok(other.map(drop)?),
        }
    }

    async fn transaction(&self, actions: Vec<Value>) -> Result<(), StorageError> {
        let arguments = json!({"actions": actions});
        Ok(self.qmp.execute("transaction", arguments).await.map(drop)?)
    }
}

fn pass(number: u32) -> String {
    format!("{PASS}{number}")
}

fn action(kind: &str, name: &str) -> Value {
    json!({"type": kind, "data": {"node": IMAGE_NODE, "name": name}})
}

fn add(name: &str, recording: bool) -> Value {
    add_of(name, recording, super::launch::BITMAP_GRANULARITY_BYTES)
}

fn add_of(name: &str, recording: bool, granularity_bytes: u64) -> Value {
    let mut action = action("block-dirty-bitmap-add", name);
    action["data"]["granularity"] = granularity_bytes.into();
    action["data"]["disabled"] = (!recording).into();
    action
}

fn merge(target: &str, from: &str) -> Value {
    json!({"type": "block-dirty-bitmap-merge",
        "data": {"node": IMAGE_NODE, "target": target, "bitmaps": [from]}})
}
