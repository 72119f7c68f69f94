//! Which instances of control answer, and whose turn it is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use undine_api::edge::PanelInstance;
use undine_api::internal::Role;
use undine_link::{Method, PeerClient};

use crate::cluster::Cluster;
use crate::table::Routes;

const EVERY: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(2);
/// So many failures in a row take an instance out; one success takes it in.
const FAILURES: u32 = 2;

#[derive(Debug)]
struct Instance {
    is: PanelInstance,
    /// Failed checks in a row; a new instance starts out until its first check succeeds.
    failures: AtomicU32,
}

impl Instance {
    fn is_healthy(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < FAILURES
    }

    fn checked(&self, answers: bool) {
        let was = self.is_healthy();
        if answers {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            // Wrapping would bring a dead instance back after some decades.
            let _ = self
                .failures
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    Some(n.saturating_add(1))
                });
        }
        if was != self.is_healthy() {
            tracing::info!(
                instance = %self.is.id, address = %self.is.address, healthy = !was,
                "an instance of control changed"
            );
        }
    }
}

/// The instances of control, as this edge sees them.
#[derive(Debug, Default)]
pub struct Instances {
    list: ArcSwap<Vec<Arc<Instance>>>,
    turn: AtomicUsize,
}

impl Instances {
    /// Whom to ask, in this order: those that answer, by turns, then the others, because a check
    /// may be wrong and a failed try costs little.
    pub fn order(&self) -> Vec<SocketAddr> {
        let list = self.list.load();
        let (mut healthy, mut others): (Vec<_>, Vec<_>) =
            list.iter().partition(|instance| instance.is_healthy());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for part in [&mut healthy, &mut others] {
            if !part.is_empty() {
                let by = turn % part.len();
                part.rotate_left(by);
            }
        }
        healthy
            .into_iter()
            .chain(others)
            .map(|instance| instance.is.address)
            .collect()
    }

    /// A visitor's request found nobody there: out until a check succeeds.
    pub fn failed(&self, address: SocketAddr) {
        for instance in self.list.load().iter() {
            if instance.is.address == address {
                instance.failures.fetch_max(FAILURES, Ordering::Relaxed);
            }
        }
    }

    /// How many there are, and how many of them answer.
    pub fn count(&self) -> (usize, usize) {
        let list = self.list.load();
        let healthy = list.iter().filter(|instance| instance.is_healthy()).count();
        (list.len(), healthy)
    }

    fn set(&self, wanted: &[PanelInstance]) {
        let known = self.list.load();
        let next = wanted
            .iter()
            .map(|is| {
                let kept = known.iter().find(|instance| instance.is == *is);
                kept.cloned().unwrap_or_else(|| {
                    Arc::new(Instance {
                        is: is.clone(),
                        failures: AtomicU32::new(FAILURES),
                    })
                })
            })
            .collect();
        self.list.store(Arc::new(next));
    }

    /// Checks every instance that the table names, for ever.
    pub async fn watch(self: Arc<Self>, routes: Arc<Routes>, cluster: Arc<Cluster>) {
        let mut changes = routes.subscribe();
        let mut checks: HashMap<(String, SocketAddr), Check> = HashMap::new();
        loop {
            let table = routes.current();
            self.set(&table.panel().panel.instances);
            let list = self.list.load_full();
            checks.retain(|key, _| list.iter().any(|it| key_of(&it.is) == *key));
            for instance in list.iter() {
                checks.entry(key_of(&instance.is)).or_insert_with(|| {
                    Check(tokio::spawn(check(Arc::clone(instance), cluster.clone())))
                });
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn key_of(instance: &PanelInstance) -> (String, SocketAddr) {
    (instance.id.to_string(), instance.address)
}

/// A running check, which ends when it is dropped.
struct Check(JoinHandle<()>);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn check(instance: Arc<Instance>, cluster: Arc<Cluster>) {
    let id = instance.is.id.to_string();
    let mut client: Option<(Arc<crate::cluster::Trust>, PeerClient)> = None;
    loop {
        let trust = cluster.trust();
        let is_current = matches!(&client, Some((of, _)) if Arc::ptr_eq(of, &trust));
        if !is_current {
            client = PeerClient::new(&trust.credentials, Role::Control, &id, instance.is.address)
                .ok()
                .map(|made| (trust, made));
        }
        let answers = match &client {
            Some((_, client)) => {
                let sent = client
                    .request(Method::GET, "/healthz")
                    .timeout(DEADLINE)
                    .send()
                    .await;
                sent.is_ok_and(|answer| answer.status().is_success())
            }
            None => false,
        };
        instance.checked(answers);
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use undine_model::Id;

    use super::*;

    fn instance(n: u8) -> PanelInstance {
        PanelInstance {
            id: Id::from_parts(1, [n; 10]),
            address: SocketAddr::from(([127, 0, 0, n], 7200)),
        }
    }

    fn answer(instances: &Instances, n: u8, answers: bool) {
        let list = instances.list.load();
        let one = list.iter().find(|it| it.is == instance(n)).unwrap();
        one.checked(answers);
    }

    fn first(instances: &Instances) -> u8 {
        match instances.order().first().unwrap().ip() {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(_) => unreachable!("only IPv4 here"),
        }
    }

    #[test]
    fn those_that_answer_take_turns_and_come_first() {
        let instances = Instances::default();
        instances.set(&[instance(1), instance(2), instance(3)]);
        assert_eq!(instances.count(), (3, 0), "nobody was heard yet");
        answer(&instances, 1, true);
        answer(&instances, 3, true);
        let firsts: Vec<u8> = (0..4).map(|_| first(&instances)).collect();
        assert!(
            firsts == [1, 3, 1, 3] || firsts == [3, 1, 3, 1],
            "{firsts:?}"
        );
        assert_eq!(
            instances.order().len(),
            3,
            "the silent one is the last resort"
        );
    }

    #[test]
    fn two_failures_take_one_out_and_one_success_takes_it_in() {
        let instances = Instances::default();
        instances.set(&[instance(1)]);
        answer(&instances, 1, true);
        answer(&instances, 1, false);
        assert_eq!(instances.count(), (1, 1));
        answer(&instances, 1, false);
        assert_eq!(instances.count(), (1, 0));
        answer(&instances, 1, true);
        assert_eq!(instances.count(), (1, 1));
        instances.failed(instance(1).address);
        assert_eq!(
            instances.count(),
            (1, 0),
            "a visitor's failed try counts in full"
        );
    }

    #[test]
    fn what_is_known_of_an_instance_outlives_a_change_of_the_list() {
        let instances = Instances::default();
        instances.set(&[instance(1)]);
        answer(&instances, 1, true);
        instances.set(&[instance(1), instance(2)]);
        assert_eq!(instances.count(), (2, 1));
    }
}
