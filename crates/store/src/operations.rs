//! Durable work: made once, taken by one instance at a time, saved step by step.

use sea_orm::QueryResult;
use sea_orm::sea_query::{
    Condition, Expr, ExprTrait, LockBehavior, LockType, OnConflict, Order, Query,
    SubQueryStatement, UpdateStatement,
};
use undine_model::lifecycle::OperationState;
use undine_model::{InstanceId, OperationId};
use uuid::Uuid;

use crate::cell::Column;
use crate::error::{Result, StoreError, of_change};
use crate::record::{Page, PageRequest, Row};
use crate::table::{Table, read};
use crate::{Operation, Step, StepState};

const STEP_COLUMNS: [&str; 8] = [
    "operation",
    "position",
    "name",
    "state",
    "started_at",
    "ended_at",
    "detail",
    "error",
];

impl Table<'_, Operation> {
    /// Makes an operation with its steps. Best in the transaction that makes it necessary.
    pub async fn create(&self, operation: &Operation, steps: &[Step]) -> Result<()> {
        let work = self.session.work().await?;
        let table = Table::<Operation>::new(work.session());
        table.insert_row(operation).await?;
        let mut subjects = operation.subjects.clone();
        subjects.sort_unstable();
        subjects.dedup();
        if !subjects.is_empty() {
            let mut insert = Query::insert();
            insert
                .into_table("operation_subjects")
                .columns(["subject", "operation"]);
            for subject in subjects {
                insert.values_panic([subject.into(), operation.id.put().into()]);
            }
            work.session().change(&insert).await.map_err(of_change)?;
        }
        table.write_steps(operation.id, steps).await?;
        work.done().await
    }

    /// Takes an operation that waits, or whose instance fell silent: exactly one of many
    /// instances gets it. Oldest first.
    pub async fn claim(
        &self,
        by: InstanceId,
        now: i64,
        lease_ms: i64,
    ) -> Result<Option<Operation>> {
        let mut free = Query::select();
        // PostgreSQL then passes over those that others are just taking. SQLite has no such
        // clause and needs none: there is one writer.
        free.column("id")
            .from("operations")
            .cond_where(takeable(now))
            .order_by("not_before", Order::Asc)
            .order_by("id", Order::Asc)
            .limit(1)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let mut update = claiming(by, now, lease_ms);
        // `=` and not `IN`: PostgreSQL may run an `IN` once for each row, and take them all.
        let free = Expr::from(SubQueryStatement::from(free));
        update
            .and_where(Expr::col("id").eq(free))
            .cond_where(takeable(now));
        let rows = self
            .session
            .changed_rows(&update)
            .await
            .map_err(of_change)?;
        rows.first().map(read).transpose()
    }

    /// Takes this operation if it can be taken; for an instance that has just made it.
    pub async fn claim_this(
        &self,
        id: OperationId,
        by: InstanceId,
        now: i64,
        lease_ms: i64,
    ) -> Result<Option<Operation>> {
        let mut update = claiming(by, now, lease_ms);
        update
            .and_where(Expr::col("id").eq(id.put()))
            .cond_where(takeable(now));
        let rows = self
            .session
            .changed_rows(&update)
            .await
            .map_err(of_change)?;
        rows.first().map(read).transpose()
    }

    /// The instance still works on it.
    pub async fn renew_lease(
        &self,
        id: OperationId,
        by: InstanceId,
        now: i64,
        lease_ms: i64,
    ) -> Result<()> {
        let mut update = Query::update();
        update
            .table("operations")
            .value("lease_until", now + lease_ms)
            .and_where(Expr::col("id").eq(id.put()))
            .and_where(Expr::col("owner").eq(by.put()))
            .and_where(Expr::col("state").eq(OperationState::Running.put()));
        match self.session.change(&update).await.map_err(of_change)? {
            0 => Err(StoreError::LostLease(id)),
            _ => Ok(()),
        }
    }

    /// Writes how the operation and these of its steps stand, if the instance still owns it;
    /// otherwise [`StoreError::LostLease`], and the transaction must be dropped.
    ///
    /// Done in one transaction with the records that the step changed, a step happens wholly or
    /// not at all. With a state other than `running` the operation is let go: `pending` is taken
    /// again by anybody after its `not_before`.
    pub async fn save(
        &self,
        operation: &Operation,
        by: InstanceId,
        steps: &[Step],
        now: i64,
    ) -> Result<Operation> {
        let work = self.session.work().await?;
        let table = Table::<Operation>::new(work.session());
        let mut update = Query::update();
        update.table("operations").returning_all();
        for (column, value) in Operation::COLUMNS.iter().zip(operation.values()).skip(4) {
            if !Operation::FROZEN.contains(column) {
                update.value(*column, value);
            }
        }
        if operation.state != OperationState::Running {
            update
                .value("owner", Option::<InstanceId>::None.put())
                .value("lease_until", 0_i64);
        }
        update
            .value("version", Expr::col("version").add(1))
            .value("updated_at", now)
            .and_where(Expr::col("id").eq(operation.id.put()))
            .and_where(Expr::col("owner").eq(by.put()))
            .and_where(Expr::col("state").eq(OperationState::Running.put()));
        let rows = work
            .session()
            .changed_rows(&update)
            .await
            .map_err(of_change)?;
        let Some(row) = rows.first() else {
            return Err(StoreError::LostLease(operation.id));
        };
        let saved = read(row)?;
        table.write_steps(operation.id, steps).await?;
        work.done().await?;
        Ok(saved)
    }

    /// The steps of an operation, in order.
    pub async fn steps(&self, id: OperationId) -> Result<Vec<Step>> {
        let mut select = Query::select();
        select
            .columns(STEP_COLUMNS)
            .from("operation_steps")
            .and_where(Expr::col("operation").eq(id.put()))
            .order_by("position", Order::Asc);
        let rows = self.session.rows(&select).await?;
        rows.iter()
            .map(|row| {
                step(row).map_err(|error| StoreError::Corrupt {
                    record: "operation step",
                    source: error.into(),
                })
            })
            .collect()
    }

    /// The operations that work on this thing, or did.
    pub async fn of(&self, subject: Uuid, page: PageRequest) -> Result<Page<Operation>> {
        let mut ids = Query::select();
        ids.column("operation")
            .from("operation_subjects")
            .and_where(Expr::col("subject").eq(subject));
        self.page(Condition::all().add(Expr::col("id").in_subquery(ids)), page)
            .await
    }

    /// Forgets operations that ended before this time.
    pub async fn trim(&self, before: i64) -> Result<u64> {
        let mut delete = Query::delete();
        delete
            .from_table("operations")
            .and_where(Expr::col("updated_at").lt(before))
            .and_where(Expr::col("state").is_in([
                OperationState::Succeeded.put(),
                OperationState::Failed.put(),
            ]));
        self.session.change(&delete).await.map_err(of_change)
    }

    async fn write_steps(&self, id: OperationId, steps: &[Step]) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let mut insert = Query::insert();
        insert.into_table("operation_steps").columns(STEP_COLUMNS);
        for step in steps {
            insert.values_panic([
                id.put().into(),
                step.position.put().into(),
                step.name.put().into(),
                step.state.put().into(),
                step.started_at.put().into(),
                step.ended_at.put().into(),
                step.detail.put().into(),
                step.error.put().into(),
            ]);
        }
        insert.on_conflict(
            OnConflict::columns(["operation", "position"])
                .update_columns(["name", "state", "started_at", "ended_at", "detail", "error"])
                .to_owned(),
        );
        self.session.change(&insert).await.map_err(of_change)?;
        Ok(())
    }
}

