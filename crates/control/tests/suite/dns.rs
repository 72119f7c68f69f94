//! What DNS says of sites: asked of a real name server on loopback, whose records change.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use undine_model::Bytes;
use undine_store::Db;

use crate::panel::owner;
use crate::world::World;

/// Debian's unbound with a zone of its own; dropped, it ends.
struct NameServer {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl NameServer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let at = folder.path().display();
        let config = format!(
            "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n username: \"\"\n \
             chroot: \"\"\n directory: \"{at}\"\n pidfile: \"{at}/pid\"\n use-syslog: no\n \
             logfile: \"{at}/log\"\n module-config: \"iterator\"\n \
             local-zone: \"example.com.\" static\nremote-control:\n control-enable: yes\n \
             control-interface: \"{at}/control\"\n control-use-cert: no\n"
        );
        std::fs::write(folder.path().join("unbound.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/unbound")
            .args(["-d", "-c"])
            .arg(folder.path().join("unbound.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unbound, from Debian's package of that name");
        let this = Self {
            folder,
            port,
            child,
        };
        for _ in 0..200 {
            if this.try_control(&["status"]) {
                return this;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("unbound does not come up");
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("unbound.conf")
    }

    fn try_control(&self, words: &[&str]) -> bool {
        Command::new("/usr/sbin/unbound-control")
            .arg("-c")
            .arg(self.config())
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn says(&self, record: &str) {
        let words: Vec<&str> = record.split(' ').collect();
        assert!(self.try_control(&[&["local_data"], words.as_slice()].concat()));
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn with_site(server: &NameServer) -> (World, undine_testkit::node::FakeNode, String) {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let wish = json!({
        "addresses": ["192.0.2.1", "192.0.2.2", "2001:db8::1"],
        "name_servers": [format!("127.0.0.1:{}", server.port)],
    });
    let set = world.change("PATCH", "/v1/settings/dns", Some(wish)).await;
    set.expect(200);
    let site = world
        .site("one.example.com", &account, "web-1", "php")
        .await;
    let aliases = json!({"aliases": ["www.one.example.com"]});
    let path = format!("/v1/sites/{site}");
    let changed = world.change("PATCH", &path, Some(aliases)).await;
    world.done(&changed.expect(202)).await;
    (world, node, site)
}

/// Asks until the first name is in this state: what was just looked up is not looked up again.
async fn becomes(world: &World, site: &str, state: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..100 {
        last = world
            .get(&format!("/v1/sites/{site}/dns"))
            .await
            .expect(200)
            .body;
        if last["names"][0]["state"] == state {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("never {state}: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_dns_is_told_as_it_changes() {
    let server = NameServer::start();
    let (world, _node, site) = with_site(&server).await;
    let told = becomes(&world, &site, "missing").await;
    let records = told["records"].as_array().unwrap();
    assert_eq!(records.len(), 6, "{told}");
    assert_eq!(
        records[2],
        json!({"name": "one.example.com", "kind": "AAAA", "value": "2001:db8::1"})
    );
    server.says("one.example.com A 192.0.2.1");
    let told = becomes(&world, &site, "here").await;
    assert_eq!(
        told["names"][0]["missing"],
        json!(["192.0.2.2", "2001:db8::1"])
    );
    assert_eq!(told["names"][1]["state"], "missing", "the other name");
    server.says("one.example.com AAAA 2001:db8::bad");
    let told = becomes(&world, &site, "partly").await;
    assert_eq!(
        told["names"][0]["found"],
        json!(["192.0.2.1", "2001:db8::bad"])
    );
    drop(server);
    let told = becomes(&world, &site, "unknown").await;
    assert!(told["names"][0]["detail"].is_string(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_s_page_shows_it_without_scripts_and_is_told_of_a_change() {
    let server = NameServer::start();
    server.says("one.example.com A 198.51.100.7");
    let (world, _node, site) = with_site(&server).await;
    let mut owner = owner(&world).await;
    let path = format!("/sites/{site}");
    let mut text = String::new();
    for _ in 0..20 {
        text = owner.get(&path).await.text;
        if text.contains(">leads elsewhere<") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(text.contains(">leads elsewhere<"), "{text}");
    assert!(text.contains("It says 198.51.100.7."));
    assert!(text.contains("one.example.com. A 192.0.2.1"), "{text}");

    assert!(server.try_control(&["local_data_remove", "one.example.com"]));
    for record in ["A 192.0.2.1", "A 192.0.2.2", "AAAA 2001:db8::1"] {
        server.says(&format!("one.example.com {record}"));
    }
    let events = world.instances[0].control.store.events();
    let before = events.newest().await.unwrap();
    for _ in 0..200 {
        // An open page reads itself again; that is what has it looked up.
        text = owner.get(&path).await.text;
        if text.contains(">leads here<") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(text.contains(">leads here<"), "{text}");
    let told = events.after(before, None, 500).await.unwrap();
    assert!(
        told.iter().any(|it| it.event.kind == "site.dns"),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_dns_that_cannot_be_are_refused_with_their_field() {
    let world = World::new().await;
    for (wish, field) in [
        (json!({"name_servers": ["dns.example.com"]}), "name_servers"),
        (json!({"addresses": ["0.0.0.0"]}), "addresses"),
        (json!({"addresses": vec!["192.0.2.1"; 21]}), "addresses"),
    ] {
        let refused = world.change("PATCH", "/v1/settings/dns", Some(wish)).await;
        assert_eq!(refused.expect(422).text("/field"), field);
    }
    let mut owner = owner(&world).await;
    let fields = |addresses: &'static str| {
        [
            ("version", "0"),
            ("addresses", addresses),
            ("servers", "9.9.9.9\n[2001:db8::1]:5353"),
        ]
    };
    let bad = owner.post("/settings/dns", &fields("<b>")).await;
    assert_eq!(bad.status, 422);
    assert!(bad.text.contains("&#60;b&#62;") && bad.text.contains("9.9.9.9"));
    let good = owner.post("/settings/dns", &fields("192.0.2.1")).await;
    assert_eq!(good.status, 303, "{good:?}");
    let kept = world.get("/v1/settings/dns").await.expect(200);
    assert_eq!(kept.body["wanted"], json!(["192.0.2.1"]));
    assert_eq!(
        kept.body["name_servers"],
        json!(["9.9.9.9", "[2001:db8::1]:5353"])
    );
}
