//! Runs inside the benchmark's guest: 4 KiB writes, each flushed; prints microseconds in order.
//! Arguments: the disk, the number of writes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let disk = File::options().write(true).open(&args[1])?;
    let count: u64 = args[2].parse().map_err(std::io::Error::other)?;
    let mut times = Vec::new();
    for number in 0..count {
        let block = vec![number as u8; 4096];
        let begin = Instant::now();
        disk.write_all_at(&block, (number * 37 % 8000 + 1) * 4096)?;
        disk.sync_data()?;
        times.push(begin.elapsed().as_micros().to_string());
    }
    println!("{}", times.join(" "));
    Ok(())
}
