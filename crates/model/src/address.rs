//! The address by which the edges reach a server: one for each of its epochs.
//!
//! A server keeps its stable addresses for life, wherever it runs. An owner that was cut off keeps
//! them as well until it notices, and could go on serving pages that are no longer true. So every
//! epoch has an address of its own, which only the owner of that epoch may use:
//!
//! ```text
//!   network (64 bits)    0e   epoch (32 bits)   number (24 bits)
//!   fd5e:d1e0:214:0      0e   00 00 00 07       00 01 02
//! ```
//!
//! Stable addresses begin their host part with zeros, so that the two kinds never meet.

use std::net::Ipv6Addr;

/// The first byte of the host part of an address that holds an epoch.
const MARK: u64 = 0x0e;
/// The bits of a server's number: as many as its hardware address has room for.
const NUMBER_BITS: u32 = 24;

/// There is no address for this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEpochAddress {
    /// Its stable address is none of those that control gives out.
    #[error(
        "the host part of {0} has more than 24 bits; give the server an address from the start of the server network"
    )]
    Stable(Ipv6Addr),
    /// The owner changed four thousand million times.
    #[error("epoch {0} has more than 32 bits; restore the server under a new name")]
    Epoch(u64),
}

/// The address under which a server with this stable address is reached in this epoch.
///
/// # Errors
/// The stable address or the epoch is larger than any that control gives out.
pub fn epoch_address(stable: Ipv6Addr, epoch: u64) -> Result<Ipv6Addr, NoEpochAddress> {
    let bits = stable.to_bits();
    // The lower half: the host part.
    let number = bits as u64;
    if number >> NUMBER_BITS != 0 {
        return Err(NoEpochAddress::Stable(stable));
    }
    let epoch = u32::try_from(epoch).map_err(|_| NoEpochAddress::Epoch(epoch))?;
    let host = MARK << 56 | u64::from(epoch) << NUMBER_BITS | number;
    let network = bits >> 64 << 64;
    Ok(Ipv6Addr::from_bits(network | u128::from(host)))
}

/// Does this address hold an epoch?
pub const fn holds_epoch(address: Ipv6Addr) -> bool {
    address.to_bits() as u64 >> 56 == MARK
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn stable(number: u32) -> Ipv6Addr {
        let network: Ipv6Addr = "fd5e:d1e0:214::".parse().unwrap();
        Ipv6Addr::from_bits(network.to_bits() + u128::from(number))
    }

    #[test]
    fn an_epoch_s_address_shows_epoch_and_number() {
        assert_eq!(
            epoch_address(stable(0x01_0203), 0x0405_0607)
                .unwrap()
                .to_string(),
            "fd5e:d1e0:214:0:e04:506:701:203"
        );
        assert_eq!(
            epoch_address(stable(257), 1).unwrap().to_string(),
            "fd5e:d1e0:214:0:e00:0:100:101"
        );
    }

    #[test]
    fn no_two_servers_epochs_or_kinds_share_an_address() {
        let numbers = [1, 2, 256, 257, 65_535, 65_536, 0xff_ffff];
        let epochs = [0, 1, 2, 255, 256, 65_536, u64::from(u32::MAX)];
        let mut seen = HashSet::new();
        for number in numbers {
            assert!(!holds_epoch(stable(number)));
            assert!(seen.insert(stable(number)));
            for epoch in epochs {
                let address = epoch_address(stable(number), epoch).unwrap();
                assert!(holds_epoch(address), "{address}");
                assert!(seen.insert(address), "{address} was there already");
                assert_eq!(address.segments()[..4], stable(0).segments()[..4]);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_rather_than_cut_off() {
        let epoch = u64::from(u32::MAX) + 1;
        assert_eq!(
            epoch_address(stable(1), epoch),
            Err(NoEpochAddress::Epoch(epoch))
        );
        let large = stable(0x0100_0000);
        assert_eq!(epoch_address(large, 1), Err(NoEpochAddress::Stable(large)));
        let of_epoch = epoch_address(stable(1), 1).unwrap();
        assert!(epoch_address(of_epoch, 2).is_err(), "never of another one");
    }
}
