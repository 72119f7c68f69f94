//! What the node, its servers and their sites use: counters read every ten seconds, rates between
//! two readings.

pub mod pressure;
pub mod rates;

use std::collections::HashMap;
use std::time::Duration;

use undine_api::guest::{Answer, Ask, SiteUsage};
use undine_api::internal::{NodeUsage, ServerUsage, SiteSample};
use undine_api::node::{Inventory, Phase};
use undine_model::{Bytes, ServerId};
use undine_qemu::console;
use undine_qemu::vm::Vm;

use crate::inventory::memory_field;
use crate::net::tap_name;
use crate::server::start::vm_cgroup;
use crate::server::{Ground, Handle};
use rates::{Counters, Rates};

const GUEST: Duration = Duration::from_secs(5);
/// A guest may print for ever.
const CONSOLE_BYTES: u64 = 256 << 10;

/// Readings of the last time.
#[derive(Default)]
pub struct Sampler {
    rates: Rates,
    node_cpu: Option<(std::time::Instant, Duration)>,
}

/// One round of samples.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// The node.
    pub node: NodeUsage,
    /// Its servers.
    pub servers: Vec<ServerUsage>,
    /// Their sites.
    pub sites: Vec<SiteSample>,
}

impl Sampler {
    /// Reads everything.
    pub async fn round(
        &mut self,
        ground: &Ground,
        inventory: &Inventory,
        servers: &[(ServerId, Handle)],
    ) -> Round {
        let interfaces = interfaces();
        let mut round = Round::default();
        for (server, handle) in servers {
            let Some(vm) = handle.vm() else { continue };
            if handle.status().phase != Phase::Running {
                continue;
            }
            let _ = console::trim(&vm.run_dir().console(), CONSOLE_BYTES);
            let counters = read(ground, *server, &vm, &interfaces).await;
            let group = vm_cgroup(ground, *server);
            if let Some(rate) = self.rates.server(*server, counters) {
                round.servers.push(ServerUsage {
                    server: *server,
                    node: ground.node,
                    cpu: rate.cpu,
                    memory: memory(ground, *server, &vm).await,
                    disk_read_bps: rate.disk_read,
                    disk_write_bps: rate.disk_written,
                    net_in_bps: rate.net_in,
                    net_out_bps: rate.net_out,
                    cpu_pressure: group.cpu_pressure(),
                });
            }
            for site in ask_guest(handle).await {
                round.sites.extend(self.rates.site(*server, &site));
            }
        }
        self.rates
            .forget_gone(servers.iter().map(|(server, _)| *server));
        round.node = self.node(ground, inventory, &round.servers);
        round
    }

    /// The node's own use is that of its servers, so that several nodes can share one machine.
    fn node(
        &mut self,
        ground: &Ground,
        inventory: &Inventory,
        servers: &[ServerUsage],
    ) -> NodeUsage {
        let now = std::time::Instant::now();
        let used = ground.cgroup.cpu_time().unwrap_or_default();
        let cpu = match self.node_cpu.replace((now, used)) {
            Some((then, before)) if inventory.cpu.0 > 0 => {
                let cores = used.saturating_sub(before).as_secs_f64()
                    / now.duration_since(then).as_secs_f64().max(0.001);
                (cores * 1000.0 / f64::from(inventory.cpu.0)).clamp(0.0, 1.0)
            }
            _ => 0.0,
        };
        NodeUsage {
            cpu,
            memory: Bytes(servers.iter().map(|server| server.memory.0).sum()),
            disk: inventory.disk_used,
            cpu_pressure: pressure::machine("cpu"),
            memory_pressure: pressure::machine("memory"),
            io_pressure: pressure::machine("io"),
        }
    }
}

async fn read(
    ground: &Ground,
    server: ServerId,
    vm: &Vm,
    interfaces: &HashMap<String, (u64, u64)>,
) -> Counters {
    let disk = match vm.stats().await {
        Ok(stats) => stats.disks.get("data-disk").copied().unwrap_or_default(),
        Err(error) => {
            tracing::debug!(%server, %error, "no statistics");
            undine_qemu::vm::DiskStats::default()
        }
    };
    // What the tap receives is what the server sends.
    let (sent, received) = interfaces
        .get(&tap_name(server))
        .copied()
        .unwrap_or_default();
    let vm_cpu = vm_cgroup(ground, server).cpu_time().unwrap_or_default();
    Counters {
        cpu: vm_cpu,
        disk_read: disk.read_bytes,
        disk_written: disk.written_bytes,
        net_in: received,
        net_out: sent,
    }
}

/// Memory of QEMU and of the local storage daemon.
async fn memory(ground: &Ground, server: ServerId, vm: &Vm) -> Bytes {
    let daemon = ground.replicas.pid(server).await;
    let pids = [Some(vm.process().id().pid), daemon];
    Bytes(pids.into_iter().flatten().map(|pid| resident(pid).0).sum())
}

/// Resident memory of a process.
pub fn resident(pid: u32) -> Bytes {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    memory_field(&status, "VmRSS:")
}

/// Asks for health and the sites' use, unless somebody else is talking to the agent.
async fn ask_guest(handle: &Handle) -> Vec<SiteUsage> {
    let Some(mut guest) = handle.idle_guest() else {
        return Vec::new();
    };
    if let Ok(Answer::Health(health)) = guest.ask(Ask::Health, GUEST).await {
        handle.heard(health);
    }
    match guest.ask(Ask::Usage, GUEST).await {
        Ok(Answer::Usage(sites)) => sites,
        _ => Vec::new(),
    }
}

/// Bytes received and sent by every interface of our network namespace.
fn interfaces() -> HashMap<String, (u64, u64)> {
    // Not /sys/class/net: that shows the namespace in which /sys was mounted.
    parse_interfaces(&std::fs::read_to_string("/proc/net/dev").unwrap_or_default())
}

fn parse_interfaces(text: &str) -> HashMap<String, (u64, u64)> {
    let line = |line: &str| {
        let (name, fields) = line.split_once(':')?;
        let fields: Vec<u64> = fields
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .collect();
        Some((name.trim().to_owned(), (*fields.first()?, *fields.get(8)?)))
    };
    text.lines().filter_map(line).collect()
}

/// Is there an interface of this name in our network namespace?
pub fn has_interface(name: &str) -> bool {
    interfaces().contains_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_s_counters_are_bytes_in_and_out() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n\
            \x20   lo: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n  br0:7 1 0 0 0 0 0 0 8 2 0 0 0 0 0 0\n";
        let found = parse_interfaces(text);
        assert_eq!(found["lo"], (100, 200));
        assert_eq!(found["br0"], (7, 8));
        assert!(has_interface("lo"));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident(std::process::id()).0 > 0);
        assert_eq!(resident(u32::MAX), Bytes(0));
    }
}
