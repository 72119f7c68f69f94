//! What the simulator asks of a database, answered by the real store.

use undine_failover::membership::Record;
use undine_sim::{Change, Claim, Database};
use undine_store::{Db, Store, StoreError, backup};

use super::changes;
use super::rows::{self, instance_id, operation_id};
use super::{Sqlite, file, remove, url};

impl Database for Sqlite {
    fn generation(&self) -> u64 {
        self.lives.len() as u64
    }

    fn record(&self, server: usize) -> &Record {
        &self.picture.records[server]
    }

    fn fenced(&self) -> &[bool] {
        &self.picture.fenced
    }

    /// The version of the node's record, as in earnest.
    fn confirmed(&self, node: usize) -> u64 {
        (self.generation() << 32) + self.picture.nodes[node].version.unsigned_abs()
    }

    fn route(&self, server: usize) -> u64 {
        self.picture.routes[server]
    }

    fn is_blocked(&self, server: usize) -> bool {
        self.picture.blocked[server]
    }

    fn claim_of(&self, server: usize) -> Claim {
        self.picture.claims[server]
    }

    fn read(&mut self, server: usize) -> Record {
        let (store, id) = (self.store(), self.servers[server]);
        let read = self.ask(async {
            let found = store.servers().get(id).await?;
            Ok(rows::record(&found, &changes::copies(&store, id).await?))
        });
        self.picture.records[server] = read.clone();
        read
    }

    fn claim(&mut self, server: usize, instance: usize, now: u64, lease_ms: u64) -> bool {
        let (store, id, by) = (self.store(), operation_id(server), instance_id(instance));
        let (now, lease_ms) = (now.cast_signed(), lease_ms.cast_signed());
        let is_mine = self.ask(changes::claim(&store, id, by, now, lease_ms));
        self.read_claim(server);
        is_mine
    }

    fn release(&mut self, server: usize, instance: usize, now: u64) {
        let (store, id, by) = (self.store(), operation_id(server), instance_id(instance));
        self.ask(changes::release(&store, id, by, now.cast_signed()));
        self.read_claim(server);
    }

    fn commit(&mut self, server: usize, change: &Change) -> bool {
        // By the connection of the life that was read from: of an earlier one it is closed.
        let store = self.lives[change.generation as usize - 1].clone();
        let (id, compares, now) = (self.servers[server], self.compares, self.tick());
        let is_taken = self.change(async {
            match changes::commit(&store, id, change, compares, now).await {
                Err(StoreError::Unavailable(_)) => Ok(false),
                other => other,
            }
        });
        let stands = self.read(server);
        assert!(
            !is_taken || !compares || stands == change.record,
            "taken: {:?}\nbut it stands: {stands:?}",
            change.record
        );
        is_taken
    }

    fn adopt(&mut self, server: usize, record: Record) {
        let (store, now) = (self.store(), self.tick());
        self.change(async {
            changes::adopt(&store, &record, now).await?;
            Ok(true)
        });
        self.read_doubt(server);
        let stands = self.read(server);
        assert_eq!(stands, record, "adopted, but it stands otherwise");
    }

    fn block(&mut self, server: usize, why: Option<&str>) {
        let (store, id, now) = (self.store(), self.servers[server], self.tick());
        match why {
            Some(_) if self.picture.blocked[server] => return,
            Some(why) => self.ask(changes::block(&store, id, why, now)),
            None => self.ask(changes::clear(&store, id)),
        }
        self.read_doubt(server);
    }

    fn confirm(&mut self, node: usize) -> bool {
        let (store, id, now) = (self.store(), self.picture.nodes[node].id, self.tick());
        let may = self.ask(changes::confirm(&store, id, now));
        self.read_nodes();
        may
    }

    fn fence(&mut self, node: usize, is_fenced: bool) -> bool {
        if self.picture.fenced[node] == is_fenced {
            return false;
        }
        let (store, read, now) = (self.store(), self.picture.nodes[node].clone(), self.tick());
        let is_news = self.change(changes::fence(&store, &read, is_fenced, now));
        self.read_nodes();
        is_news
    }

    fn move_route(&mut self, server: usize, generation: u64, epoch: u64) {
        let (store, now) = (self.lives[generation as usize - 1].clone(), self.tick());
        match self
            .runtime
            .block_on(changes::move_route(&store, server, epoch, now))
        {
            Ok(()) | Err(StoreError::Unavailable(_)) => self.read_route(server),
            Err(error) => panic!("the store: {error:?}"),
        }
    }

    /// Everybody's connections end, a backup takes the database's place, a new life begins.
    fn go_back(&mut self, commits: usize) -> bool {
        let at = self.past.len().saturating_sub(commits);
        if at == self.past.len() {
            return false;
        }
        let (store, url) = (self.store(), url(self.folder.path()));
        let heard = self.terms[self.terms.len() - 1];
        let restored = self.ask(async {
            store.close().await;
            backup::restore(&self.past[at], &url).await?;
            let store = Store::connect(&url).await?;
            let term = changes::begin_life(&store, heard).await?;
            Ok::<_, undine_store::StoreError>((store, term))
        });
        remove(&file(self.folder.path()).with_extension("db.replaced"));
        self.past.drain(at..).for_each(|it| remove(&it));
        assert!(restored.1 > heard, "a new life's term rises");
        self.lives.push(restored.0);
        self.terms.push(restored.1);
        self.read_all();
        true
    }
}
