//! Host names are given out to sites and to panels, which are different tables: a lock for the
//! length of a transaction keeps one name from going to both.

use crate::error::Result;
use crate::store::{Session, Tx};

/// The lock (any number, always the same).
const LOCK: i64 = 0x756e_6e61_6d65;

impl Tx {
    /// Sites are to get names: others may give names to sites at the same time, but not to panels.
    pub async fn names_for_sites(&self) -> Result<()> {
        self.hold_names("pg_advisory_xact_lock_shared").await
    }

    /// A panel is to get a name: nobody else gives any away until the end.
    pub async fn names_for_a_panel(&self) -> Result<()> {
        self.hold_names("pg_advisory_xact_lock").await
    }

    /// SQLite has one writer anyway.
    async fn hold_names(&self, how: &str) -> Result<()> {
        match self.kind() {
            "postgres" => {
                let lock = format!("SELECT {how}({LOCK})");
                Session::Tx(self).run(&lock).await
            }
            _ => Ok(()),
        }
    }
}
