//! The smallest archive that a release can be: a few short files, uncompressed.

/// A tar archive of these files.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend_from_slice(&header(name, content.len()));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

const BLOCK: usize = 512;

fn header(name: &str, size: usize) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    // Counted as if the sum's own field were blanks.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_whole_blocks_with_a_true_sum() {
        let made = archive(&[("index.php", b"<?php echo 1;")]);
        assert_eq!(made.len(), 4 * BLOCK);
        assert!(made.starts_with(b"index.php\0"));
        assert_eq!(&made[124..136], b"00000000015\0");
        let mut blanked = made[..BLOCK].to_vec();
        blanked[148..156].fill(b' ');
        let sum: u32 = blanked.iter().copied().map(u32::from).sum();
        assert_eq!(&made[148..154], format!("{sum:06o}").as_bytes());
    }
}
