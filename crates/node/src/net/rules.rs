//! The packet filter of a node as text for nft: pure, so that golden files can hold it.
//!
//! Two tables, each replaced whole in one transaction. `bridge undine` stands between a server's
//! tap and everything else: a server sends only from its own hardware and IP addresses, answers
//! ARP and neighbour questions only for itself, and the router's shared address never crosses the
//! uplink. `inet undine` stands between the servers and the node: name service and ping on the
//! router's address, nothing else; out of the house only by the egress interface, never to a
//! private or management network, and never by SMTP unless allowed.
//!
//! The bridge rules keep no connection state: not every kernel has it for bridges.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Everything that the filter depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The bridge that holds taps and uplink.
    pub bridge: String,
    /// The interface to the other nodes and the edges, if there is one.
    pub uplink: Option<String>,
    /// The interface to the world, if servers may reach it.
    pub egress: Option<String>,
    /// The router's hardware address, the same on every node.
    pub gateway_mac: String,
    /// The router's addresses, the same on every node.
    pub gateways: Vec<IpAddr>,
    /// The servers' networks.
    pub servers: Vec<IpNet>,
    /// Where servers may never go.
    pub denied: Vec<IpNet>,
    /// The servers on this node.
    pub taps: Vec<Tap>,
}

/// A server's tap and what it may send.
#[derive(Debug, Clone, PartialEq)]
pub struct Tap {
    /// The interface.
    pub name: String,
    /// The server's hardware address.
    pub mac: String,
    /// The server's address.
    pub ipv4: Ipv4Addr,
    /// The server's address.
    pub ipv6: Ipv6Addr,
    /// The server's address in this epoch: an earlier owner's tap lets it send from that one's.
    pub ipv6_epoch: Option<Ipv6Addr>,
    /// May it send mail directly?
    pub smtp: bool,
}

/// Networks that nobody outside a private network can be reached by: never a server's business.
pub const PRIVATE: [&str; 9] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
];

/// What the names of all taps begin with.
pub const TAP_PREFIX: &str = "vm";

/// The link-local address that a network card gives itself from its hardware address (EUI-64).
pub fn link_local(mac: &str) -> Option<Ipv6Addr> {
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    let [a, b, c, d, e, f] = <[u8; 6]>::try_from(bytes).ok()?;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Some(Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        word(a ^ 2, b),
        word(c, 0xff),
        word(0xfe, d),
        word(e, f),
    ))
}

