//! How each of our types is kept in a column: as a UUID, a number, a text, a truth or JSON.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sea_orm::sea_query::{Nullable, Value};
use sea_orm::{DbErr, QueryResult, TryGetable};
use undine_model::lifecycle::{NodeState, OperationState, ServerState, SiteState};
use undine_model::{Bytes, DomainName, Id, MilliCpu, Slug};
use uuid::Uuid;

/// A type that fits into one column.
pub trait Cell: Sized {
    /// What the database driver knows it as.
    type Raw: TryGetable + Into<Value> + Nullable;
    /// To the column.
    fn to_raw(&self) -> Self::Raw;
    /// From the column; the error says what was found there.
    fn from_raw(raw: Self::Raw) -> Result<Self, String>;
}

/// A column: a cell, or one that may be empty.
pub trait Column: Sized {
    /// To the database.
    fn put(&self) -> Value;
    /// From a row.
    fn from_row(row: &QueryResult, column: &str) -> Result<Self, DbErr>;
}

impl<T: Cell> Column for T {
    fn put(&self) -> Value {
        self.to_raw().into()
    }
    fn from_row(row: &QueryResult, column: &str) -> Result<Self, DbErr> {
        T::from_raw(row.try_get("", column)?).map_err(|found| unreadable(column, &found))
    }
}

impl<T: Cell> Column for Option<T> {
    fn put(&self) -> Value {
        self.as_ref().map(T::to_raw).into()
    }
    fn from_row(row: &QueryResult, column: &str) -> Result<Self, DbErr> {
        let raw: Option<T::Raw> = row.try_get("", column)?;
        raw.map(T::from_raw)
            .transpose()
            .map_err(|found| unreadable(column, &found))
    }
}

fn unreadable(column: &str, found: &str) -> DbErr {
    DbErr::Type(format!("column {column}: {found}"))
}

impl<K> Cell for Id<K> {
    type Raw = Uuid;
    fn to_raw(&self) -> Uuid {
        self.uuid()
    }
    fn from_raw(raw: Uuid) -> Result<Self, String> {
        Ok(Self::from_uuid(raw))
    }
}

macro_rules! same {
    ($($type:ty),*) => {$(
        impl Cell for $type {
            type Raw = $type;
            fn to_raw(&self) -> $type {
                self.clone()
            }
            fn from_raw(raw: $type) -> Result<Self, String> {
                Ok(raw)
            }
        }
    )*};
}
same!(Uuid, i64, bool, String, Vec<u8>, serde_json::Value);

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Cell for $type {
            type Raw = i64;
            fn to_raw(&self) -> i64 {
                // Nothing that we count comes near 2^63.
                i64::try_from(*self).unwrap_or(i64::MAX)
            }
            fn from_raw(raw: i64) -> Result<Self, String> {
                Self::try_from(raw).map_err(|_| raw.to_string())
            }
        }
    )*};
}
number!(u64, u32, u16);

macro_rules! unit {
    ($($type:ident($inner:ty)),*) => {$(
        impl Cell for $type {
            type Raw = i64;
            fn to_raw(&self) -> i64 {
                self.0.to_raw()
            }
            fn from_raw(raw: i64) -> Result<Self, String> {
                <$inner>::from_raw(raw).map($type)
            }
        }
    )*};
}
unit!(Bytes(u64), MilliCpu(u32));

macro_rules! text {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::cell::Cell for $type {
            type Raw = String;
            fn to_raw(&self) -> String {
                self.to_string()
            }
            fn from_raw(raw: String) -> Result<Self, String> {
                raw.parse().map_err(|_| raw)
            }
        }
    )*};
}
pub(crate) use text;
text!(
    Slug,
    DomainName,
    ServerState,
    NodeState,
    SiteState,
    OperationState,
    IpAddr,
    Ipv4Addr,
    Ipv6Addr,
);

macro_rules! json_list {
    ($($type:ty),*) => {$(
        impl Cell for Vec<$type> {
            type Raw = serde_json::Value;
            fn to_raw(&self) -> serde_json::Value {
                serde_json::json!(self)
            }
            fn from_raw(raw: serde_json::Value) -> Result<Self, String> {
                serde_json::from_value(raw).map_err(|error| error.to_string())
            }
        }
    )*};
}
json_list!(String, Uuid);

/// A value as a person would write it, for messages.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(Some(text)) => text.to_string(),
        Value::Uuid(Some(id)) => id.to_string(),
        Value::BigInt(Some(number)) => number.to_string(),
        _ => "this value".to_owned(),
    }
}
