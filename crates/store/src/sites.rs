//! Sites and their names: a name belongs to one site, be it its domain or an alias.

use std::collections::BTreeMap;

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use undine_model::{AccountId, DomainName, ServerId, SiteId};

use crate::Site;
use crate::cell::Column;
use crate::error::{Fault, Result, StoreError, fault_of, of_change, plain};
use crate::store::Session;
use crate::table::{Table, not_found, read};

impl Table<'_, Site> {
    /// Makes a site with its domain and its aliases; a name that any site has is `Taken`.
    pub async fn create(&self, site: &Site, aliases: &[DomainName]) -> Result<()> {
        let work = self.session.work().await?;
        Table::<Site>::new(work.session()).insert_row(site).await?;
        write_name(work.session(), site.id, &site.domain).await?;
        for alias in distinct(&site.domain, aliases) {
            write_name(work.session(), site.id, alias).await?;
        }
        work.done().await
    }

    /// Gives a site other names, at this version of it.
    pub async fn set_names(
        &self,
        id: SiteId,
        version: i64,
        domain: &DomainName,
        aliases: &[DomainName],
        now: i64,
    ) -> Result<Site> {
        let work = self.session.work().await?;
        let session = work.session();
        let mut update = Query::update();
        update
            .table("sites")
            .value("domain", domain.put())
            .value("version", Expr::col("version").add(1))
            .value("updated_at", now)
            .and_where(Expr::col("id").eq(id.put()))
            .and_where(Expr::col("version").eq(version))
            .returning_all();
        let rows = session.changed_rows(&update).await.map_err(of_change)?;
        let Some(row) = rows.first() else {
            return Err(Table::<Site>::new(session).missed(id.uuid(), version).await);
        };
        let site = read(row)?;
        let mut delete = Query::delete();
        delete
            .from_table("site_names")
            .and_where(Expr::col("site").eq(id.put()));
        session.change(&delete).await.map_err(of_change)?;
        write_name(session, id, domain).await?;
        for alias in distinct(domain, aliases) {
            write_name(session, id, alias).await?;
        }
        work.done().await?;
        Ok(site)
    }

    /// How many sites each account has on a server.
    pub async fn by_account(&self, server: ServerId) -> Result<Vec<(AccountId, u64)>> {
        let mut select = Query::select();
        select
            .column("account")
            .expr_as(Expr::col("id").count(), "n")
            .from("sites")
            .and_where(Expr::col("server").eq(server.put()))
            .group_by_col("account");
        let rows = self.session.rows(&select).await?;
        rows.iter()
            .map(|row| {
                Ok((
                    AccountId::from_row(row, "account").map_err(plain)?,
                    u64::from_row(row, "n").map_err(plain)?,
                ))
            })
            .collect()
    }

    /// The site that has this name as its domain or as an alias.
    pub async fn by_name(&self, name: &str) -> Result<Option<Site>> {
        let mut owner = Query::select();
        owner
            .column("site")
            .from("site_names")
            .and_where(Expr::col("name").eq(name));
        self.one(Expr::col("id").in_subquery(owner)).await
    }

    /// The aliases of these sites; those that have none are left out.
    pub async fn aliases(&self, sites: &[Site]) -> Result<BTreeMap<SiteId, Vec<DomainName>>> {
        let mut found: BTreeMap<SiteId, Vec<DomainName>> = BTreeMap::new();
        for some in sites.chunks(1_000) {
            let mut select = Query::select();
            select
                .columns(["site", "name"])
                .from("site_names")
                .and_where(Expr::col("site").is_in(some.iter().map(|site| site.id.put())))
                .order_by("name", Order::Asc);
            for row in self.session.rows(&select).await? {
                let id = SiteId::from_row(&row, "site").map_err(plain)?;
                let name = DomainName::from_row(&row, "name").map_err(plain)?;
                found.entry(id).or_default().push(name);
            }
        }
        for site in sites {
            if let Some(names) = found.get_mut(&site.id) {
                names.retain(|name| *name != site.domain);
                if names.is_empty() {
                    found.remove(&site.id);
                }
            }
        }
        Ok(found)
    }

    /// The aliases of one site.
    pub async fn aliases_of(&self, id: SiteId) -> Result<Vec<DomainName>> {
        let site = self.find(id).await?.ok_or_else(|| not_found::<Site>(id))?;
        Ok(self
            .aliases(std::slice::from_ref(&site))
            .await?
            .remove(&id)
            .unwrap_or_default())
    }

    /// These sites were applied by their server under this manifest version; older news changes
    /// nothing. Their own versions stay.
    pub async fn applied(&self, sites: &[SiteId], version: u64) -> Result<()> {
        for some in sites.chunks(1_000) {
            let mut update = Query::update();
            update
                .table("sites")
                .value("applied_version", version.put())
                .and_where(Expr::col("id").is_in(some.iter().map(Column::put)))
                .and_where(Expr::col("applied_version").lt(version.put()));
            self.session.change(&update).await.map_err(of_change)?;
        }
        Ok(())
    }
}

fn distinct<'a>(
    domain: &'a DomainName,
    aliases: &'a [DomainName],
) -> impl Iterator<Item = &'a DomainName> {
    let set: std::collections::BTreeSet<_> = aliases.iter().filter(|a| *a != domain).collect();
    set.into_iter()
}

async fn write_name(session: Session<'_>, site: SiteId, name: &DomainName) -> Result<()> {
    let mut insert = Query::insert();
    insert
        .into_table("site_names")
        .columns(["name", "site"])
        .values_panic([name.put().into(), site.put().into()]);
    session
        .change(&insert)
        .await
        .map(drop)
        .map_err(|error| match fault_of(&error) {
            Fault::Unique(_) => StoreError::Taken {
                record: "site",
                field: "domain".to_owned(),
                value: name.to_string(),
            },
            _ => of_change(error),
        })
}
