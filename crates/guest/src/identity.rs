//! Becoming a server: clock, randomness, machine id, name and addresses.
//!
//! After a start from a RAM template all of these are those of the template, so this comes
//! before any other program starts.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rustix::time::{ClockId, Timespec, clock_settime};
use undine_api::guest::{FailureKind, Identity};
use undine_model::address::holds_epoch;

use crate::command;
use crate::fail::{Doing, Outcome, failure};
use crate::files;
use crate::paths::Paths;
use crate::sys;

/// How long the network card may take to appear after it was plugged in.
const CARD_WAIT: Duration = Duration::from_secs(10);

/// Takes the identity on; safe to repeat.
pub fn take(paths: &Paths, identity: &Identity) -> Outcome<()> {
    check(identity)?;
    set_clock(identity.unix_time_ns)?;
    let entropy = base64::engine::general_purpose::STANDARD
        .decode(&identity.entropy)
        .doing("read the random bytes")?;
    sys::add_entropy(&entropy).doing("reseed the kernel's random numbers")?;
    name(paths, identity)?;
    let card = wait_for_card(&identity.mac, CARD_WAIT)?;
    network(&card, identity)?;
    resolvers(paths, identity)
}

fn check(identity: &Identity) -> Outcome<()> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let machine_id = identity.machine_id.len() == 32 && identity.machine_id.bytes().all(hex);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let hostname = (1..=63).contains(&identity.hostname.len())
        && identity.hostname.bytes().all(plain)
        && !identity.hostname.starts_with(['-', '.']);
    if !machine_id || !hostname {
        return Err(failure(
            FailureKind::Invalid,
            "the machine id must be 32 hexadecimal digits and the host name a plain one",
        ));
    }
    Ok(())
}

fn set_clock(unix_ns: u64) -> Outcome<()> {
    let time = Timespec {
        tv_sec: (unix_ns / 1_000_000_000) as i64,
        tv_nsec: (unix_ns % 1_000_000_000) as _,
    };
    clock_settime(ClockId::Realtime, time).doing("set the clock")
}

fn name(paths: &Paths, identity: &Identity) -> Outcome<()> {
    let machine_id = paths.system("/etc/machine-id");
    if fs::read_to_string(&machine_id).map_or(true, |old| old.trim() != identity.machine_id) {
        // systemd lays a read-only one over an empty file; it belongs to the template.
        let _ = rustix::mount::unmount(&machine_id, rustix::mount::UnmountFlags::DETACH);
        let text = format!("{}\n", identity.machine_id);
        files::replace(&machine_id, text.as_bytes(), 0o444).doing("write the machine id")?;
    }
    rustix::system::sethostname(identity.hostname.as_bytes()).doing("set the host name")?;
    let write = |path: &str, text: &str| {
        files::replace_if_changed(&paths.system(path), text, 0o644)
            .doing(format_args!("write {path}"))
    };
    write("/etc/hostname", &format!("{}\n", identity.hostname))?;
    write("/etc/hosts", &hosts(identity)).map(drop)
}

fn hosts(identity: &Identity) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
    for (address, _) in &identity.addresses {
        let _ = writeln!(text, "{address} {}", identity.hostname);
    }
    text
}

fn resolvers(paths: &Paths, identity: &Identity) -> Outcome<()> {
    let mut text = String::new();
    for resolver in &identity.resolvers {
        let _ = writeln!(text, "nameserver {resolver}");
    }
    text.push_str("options timeout:2 attempts:2\n");
    files::replace_if_changed(&paths.system("/etc/resolv.conf"), &text, 0o644)
        .doing("write the name servers")
        .map(drop)
}

/// The interface with this hardware address, once it is there.
fn wait_for_card(mac: &str, limit: Duration) -> Outcome<String> {
    let deadline = Instant::now() + limit;
    let mut rescanned = false;
    loop {
        if let Some(card) = find_card(Path::new("/sys/class/net"), mac) {
            return Ok(card);
        }
        if !rescanned && Instant::now() + limit / 2 > deadline {
            rescanned = true;
            rescan();
        }
        if Instant::now() > deadline {
            return Err(failure(
                FailureKind::NotReady,
                format!("no network card with the address {mac} appeared"),
            ));
        }
        std::thread::sleep(Duration::from_millis(15));
    }
}

