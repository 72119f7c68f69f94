//! Does everything answer? The agent asks its own web server, as a visitor would.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use undine_api::guest::Health;
use undine_manifest::Profile;

use crate::paths::{Paths, is_mounted};
use crate::units;

/// Looks at everything.
pub fn look(paths: &Paths, profile: Option<&Profile>, databases: bool, version: u64) -> Health {
    let mut trouble = Vec::new();
    let data_mounted = is_mounted(&paths.data) && writable(paths);
    if !data_mounted {
        trouble.push("the data disk is not mounted, or cannot be written".to_owned());
    }
    let answers = match request() {
        Ok(()) => true,
        Err(error) => {
            trouble.push(format!("the web server does not answer: {error}"));
            false
        }
    };
    for service in profile.into_iter().flat_map(|profile| &profile.services) {
        if (databases || !service.only_with_databases) && !units::service_runs(&service.unit) {
            trouble.push(format!("{} does not run", service.unit));
        }
    }
    Health {
        data_mounted,
        manifest_version: version,
        answers,
        trouble,
    }
}

/// ext4 turns itself read-only after an error; that is told by the mount alone.
fn writable(paths: &Paths) -> bool {
    rustix::fs::statvfs(&paths.data)
        .is_ok_and(|fs| !fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn request() -> std::io::Result<()> {
    visit(
        "localhost",
        "/.well-known/undine-health",
        Duration::from_secs(5),
    )
    .map(drop)
}

/// A page of this server's own, as a visitor would get it; anything but success is an error.
pub fn visit(host: &str, path: &str, limit: Duration) -> std::io::Result<Vec<u8>> {
    let web = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let mut stream = TcpStream::connect_timeout(&web, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut page = vec![0; 12];
    stream.read_exact(&mut page)?;
    if &page[8..] != b" 200" {
        let said = String::from_utf8_lossy(&page).into_owned();
        return Err(std::io::Error::other(said));
    }
    stream.read_to_end(&mut page)?;
    Ok(page)
}
