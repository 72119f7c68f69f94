//! Rates between two readings of the same counters.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use undine_api::guest::SiteUsage;
use undine_api::internal::SiteSample;
use undine_model::{ServerId, SiteId};

/// A server's counters since its VM began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// CPU time.
    pub cpu: Duration,
    /// Bytes.
    pub disk_read: u64,
    /// Bytes.
    pub disk_written: u64,
    /// Bytes.
    pub net_in: u64,
    /// Bytes.
    pub net_out: u64,
}

/// What was used a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// CPUs.
    pub cpu: f64,
    /// Bytes a second.
    pub disk_read: f64,
    /// Bytes a second.
    pub disk_written: f64,
    /// Bytes a second.
    pub net_in: f64,
    /// Bytes a second.
    pub net_out: f64,
}

/// The readings of the last time.
#[derive(Debug, Default)]
pub struct Rates {
    servers: HashMap<ServerId, (Instant, Counters)>,
    sites: HashMap<(ServerId, SiteId), (Instant, u64)>,
}

/// The rate between two readings; a counter that went back began anew.
pub fn rate(before: Counters, now: Counters, seconds: f64) -> Rate {
    let per_second = |before: u64, now: u64| {
        (if now < before { now } else { now - before }) as f64 / seconds.max(0.001)
    };
    let cpu = if now.cpu < before.cpu {
        now.cpu
    } else {
        now.cpu - before.cpu
    };
    Rate {
        cpu: cpu.as_secs_f64() / seconds.max(0.001),
        disk_read: per_second(before.disk_read, now.disk_read),
        disk_written: per_second(before.disk_written, now.disk_written),
        net_in: per_second(before.net_in, now.net_in),
        net_out: per_second(before.net_out, now.net_out),
    }
}

impl Rates {
    /// A server's rate since the last reading; none at the first one.
    pub fn server(&mut self, server: ServerId, counters: Counters) -> Option<Rate> {
        let now = Instant::now();
        let (then, before) = self.servers.insert(server, (now, counters))?;
        Some(rate(
            before,
            counters,
            now.duration_since(then).as_secs_f64(),
        ))
    }

    /// A site's sample; none at the first reading.
    pub fn site(&mut self, server: ServerId, usage: &SiteUsage) -> Option<SiteSample> {
        let now = Instant::now();
        let (then, before) = self
            .sites
            .insert((server, usage.site), (now, usage.cpu_us))?;
        let used = if usage.cpu_us < before {
            usage.cpu_us
        } else {
            usage.cpu_us - before
        };
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        Some(SiteSample {
            site: usage.site,
            cpu: used as f64 / 1e6 / seconds,
            memory: usage.memory,
            disk: usage.disk,
            processes: usage.processes,
        })
    }

    /// Forgets servers that are no longer here.
    pub fn forget_gone(&mut self, here: impl Iterator<Item = ServerId>) {
        let here: HashSet<ServerId> = here.collect();
        self.servers.retain(|server, _| here.contains(server));
        self.sites.retain(|(server, _), _| here.contains(server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_difference_a_second() {
        let before = Counters {
            cpu: Duration::from_secs(1),
            disk_read: 100,
            ..Counters::default()
        };
        let now = Counters {
            cpu: Duration::from_secs(6),
            disk_read: 600,
            ..Counters::default()
        };
        let rate = rate(before, now, 10.0);
        assert!((rate.cpu - 0.5).abs() < 1e-9 && (rate.disk_read - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_counter_that_went_back_began_anew() {
        let before = Counters {
            net_in: 1000,
            cpu: Duration::from_secs(9),
            ..Counters::default()
        };
        let now = Counters {
            net_in: 20,
            cpu: Duration::from_secs(1),
            ..Counters::default()
        };
        let rate = rate(before, now, 10.0);
        assert!((rate.net_in - 2.0).abs() < 1e-9 && (rate.cpu - 0.1).abs() < 1e-9);
    }

    #[test]
    fn the_first_reading_tells_nothing_and_a_gone_server_is_forgotten() {
        let server = ServerId::from_parts(1, [1; 10]);
        let mut rates = Rates::default();
        assert!(rates.server(server, Counters::default()).is_none());
        assert!(rates.server(server, Counters::default()).is_some());
        rates.forget_gone(std::iter::empty());
        assert!(rates.server(server, Counters::default()).is_none());
    }
}
