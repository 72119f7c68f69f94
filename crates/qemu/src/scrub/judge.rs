//! What a scrub's looks say: pure. A block is accused only when nothing was written to it while
//! it was looked at.

use crate::copy::{DIRTY, ZERO};
use crate::nbd::Extent;
use crate::storage::LOOK_BYTES;

/// What one look at suspected blocks says; blocks are told by their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// These differ, and nobody wrote to them meanwhile.
    pub differ: Vec<u64>,
    /// These differ, but were written meanwhile: looked at again.
    pub again: Vec<u64>,
}

/// Judges the blocks that differ by what was written during the look, in order of offset.
pub fn judge(differ: &[u64], written: &[Extent]) -> Look {
    let mut look = Look::default();
    for offset in differ {
        let end = offset + LOOK_BYTES;
        let was_written = written
            .iter()
            .any(|it| it.flags & DIRTY != 0 && it.offset < end && *offset < it.offset + it.length);
        if was_written {
            look.again.push(*offset);
        } else {
            look.differ.push(*offset);
        }
    }
    look
}

/// The blocks of a piece from `offset` on in which two readings differ.
pub fn differing(offset: u64, one: &[u8], other: &[u8]) -> Vec<u64> {
    if one == other {
        return Vec::new();
    }
    let size = LOOK_BYTES as usize;
    let blocks = one.chunks(size).zip(other.chunks(size));
    (0..)
        .zip(blocks)
        .filter(|(_, (one, other))| one != other)
        .map(|(at, _): (u64, _)| offset + at * LOOK_BYTES)
        .collect()
}

/// The stretches that are not known to read as zeros on both sides; both lists cover the disk.
pub fn worth_reading(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut at = 0;
    while let (Some(left), Some(right)) = (one.peek(), other.peek()) {
        let ends = (left.offset + left.length, right.offset + right.length);
        let end = ends.0.min(ends.1);
        let is_zero = left.flags & right.flags & ZERO != 0;
        match found.last_mut() {
            _ if is_zero || end <= at => {}
            Some(last) if last.offset + last.length == at => last.length += end - at,
            _ => found.push(Extent {
                offset: at,
                length: end - at,
                flags: 0,
            }),
        }
        at = at.max(end);
        if ends.0 == end {
            one.next();
        }
        if ends.1 == end {
            other.next();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = LOOK_BYTES;

    fn extent(offset: u64, length: u64, flags: u32) -> Extent {
        Extent {
            offset,
            length,
            flags,
        }
    }

    #[test]
    fn a_block_that_was_written_meanwhile_is_never_accused() {
        let written = [
            extent(0, BLOCK, 0),
            extent(BLOCK, 2 * BLOCK, DIRTY),
            extent(3 * BLOCK, 9 * BLOCK, 0),
        ];
        let look = judge(&[0, BLOCK, 2 * BLOCK, 3 * BLOCK], &written);
        assert_eq!(look.differ, [0, 3 * BLOCK]);
        assert_eq!(look.again, [BLOCK, 2 * BLOCK]);
        // A part of a block counts for all of it, at both of its ends.
        let touched = [extent(BLOCK - 1, 1, DIRTY), extent(2 * BLOCK, 1, DIRTY)];
        let look = judge(&[0, BLOCK, 2 * BLOCK], &touched);
        assert_eq!(look.differ, [BLOCK]);
        assert_eq!(look.again, [0, 2 * BLOCK]);
    }

    #[test]
    fn one_byte_names_its_block_and_the_last_block_may_be_short() {
        let one = vec![7; 2 * BLOCK as usize + 100];
        let mut other = one.clone();
        assert!(differing(9 * BLOCK, &one, &other).is_empty());
        other[BLOCK as usize] ^= 1;
        assert_eq!(differing(9 * BLOCK, &one, &other), [10 * BLOCK]);
        other[2 * BLOCK as usize + 99] ^= 1;
        assert_eq!(differing(0, &one, &other), [BLOCK, 2 * BLOCK]);
    }

    #[test]
    fn only_what_reads_as_zeros_on_both_sides_is_not_read() {
        let one = [
            extent(0, 100, ZERO),
            extent(100, 50, 0),
            extent(150, 50, ZERO | 1),
        ];
        let other = [
            extent(0, 60, ZERO),
            extent(60, 20, 0),
            extent(80, 120, ZERO),
        ];
        let found = worth_reading(&one, &other);
        assert_eq!(found, [extent(60, 20, 0), extent(100, 50, 0)]);
        assert!(worth_reading(&one[..1], &[extent(0, 100, ZERO)]).is_empty());
        let all = worth_reading(&[extent(0, 60, 0), extent(60, 140, 1)], &other);
        assert_eq!(all, [extent(0, 200, 0)]);
    }
}