/// Waits for its time, or its instance has been silent for too long.
fn takeable(now: i64) -> Condition {
    let waits = Expr::col("state")
        .eq(OperationState::Pending.put())
        .and(Expr::col("not_before").lte(now));
    let orphaned = Expr::col("state")
        .eq(OperationState::Running.put())
        .and(Expr::col("lease_until").lte(now));
    Condition::any().add(waits).add(orphaned)
}

fn claiming(by: InstanceId, now: i64, lease_ms: i64) -> UpdateStatement {
    let mut update = Query::update();
    update
        .table("operations")
        .value("owner", by.put())
        .value("lease_until", now + lease_ms)
        .value("state", OperationState::Running.put())
        .value("version", Expr::col("version").add(1))
        .value("updated_at", now)
        .returning_all();
    update
}

fn step(row: &QueryResult) -> std::result::Result<Step, sea_orm::DbErr> {
    Ok(Step {
        position: u32::from_row(row, "position")?,
        name: String::from_row(row, "name")?,
        state: StepState::from_row(row, "state")?,
        started_at: Option::from_row(row, "started_at")?,
        ended_at: Option::from_row(row, "ended_at")?,
        detail: serde_json::Value::from_row(row, "detail")?,
        error: Option::from_row(row, "error")?,
    })
}
