//! The virtio-serial port and its frames.
//!
//! The node may go and come back at any moment, even in the middle of a frame: a port that hangs
//! up, or falls silent inside a frame, starts a new session and what was half sent is dropped.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use undine_api::guest::{DATA, JSON, MAX_PAYLOAD, PORT};

/// A frame from the node.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A request.
    Json(Vec<u8>),
    /// A piece of a stream; empty at its end.
    Data(Vec<u8>),
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The node went away or broke off; a new session begins with its next frame.
    #[error("the node broke off")]
    Lost,
    /// The port itself fails.
    #[error("the port fails")]
    Io(#[from] io::Error),
}

/// How long a frame may pause before the rest is taken as lost.
const PAUSE: Duration = Duration::from_secs(2);
/// How often to look for a node that is not there.
const AWAY: Duration = Duration::from_millis(20);

/// The open port.
pub struct Port {
    file: File,
    buffer: Vec<u8>,
}

/// The device of the agent's port, by its name.
pub fn find(ports: &Path) -> Option<PathBuf> {
    fs::read_dir(ports).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

impl Port {
    /// Opens the device.
    pub fn open(device: &Path) -> io::Result<Self> {
        let nonblocking = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(nonblocking)
            .open(device)?;
        Ok(Self::over(file))
    }

    /// A port over something that is open and does not block.
    pub fn over(file: File) -> Self {
        Self {
            file,
            buffer: Vec::new(),
        }
    }

    /// Waits for the next frame. Inside a stream the node must not pause for long.
    pub fn read(&mut self, in_stream: bool) -> Result<Frame, Broken> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            let inside = in_stream || !self.buffer.is_empty();
            if let Err(error) = self.fill(inside) {
                self.buffer.clear();
                return Err(error);
            }
        }
    }

    /// A whole frame from what has been read.
    fn take(&mut self) -> Result<Option<Frame>, Broken> {
        let Some(head) = self.buffer.get(..5) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = head[4];
        if length == 0 || length > MAX_PAYLOAD + 1 || (kind != JSON && kind != DATA) {
            self.buffer.clear();
            return Err(Broken::Lost);
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        let payload = self.buffer[5..4 + length].to_vec();
        self.buffer.drain(..4 + length);
        Ok(Some(match kind {
            JSON => Frame::Json(payload),
            _ => Frame::Data(payload),
        }))
    }

    fn fill(&mut self, inside: bool) -> Result<(), Broken> {
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.file.read(&mut chunk) {
                Ok(0) => {
                    // Nobody is at the other end.
                    if inside {
                        return Err(Broken::Lost);
                    }
                    std::thread::sleep(AWAY);
                }
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wait =
                        inside.then_some(PAUSE * if self.buffer.is_empty() { 15 } else { 1 });
                    if !self.wait(PollFlags::IN, wait)? {
                        return Err(Broken::Lost);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a frame of JSON; a node that is gone misses it.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let length = u32::try_from(payload.len() + 1).map_err(|_| Broken::Lost)?;
        let mut frame = Vec::with_capacity(payload.len() + 5);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.push(JSON);
        frame.extend_from_slice(payload);
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::OUT, Some(PAUSE * 5))? {
                        return Err(Broken::Lost);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken::Lost),
            }
        }
        Ok(())
    }

    /// Waits until the port is ready; false when it is not in time or the node hung up.
    fn wait(&self, flags: PollFlags, limit: Option<Duration>) -> Result<bool, Broken> {
        let mut fds = [PollFd::new(&self.file, flags)];
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => Ok(false),
            Ok(_) if fds[0].revents().contains(flags) => Ok(true),
            // Hung up: reading returns the end, writing must not wait for ever.
            Ok(_) => Ok(flags == PollFlags::IN),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(Broken::Io(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Port, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Port::over(File::from(OwnedFd::from(ours))), theirs)
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32 + 1).to_be_bytes().to_vec();
        frame.push(kind);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (mut port, mut node) = pair();
        node.write_all(&frame(JSON, b"{}")).unwrap();
        node.write_all(&frame(DATA, b"abc")).unwrap();
        node.write_all(&frame(DATA, b"")).unwrap();
        assert_eq!(port.read(false).unwrap(), Frame::Json(b"{}".to_vec()));
        assert_eq!(port.read(true).unwrap(), Frame::Data(b"abc".to_vec()));
        assert_eq!(port.read(true).unwrap(), Frame::Data(Vec::new()));
        port.write(b"[]").unwrap();
        let mut answer = [0; 7];
        node.read_exact(&mut answer).unwrap();
        assert_eq!(answer, frame(JSON, b"[]")[..]);
    }

    #[test]
    fn what_was_half_sent_is_dropped_with_the_session() {
        let (mut port, mut node) = pair();
        node.write_all(&frame(JSON, b"a long request")[..9])
            .unwrap();
        assert!(matches!(port.read(false), Err(Broken::Lost)));
        node.write_all(&frame(JSON, b"hello")).unwrap();
        assert_eq!(port.read(false).unwrap(), Frame::Json(b"hello".to_vec()));
    }

    #[test]
    fn a_frame_that_is_too_long_ends_the_session() {
        let (mut port, mut node) = pair();
        node.write_all(&[0xff, 0xff, 0xff, 0xff, 0]).unwrap();
        assert!(matches!(port.read(false), Err(Broken::Lost)));
    }
}
