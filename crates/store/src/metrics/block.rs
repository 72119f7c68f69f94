//! A block: the running means of neighbouring steps, 8 bytes each (mean, then count).

use super::{Point, Resolution};

const WIDTH: usize = 8;

pub(super) struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// A block as stored; a shorter one has empty steps at its end.
    pub(super) fn from_bytes(mut bytes: Vec<u8>, resolution: Resolution) -> Self {
        bytes.resize(resolution.steps() as usize * WIDTH, 0);
        Self { bytes }
    }

    /// Without the empty steps at its end.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        while self.bytes.len() >= WIDTH && self.bytes[self.bytes.len() - 4..] == [0; 4] {
            self.bytes.truncate(self.bytes.len() - WIDTH);
        }
        self.bytes
    }

    /// Adds a sample that came so long after the block's start.
    pub(super) fn add(&mut self, after_ms: i64, value: f64, resolution: Resolution) {
        let index = (after_ms / resolution.step_ms()) as usize;
        let (mean, count) = self.step(index);
        let count = count.saturating_add(1);
        let mean = f64::from(mean) + (value - f64::from(mean)) / f64::from(count);
        let at = index * WIDTH;
        self.bytes[at..at + 4].copy_from_slice(&(mean as f32).to_le_bytes());
        self.bytes[at + 4..at + 8].copy_from_slice(&count.to_le_bytes());
    }

    fn step(&self, index: usize) -> (f32, u32) {
        let at = index * WIDTH;
        let four = |from: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&self.bytes[from..from + 4]);
            four
        };
        (
            f32::from_le_bytes(four(at)),
            u32::from_le_bytes(four(at + 4)),
        )
    }

    /// The steps that have samples.
    pub(super) fn points(
        &self,
        start: i64,
        resolution: Resolution,
    ) -> impl Iterator<Item = Point> + '_ {
        (0..self.bytes.len() / WIDTH).filter_map(move |index| {
            let (mean, count) = self.step(index);
            let at = start + index as i64 * resolution.step_ms();
            (count > 0).then_some(Point {
                at,
                value: f64::from(mean),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_the_mean_of_its_samples() {
        let mut block = Block::from_bytes(Vec::new(), Resolution::Minute);
        for value in [1.0, 2.0, 6.0] {
            block.add(61_000, value, Resolution::Minute);
        }
        let block = Block::from_bytes(block.into_bytes(), Resolution::Minute);
        let points: Vec<Point> = block.points(0, Resolution::Minute).collect();
        assert_eq!(
            points,
            [Point {
                at: 60_000,
                value: 3.0
            }]
        );
    }
}
