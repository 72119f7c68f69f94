//! What the edges must know: a version, and which hosts changed with each.

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query};

use crate::cell::Column;
use crate::counters::Counters;
use crate::error::{Result, of_change, plain};
use crate::store::Session;

pub(crate) const ROUTE_COUNTER: &str = "route";
/// Changes up to this version are forgotten.
const ROUTE_FLOOR: &str = "route_floor";

/// What changed for the edges since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChanges {
    /// These hosts changed; send their routes, or that they are gone.
    Hosts {
        /// The version that the edge then has.
        version: u64,
        /// The hosts, each once.
        hosts: Vec<String>,
    },
    /// Too much is forgotten: send the whole table.
    Everything {
        /// The version that the edge then has. Read it before the table: a change in between
        /// is sent once more, never lost.
        version: u64,
    },
}

/// Versions of the routes.
#[derive(Clone, Copy)]
pub struct Routes<'a> {
    pub(crate) session: Session<'a>,
}

impl Routes<'_> {
    /// The routes of these hosts changed; inside of a transaction they get their version when
    /// it commits.
    pub async fn changed<H>(&self, hosts: H) -> Result<()>
    where
        H: IntoIterator<Item: Into<String>> + Send,
    {
        let hosts: Vec<String> = hosts.into_iter().map(Into::into).collect();
        let work = self.session.work().await?;
        work.tx().pending().hosts.extend(hosts);
        work.done().await
    }

    /// The version of the newest change.
    pub async fn version(&self) -> Result<u64> {
        let counters = Counters {
            session: self.session,
        };
        Ok(counters.value(ROUTE_COUNTER).await?.unsigned_abs())
    }

    /// What changed after a version; at version 0 everything.
    pub async fn after(&self, version: u64) -> Result<RouteChanges> {
        let counters = Counters {
            session: self.session,
        };
        // The version first: what is committed later is asked for next time.
        let newest = self.version().await?;
        let mut select = Query::select();
        select
            .column("host")
            .distinct()
            .from("route_changes")
            .and_where(Expr::col("version").gt(version.put()))
            .and_where(Expr::col("version").lte(newest.put()))
            .order_by("host", Order::Asc);
        let rows = self.session.rows(&select).await?;
        // The floor last: what was trimmed while we read is then noticed.
        let floor = counters.value(ROUTE_FLOOR).await?.unsigned_abs();
        if version < floor || version == 0 || version > newest {
            return Ok(RouteChanges::Everything { version: newest });
        }
        let hosts = rows
            .iter()
            .map(|row| String::from_row(row, "host"))
            .collect::<std::result::Result<_, _>>()
            .map_err(plain)?;
        Ok(RouteChanges::Hosts {
            version: newest,
            hosts,
        })
    }

    /// Keeps the changes of the last `keep` versions.
    pub async fn trim(&self, keep: u64) -> Result<()> {
        let floor = self.version().await?.saturating_sub(keep);
        if floor == 0 {
            return Ok(());
        }
        let work = self.session.work().await?;
        Counters {
            session: work.session(),
        }
        .raise(ROUTE_FLOOR, floor.put_raw())
        .await?;
        let mut delete = Query::delete();
        delete
            .from_table("route_changes")
            .and_where(Expr::col("version").lte(floor.put()));
        work.session().change(&delete).await.map_err(of_change)?;
        work.done().await
    }
}

trait PutRaw {
    fn put_raw(self) -> i64;
}
impl PutRaw for u64 {
    fn put_raw(self) -> i64 {
        i64::try_from(self).unwrap_or(i64::MAX)
    }
}

/// Gives a transaction's hosts one version.
pub(crate) async fn write(session: Session<'_>, mut hosts: Vec<String>) -> Result<()> {
    hosts.sort_unstable();
    hosts.dedup();
    if hosts.is_empty() {
        return Ok(());
    }
    let version = Counters { session }.next(ROUTE_COUNTER, 1, 1).await?;
    for some in hosts.chunks(1_000) {
        let mut insert = Query::insert();
        insert
            .into_table("route_changes")
            .columns(["version", "host"]);
        for host in some {
            insert.values_panic([version.into(), host.as_str().into()]);
        }
        insert.on_conflict(
            OnConflict::columns(["version", "host"])
                .do_nothing()
                .to_owned(),
        );
        session.change(&insert).await.map_err(of_change)?;
    }
    Ok(())
}
