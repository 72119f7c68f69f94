//! The log that QEMU's `blklogwrites` writes, in the format of Linux's dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock of one sector, then for
//! each request one sector of header and its data.
//!
//! | header, little endian | bytes |
//! |---|---|
//! | first sector | 8 |
//! | sectors | 8 |
//! | flags: 1 flush, 2 written through, 4 discard, 8 mark | 8 |
//! | bytes of a mark's text | 8 |

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use anyhow::{Result, ensure};

use super::Recording;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const THROUGH: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data is in the log.
    data_at: u64,
}

impl Entry {
    const fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    const fn is_write(&self) -> bool {
        self.sectors > 0 && !self.is(DISCARD | MARK)
    }
}

/// What became of the requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Writes that were logged.
    pub writes: usize,
    /// Those that the disk never got.
    pub lost: usize,
}

/// Writes the image anew: its state at the beginning, then every write up to the last flush, every
/// later one that was written through, and of the others those that `survives`.
pub fn rebuild(recording: &Recording, survives: &mut dyn FnMut() -> bool) -> Result<Told> {
    let log = File::open(&recording.log)?;
    let (sector_size, entries) = entries(&log)?;
    let flushed = entries.iter().rposition(|it| it.is(FLUSH));
    let mut image = File::options()
        .write(true)
        .truncate(true)
        .open(&recording.image)?;
    copy_sparse(&mut File::open(&recording.base)?, &mut image)?;
    let mut told = Told::default();
    for (at, entry) in entries.iter().enumerate().filter(|(_, it)| it.is_write()) {
        told.writes += 1;
        let is_durable = flushed.is_some_and(|last| at <= last) || entry.is(THROUGH);
        if !is_durable && !survives() {
            told.lost += 1;
            continue;
        }
        let mut data = vec![0; usize::try_from(entry.sectors * sector_size)?];
        log.read_exact_at(&mut data, entry.data_at)?;
        image.write_all_at(&data, entry.sector * sector_size)?;
    }
    image.sync_all()?;
    Ok(told)
}

/// The size of a sector, and the requests that the log has whole. A header or data cut off at the
/// end is a request whose logging was not over when the daemon died: it was never acknowledged.
fn entries(log: &File) -> Result<(u64, Vec<Entry>)> {
    let end = log.metadata()?.len();
    let mut reader = BufReader::with_capacity(4096, log);
    let word = |bytes: &[u8], at: usize| -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
        u64::from_le_bytes(word)
    };
    let mut superblock = [0; 32];
    if end >= superblock.len() as u64 {
        reader.read_exact(&mut superblock)?;
    }
    if superblock.iter().all(|byte| *byte == 0) {
        // QEMU writes it with the first flush: until then the disk may have nothing of it all.
        return Ok((512, Vec::new()));
    }
    ensure!(word(&superblock, 0) == MAGIC, "no log of writes");
    let sector_size = word(&superblock, 3) & 0xffff_ffff;
    ensure!(sector_size >= 512, "sectors of {sector_size} bytes");
    let (mut entries, mut at) = (Vec::new(), sector_size);
    while at + sector_size <= end {
        reader.seek(SeekFrom::Start(at))?;
        let mut header = [0; 32];
        reader.read_exact(&mut header)?;
        let entry = Entry {
            sector: word(&header, 0),
            sectors: word(&header, 1),
            flags: word(&header, 2),
            data_at: at + sector_size,
        };
        let data = if entry.is(DISCARD) {
            0
        } else {
            entry.sectors * sector_size
        };
        at = entry.data_at + data;
        // Room that the log's file got before its header was written.
        let is_blank = entry.sectors == 0 && entry.flags == 0;
        if at > end || is_blank {
            break;
        }
        entries.push(entry);
    }
    Ok((sector_size, entries))
}

