//! From history to what the next period will bring: level, daily shape, peaks.
//!
//! A sample is taken as `level × shape(hour) × noise`. The level is an exponentially weighted mean
//! of the days' means, the shape the median over the days of each hour's share of its day's mean,
//! the noise whatever remains; its 95th percentile is the peak. The prediction for the next hours
//! is `level × highest shape among them`, once with the median and once with the 95th percentile of
//! the noise. With less than two days there is no shape, and the 95th percentile of all samples is
//! taken; with fewer than five samples the last measurement counts.

use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::snapshot::{LARGEST, Load, Server};

const DAY_S: u64 = 86_400;
const SLOTS: usize = 24;

/// Samples at even distances, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Seconds between two samples.
    pub interval_s: u64,
    /// Second of the day at which the sample after the last one would be taken.
    #[serde(default)]
    pub next_at_s: u64,
    /// The samples.
    pub samples: Vec<Load>,
}

impl History {
    pub(crate) fn check(&self, of: &str) -> Result<(), InputError> {
        let too_large = |field, value| {
            Err(InputError::TooLarge {
                of: format!("history of {of}"),
                field,
                value,
            })
        };
        if self.interval_s == 0 || self.interval_s > DAY_S {
            return too_large("interval_s", self.interval_s);
        }
        if self.next_at_s >= DAY_S {
            return too_large("next_at_s", self.next_at_s);
        }
        match self
            .samples
            .iter()
            .flat_map(Load::parts)
            .find(|v| *v > LARGEST)
        {
            Some(value) => too_large("samples", value),
            None => Ok(()),
        }
    }
}

/// What one server will use in the next period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prediction {
    /// The usual value: CPU, memory, I/O, network as in [`Load::parts`].
    pub usual: [u64; 4],
    /// The 95th percentile.
    pub peak: [u64; 4],
}

/// Predicts the next `hours` hours of a server's use.
#[must_use]
pub fn predict(server: &Server, hours: u64) -> Prediction {
    let fallback = server.measured.map_or_else(
        || {
            let r = server.reserved;
            // Nothing is known yet: it uses all its memory and a third of its CPU.
            [r.cpu_milli / 3, r.memory_mib, r.io / 3, r.net_kbit / 3]
        },
        |m| m.parts(),
    );
    let Some(h) = server.history.as_ref().filter(|h| h.samples.len() >= 5) else {
        return Prediction {
            usual: fallback,
            peak: fallback,
        };
    };
    let mut out = Prediction::default();
    for k in 0..4 {
        let series: Vec<u64> = h.samples.iter().map(|s| s.parts()[k]).collect();
        let (usual, peak) = forecast(&series, h.interval_s, h.next_at_s, hours);
        out.usual[k] = usual;
        out.peak[k] = peak.max(usual);
    }
    out
}

/// Usual value and 95th percentile of one series over the next hours.
#[must_use]
pub fn forecast(series: &[u64], interval_s: u64, next_at_s: u64, hours: u64) -> (u64, u64) {
    let interval_s = interval_s.max(1);
    let per_day = (DAY_S / interval_s).max(1) as usize;
    if series.len() < 2 * per_day || per_day < SLOTS {
        let mut sorted = series.to_vec();
        sorted.sort_unstable();
        return (quantile(&sorted, 500), quantile(&sorted, 950));
    }
    // Whole days only, counted back from the end.
    let days = series.len() / per_day;
    let used = &series[series.len() - days * per_day..];
    let slot_of = |i: usize| {
        let before = (days * per_day - i) as u64 * interval_s;
        let at = (next_at_s % DAY_S + (days as u64 + 1) * DAY_S - before) % DAY_S;
        (at * SLOTS as u64 / DAY_S) as usize
    };
    let means: Vec<f64> = used
        .chunks(per_day)
        .map(|d| d.iter().sum::<u64>() as f64 / per_day as f64)
        .collect();
    let level = means
        .iter()
        .skip(1)
        .fold(means[0], |level, m| level + 0.4 * (m - level));
    let shape = daily_shape(used, per_day, &means, &slot_of);
    let mut noise: Vec<u64> = Vec::with_capacity(used.len());
    for (i, &v) in used.iter().enumerate() {
        let expected = means[i / per_day] * shape[slot_of(i)];
        noise.push(if expected > 0.0 {
            (v as f64 / expected * 1e6) as u64
        } else {
            1_000_000
        });
    }
    noise.sort_unstable();
    let first = (next_at_s % DAY_S * SLOTS as u64 / DAY_S) as usize;
    let highest = (0..hours.clamp(1, SLOTS as u64) as usize)
        .map(|h| shape[(first + h) % SLOTS])
        .fold(0.0, f64::max);
    let at = |share| (level * highest * quantile(&noise, share) as f64 / 1e6).ceil() as u64;
    (at(500), at(950))
}

