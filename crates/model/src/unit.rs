//! Units: bytes and thousandths of a CPU, each with its text form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. As text: `512 MiB`, `1.5 GiB`; as JSON: the number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Thousandths of one CPU core. As text: `250m` or `1.5`; as JSON: the number of thousandths.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct MilliCpu(pub u32);

/// The text is no amount of the wanted unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct InvalidAmount {
    text: String,
    wanted: &'static str,
}

const SUFFIXES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl Bytes {
    /// Whole mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
    /// Whole gibibytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }
    /// How many whole mebibytes fit in.
    pub const fn whole_mib(self) -> u64 {
        self.0 >> 20
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, size) = SUFFIXES
            .into_iter()
            .find(|(_, size)| self.0 >= *size)
            .unwrap_or(("B", 1));
        if self.0.is_multiple_of(size) {
            write!(f, "{} {suffix}", self.0 / size)
        } else {
            write!(f, "{:.1} {suffix}", self.0 as f64 / size as f64)
        }
    }
}

impl FromStr for Bytes {
    type Err = InvalidAmount;
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount {
            text: text.to_owned(),
            wanted: "a number of bytes; write for example 512MiB or 2GiB",
        };
        let trimmed = text.trim();
        let digits = trimmed
            .trim_end_matches(|c: char| c.is_ascii_alphabetic())
            .trim_end();
        let suffix = &trimmed[digits.len()..].trim_start();
        let factor = match *suffix {
            "" => 1,
            suffix => SUFFIXES
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(suffix))
                .map(|(_, size)| size)
                .ok_or_else(invalid)?,
        };
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(invalid);
        }
        let amount: f64 = digits.parse().map_err(|_| invalid())?;
        let bytes = amount * factor as f64;
        (bytes.is_finite() && (0.0..9e15).contains(&bytes))
            .then_some(Self(bytes as u64))
            .ok_or_else(invalid)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl FromStr for MilliCpu {
    type Err = InvalidAmount;
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount {
            text: text.to_owned(),
            wanted: "an amount of CPU; write for example 500m or 1.5",
        };
        let trimmed = text.trim();
        if let Some(thousandths) = trimmed.strip_suffix('m') {
            return thousandths.parse().map(Self).map_err(|_| invalid());
        }
        let cores: f64 = trimmed.parse().map_err(|_| invalid())?;
        ((0.0..=4_000_000.0).contains(&cores))
            .then(|| Self((cores * 1000.0).round() as u32))
            .ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!("512MiB".parse(), Ok(Bytes::mib(512)));
        assert_eq!("1.5 gib".parse(), Ok(Bytes::mib(1536)));
        assert_eq!("77".parse(), Ok(Bytes(77)));
        assert_eq!("250m".parse(), Ok(MilliCpu(250)));
        assert_eq!("1.5".parse(), Ok(MilliCpu(1500)));
        for bad in ["", "GiB", "-1", "1 parsec", "NaN", "99999999999TiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        for bad in ["", "m", "-1", "NaN", "1e9"] {
            assert!(bad.parse::<MilliCpu>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,40}") {
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<MilliCpu>();
        }

        #[test]
        fn cpu_survives_its_text(amount in 0u32..4_000_000) {
            prop_assert_eq!(MilliCpu(amount).to_string().parse(), Ok(MilliCpu(amount)));
        }
    }
}
