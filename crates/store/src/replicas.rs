//! Questions about the copies of disks that need more than one table.

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use undine_model::{Bytes, NodeId, ServerId};

use crate::cell::Column;
use crate::error::{Result, of_change, plain};
use crate::table::Table;
use crate::{Replica, Server};

impl Table<'_, Replica> {
    /// What the copies on a node may grow to: the sizes of their servers' disks together.
    pub async fn promised(&self, node: NodeId) -> Result<Bytes> {
        let mut here = Query::select();
        here.column("server")
            .from("replicas")
            .and_where(Expr::col("node").eq(node.put()));
        let mut select = Query::select();
        select
            .column("disk")
            .from("servers")
            .and_where(Expr::col("id").in_subquery(here));
        let rows = self.session.rows(&select).await?;
        let mut sum = Bytes(0);
        for row in &rows {
            sum.0 += Bytes::from_row(row, "disk").map_err(plain)?.0;
        }
        Ok(sum)
    }
}

impl Table<'_, Server> {
    /// The record's version becomes at least this: nodes were told of it, and refuse older ones.
    pub async fn rise(&self, id: ServerId, version: i64) -> Result<()> {
        let mut update = Query::update();
        update
            .table("servers")
            .value("version", version)
            .and_where(Expr::col("id").eq(id.put()))
            .and_where(Expr::col("version").lt(version));
        self.session.change(&update).await.map_err(of_change)?;
        Ok(())
    }
}