fn find_card(class: &Path, mac: &str) -> Option<String> {
    fs::read_dir(class).ok()?.flatten().find_map(|entry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        address
            .trim()
            .eq_ignore_ascii_case(mac)
            .then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

/// Asks the PCI bus again, in case a hot-plug event was lost around a restore.
pub fn rescan() {
    let _ = fs::write("/sys/bus/pci/rescan", "1");
}

fn network(card: &str, identity: &Identity) -> Outcome<()> {
    // One program start for all of it: starting programs is what costs here.
    let ip = "/usr/sbin/ip";
    let mut lines = batch(card, identity);
    let held = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    for (old, prefix) in past_epochs(&held, card, identity) {
        let _ = writeln!(lines, "address del {old}/{prefix} dev {card}");
    }
    command::run_with(ip, &["-force", "-batch", "-"], Some(&lines)).map(drop)
}

/// Addresses of earlier epochs that the card still has: after a live migration the guest goes on
/// where it was, and nobody may find it there any more.
fn past_epochs(if_inet6: &str, card: &str, identity: &Identity) -> Vec<(Ipv6Addr, u8)> {
    // Address, interface's number, length of the prefix, scope, flags, interface.
    let holds = if_inet6.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = u128::from_str_radix(words.first()?, 16).ok()?;
        let prefix = u8::from_str_radix(words.get(2)?, 16).ok()?;
        (*words.last()? == card).then(|| (Ipv6Addr::from_bits(address), prefix))
    });
    holds
        .filter(|(ip, _)| holds_epoch(*ip))
        .filter(|(ip, _)| !identity.addresses.iter().any(|(own, _)| own == ip))
        .collect()
}

/// The lines for `ip -batch`.
fn batch(card: &str, identity: &Identity) -> String {
    let mut lines = format!("link set dev lo up\nlink set dev {card} up\n");
    for (address, prefix) in &identity.addresses {
        // Addresses are allotted by control; waiting for duplicate detection would only delay.
        let how = match address {
            IpAddr::V4(_) => "",
            // Visitors come to it; the server itself speaks as who it always is.
            IpAddr::V6(ip) if holds_epoch(*ip) => " nodad preferred_lft 0",
            IpAddr::V6(_) => " nodad",
        };
        let _ = writeln!(lines, "address replace {address}/{prefix} dev {card}{how}");
    }
    for gateway in &identity.gateways {
        let family = if gateway.is_ipv6() {
            "::/0"
        } else {
            "0.0.0.0/0"
        };
        let _ = writeln!(lines, "route replace {family} via {gateway} dev {card}");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use undine_model::ServerId;

    fn identity() -> Identity {
        Identity {
            server: ServerId::from_parts(1, [0; 10]),
            hostname: "web-1".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            unix_time_ns: 1,
            entropy: String::new(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec![
                ("10.214.1.1".parse().unwrap(), 16),
                ("fd5e:d1e0:214::1:1".parse().unwrap(), 64),
                ("fd5e:d1e0:214:0:e00:0:701:1".parse().unwrap(), 64),
            ],
            gateways: vec![
                "10.214.0.1".parse().unwrap(),
                "fd5e:d1e0:214::1".parse().unwrap(),
            ],
            resolvers: Vec::new(),
            edges: Vec::new(),
        }
    }

    #[test]
    fn both_families_are_set_in_one_go() {
        assert_eq!(
            batch("eth0", &identity()),
            "link set dev lo up\n\
             link set dev eth0 up\n\
             address replace 10.214.1.1/16 dev eth0\n\
             address replace fd5e:d1e0:214::1:1/64 dev eth0 nodad\n\
             address replace fd5e:d1e0:214:0:e00:0:701:1/64 dev eth0 nodad preferred_lft 0\n\
             route replace 0.0.0.0/0 via 10.214.0.1 dev eth0\n\
             route replace ::/0 via fd5e:d1e0:214::1 dev eth0\n"
        );
        assert!(hosts(&identity()).contains("10.214.1.1 web-1\n"));
    }

    #[test]
    fn only_addresses_of_past_epochs_are_taken_away() {
        let held = "\
            fd5ed1e0021400000000000000010001 02 40 00 80     eth0\n\
            fd5ed1e0021400000e00000007010001 02 40 00 80     eth0\n\
            fd5ed1e0021400000e00000006010001 02 40 00 80     eth0\n\
            fd5ed1e0021400000e00000005010001 03 40 00 80     eth1\n\
            fe8000000000000000756efffe010002 02 40 20 80     eth0\n\
            00000000000000000000000000000001 01 80 10 80       lo\n";
        let old: Ipv6Addr = "fd5e:d1e0:214:0:e00:0:601:1".parse().unwrap();
        assert_eq!(past_epochs(held, "eth0", &identity()), [(old, 64)]);
    }

    #[test]
    fn an_odd_name_or_machine_id_is_refused() {
        assert!(check(&identity()).is_ok());
        let mut bad = identity();
        bad.hostname = "a b\n".into();
        assert!(check(&bad).is_err());
        let mut bad = identity();
        bad.machine_id = "short".into();
        assert!(check(&bad).is_err());
    }
}
