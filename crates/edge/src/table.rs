//! The routing table: what control said last, and how a change becomes the next table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use undine_api::edge::{Panel, Route, RouteUpdate};
use undine_model::SiteId;

use crate::tls::LazyKey;

/// A route and, once a visitor needed it, its parsed certificate.
#[derive(Debug)]
pub struct Entry {
    /// The route.
    pub route: Route,
    /// Its certificate.
    pub key: LazyKey,
}

/// Where panel and API are.
#[derive(Debug, Default)]
pub struct PanelEntry {
    /// As control said.
    pub panel: Panel,
    /// Its certificate.
    pub key: LazyKey,
}

/// Every route at one version; never changed, only followed by the next.
#[derive(Debug, Clone, Default)]
pub struct Table {
    version: u64,
    routes: HashMap<Arc<str>, Arc<Entry>>,
    panel: Arc<PanelEntry>,
}

/// A change does not fit this table: it starts from an older one. Ask for the whole table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change to version {to} does not fit version {at}")]
pub struct Gap {
    /// The table's version.
    pub at: u64,
    /// The change's.
    pub to: u64,
}

impl Table {
    /// The table after a change. Only a whole table may carry a lower version.
    pub fn apply(&self, update: RouteUpdate) -> Result<Self, Gap> {
        if !update.whole && update.version < self.version {
            return Err(Gap {
                at: self.version,
                to: update.version,
            });
        }
        let mut routes = if update.whole {
            HashMap::with_capacity(update.routes.len())
        } else {
            self.routes.clone()
        };
        for host in &update.removed {
            routes.remove(host.as_str());
        }
        for route in update.routes {
            // What did not change keeps its parsed certificate.
            let entry = match self.routes.get(route.host.as_str()) {
                Some(known) if known.route == route => Arc::clone(known),
                _ => Arc::new(Entry {
                    route,
                    key: LazyKey::default(),
                }),
            };
            routes.insert(entry.route.host.as_str().into(), entry);
        }
        let panel = if self.panel.panel == update.panel {
            Arc::clone(&self.panel)
        } else {
            Arc::new(PanelEntry {
                panel: update.panel,
                key: LazyKey::default(),
            })
        };
        Ok(Self {
            version: update.version,
            routes,
            panel,
        })
    }

    /// The version that control gave it; 0 when control has not been heard yet.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The route of a host name.
    pub fn route(&self, host: &str) -> Option<&Arc<Entry>> {
        self.routes.get(host)
    }

    /// Every route.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.routes.values()
    }

    /// Where panel and API are.
    pub fn panel(&self) -> &Arc<PanelEntry> {
        &self.panel
    }

    /// Does this host name mean the panel?
    pub fn is_panel(&self, host: &str) -> bool {
        self.panel.panel.hosts.iter().any(|known| known == host)
    }

    /// How many host names it knows.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether control has not said anything yet: even a new cluster has a panel.
    pub fn is_blank(&self) -> bool {
        self.version == 0 && self.panel.panel.hosts.is_empty()
    }

    /// Every site that a route belongs to.
    pub fn sites(&self) -> HashSet<SiteId> {
        let routes = self.routes.values();
        routes.map(|entry| entry.route.site).collect()
    }

    /// The whole table as one change, for the disk.
    pub fn to_update(&self) -> RouteUpdate {
        RouteUpdate {
            version: self.version,
            whole: true,
            routes: self
                .routes
                .values()
                .map(|entry| entry.route.clone())
                .collect(),
            removed: Vec::new(),
            panel: self.panel.panel.clone(),
        }
    }
}

/// The table that is being served, and word of its changes.
#[derive(Debug)]
pub struct Routes {
    current: ArcSwap<Table>,
    changed: watch::Sender<u64>,
}

impl Routes {
    /// Serves this table first.
    pub fn new(table: Table) -> Self {
        let changed = watch::Sender::new(table.version());
        Self {
            current: ArcSwap::from_pointee(table),
            changed,
        }
    }

    /// The table now.
    pub fn current(&self) -> Arc<Table> {
        self.current.load_full()
    }

    /// Serves another table from now on.
    pub fn replace(&self, table: Table) {
        let version = table.version();
        self.current.store(Arc::new(table));
        // Readers are woken even when the version is the same: a whole table may carry it again.
        self.changed.send_replace(version);
    }