impl Filter {
    /// The whole filter, to be given to `nft -f -` as one transaction.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for family in ["bridge", "inet"] {
            // Declared first so that the deletion never fails; nft takes all of it or nothing.
            let _ = writeln!(
                out,
                "table {family} undine {{}}\ndelete table {family} undine"
            );
        }
        self.bridge_table(&mut out);
        self.inet_table(&mut out);
        out
    }

    fn bridge_table(&self, out: &mut String) {
        out.push_str("table bridge undine {\n");
        for tap in &self.taps {
            tap_chain(out, tap);
        }
        out.push_str(
            "\tchain prerouting {\n\t\ttype filter hook prerouting priority -300; policy accept;\n",
        );
        for tap in &self.taps {
            let _ = writeln!(out, "\t\tiifname \"{0}\" goto from_{0}", tap.name);
        }
        // A tap that nobody announced may send nothing.
        let _ = writeln!(out, "\t\tiifname \"{TAP_PREFIX}*\" counter drop");
        if let Some(uplink) = &self.uplink {
            let mac = &self.gateway_mac;
            let _ = writeln!(out, "\t\tiifname \"{uplink}\" ether saddr {mac} drop");
            let _ = writeln!(out, "\t\tiifname \"{uplink}\" ether daddr {mac} drop");
            self.gateway_questions(out, "iifname", uplink);
        }
        out.push_str("\t}\n");
        for hook in ["forward", "output"] {
            let _ = writeln!(
                out,
                "\tchain {hook} {{\n\t\ttype filter hook {hook} priority 0; policy accept;"
            );
            if let Some(uplink) = &self.uplink {
                let mac = &self.gateway_mac;
                let _ = writeln!(out, "\t\toifname \"{uplink}\" ether saddr {mac} drop");
                self.gateway_questions(out, "oifname", uplink);
            }
            out.push_str("\t}\n");
        }
        out.push_str("}\n");
    }

    /// Questions for the router, and claims to be it, stay on their side of the uplink.
    fn gateway_questions(&self, out: &mut String, direction: &str, uplink: &str) {
        for gateway in &self.gateways {
            let _ = match gateway {
                IpAddr::V4(ip) => writeln!(
                    out,
                    "\t\t{direction} \"{uplink}\" ether type arp arp daddr ip {ip} drop\n\
                     \t\t{direction} \"{uplink}\" ether type arp arp saddr ip {ip} drop"
                ),
                IpAddr::V6(ip) => writeln!(
                    out,
                    "\t\t{direction} \"{uplink}\" icmpv6 type {{ nd-neighbor-solicit, \
                     nd-neighbor-advert }} @th,64,128 {} drop",
                    raw(*ip)
                ),
            };
        }
        let _ = writeln!(
            out,
            "\t\t{direction} \"{uplink}\" icmpv6 type {{ nd-router-advert, nd-redirect }} drop"
        );
    }

    fn inet_table(&self, out: &mut String) {
        out.push_str("table inet undine {\n");
        self.input(out);
        self.forward(out);
        self.masquerade(out);
        out.push_str("}\n");
    }

    fn input(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\tchain input {{\n\t\ttype filter hook input priority 0; policy accept;\n\
             \t\tiifname \"{}\" goto servers_to_node\n\t}}\n\
             \tchain servers_to_node {{\n\t\tct state established,related accept",
            self.bridge
        );
        out.push_str(
            "\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept\n",
        );
        for gateway in &self.gateways {
            let (family, icmp, echo) = match gateway {
                IpAddr::V4(_) => ("ip", "icmp", "echo-request"),
                IpAddr::V6(_) => ("ip6", "icmpv6", "echo-request"),
            };
            let _ = writeln!(
                out,
                "\t\t{family} daddr {gateway} {icmp} type {echo} accept\n\
                 \t\t{family} daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept"
            );
        }
        out.push_str("\t\tcounter drop\n\t}\n");
    }

    fn forward(&self, out: &mut String) {
        let bridge = &self.bridge;
        // With br_netfilter loaded, frames between two ports of the bridge pass here as well.
        let _ = writeln!(
            out,
            "\tchain forward {{\n\t\ttype filter hook forward priority 0; policy accept;\n\
             \t\tiifname \"{bridge}\" oifname \"{bridge}\" accept\n\
             \t\tiifname \"{bridge}\" goto servers_out\n\
             \t\toifname \"{bridge}\" goto servers_in\n\t}}\n\
             \tchain servers_in {{\n\t\tct state established,related accept\n\t\tcounter drop\n\t}}\n\
             \tchain servers_out {{"
        );
        if let Some(egress) = &self.egress {
            let _ = writeln!(out, "\t\toifname != \"{egress}\" counter drop");
            for (family, nets) in [("ip", self.denied_v4()), ("ip6", self.denied_v6())] {
                if !nets.is_empty() {
                    let _ = writeln!(out, "\t\t{family} daddr {{ {nets} }} counter drop");
                }
            }
            self.smtp(out);
            for net in &self.servers {
                let _ = writeln!(out, "\t\t{} saddr {net} accept", family(net));
            }
        }
        out.push_str("\t\tcounter drop\n\t}\n");
    }

    fn smtp(&self, out: &mut String) {
        for tap in self.taps.iter().filter(|tap| tap.smtp) {
            let _ = writeln!(
                out,
                "\t\tip saddr {} tcp dport 25 accept\n\t\tip6 saddr {} tcp dport 25 accept",
                tap.ipv4, tap.ipv6
            );
        }
        out.push_str("\t\ttcp dport 25 counter drop\n");
    }

    fn masquerade(&self, out: &mut String) {
        let Some(egress) = &self.egress else { return };
        out.push_str(
            "\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n",
        );
        for net in &self.servers {
            let _ = writeln!(
                out,
                "\t\toifname \"{egress}\" {} saddr {net} masquerade",
                family(net)
            );
        }
        out.push_str("\t}\n");
    }

    fn denied_v4(&self) -> String {
        self.denied_where(|net| matches!(net, IpNet::V4(_)))
    }

    fn denied_v6(&self) -> String {
        self.denied_where(|net| matches!(net, IpNet::V6(_)))
    }

    /// The denied networks of one family with none inside another: nft refuses overlaps.
    fn denied_where(&self, wanted: fn(&IpNet) -> bool) -> String {
        let nets: Vec<IpNet> = self
            .denied
            .iter()
            .filter(|net| wanted(net))
            .copied()
            .collect();
        let nets: Vec<String> = IpNet::aggregate(&nets)
            .iter()
            .map(ToString::to_string)
            .collect();
        nets.join(", ")
    }
}

