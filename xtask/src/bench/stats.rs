//! Percentiles by nearest rank: always a value that was measured.

use serde::Serialize;

/// What is told of many measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub n: usize,
    /// Half of them are at most this.
    pub p50: f64,
    /// 95 of a hundred are at most this.
    pub p95: f64,
    /// The largest.
    pub max: f64,
}

/// Sums up; none of nothing.
pub fn summary(values: &[f64]) -> Option<Summary> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Summary {
        n: sorted.len(),
        p50: rank(&sorted, 50)?,
        p95: rank(&sorted, 95)?,
        max: *sorted.last()?,
    })
}

/// The smallest value that at least this many of a hundred do not exceed.
fn rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied()
}

/// Rounded to thousandths: what a bench writes is not more exact than that.
pub fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Summary {
    /// Rounded, for a file.
    pub fn rounded(self) -> Self {
        Self {
            n: self.n,
            p50: thousandths(self.p50),
            p95: thousandths(self.p95),
            max: thousandths(self.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=30).rev().map(f64::from).collect();
        let sum = summary(&values).unwrap();
        assert_eq!((sum.n, sum.p50, sum.p95, sum.max), (30, 15.0, 29.0, 30.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        let sum = summary(&hundred).unwrap();
        assert_eq!((sum.p50, sum.p95, sum.max), (50.0, 95.0, 100.0));
    }

    #[test]
    fn one_value_is_all_of_them_and_none_is_nothing() {
        let sum = summary(&[7.5]).unwrap();
        assert_eq!((sum.p50, sum.p95, sum.max), (7.5, 7.5, 7.5));
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn the_file_has_thousandths() {
        let sum = summary(&[1.0 / 3.0]).unwrap().rounded();
        assert!((sum.p50 - 0.333).abs() < f64::EPSILON);
    }
}