    /// Wakes at every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use undine_api::edge::Target;
    use undine_model::{Id, ServerId};

    use super::*;

    fn site(n: u8) -> SiteId {
        Id::from_parts(1, [n; 10])
    }

    fn route(host: &str, n: u8) -> Route {
        let server: ServerId = Id::from_parts(2, [n; 10]);
        Route {
            host: host.to_owned(),
            site: site(n),
            server,
            target: Target::Unavailable,
            certificate: None,
            https_only: false,
        }
    }

    fn update(version: u64, whole: bool, hosts: &[(&str, u8)], removed: &[&str]) -> RouteUpdate {
        RouteUpdate {
            version,
            whole,
            routes: hosts.iter().map(|(host, n)| route(host, *n)).collect(),
            removed: removed.iter().map(|host| (*host).to_owned()).collect(),
            panel: Panel {
                hosts: vec!["panel.test".to_owned()],
                ..Panel::default()
            },
        }
    }

    fn hosts(table: &Table) -> Vec<&str> {
        let mut hosts: Vec<&str> = table.routes.keys().map(AsRef::as_ref).collect();
        hosts.sort_unstable();
        hosts
    }

    #[test]
    fn a_whole_table_replaces_everything() {
        let first = Table::default()
            .apply(update(3, true, &[("a.test", 1), ("b.test", 2)], &[]))
            .unwrap();
        assert_eq!(hosts(&first), ["a.test", "b.test"]);
        let next = first.apply(update(5, true, &[("c.test", 3)], &[])).unwrap();
        assert_eq!(hosts(&next), ["c.test"]);
        assert_eq!(next.version(), 5);
        assert!(next.is_panel("panel.test"));
    }

    #[test]
    fn a_change_adds_replaces_and_removes() {
        let first = Table::default()
            .apply(update(3, true, &[("a.test", 1), ("b.test", 2)], &[]))
            .unwrap();
        let next = first
            .apply(update(
                4,
                false,
                &[("b.test", 9), ("c.test", 3)],
                &["a.test"],
            ))
            .unwrap();
        assert_eq!(hosts(&next), ["b.test", "c.test"]);
        assert_eq!(next.route("b.test").unwrap().route.site, site(9));
        assert_eq!(next.sites(), HashSet::from([site(9), site(3)]));
        assert_eq!(hosts(&first), ["a.test", "b.test"], "the old one stays");
    }

    #[test]
    fn a_name_removed_and_given_anew_in_one_change_is_there() {
        let table = Table::default()
            .apply(update(3, true, &[("a.test", 1)], &[]))
            .unwrap()
            .apply(update(4, false, &[("a.test", 2)], &["a.test"]))
            .unwrap();
        assert_eq!(table.route("a.test").unwrap().route.site, site(2));
    }

    #[test]
    fn an_older_change_asks_for_the_whole_table() {
        let table = Table::default().apply(update(7, true, &[], &[])).unwrap();
        let gap = table.apply(update(6, false, &[("a.test", 1)], &[]));
        assert_eq!(gap.unwrap_err(), Gap { at: 7, to: 6 });
        let restored = table.apply(update(2, true, &[("a.test", 1)], &[])).unwrap();
        assert_eq!(restored.version(), 2, "control's word counts");
    }

    #[test]
    fn what_did_not_change_is_kept_as_it_is() {
        let first = Table::default()
            .apply(update(1, true, &[("a.test", 1), ("b.test", 2)], &[]))
            .unwrap();
        let next = first
            .apply(update(2, true, &[("a.test", 1), ("b.test", 3)], &[]))
            .unwrap();
        let same = |host| Arc::ptr_eq(first.route(host).unwrap(), next.route(host).unwrap());
        assert!(same("a.test") && !same("b.test"));
        assert!(Arc::ptr_eq(first.panel(), next.panel()));
    }

    #[test]
    fn a_table_survives_its_own_writing() {
        let table = Table::default()
            .apply(update(8, true, &[("a.test", 1), ("b.test", 2)], &[]))
            .unwrap();
        let text = serde_json::to_string(&table.to_update()).unwrap();
        let read = Table::default()
            .apply(serde_json::from_str(&text).unwrap())
            .unwrap();
        assert_eq!(hosts(&read), hosts(&table));
        assert_eq!(read.version(), 8);
    }
}
