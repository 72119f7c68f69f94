//! Settings of the cluster: one JSON value a key, such as its id, its CA and its networks.

use sea_orm::QueryResult;
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::cell::Column;
use crate::error::{Result, StoreError, of_change};
use crate::store::Session;

/// A setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Json,
    /// Counts its changes.
    pub version: i64,
    /// When it was last changed.
    pub updated_at: i64,
}

/// All settings.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    pub(crate) session: Session<'a>,
}

impl Settings<'_> {
    /// Set by a restore: control begins a new life of the store (see [`crate::Lives`]) and clears
    /// it.
    pub const RESTORED: &'static str = "store.restored";

    /// The setting, if it was ever set.
    pub async fn find(&self, key: &str) -> Result<Option<Setting>> {
        let mut select = Query::select();
        select
            .columns(["key", "value", "version", "updated_at"])
            .from("settings")
            .and_where(Expr::col("key").eq(key));
        self.session
            .row(&select)
            .await?
            .as_ref()
            .map(read)
            .transpose()
    }

    /// Its value as a type of the caller's.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(setting) = self.find(key).await? else {
            return Ok(None);
        };
        serde_json::from_value(setting.value)
            .map(Some)
            .map_err(|error| StoreError::Corrupt {
                record: "setting",
                source: error.into(),
            })
    }

    /// Sets it, whatever it was.
    pub async fn put<T: Serialize + Sync>(&self, key: &str, value: &T, now: i64) -> Result<()> {
        let mut insert = self.insertion(key, value, now)?;
        insert.on_conflict(
            OnConflict::column("key")
                .update_columns(["value", "updated_at"])
                .value("version", Expr::col(("settings", "version")).add(1))
                .to_owned(),
        );
        self.session.change(&insert).await.map_err(of_change)?;
        Ok(())
    }

    /// Sets it only if it was never set; tells whether it did. For what is made once, such as
    /// the CA, by whichever instance is first.
    pub async fn put_new<T: Serialize + Sync>(
        &self,
        key: &str,
        value: &T,
        now: i64,
    ) -> Result<bool> {
        let mut insert = self.insertion(key, value, now)?;
        insert.on_conflict(OnConflict::column("key").do_nothing().to_owned());
        Ok(self.session.change(&insert).await.map_err(of_change)? == 1)
    }

    /// Sets it if its version is still this one.
    pub async fn update<T: Serialize + Sync>(
        &self,
        key: &str,
        value: &T,
        expected: i64,
        now: i64,
    ) -> Result<()> {
        let mut update = Query::update();
        update
            .table("settings")
            .value("value", json(value)?)
            .value("version", Expr::col("version").add(1))
            .value("updated_at", now)
            .and_where(Expr::col("key").eq(key))
            .and_where(Expr::col("version").eq(expected));
        match self.session.change(&update).await.map_err(of_change)? {
            0 => Err(StoreError::Stale {
                record: "setting",
                id: key.to_owned(),
                expected,
            }),
            _ => Ok(()),
        }
    }

    /// Forgets it.
    pub async fn remove(&self, key: &str) -> Result<()> {
        let mut delete = Query::delete();
        delete
            .from_table("settings")
            .and_where(Expr::col("key").eq(key));
        self.session.change(&delete).await.map_err(of_change)?;
        Ok(())
    }

    fn insertion<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        now: i64,
    ) -> Result<sea_orm::sea_query::InsertStatement> {
        let mut insert = Query::insert();
        insert
            .into_table("settings")
            .columns(["key", "value", "version", "updated_at"])
            .values_panic([key.into(), json(value)?.into(), 1_i64.into(), now.into()]);
        Ok(insert)
    }
}

fn json<T: Serialize>(value: &T) -> Result<Json> {
    serde_json::to_value(value).map_err(|error| StoreError::Corrupt {
        record: "setting",
        source: error.into(),
    })
}

fn read(row: &QueryResult) -> Result<Setting> {
    let setting = || {
        Ok(Setting {
            key: String::from_row(row, "key")?,
            value: Json::from_row(row, "value")?,
            version: i64::from_row(row, "version")?,
            updated_at: i64::from_row(row, "updated_at")?,
        })
    };
    setting().map_err(|error: sea_orm::DbErr| StoreError::Corrupt {
        record: "setting",
        source: error.into(),
    })
}
