//! Opening the database that a URL names, with the durability that the protocols ask for.

mod life;
mod postgres;
mod sqlite;
mod url;

use std::sync::Arc;

use crate::changes::Herald;
use crate::error::Result;
use crate::store::{Inner, Place, Store};

pub(crate) use sqlite::options as sqlite_options;
pub(crate) use url::Target;

impl Store {
    /// Opens a database: `sqlite:///var/lib/undine/control.db` (made when it is not there), or
    /// `postgres://user:password@host1,host2/db`, where the hosts are tried in order and the
    /// first that takes writes is used, also after a fail-over.
    ///
    /// Must be called inside of a tokio runtime. The schema is [`Store::migrate`]'s work.
    pub async fn connect(url: &str) -> Result<Self> {
        let inner = match Target::parse(url)? {
            Target::Sqlite(path) => {
                let (writer, reader) = sqlite::open(&path).await?;
                let herald = Herald::start(reader.clone(), None);
                Inner {
                    writer,
                    reader,
                    herald,
                    place: Place::Sqlite(path),
                }
            }
            Target::Postgres(hosts) => {
                let (connection, pool, follower) = postgres::open(hosts).await?;
                let herald = Herald::start(connection.clone(), Some(pool));
                herald.adopt(follower);
                Inner {
                    writer: connection.clone(),
                    reader: connection,
                    herald,
                    place: Place::Postgres,
                }
            }
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
