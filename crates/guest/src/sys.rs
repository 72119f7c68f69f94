//! The kernel calls that no safe crate offers: entropy, project ids, quotas, file system ids.
//!
//! Each wrapper takes and returns plain values; nothing unsafe leaves this file.
#![allow(
    unsafe_code,
    reason = "ioctl, quotactl and setfsuid have no safe wrapper; all of them are here, with fixed layouts"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const XFLAG_SYNC: u32 = 0x20;
const XFLAG_PROJINHERIT: u32 = 0x200;
const PRJQUOTA: libc::c_int = 2;
const Q_GETQUOTA: libc::c_int = 0x0080_0007;
const Q_SETQUOTA: libc::c_int = 0x0080_0008;
const QIF_LIMITS: u32 = 5;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Credits random bytes to the kernel's generator and makes it start afresh from them.
pub fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct PoolInfo {
        bits: libc::c_int,
        size: libc::c_int,
        bytes: [u8; 512],
    }
    let device = File::options().write(true).open("/dev/urandom")?;
    let count = bytes.len().min(512);
    let mut info = PoolInfo {
        bits: (count * 8) as libc::c_int,
        size: count as libc::c_int,
        bytes: [0; 512],
    };
    info.bytes[..count].copy_from_slice(&bytes[..count]);
    // SAFETY: the structure has the layout of rand_pool_info and outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) })?;
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) })
}

/// This thread's files are made and found with the rights of this user and group from now on.
pub fn set_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain numbers; both calls are about the calling thread alone.
    let now = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        // They tell only what was before; a number that nobody has changes nothing.
        (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
    };
    if (now.0.cast_unsigned(), now.1.cast_unsigned()) != (uid, gid) {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// Puts a folder under a project's quota, with all that will be made in it; `synchronous` makes
/// every write below it reach the disk before the writer goes on.
pub fn set_project(folder: &Path, project: u32, synchronous: bool) -> io::Result<()> {
    let file = File::open(folder)?;
    let mut attributes = FsXattr::default();
    // SAFETY: the structure has the layout of struct fsxattr and outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) })?;
    attributes.projid = project;
    attributes.xflags |= XFLAG_PROJINHERIT;
    if synchronous {
        attributes.xflags |= XFLAG_SYNC;
    }
    // SAFETY: as above.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) })
}

/// What a project may use and uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Most bytes; 0 for no limit.
    pub max_bytes: u64,
    /// Most files and folders; 0 for no limit.
    pub max_inodes: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Files and folders in use.
    pub inodes: u64,
}

fn quotactl(
    command: libc::c_int,
    device: &Path,
    project: u32,
    block: &mut libc::dqblk,
) -> io::Result<()> {
    let device = CString::new(device.as_os_str().as_bytes())?;
    let command = (command << 8) | PRJQUOTA;
    // SAFETY: the path ends in zero and the block has the layout of struct if_dqblk.
    check(unsafe {
        libc::quotactl(
            command,
            device.as_ptr(),
            project as libc::c_int,
            (&raw mut *block).cast(),
        )
    })
}

fn empty_block() -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    }
}

/// Sets a project's limits on the file system of a block device.
pub fn set_quota(device: &Path, project: u32, max_bytes: u64, max_inodes: u64) -> io::Result<()> {
    let mut block = empty_block();
    block.dqb_bhardlimit = max_bytes.div_ceil(1024);
    block.dqb_bsoftlimit = block.dqb_bhardlimit;
    block.dqb_ihardlimit = max_inodes;
    block.dqb_isoftlimit = max_inodes;
    block.dqb_valid = QIF_LIMITS;
    quotactl(Q_SETQUOTA, device, project, &mut block)
}

/// A project's limits and use on the file system of a block device.
pub fn quota(device: &Path, project: u32) -> io::Result<Quota> {
    let mut block = empty_block();
    quotactl(Q_GETQUOTA, device, project, &mut block)?;
    Ok(Quota {
        max_bytes: block.dqb_bhardlimit * 1024,
        max_inodes: block.dqb_ihardlimit,
        bytes: block.dqb_curspace,
        inodes: block.dqb_curinodes,
    })
}
