//! Writes the cpio archive that the kernel unpacks as its initramfs ("newc" format). Written here
//! so that two builds give the same bytes: no times, no owners, numbers in order.

use std::io::{self, Write};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written.
pub struct Archive<W: Write> {
    out: W,
    written: usize,
    next_inode: u32,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    data: &'a [u8],
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            next_inode: 1,
        }
    }

    /// Adds a folder; parents come first.
    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(&Entry {
            name,
            mode: FOLDER | 0o755,
            device: (0, 0),
            data: &[],
        })
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, executable: bool, data: &[u8]) -> io::Result<()> {
        let mode = FILE | if executable { 0o755 } else { 0o644 };
        self.entry(&Entry {
            name,
            mode,
            device: (0, 0),
            data,
        })
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        self.entry(&Entry {
            name,
            mode: CHARACTER_DEVICE | mode,
            device: (major, minor),
            data: &[],
        })
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.next_inode = 0;
        self.entry(&Entry {
            name: "TRAILER!!!",
            mode: 0,
            device: (0, 0),
            data: &[],
        })?;
        self.pad(512)?;
        self.out.flush()
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let size = u32::try_from(entry.data.len())
            .map_err(|_| io::Error::other("a file of 4 GiB does not fit a cpio archive"))?;
        let name_size = u32::try_from(entry.name.len() + 1).map_err(io::Error::other)?;
        let fields = [
            self.next_inode,
            entry.mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            size,
            0, // device of the archive
            0,
            entry.device.0,
            entry.device.1,
            name_size,
            0, // checksum, unused in this format
        ];
        self.next_inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.put(header.as_bytes())?;
        self.put(entry.name.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(entry.data)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.folder("dev").unwrap();
        archive.device("dev/console", 0o600, 5, 1).unwrap();
        archive.file("init", true, b"hello").unwrap();
        archive.finish().unwrap();
        bytes
    }

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_expects() {
        let bytes = sample();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("TRAILER!!!"));
        // Header 110 bytes + "dev\0" = 114, padded to 116: there the second header begins.
        assert_eq!(&bytes[116..122], b"070701");
        // Major and minor number of the console, in hexadecimal, fields 10 and 11.
        assert_eq!(
            &bytes[116 + 6 + 9 * 8..116 + 6 + 11 * 8],
            b"0000000500000001"
        );
    }

    #[test]
    fn two_archives_of_the_same_files_are_the_same_bytes() {
        assert_eq!(sample(), sample());
    }
}
