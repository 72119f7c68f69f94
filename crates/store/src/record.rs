//! One macro says what a record is: its struct, its table, its columns and its filter.

use sea_orm::sea_query::{Condition, Value};
use sea_orm::{DbErr, QueryResult};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of a record that was just made.
pub const NEW: i64 = 1;

/// How a record meets its table; written by the `record!` macro only.
pub trait Row: Clone + Send + Sync + Sized {
    /// What it is called in messages.
    const WORD: &'static str;
    /// Its table.
    const TABLE: &'static str;
    /// Its columns, the id first, then version, `created_at` and `updated_at`.
    const COLUMNS: &'static [&'static str];
    /// Columns that only their own methods change, never `update`.
    const FROZEN: &'static [&'static str];
    /// Its id type.
    type Id: Copy + std::fmt::Display + Send + Sync;
    /// Which records a list shows.
    type Filter: Picks + Send + Sync;
    /// The bare id.
    fn key(&self) -> Uuid;
    /// An id without its kind.
    fn bare(id: Self::Id) -> Uuid;
    /// The version that was read.
    fn version(&self) -> i64;
    /// The same record at another version and time.
    fn at(self, version: i64, updated_at: i64) -> Self;
    /// All columns, in the order of `COLUMNS`.
    fn values(&self) -> Vec<Value>;
    /// From a row that holds all columns.
    fn read(row: &QueryResult) -> Result<Self, DbErr>;
}

/// A record that is one row: `insert` makes it. Others have a `create`.
pub trait Plain: Row {}

/// How a filter becomes a condition.
pub trait Picks {
    /// All its set fields must match.
    fn condition(&self) -> Condition;
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// At most so many; never more than [`PageRequest::MOST`].
    pub limit: u32,
    /// Only what comes after this id: `next` of the page before.
    pub after: Option<Uuid>,
    /// From the newest to the oldest instead.
    pub newest_first: bool,
}

impl PageRequest {
    /// The largest page.
    pub const MOST: u32 = 500;

    /// The first page of the oldest.
    pub const fn first(limit: u32) -> Self {
        Self {
            limit,
            after: None,
            newest_first: false,
        }
    }

    /// The first page of the newest.
    pub const fn newest(limit: u32) -> Self {
        Self {
            limit,
            after: None,
            newest_first: true,
        }
    }

    /// The page that begins after this id.
    pub const fn after(self, after: Option<Uuid>) -> Self {
        Self { after, ..self }
    }

    pub(crate) fn capped(self) -> u64 {
        u64::from(self.limit.clamp(1, Self::MOST))
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The records, in the order of their ids: as they were made.
    pub items: Vec<T>,
    /// Where the next page begins; none at the end.
    pub next: Option<Uuid>,
}

macro_rules! record {
    (
        $(#[$doc:meta])*
        $name:ident, $word:literal in $table:literal, id $id:ty {
            $($(#[$fdoc:meta])* $field:ident: $type:ty,)*
        }
        $(#[$fildoc:meta])*
        filter $filter:ident { $($pick:ident: $ptype:ty),* $(,)? }
        frozen { $($frozen:ident),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            /// Its id.
            pub id: $id,
            /// Counts its changes; a change names the version that it saw.
            pub version: i64,
            /// When it was made, in ms since 1970.
            pub created_at: i64,
            /// When it was last changed, in ms since 1970.
            pub updated_at: i64,
            $($(#[$fdoc])* pub $field: $type,)*
        }

        $(#[$fildoc])*
        #[derive(Debug, Clone, Default)]
        pub struct $filter {
            $(#[doc = concat!("Only with this `", stringify!($pick), "`.")]
            pub $pick: Option<$ptype>,)*
        }

        impl $crate::record::Picks for $filter {
            fn condition(&self) -> sea_orm::sea_query::Condition {
                #[allow(unused_imports)]
                use sea_orm::sea_query::{Condition, Expr, ExprTrait as _};
                let all = Condition::all();
                $(let all = match &self.$pick {
                    Some(value) => all.add(
                        Expr::col(stringify!($pick)).eq($crate::cell::Column::put(value)),
                    ),
                    None => all,
                };)*
                all
            }
        }

        impl $crate::record::Row for $name {
            const WORD: &'static str = $word;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] =
                &["id", "version", "created_at", "updated_at", $(stringify!($field)),*];
            const FROZEN: &'static [&'static str] = &[$(stringify!($frozen)),*];
            type Id = $id;
            type Filter = $filter;
            fn key(&self) -> uuid::Uuid {
                self.id.uuid()
            }
            fn bare(id: $id) -> uuid::Uuid {
                id.uuid()
            }
            fn version(&self) -> i64 {
                self.version
            }
            fn at(self, version: i64, updated_at: i64) -> Self {
                Self { version, updated_at, ..self }
            }
            fn values(&self) -> Vec<sea_orm::sea_query::Value> {
                use $crate::cell::Column as _;
                vec![
                    self.id.put(),
                    self.version.put(),
                    self.created_at.put(),
                    self.updated_at.put(),
                    $(self.$field.put()),*
                ]
            }
            fn read(row: &sea_orm::QueryResult) -> Result<Self, sea_orm::DbErr> {
                use $crate::cell::Column as _;
                Ok(Self {
                    id: <$id>::from_row(row, "id")?,
                    version: i64::from_row(row, "version")?,
                    created_at: i64::from_row(row, "created_at")?,
                    updated_at: i64::from_row(row, "updated_at")?,
                    $($field: <$type>::from_row(row, stringify!($field))?),*
                })
            }
        }
    };
}
pub(crate) use record;

/// Words that are kept as text: states and kinds that only the store's users share.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The value as it is written in the API and in the store.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    format!("`{text}` is not one of {}", [$($text),*].join(", "))
                })
            }
        }
        $crate::cell::text!($name);
    };
}
pub(crate) use words;
