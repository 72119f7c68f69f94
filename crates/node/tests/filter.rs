//! The real filter in real network namespaces: what a server may send, and what it may not.
//!
//! ```text
//!   a, b (servers) ── br0 in `node` ── uplink ── edge
//!                          └── egress ── world
//! ```
//!
//! Needs root, as the agent itself does.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use undine_api::internal::ClusterNetwork;
use undine_api::node::ServerNetwork;
use undine_model::ServerId;
use undine_node::net::{Interfaces, Network, tap_name};

const PATIENCE: Duration = Duration::from_millis(1500);

fn ip(args: &str) {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {error}");
}

/// The namespaces of one test; they go when it ends.
struct House {
    prefix: String,
}

impl House {
    fn build(test: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes namespaces: run it as root"
        );
        let house = Self {
            prefix: format!("ut-f{}-{test}", std::process::id()),
        };
        for room in ROOMS {
            ip(&format!("netns add {}", house.name(room)));
            ip(&format!("-n {} link set lo up", house.name(room)));
        }
        house.cable("node", "up0", "edge", "eth0");
        house.cable("node", "out0", "world", "eth0");
        for (room, number) in [("a", 1), ("b", 2)] {
            house.cable("node", &tap_name(server(number)), room, "eth0");
            let network = network(number);
            let room = house.name(room);
            ip(&format!("-n {room} link set eth0 address {}", network.mac));
            ip(&format!("-n {room} addr add {}/16 dev eth0", network.ipv4));
            ip(&format!(
                "-n {room} addr add {}/64 dev eth0 nodad",
                network.ipv6
            ));
            ip(&format!(
                "-n {room} addr add {}/64 dev eth0 nodad preferred_lft 0",
                network.ipv6_epoch.unwrap()
            ));
            ip(&format!("-n {room} link set eth0 up"));
            ip(&format!("-n {room} route add default via 10.214.0.1"));
            ip(&format!("-n {room} route add default via fd5e:d1e0:214::1"));
        }
        for (room, interface, address) in [
            ("edge", "eth0", "10.214.0.2/16"),
            ("edge", "eth0", "fd5e:d1e0:214::2/64"),
            ("world", "eth0", "192.0.2.1/24"),
            ("world", "eth0", "2001:db8::1/64"),
            // A management network that the world would lead to.
            ("world", "lo", "10.213.0.1/24"),
            ("node", "out0", "192.0.2.9/24"),
            ("node", "out0", "2001:db8::9/64"),
            ("node", "lo", "10.213.0.11/32"),
        ] {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            let room = house.name(room);
            ip(&format!(
                "-n {room} addr add {address} dev {interface} {nodad}"
            ));
            ip(&format!("-n {room} link set {interface} up"));
        }
        ip(&format!(
            "-n {} route add 10.213.0.0/24 via 192.0.2.1",
            house.name("node")
        ));
        house
    }

    fn name(&self, room: &str) -> String {
        format!("{}-{room}", self.prefix)
    }

    fn cable(&self, near: &str, near_end: &str, far: &str, far_end: &str) {
        let (near, far) = (self.name(near), self.name(far));
        ip(&format!(
            "-n {near} link add {near_end} type veth peer name {far_end} netns {far}"
        ));
    }

    /// Runs something inside of a room.
    fn inside<T: Send + 'static>(
        &self,
        room: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let path = format!("/run/netns/{}", self.name(room));
        // A thread of its own: it never comes back into our namespace.
        let thread = std::thread::spawn(move || {
            let room = File::open(path).unwrap();
            move_into_link_name_space(room.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// Greets whoever connects.
    fn listen(&self, room: &str, address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.inside(room, move || TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let from = stream.peer_addr().unwrap().ip().to_string();
                let _ = stream.write_all(from.as_bytes());
            }
        });
    }

    /// Connects and tells as whom the other side saw us; none when nobody answered.
    fn reach(&self, room: &str, address: &str) -> Option<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(room, move || {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut seen = String::new();
            stream.read_to_string(&mut seen).ok()?;
            Some(seen)
        })
    }
}

const ROOMS: [&str; 5] = ["node", "a", "b", "edge", "world"];

impl Drop for House {
    fn drop(&mut self) {
        for room in ROOMS {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(room)])
                .status();
        }
    }
}

fn server(number: u8) -> ServerId {
    ServerId::from_parts(1, [number; 10])
}

fn stable(number: u8) -> Ipv6Addr {
    format!("fd5e:d1e0:214::1:{number}").parse().unwrap()
}

fn of_epoch(number: u8, epoch: u64) -> Ipv6Addr {
    undine_model::epoch_address(stable(number), epoch).unwrap()
}

fn network(number: u8) -> ServerNetwork {
    ServerNetwork {
        mac: format!("02:75:6e:01:00:{number:02x}"),
        ipv4: std::net::Ipv4Addr::new(10, 214, 1, number),
        ipv4_prefix: 16,
        ipv6: stable(number),
        ipv6_prefix: 64,
        ipv6_epoch: Some(of_epoch(number, 1)),
        gateways: vec![],
        resolvers: vec![],
        smtp: number == 2,
    }
}