/// What one server may send, whoever it is for.
fn tap_chain(out: &mut String, tap: &Tap) {
    let Tap {
        name, mac, ipv4, ..
    } = tap;
    let own: Vec<Ipv6Addr> = std::iter::once(tap.ipv6)
        .chain(tap.ipv6_epoch)
        .chain(link_local(mac))
        .collect();
    let mut claims = String::new();
    for ip in &own {
        let _ = writeln!(
            claims,
            "\t\tether type ip6 icmpv6 type nd-neighbor-advert @th,64,128 {} accept",
            raw(*ip)
        );
    }
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    let own = own.join(", ");
    let _ = writeln!(
        out,
        "\tchain from_{name} {{\n\
         \t\tether saddr != {mac} counter drop\n\
         \t\tether type arp arp saddr ether {mac} arp saddr ip {{ {ipv4}, 0.0.0.0 }} accept\n\
         \t\tether type ip ip saddr {ipv4} accept\n\
         \t\tether type 0x8035 accept comment \"QEMU tells switches where the card is now\"\n\
         \t\tether type ip6 icmpv6 type {{ nd-router-advert, nd-redirect }} counter drop\n\
         {claims}\
         \t\tether type ip6 icmpv6 type nd-neighbor-advert counter drop\n\
         \t\tether type ip6 ip6 saddr {{ {own} }} accept\n\
         \t\tether type ip6 ip6 saddr :: icmpv6 type {{ nd-neighbor-solicit, mld2-listener-report }} accept\n\
         \t\tcounter drop\n\t}}"
    );
}

fn family(net: &IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

fn raw(ip: Ipv6Addr) -> String {
    format!("0x{:032x}", u128::from(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn filter() -> Filter {
        Filter {
            bridge: "br0".into(),
            uplink: Some("srv0".into()),
            egress: Some("out0".into()),
            gateway_mac: "02:75:6e:00:00:01".into(),
            gateways: vec![
                "10.214.0.1".parse().unwrap(),
                "fd5e:d1e0:214::1".parse().unwrap(),
            ],
            servers: vec![
                "10.214.0.0/16".parse().unwrap(),
                "fd5e:d1e0:214::/64".parse().unwrap(),
            ],
            denied: PRIVATE.iter().map(|net| net.parse().unwrap()).collect(),
            taps: vec![
                Tap {
                    name: "vm000000000001".into(),
                    mac: "02:75:6e:01:00:01".into(),
                    ipv4: "10.214.1.1".parse().unwrap(),
                    ipv6: "fd5e:d1e0:214::1:1".parse().unwrap(),
                    ipv6_epoch: "fd5e:d1e0:214:0:e00:0:701:1".parse().ok(),
                    smtp: false,
                },
                Tap {
                    name: "vm000000000002".into(),
                    mac: "02:75:6e:01:00:02".into(),
                    ipv4: "10.214.1.2".parse().unwrap(),
                    ipv6: "fd5e:d1e0:214::1:2".parse().unwrap(),
                    ipv6_epoch: None,
                    smtp: true,
                },
            ],
        }
    }

    #[test]
    fn the_filter_of_a_node_with_two_servers() {
        insta::assert_snapshot!(filter().render());
    }

    #[test]
    fn the_filter_of_a_node_without_servers_uplink_or_egress() {
        let bare = Filter {
            uplink: None,
            egress: None,
            taps: vec![],
            ..filter()
        };
        insta::assert_snapshot!(bare.render());
    }

    #[test]
    fn a_card_s_link_local_address_follows_from_its_hardware_address() {
        assert_eq!(
            link_local("02:75:6e:01:00:02"),
            "fe80::75:6eff:fe01:2".parse().ok()
        );
        assert_eq!(link_local("nonsense"), None);
    }

    #[test]
    fn a_management_network_inside_a_private_one_is_named_once() {
        let mut filter = filter();
        filter.denied.push("10.213.0.0/24".parse().unwrap());
        assert!(!filter.render().contains("10.213.0.0/24"));
    }
}
