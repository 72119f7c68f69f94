//! Keys of encrypted NBD connections, as the files that QEMU reads them from.
//!
//! One random key a start of a daemon, known to that daemon and to the one server that writes to
//! it. A file is its reader's alone, in a folder that is too.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::files::{Owner, write_atomically};

/// The name under which a key is offered; the key alone decides.
pub const USER: &str = "undine";
/// The file that QEMU looks for in the folder that it is given.
const FILE: &str = "keys.psk";

/// A key: 64 hexadecimal digits. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(String);

impl Psk {
    /// Takes a key; `None` when these are not 64 hexadecimal digits.
    pub fn new(digits: &str) -> Option<Self> {
        let good = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| Self(digits.to_owned()))
    }

    /// The digits.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// Writes the key into `folder` for `owner` alone, replacing another one.
pub fn write(folder: &Path, key: &Psk, owner: Option<Owner>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    let file = folder.join(FILE);
    write_atomically(
        &file,
        format!("{USER}:{}\n", key.digits()).as_bytes(),
        0o600,
    )?;
    match owner {
        Some(owner) => {
            owner.take(&file)?;
            owner.take(folder)
        }
        None => Ok(()),
    }
}

/// Reads the key back; `None` when there is none.
pub fn read(folder: &Path) -> Option<Psk> {
    let text = fs::read_to_string(folder.join(FILE)).ok()?;
    Psk::new(text.trim().strip_prefix(USER)?.strip_prefix(':')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_owners_alone_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("psk");
        assert_eq!(read(&folder), None);
        let key = Psk::new(&"0f".repeat(32)).unwrap();
        write(&folder, &key, None).unwrap();
        write(&folder, &key, None).unwrap();
        assert_eq!(read(&folder), Some(key.clone()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(FILE)), 0o600);
        assert_eq!(format!("{key:?}"), "Psk(..)");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for digits in ["", "0f", &"0g".repeat(32), &"0f".repeat(33)] {
            assert!(Psk::new(digits).is_none(), "{digits}");
        }
    }
}