/// Copies a file; what is zero stays a hole.
pub fn copy_sparse(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut block = vec![0; 64 << 10];
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match from.read(&mut block[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        if filled == 0 {
            break;
        }
        if block[..filled].iter().all(|byte| *byte == 0) {
            to.seek_relative(i64::try_from(filled).unwrap_or(i64::MAX))?;
        } else {
            to.write_all(&block[..filled])?;
        }
    }
    let length = to.stream_position()?;
    to.set_len(length)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Runs QEMU's own tools: the format is theirs.
    fn tool(program: &str, words: &[&str]) {
        let output = Command::new(program).args(words).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    }

    fn recorded(dir: &Path, commands: &[&str]) -> Recording {
        std::fs::create_dir_all(dir).unwrap();
        let recording = Recording::of(&dir.join("disk"), dir);
        for path in [&recording.image, &recording.base] {
            let file = File::create(path).unwrap();
            file.set_len(1 << 20).unwrap();
        }
        File::create(&recording.log).unwrap();
        let node = format!(
            "json:{{\"driver\":\"blklogwrites\",\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}},\
             \"log\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}",
            recording.image.display(),
            recording.log.display()
        );
        let mut words = vec!["-t", "writeback"];
        for command in commands {
            words.extend(["-c", command]);
        }
        words.push(&node);
        tool("qemu-io", &words);
        recording
    }

    fn byte(recording: &Recording, at: u64) -> u8 {
        let mut one = [0];
        let image = File::open(&recording.image).unwrap();
        image.read_exact_at(&mut one, at).unwrap();
        one[0]
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_by_chance() {
        let dir = std::env::temp_dir().join(format!("undine-log-{}", std::process::id()));
        // `abort` ends it as a power cut does: nothing is flushed at its end.
        let commands = [
            "write -P 7 0 64k",
            "flush",
            "write -P 8 64k 64k",
            "write -P 9 0 512",
        ];
        let recording = recorded(&dir, &commands);
        cut_after_first_flush_and_two_writes(&recording);
        let told = rebuild(&recording, &mut || false).unwrap();
        assert_eq!(told, Told { writes: 3, lost: 2 });
        assert_eq!((byte(&recording, 0), byte(&recording, 65_536)), (7, 0));
        let told = rebuild(&recording, &mut || true).unwrap();
        assert_eq!(told.lost, 0);
        assert_eq!((byte(&recording, 0), byte(&recording, 65_536)), (9, 8));
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// `qemu-io` flushes when it ends; the log is cut before that.
    fn cut_after_first_flush_and_two_writes(recording: &Recording) {
        let log = File::options()
            .read(true)
            .write(true)
            .open(&recording.log)
            .unwrap();
        let (sector, entries) = entries(&log).unwrap();
        let writes: Vec<&Entry> = entries.iter().filter(|it| it.is_write()).collect();
        assert_eq!(writes.len(), 3, "{entries:?}");
        assert!(entries.iter().any(|it| it.is(FLUSH)));
        let last = writes[2];
        log.set_len(last.data_at + last.sectors * sector).unwrap();
    }

    #[test]
    fn without_any_flush_the_disk_is_as_it_was_at_the_beginning() {
        let dir = std::env::temp_dir().join(format!("undine-noflush-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let recording = Recording::of(&dir.join("disk"), &dir);
        for log in [vec![0; 4096], Vec::new()] {
            std::fs::write(&recording.base, [1; 2048]).unwrap();
            std::fs::write(&recording.image, [2; 2048]).unwrap();
            std::fs::write(&recording.log, log).unwrap();
            let done = rebuild(&recording, &mut || true).unwrap();
            assert_eq!(done, Told::default());
            assert_eq!(std::fs::read(&recording.image).unwrap(), [1; 2048]);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let dir = std::env::temp_dir().join(format!("undine-nolog-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let recording = Recording::of(&dir.join("disk"), &dir);
        for path in [&recording.image, &recording.base, &recording.log] {
            std::fs::write(path, [1; 2048]).unwrap();
        }
        let error = rebuild(&recording, &mut || true).unwrap_err();
        assert!(error.to_string().contains("no log"), "{error}");
        assert_eq!(std::fs::read(&recording.image).unwrap(), [1; 2048]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
