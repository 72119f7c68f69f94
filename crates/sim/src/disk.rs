//! A replica's file with real semantics: what was flushed survives everything but the loss of the
//! file; what was not may vanish, block by block, when its daemon or its machine dies.

use crate::rng::Rng;

/// Blocks of a disk.
pub const BLOCKS: usize = 6;
/// The content of all blocks: values that only grow, so that a lost write shows as a lower one.
pub type Content = [u64; BLOCKS];

/// A file.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    flushed: Content,
    written: [Option<u64>; BLOCKS],
}

impl Disk {
    /// Writes a block.
    pub fn write(&mut self, block: usize, value: u64) {
        self.written[block] = Some(value);
    }

    /// Reads a block.
    pub fn read(&self, block: usize) -> u64 {
        self.written[block].unwrap_or(self.flushed[block])
    }

    /// Everything written is there for good.
    pub fn flush(&mut self) {
        for (flushed, written) in self.flushed.iter_mut().zip(&mut self.written) {
            if let Some(value) = written.take() {
                *flushed = value;
            }
        }
    }

    /// The daemon, or the machine, died: each block that was not flushed is there or is not.
    pub fn crash(&mut self, rng: &mut Rng) {
        for (flushed, written) in self.flushed.iter_mut().zip(&mut self.written) {
            if let Some(value) = written.take().filter(|_| rng.chance(500)) {
                *flushed = value;
            }
        }
    }

    /// What a crash right now could leave of each block at worst.
    pub fn worst(&self) -> Content {
        let mut worst = self.flushed;
        for (worst, written) in worst.iter_mut().zip(&self.written) {
            if let Some(value) = written {
                *worst = (*worst).min(*value);
            }
        }
        worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_survives_and_what_was_not_may_vanish() {
        let (mut kept, mut gone) = (0, 0);
        for seed in 0..100 {
            let mut disk = Disk::default();
            disk.write(0, 7);
            disk.flush();
            disk.write(0, 8);
            disk.write(1, 9);
            assert_eq!((disk.read(0), disk.worst()[0], disk.worst()[1]), (8, 7, 0));
            disk.crash(&mut Rng::new(seed));
            assert!(disk.read(0) == 7 || disk.read(0) == 8);
            match disk.read(1) {
                9 => kept += 1,
                _ => gone += 1,
            }
        }
        assert!(kept > 20 && gone > 20);
    }
}