/// The median over the days of each hour's share of its day's mean.
fn daily_shape(
    used: &[u64],
    per_day: usize,
    means: &[f64],
    slot_of: &dyn Fn(usize) -> usize,
) -> [f64; SLOTS] {
    let mut sums = vec![[(0u64, 0u64); SLOTS]; means.len()];
    for (i, &v) in used.iter().enumerate() {
        let cell = &mut sums[i / per_day][slot_of(i)];
        cell.0 += v;
        cell.1 += 1;
    }
    let mut shape = [1.0; SLOTS];
    for (slot, out) in shape.iter_mut().enumerate() {
        let mut shares: Vec<f64> = sums
            .iter()
            .zip(means)
            .filter(|(day, mean)| day[slot].1 > 0 && **mean > 0.0)
            .map(|(day, mean)| day[slot].0 as f64 / day[slot].1 as f64 / mean)
            .collect();
        shares.sort_by(f64::total_cmp);
        if !shares.is_empty() {
            let mid = shares.len() / 2;
            *out = if shares.len() % 2 == 1 {
                shares[mid]
            } else {
                f64::midpoint(shares[mid - 1], shares[mid])
            };
        }
    }
    shape
}

fn quantile(sorted: &[u64], thousandths: usize) -> u64 {
    if sorted.is_empty() {
        return 0;
    }
    sorted[((sorted.len() - 1) * thousandths)
        .div_ceil(1000)
        .min(sorted.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::snapshot::Resources;

    /// Ten days of quarter hours, busy from 9 to 17, with noise.
    fn office(seed: u64) -> Vec<u64> {
        let mut rng = Rng::new(seed);
        (0..960)
            .map(|i| {
                let hour = i % 96 / 4;
                let base = if (9..17).contains(&hour) {
                    900.0
                } else {
                    100.0
                };
                (base * (0.8 + 0.4 * rng.unit())) as u64
            })
            .collect()
    }

    #[test]
    fn a_quiet_night_is_predicted_before_the_busy_morning() {
        let series = office(1);
        // The series ends at midnight.
        let (_, night) = forecast(&series, 900, 0, 2);
        assert!(night < 200, "{night}");
        let (usual, peak) = forecast(&series, 900, 0, 12);
        assert!((800..1000).contains(&usual), "{usual}");
        assert!((1000..1200).contains(&peak), "{peak}");
    }

    #[test]
    fn nineteen_of_twenty_samples_of_the_next_day_stay_below_the_peak() {
        let mut below = 0;
        for seed in 0..20 {
            let series = office(seed);
            let (past, future) = series.split_at(864);
            let (_, peak) = forecast(past, 900, 0, 24);
            below += future.iter().filter(|v| **v <= peak).count();
        }
        assert!(below as f64 / (20.0 * 96.0) > 0.95);
    }

    #[test]
    fn a_rising_level_is_followed() {
        let series: Vec<u64> = (0..240).map(|i| 100 + i / 24 * 50).collect();
        let (usual, _) = forecast(&series, 3600, 0, 1);
        assert!(usual > 450, "{usual}");
    }

    #[test]
    fn without_history_the_measurement_counts() {
        let mut s = Server::new(
            "a",
            Resources {
                cpu_milli: 900,
                ..Resources::default()
            },
        );
        assert_eq!(predict(&s, 1).peak[0], 300);
        s.measured = Some(Load {
            cpu_milli: 700,
            ..Load::default()
        });
        assert_eq!(predict(&s, 1).peak[0], 700);
    }
}
