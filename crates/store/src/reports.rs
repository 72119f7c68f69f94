//! What arrives often and has no version: heartbeats, reports and leases.

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use undine_model::{EdgeId, InstanceId, NodeId, ServerId, TokenId};

use crate::cell::Column;
use crate::error::{Result, of_change, plain};
use crate::store::Session;
use crate::table::Table;
use crate::{Edge, Instance, Node, NodeFacts, Server, Token};

impl Table<'_, Instance> {
    /// The instance lives.
    pub async fn heartbeat(&self, id: InstanceId, now: i64) -> Result<()> {
        self.set(id, vec![("heartbeat_at", now.into())]).await
    }
}

impl Table<'_, Node> {
    /// What the node says about itself. Its version stays.
    pub async fn report(&self, id: NodeId, facts: &NodeFacts, now: i64) -> Result<()> {
        let values = vec![
            ("inventory", facts.inventory.put()),
            ("capacity", facts.capacity.put()),
            ("accelerator", facts.accelerator.put()),
            ("versions", facts.versions.put()),
            ("last_report_at", now.into()),
        ];
        self.set(id, values).await
    }
}

impl Table<'_, Edge> {
    /// What the edge says about itself. Its version stays.
    pub async fn report(
        &self,
        id: EdgeId,
        table_version: u64,
        addresses: &[String],
        program: &str,
        now: i64,
    ) -> Result<()> {
        let values = vec![
            ("table_version", table_version.put()),
            ("addresses", addresses.to_vec().put()),
            ("program", program.into()),
            ("last_report_at", now.into()),
        ];
        self.set(id, values).await
    }
}

impl Table<'_, Token> {
    /// The token was used; written at most once a minute.
    pub async fn touch(&self, id: TokenId, now: i64) -> Result<()> {
        let mut update = Query::update();
        update
            .table("tokens")
            .value("last_used_at", now)
            .and_where(Expr::col("id").eq(id.uuid()));
        update.and_where(
            Expr::col("last_used_at")
                .is_null()
                .or(Expr::col("last_used_at").lte(now - 60_000)),
        );
        self.session.change(&update).await.map_err(of_change)?;
        Ok(())
    }
}

impl Table<'_, Server> {
    /// The server said that it runs this version of its manifest; older news changes nothing.
    pub async fn manifest_applied(&self, id: ServerId, version: u64) -> Result<()> {
        let mut update = Query::update();
        update
            .table("servers")
            .value("manifest_applied", version.put())
            .and_where(Expr::col("id").eq(id.uuid()))
            .and_where(Expr::col("manifest_applied").lt(version.put()));
        self.session.change(&update).await.map_err(of_change)?;
        Ok(())
    }
}

/// The lease of a node, as last renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The node.
    pub node: NodeId,
    /// The number of the renewal.
    pub number: u64,
    /// When control got it.
    pub renewed_at: i64,
}

/// Leases of nodes, shared between the instances of control.
#[derive(Clone, Copy)]
pub struct Leases<'a> {
    pub(crate) session: Session<'a>,
}

impl Leases<'_> {
    /// Writes renewals, many at once; a later one that is there already stays.
    pub async fn renew(&self, leases: &[Lease]) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut insert = Query::insert();
        insert
            .into_table("node_leases")
            .columns(["node", "number", "renewed_at"]);
        for lease in leases {
            insert.values_panic([
                lease.node.put().into(),
                lease.number.put().into(),
                lease.renewed_at.into(),
            ]);
        }
        insert.on_conflict(
            OnConflict::column("node")
                .update_columns(["number", "renewed_at"])
                .action_and_where(
                    Expr::col(("node_leases", "renewed_at"))
                        .lte(Expr::col(("excluded", "renewed_at"))),
                )
                .to_owned(),
        );
        self.session.change(&insert).await.map_err(of_change)?;
        Ok(())
    }

    /// All leases.
    pub async fn all(&self) -> Result<Vec<Lease>> {
        let mut select = Query::select();
        select
            .columns(["node", "number", "renewed_at"])
            .from("node_leases");
        let rows = self.session.rows(&select).await?;
        rows.iter()
            .map(|row| {
                Ok(Lease {
                    node: NodeId::from_row(row, "node")?,
                    number: u64::from_row(row, "number")?,
                    renewed_at: i64::from_row(row, "renewed_at")?,
                })
            })
            .collect::<std::result::Result<_, _>>()
            .map_err(plain)
    }
}
