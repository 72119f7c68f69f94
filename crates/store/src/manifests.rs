//! What each server must run: a version per server, and which sites and databases changed with
//! each, so that only those need be sent.

use std::collections::BTreeMap;

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query};
use undine_model::{DatabaseId, ServerId, SiteId};
use uuid::Uuid;

use crate::cell::Column;
use crate::error::{Result, StoreError, of_change, plain};
use crate::record::words;
use crate::store::Session;

words! {
    /// What kind of thing changed.
    ManifestSubject {
        /// A site.
        Site = "site",
        /// A database.
        Database = "database",
    }
}

/// One thing that a server must run anew, or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManifestChange {
    /// This site.
    Site(SiteId),
    /// This database.
    Database(DatabaseId),
}

/// What changed for a server since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestChanges {
    /// These things changed; look each up: it is new, changed or gone.
    Delta {
        /// The version that the server then has.
        version: u64,
        /// The things, each once.
        changes: Vec<ManifestChange>,
    },
    /// Too much is forgotten: send the whole manifest.
    Everything {
        /// The version that the server then has. Read it before the records.
        version: u64,
    },
}

/// Versions of manifests.
#[derive(Clone, Copy)]
pub struct Manifests<'a> {
    pub(crate) session: Session<'a>,
}

impl Manifests<'_> {
    /// These things of a server changed: gives them the server's next version, and returns it.
    /// Do it in the transaction that changes them. No things at all means the whole manifest,
    /// such as after a change of the profile.
    pub async fn changed(&self, server: ServerId, changes: &[ManifestChange]) -> Result<u64> {
        let work = self.session.work().await?;
        let session = work.session();
        let mut update = Query::update();
        update
            .table("servers")
            .value("manifest_version", Expr::col("manifest_version").add(1))
            .and_where(Expr::col("id").eq(server.put()))
            .returning_col("manifest_version");
        if changes.is_empty() {
            update.value("manifest_floor", Expr::col("manifest_version").add(1));
        }
        let rows = session.changed_rows(&update).await.map_err(of_change)?;
        let Some(row) = rows.first() else {
            return Err(StoreError::NotFound {
                record: "server",
                id: server.to_string(),
            });
        };
        let version: i64 = row.try_get("", "manifest_version").map_err(plain)?;
        if !changes.is_empty() {
            let mut insert = Query::insert();
            insert
                .into_table("manifest_changes")
                .columns(["server", "version", "kind", "subject"]);
            for change in changes {
                let (kind, subject) = parts(*change);
                insert.values_panic([
                    server.put().into(),
                    version.into(),
                    kind.put().into(),
                    subject.into(),
                ]);
            }
            insert.on_conflict(
                OnConflict::columns(["server", "version", "subject"])
                    .do_nothing()
                    .to_owned(),
            );
            session.change(&insert).await.map_err(of_change)?;
        }
        work.done().await?;
        Ok(version.unsigned_abs())
    }

    /// The version of what a server must run, and the version that it said to run.
    pub async fn versions(&self, server: ServerId) -> Result<(u64, u64)> {
        let (version, applied, _) = self.stand(server).await?;
        Ok((version, applied))
    }

    /// What changed for a server after a version.
    pub async fn after(&self, server: ServerId, version: u64) -> Result<ManifestChanges> {
        let (newest, _, _) = self.stand(server).await?;
        let mut select = Query::select();
        select
            .columns(["kind", "subject"])
            .from("manifest_changes")
            .and_where(Expr::col("server").eq(server.put()))
            .and_where(Expr::col("version").gt(version.put()))
            .and_where(Expr::col("version").lte(newest.put()))
            .order_by("version", Order::Asc);
        let rows = self.session.rows(&select).await?;
        // The floor last: what was trimmed while we read is then noticed.
        let (_, _, floor) = self.stand(server).await?;
        if version < floor || version == 0 || version > newest {
            return Ok(ManifestChanges::Everything { version: newest });
        }
        let mut changes = BTreeMap::new();
        for row in &rows {
            let kind = ManifestSubject::from_row(row, "kind").map_err(plain)?;
            let subject = Uuid::from_row(row, "subject").map_err(plain)?;
            let change = match kind {
                ManifestSubject::Site => ManifestChange::Site(SiteId::from_uuid(subject)),
                ManifestSubject::Database => {
                    ManifestChange::Database(DatabaseId::from_uuid(subject))
                }
            };
            changes.insert(change, ());
        }
        Ok(ManifestChanges::Delta {
            version: newest,
            changes: changes.into_keys().collect(),
        })
    }

    /// Keeps the changes of the last `keep` versions of a server.
    pub async fn trim(&self, server: ServerId, keep: u64) -> Result<()> {
        let (newest, _, _) = self.stand(server).await?;
        let floor = newest.saturating_sub(keep);
        if floor == 0 {
            return Ok(());
        }
        let work = self.session.work().await?;
        let mut update = Query::update();
        update
            .table("servers")
            .value("manifest_floor", floor.put())
            .and_where(Expr::col("id").eq(server.put()))
            .and_where(Expr::col("manifest_floor").lt(floor.put()));
        work.session().change(&update).await.map_err(of_change)?;
        let mut delete = Query::delete();
        delete
            .from_table("manifest_changes")
            .and_where(Expr::col("server").eq(server.put()))
            .and_where(Expr::col("version").lte(floor.put()));
        work.session().change(&delete).await.map_err(of_change)?;
        work.done().await
    }

    /// Newest version, applied version, and the version up to which changes are forgotten.
    async fn stand(&self, server: ServerId) -> Result<(u64, u64, u64)> {
        let mut select = Query::select();
        select
            .columns(["manifest_version", "manifest_applied", "manifest_floor"])
            .from("servers")
            .and_where(Expr::col("id").eq(server.put()));
        let Some(row) = self.session.row(&select).await? else {
            return Err(StoreError::NotFound {
                record: "server",
                id: server.to_string(),
            });
        };
        let number = |column| u64::from_row(&row, column).map_err(plain);
        Ok((
            number("manifest_version")?,
            number("manifest_applied")?,
            number("manifest_floor")?,
        ))
    }
}

fn parts(change: ManifestChange) -> (ManifestSubject, Uuid) {
    match change {
        ManifestChange::Site(id) => (ManifestSubject::Site, id.uuid()),
        ManifestChange::Database(id) => (ManifestSubject::Database, id.uuid()),
    }
}