/// Sets the node's network up as the agent does, and plugs the stand-ins of taps in.
fn set_up(house: &House, networks: [ServerNetwork; 2]) {
    let cluster = ClusterNetwork {
        management: vec!["10.213.0.0/24".into()],
        servers_ipv4: "10.214.0.0/16".into(),
        servers_ipv6: "fd5e:d1e0:214::/64".into(),
        gateways: vec![
            "10.214.0.1".parse().unwrap(),
            "fd5e:d1e0:214::1".parse().unwrap(),
        ],
        gateway_mac: "02:75:6e:00:00:01".into(),
        edges: vec!["10.214.0.2".parse().unwrap()],
    };
    house.inside("node", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let interfaces = Interfaces {
                uplink: Some("up0".into()),
                egress: Some("out0".into()),
                denied: vec![],
            };
            let [one, two] = networks;
            let known = [(server(1), one), (server(2), two)];
            Network::set_up(&cluster, &interfaces, &known)
                .await
                .unwrap();
            // Again: an agent that starts anew finds all of it there.
            Network::set_up(&cluster, &interfaces, &known)
                .await
                .unwrap();
        });
    });
    for number in [1, 2] {
        let tap = tap_name(server(number));
        ip(&format!(
            "-n {} link set {tap} master br0 up",
            house.name("node")
        ));
    }
}

#[test]
fn a_server_reaches_the_world_and_its_visitors_and_nothing_else() {
    let house = House::build("all");
    set_up(&house, [network(1), network(2)]);
    for (room, address) in [
        ("world", "192.0.2.1:80"),
        ("world", "[2001:db8::1]:80"),
        ("world", "192.0.2.1:25"),
        ("world", "10.213.0.1:7200"),
        ("node", "0.0.0.0:7300"),
        ("node", "10.214.0.1:53"),
        ("b", "10.214.1.2:80"),
        ("a", "10.214.1.1:80"),
        ("edge", "10.214.0.2:80"),
    ] {
        house.listen(room, address);
    }
    let node = Some("192.0.2.9".to_owned());

    // Out of the house, as the node.
    assert_eq!(house.reach("a", "192.0.2.1:80"), node);
    assert_eq!(
        house.reach("a", "[2001:db8::1]:80"),
        Some("2001:db8::9".to_owned())
    );
    // Mail only where it is allowed.
    assert_eq!(house.reach("a", "192.0.2.1:25"), None);
    assert_eq!(house.reach("b", "192.0.2.1:25"), node);
    // Neither control nor the node, by whichever of its addresses; its name service is there.
    assert_eq!(house.reach("a", "10.213.0.1:7200"), None);
    for address in ["10.213.0.11:7300", "192.0.2.9:7300", "10.214.0.1:7300"] {
        assert_eq!(house.reach("a", address), None, "{address}");
    }
    assert!(house.reach("a", "10.214.0.1:53").is_some());
    // Visitors come in by the edges.
    assert_eq!(
        house.reach("edge", "10.214.1.1:80"),
        Some("10.214.0.2".to_owned())
    );
    // The router's address is every node's own affair: it does not cross the uplink.
    assert_eq!(house.reach("edge", "10.214.0.1:53"), None);
    // The world does not come in by itself.
    ip(&format!(
        "-n {} route add 10.214.0.0/16 via 192.0.2.9",
        house.name("world")
    ));
    assert_eq!(house.reach("world", "10.214.1.1:80"), None);

    // As somebody else: another address, another card.
    let a = house.name("a");
    assert_eq!(
        house.reach("a", "10.214.1.2:80"),
        Some("10.214.1.1".to_owned())
    );
    ip(&format!("-n {a} addr del 10.214.1.1/16 dev eth0"));
    ip(&format!("-n {a} addr add 10.214.1.77/16 dev eth0"));
    assert_eq!(house.reach("a", "10.214.1.2:80"), None);
    ip(&format!("-n {a} addr del 10.214.1.77/16 dev eth0"));
    ip(&format!("-n {a} addr add 10.214.1.1/16 dev eth0"));
    assert!(house.reach("a", "10.214.1.2:80").is_some());
    ip(&format!("-n {a} link set eth0 address 02:75:6e:01:00:63"));
    assert_eq!(house.reach("a", "10.214.1.2:80"), None);
}

#[test]
fn an_owner_of_an_earlier_epoch_answers_by_no_later_one_s_address_and_not_by_its_own_again() {
    let house = House::build("ep");
    set_up(&house, [network(1), network(2)]);
    house.listen("a", "[::]:80");
    let reach = |epoch| {
        let address = format!("[{}]:80", of_epoch(1, epoch));
        house.reach("edge", &address)
    };
    let edge = Some("fd5e:d1e0:214::2".to_owned());
    assert_eq!(reach(1), edge);
    // It gives itself the next epoch's address: the tap does not let it.
    let a = house.name("a");
    let next = of_epoch(1, 2);
    ip(&format!("-n {a} addr add {next}/64 dev eth0 nodad"));
    assert_eq!(reach(2), None);
    // The node learns that the epoch has risen: now that address is right and the old one is not.
    let risen = ServerNetwork {
        ipv6_epoch: Some(next),
        ..network(1)
    };
    set_up(&house, [risen, network(2)]);
    ip(&format!("-n {} neigh flush all", house.name("edge")));
    assert_eq!(reach(2), edge);
    assert_eq!(reach(1), None);
    // Nor may it take the address that another server has in its epoch.
    let other = of_epoch(2, 1);
    ip(&format!("-n {a} addr add {other}/64 dev eth0 nodad"));
    ip(&format!("-n {} link set eth0 down", house.name("b")));
    assert_eq!(house.reach("edge", &format!("[{other}]:80")), None);
}
