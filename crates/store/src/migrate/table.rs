//! A short way to write a table down, so that a schema step reads like a list.

use sea_orm::DbErr;
use sea_orm::sea_query::{
    Alias, ColumnDef, ForeignKey, ForeignKeyAction, Index, IntoIden, Table, TableCreateStatement,
};
use sea_orm_migration::SchemaManager;

/// A table to be made.
pub(super) struct New {
    name: &'static str,
    table: TableCreateStatement,
    indexes: Vec<(bool, &'static [&'static str])>,
}

/// What a column holds; the second word says whether it may be empty.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Id,
    Text,
    Number,
    Truth,
    Json,
    Bytes,
}

/// A table of our records: with id, version and times.
pub(super) fn record(name: &'static str) -> New {
    bare(name)
        .must(Kind::Id, &["id"])
        .must(Kind::Number, &["version", "created_at", "updated_at"])
        .key(&["id"])
}

/// A table of its own making.
pub(super) fn bare(name: &'static str) -> New {
    let mut table = Table::create();
    table.table(Alias::new(name));
    New {
        name,
        table,
        indexes: Vec::new(),
    }
}

impl New {
    /// Columns that always hold something.
    pub(super) fn must(self, kind: Kind, columns: &[&'static str]) -> Self {
        self.columns(kind, columns, true)
    }

    /// Columns that may be empty.
    pub(super) fn may(self, kind: Kind, columns: &[&'static str]) -> Self {
        self.columns(kind, columns, false)
    }

    /// Numbers that the records do not know, 0 at first.
    pub(super) fn hidden_number(mut self, column: &'static str) -> Self {
        let mut def = ColumnDef::new(Alias::new(column));
        def.big_integer().not_null().default(0);
        self.table.col(&mut def);
        self
    }

    fn columns(mut self, kind: Kind, columns: &[&'static str], must: bool) -> Self {
        for column in columns {
            let mut def = ColumnDef::new(Alias::new(*column));
            match kind {
                Kind::Id => def.uuid(),
                Kind::Text => def.text(),
                Kind::Number => def.big_integer(),
                Kind::Truth => def.boolean(),
                Kind::Json => def.json_binary(),
                Kind::Bytes => def.blob(),
            };
            if must {
                def.not_null();
            }
            self.table.col(&mut def);
        }
        self
    }

    /// The primary key.
    pub(super) fn key(mut self, columns: &[&'static str]) -> Self {
        let mut index = Index::create();
        for column in columns {
            index.col(column.into_iden());
        }
        self.table.primary_key(&mut index);
        self
    }

    /// No two rows have the same in these; errors name the last of them.
    pub(super) fn unique(mut self, columns: &'static [&'static str]) -> Self {
        self.indexes.push((true, columns));
        self
    }

    /// Rows are looked for by these.
    pub(super) fn index(mut self, columns: &'static [&'static str]) -> Self {
        self.indexes.push((false, columns));
        self
    }

    /// The column names a row of another table, which cannot go while this one is there.
    pub(super) fn refers(self, column: &'static str, to: &'static str) -> Self {
        self.reference(column, to, ForeignKeyAction::NoAction)
    }

    /// The column names a row of another table, and goes with it.
    pub(super) fn part_of(self, column: &'static str, to: &'static str) -> Self {
        self.reference(column, to, ForeignKeyAction::Cascade)
    }

    fn reference(mut self, column: &'static str, to: &'static str, gone: ForeignKeyAction) -> Self {
        let mut key = ForeignKey::create();
        key.name(format!("fk__{}__{column}", self.name))
            .from(Alias::new(self.name), Alias::new(column))
            .to(Alias::new(to), Alias::new("id"))
            .on_delete(gone);
        self.table.foreign_key(&mut key);
        self
    }

    pub(super) async fn make(self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        manager.create_table(self.table).await?;
        for (unique, columns) in self.indexes {
            let mut index = Index::create();
            // The name's last part is the field that an error names; see `error.rs`.
            let word = if unique { "uq" } else { "ix" };
            index
                .name(format!("{word}__{}__{}", self.name, columns.join("__")))
                .table(Alias::new(self.name));
            for column in columns {
                index.col(column.into_iden());
            }
            if unique {
                index.unique();
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
