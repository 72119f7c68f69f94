//! What all customers of a reseller have together.

use sea_orm::sea_query::{Condition, Expr, ExprTrait, Query};
use undine_model::ResellerId;

use crate::cell::Column;
use crate::error::{Result, plain};
use crate::record::{Page, PageRequest, Row};
use crate::table::Table;
use crate::{Database, Plan, Reseller, Site};

impl Table<'_, Plan> {
    /// One page of the plans that belong to no reseller.
    pub async fn of_the_provider(&self, page: PageRequest) -> Result<Page<Plan>> {
        let own = Expr::col("reseller").is_null();
        self.page(Condition::all().add(own), page).await
    }
}

impl Table<'_, Reseller> {
    /// How many sites its accounts have.
    pub async fn sites_of(&self, id: ResellerId) -> Result<u64> {
        self.count_in::<Site>(id).await
    }

    /// How many databases its accounts have.
    pub async fn databases_of(&self, id: ResellerId) -> Result<u64> {
        self.count_in::<Database>(id).await
    }

    async fn count_in<R: Row>(&self, id: ResellerId) -> Result<u64> {
        let mut own = Query::select();
        own.column("id")
            .from("accounts")
            .and_where(Expr::col("reseller").eq(id.put()));
        let mut select = Query::select();
        select
            .expr_as(Expr::col("id").count(), "n")
            .from(R::TABLE)
            .and_where(Expr::col("account").in_subquery(own));
        match self.session.row(&select).await? {
            Some(row) => u64::from_row(&row, "n").map_err(plain),
            None => Ok(0),
        }
    }
}
