//! Counters by service and place, and places numbered without gaps.

use std::collections::HashMap;

use super::model::Model;

/// Tables up to this many cells are kept densely.
const DENSE: usize = 48_000_000;

/// Counters by service and place, dense where that is affordable.
pub(super) enum Counts {
    Dense { width: usize, cells: Vec<u16> },
    Sparse(HashMap<(u32, u32), u16>),
}

impl Counts {
    pub fn new(services: usize, width: usize) -> Self {
        if services.saturating_mul(width) <= DENSE {
            Self::Dense {
                width,
                cells: vec![0; services * width],
            }
        } else {
            Self::Sparse(HashMap::new())
        }
    }

    #[inline]
    pub fn get(&self, service: usize, at: usize) -> u16 {
        match self {
            Self::Dense { width, cells } => cells[service * width + at],
            Self::Sparse(map) => map.get(&(service as u32, at as u32)).copied().unwrap_or(0),
        }
    }

    #[inline]
    pub fn add(&mut self, service: usize, at: usize, by: i16) -> u16 {
        match self {
            Self::Dense { width, cells } => {
                let cell = &mut cells[service * *width + at];
                *cell = cell.wrapping_add_signed(by);
                *cell
            }
            Self::Sparse(map) => {
                let cell = map.entry((service as u32, at as u32)).or_default();
                *cell = cell.wrapping_add_signed(by);
                let now = *cell;
                if now == 0 {
                    map.remove(&(service as u32, at as u32));
                }
                now
            }
        }
    }
}

fn densely(values: impl Iterator<Item = usize>) -> (Vec<usize>, usize) {
    let mut ids = HashMap::new();
    let out: Vec<usize> = values
        .map(|v| {
            let next = ids.len();
            *ids.entry(v).or_insert(next)
        })
        .collect();
    (out, ids.len())
}

/// Locations and neighbourhoods numbered without gaps.
pub(super) struct Geography {
    pub location: Vec<usize>,
    pub neighbourhood: Vec<usize>,
    pub locations: usize,
    pub neighbourhoods: usize,
}

impl Geography {
    pub fn new(model: &Model) -> Self {
        let (location, locations) = densely(model.machines.iter().map(|m| m.location));
        let (neighbourhood, neighbourhoods) =
            densely(model.machines.iter().map(|m| m.neighbourhood));
        Self {
            location,
            neighbourhood,
            locations,
            neighbourhoods,
        }
    }
}
