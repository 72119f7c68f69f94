//! Interfaces by netlink: the bridge, its addresses, and a tap a server.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use tokio::process::Command;

/// Interfaces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel said no.
    #[error("cannot {action}")]
    Netlink {
        /// What was to be done.
        action: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// Netlink itself is out of reach.
    #[error("cannot talk to the kernel about interfaces; does this run as root?")]
    Connect(#[source] io::Error),
    /// There is no such interface.
    #[error("there is no interface {0}")]
    Missing(String),
    /// A tap could not be made.
    #[error("cannot make the tap {name}: {reason}")]
    Tap {
        /// Which one.
        name: String,
        /// What `ip` said.
        reason: String,
    },
    /// A hardware address makes no sense.
    #[error("`{0}` is not a hardware address")]
    Mac(String),
}

/// A connection to the kernel's interfaces, of the network namespace in which it was made.
#[derive(Clone)]
pub struct Links(Handle);

fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let action = action.into();
    move |source| LinkError::Netlink { action, source }
}

fn exists(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if message.code.is_some_and(|code| code.get() == -rustix::io::Errno::EXIST.raw_os_error()))
}

/// The six bytes of a hardware address.
///
/// # Errors
/// The text is none.
pub fn mac_bytes(text: &str) -> Result<Vec<u8>, LinkError> {
    let parts: Option<Vec<u8>> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    parts
        .filter(|bytes| bytes.len() == 6)
        .ok_or_else(|| LinkError::Mac(text.to_owned()))
}

impl Links {
    /// Connects.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn connect() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Connect)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, LinkError> {
        match self
            .0
            .link()
            .get()
            .match_name(name)
            .execute()
            .try_next()
            .await
        {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(message))
                if message
                    .code
                    .is_some_and(|code| code.get() == -rustix::io::Errno::NODEV.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(source) => Err(failed(format!("look for the interface {name}"))(source)),
        }
    }

    async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let link = self.find(name).await?;
        link.map(|link| link.header.index)
            .ok_or_else(|| LinkError::Missing(name.to_owned()))
    }

    /// Makes the bridge with this hardware address, unless it is there.
    ///
    /// # Errors
    /// The kernel said no.
    pub async fn bridge(&self, name: &str, mac: &str) -> Result<(), LinkError> {
        let address = mac_bytes(mac)?;
        let made = self
            .0
            .link()
            .add(LinkBridge::new(name).address(address.clone()).build())
            .execute();
        match made.await {
            Err(error) if !exists(&error) => {
                return Err(failed(format!("make the bridge {name}"))(error));
            }
            _ => {}
        }
        let index = self.index(name).await?;
        let set = LinkUnspec::new_with_index(index)
            .address(address)
            .up()
            .build();
        self.0
            .link()
            .set(set)
            .execute()
            .await
            .map_err(failed(format!("set up the bridge {name}")))
    }

    /// Gives an interface an address, unless it has it.
    ///
    /// # Errors
    /// The kernel said no.
    pub async fn address(&self, name: &str, ip: IpAddr, prefix: u8) -> Result<(), LinkError> {
        let index = self.index(name).await?;
        match self.0.address().add(index, ip, prefix).execute().await {
            Err(error) if !exists(&error) => {
                Err(failed(format!("give {name} the address {ip}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes an interface a port of the bridge and switches it on.
    ///
    /// # Errors
    /// The kernel said no, or there is no such interface.
    pub async fn enslave(&self, name: &str, bridge: &str) -> Result<(), LinkError> {
        let (index, bridge_index) = (self.index(name).await?, self.index(bridge).await?);
        let set = LinkUnspec::new_with_index(index)
            .controller(bridge_index)
            .up()
            .build();
        self.0
            .link()
            .set(set)
            .execute()
            .await
            .map_err(failed(format!("put {name} into {bridge}")))
    }

    /// Makes a tap that this user alone may open; one of the same name goes first.
    ///
    /// # Errors
    /// The kernel said no.
    pub async fn tap(&self, name: &str, uid: u32) -> Result<(), LinkError> {
        self.remove(name).await?;
        // Netlink cannot make taps: the kernel wants an ioctl on /dev/net/tun, which `ip` does.
        let output = Command::new("ip")
            .args([
                "tuntap",
                "add",
                "dev",
                name,
                "mode",
                "tap",
                "user",
                &uid.to_string(),
            ])
            .kill_on_drop(true)
            .output()
            .await;
        let reason = match output {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => format!("ip cannot be run: {error}"),
        };
        Err(LinkError::Tap {
            name: name.to_owned(),
            reason,
        })
    }

    /// Removes an interface, if it is there.
    ///
    /// # Errors
    /// The kernel said no.
    pub async fn remove(&self, name: &str) -> Result<(), LinkError> {
        let Some(link) = self.find(name).await? else {
            return Ok(());
        };
        self.0
            .link()
            .del(link.header.index)
            .execute()
            .await
            .map_err(failed(format!("remove the interface {name}")))
    }

    /// The names of all interfaces that begin with this.
    ///
    /// # Errors
    /// The kernel said no.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, LinkError> {
        let links: Vec<LinkMessage> = self
            .0
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list the interfaces"))?;
        let names = links.into_iter().filter_map(|link| {
            link.attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })
        });
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_has_six_bytes() {
        assert_eq!(
            mac_bytes("02:75:6e:00:00:01").unwrap(),
            [2, 0x75, 0x6e, 0, 0, 1]
        );
        for bad in [
            "",
            "02:75:6e:00:00",
            "02:75:6e:00:00:01:02",
            "zz:75:6e:00:00:01",
        ] {
            assert!(mac_bytes(bad).is_err(), "{bad}");
        }
    }
}
