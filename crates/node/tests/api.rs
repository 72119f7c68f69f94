//! The node's API as callers see it: who is refused, and what bad requests are told.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;
use undine_api::internal::Role;
use undine_link::{ControlClient, Credentials, Identity, Peer};
use undine_model::NodeId;
use undine_node::agent::Agent;
use undine_node::api::{ENDPOINTS, router};
use undine_node::blobs::Blobs;
use undine_node::cgroup::{Cgroup, Mounts};
use undine_node::guard_file::GuardFile;
use undine_node::host::{Choice, Host, STORAGE_DAEMON};
use undine_node::images::Images;
use undine_node::replicas::{self, Replicas};
use undine_node::report::Changed;
use undine_node::server::Ground;
use undine_node::settings::Declared;
use undine_node::spares::Spares;
use undine_node::templates::Templates;
use undine_node::terms::Terms;
use undine_node::uids::Uids;

const SERVER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A node that holds nothing, on a folder of its own.
async fn node() -> (TempDir, Router) {
    undine_link::install_crypto();
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().to_owned();
    let uids = Arc::new(Uids::open(&state_dir, 70_000, 10).unwrap());
    let cgroup = Cgroup::new(Mounts::V2(state_dir.join("cgroup")), "undine/test");
    let nobody = Credentials {
        key: String::new(),
        certificate: String::new(),
        ca: String::new(),
    };
    let control = ControlClient::new(nobody, &[]).unwrap();
    let source = Arc::new(Blobs::new(control));
    let images = Arc::new(Images::open(state_dir.join("images"), source).unwrap());
    let changed = Changed::default();
    let address = "127.0.0.1:1".parse().unwrap();
    let replicas = Replicas::open(replicas::Ground {
        state_dir: state_dir.clone(),
        run_dir: state_dir.join("run"),
        uids: uids.clone(),
        cgroup: cgroup.clone(),
        address,
        first_port: 1,
        changed: changed.clone(),
        storage_daemon: STORAGE_DAEMON.into(),
    })
    .await
    .unwrap();
    let run_dir = state_dir.join("run");
    let spares = Spares::open(&run_dir, uids.clone(), &cgroup, 0)
        .await
        .unwrap();
    let templates = Templates::open(
        state_dir.join("templates"),
        run_dir.clone(),
        uids.clone(),
        cgroup.clone(),
    );
    let ground = Ground {
        node: NodeId::from_parts(1, [1; 10]),
        address,
        edges: vec![],
        host: Host::open(&state_dir, Choice::Probe).await.unwrap(),
        state_dir,
        run_dir,
        cgroup,
        uids,
        images,
        replicas,
        templates: templates.unwrap(),
        spares,
        network: None,
        guarded: GuardFile::open(dir.path()),
        terms: Terms::open(dir.path()).unwrap(),
        changed,
    };
    (
        dir,
        router(Agent::new(Arc::new(ground), Declared::default())),
    )
}

fn peer(role: Option<Role>) -> Peer {
    let identity = role.map(|role| Identity {
        role,
        id: "x".into(),
    });
    Peer {
        identity,
        address: "127.0.0.1:9".parse().unwrap(),
    }
}

async fn call(
    router: &Router,
    peer: Option<Peer>,
    method: &str,
    path: &str,
    body: impl Into<Body>,
) -> (StatusCode, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(ConnectInfo(peer));
    }
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn of_term(router: &Router, term: u64, method: &str, path: &str) -> (u16, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(undine_api::node::TERM_HEADER, term)
        .body(Body::empty())
        .unwrap();
    let control = ConnectInfo(peer(Some(Role::Control)));
    request.extensions_mut().insert(control);
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn an_order_of_an_earlier_life_of_control_s_store_is_refused_after_a_later_question() {
    let (_dir, router) = node().await;
    let order = format!("/node/v1/replicas/{SERVER}?epoch=1");
    let (status, _) = of_term(&router, 4, "DELETE", &order).await;
    assert_eq!(status, 204);
    let (status, said) = of_term(&router, 9, "GET", "/node/v1/status").await;
    assert_eq!((status, &said["term"]), (200, &json!(9)));
    let (status, problem) = of_term(&router, 4, "DELETE", &order).await;
    assert_eq!(status, 409);
    assert_eq!(problem["type"], undine_api::node::OLD_TERM, "{problem}");
    // A question of an earlier life harms nobody, and is told what has been heard.
    let (status, said) = of_term(&router, 4, "GET", "/node/v1/status").await;
    assert_eq!((status, &said["term"]), (200, &json!(9)));
    assert_eq!(of_term(&router, 9, "DELETE", &order).await.0, 204);
}

async fn as_control(router: &Router, method: &str, path: &str, body: Value) -> (u16, Value) {
    let control = Some(peer(Some(Role::Control)));
    let (status, answer) = call(router, control, method, path, body.to_string()).await;
    (status.as_u16(), answer)
}

#[tokio::test]
async fn every_endpoint_refuses_everybody_but_control() {
    let (_dir, router) = node().await;
    let strangers = [
        None,
        Some(peer(None)),
        Some(peer(Some(Role::Node))),
        Some(peer(Some(Role::Guard))),
        Some(peer(Some(Role::Edge))),
    ];
    for (method, path) in ENDPOINTS {
        let path = path
            .replace("{server}", SERVER)
            .replace("{replica}", SERVER)
            .replace("{hash}", &"a".repeat(64));
        for stranger in &strangers {
            let (status, answer) = call(&router, stranger.clone(), method, &path, "{}").await;
            assert_eq!(
                status,
                StatusCode::FORBIDDEN,
                "{method} {path} {stranger:?}"
            );
            assert_eq!(answer["type"], "control-only");
        }
        // Control gets past the door: whatever is wrong now, it is not who asks.
        let control = Some(peer(Some(Role::Control)));
        let (status, _) = call(&router, control, method, &path, "{}").await;
        assert_ne!(status, StatusCode::FORBIDDEN, "{method} {path}");
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
    }
}

#[tokio::test]
async fn templates_are_served_to_other_nodes_alone_and_by_range() {
    use undine_qemu::accel::Accel;
    use undine_qemu::command::Shape;
    use undine_qemu::template::{TemplateKey, TemplateStore};

    let (dir, router) = node().await;
    let store = TemplateStore::open(dir.path().join("templates")).unwrap();
    let key = TemplateKey {
        image_hash: "a".repeat(64),
        shape: Shape {
            memory_mib: 256,
            vcpus: 1,
            machine: "pc-q35-10.0".into(),
            cpu: "qemu64".into(),
            accel: Accel::Tcg,
            tb_size_mib: 64,
        },
        qemu_version: "10".into(),
    };
    std::fs::write(store.incoming(&key), "0123456789").unwrap();
    store.arrived(key.clone(), "elsewhere").unwrap();
    let path = format!("/node/v1/templates/{}", key.file_name());
    for stranger in [
        None,
        Some(Role::Control),
        Some(Role::Guard),
        Some(Role::Edge),
    ] {
        let stranger = stranger.map(|role| peer(Some(role)));
        let (status, answer) = call(&router, stranger, "GET", &path, "").await;
        assert_eq!(
            (status.as_u16(), &answer["type"]),
            (403, &json!("nodes-only"))
        );
    }
    let get = async |path: &str, range: &str| {
        let mut request = Request::builder()
            .uri(path)
            .header("range", range)
            .body(Body::empty())
            .unwrap();
        let node = peer(Some(Role::Node));
        request.extensions_mut().insert(ConnectInfo(node));
        let response = router.clone().oneshot(request).await.unwrap();
        let hash = response.headers().get("undine-template-sha256").cloned();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        (status, hash, body)
    };
    let (status, hash, body) = get(&path, "bytes=4-").await;
    assert_eq!((status, body.as_ref()), (206, b"456789".as_slice()));
    assert_eq!(
        hash.unwrap(),
        "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    );
    assert_eq!(get(&path, "bytes=11-").await.0, 416);
    assert_eq!(get("/node/v1/templates/nothing", "bytes=0-").await.0, 404);
}

#[tokio::test]
async fn a_template_of_an_image_that_is_not_here_is_told_as_absent() {
    let (_dir, router) = node().await;
    let wish = json!({
        "image_hash": "a".repeat(64), "memory": 512 << 20, "vcpus": 1,
        "machine": "pc-q35-10.0", "cpu_model": "qemu64",
    });
    let (status, answer) = as_control(&router, "PUT", "/node/v1/templates", wish).await;
    assert_eq!((status, &answer["state"]), (200, &json!("absent")));
    assert!(answer["error"].as_str().unwrap().contains("image"));
}

#[tokio::test]
async fn strangers_do_not_even_learn_which_paths_there_are() {
    let (_dir, router) = node().await;
    let (status, _) = call(&router, Some(peer(Some(Role::Edge))), "GET", "/nothing", "").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, answer) = as_control(&router, "GET", "/nothing", Value::Null).await;
    assert_eq!((status, &answer["type"]), (404, &json!("no-endpoint")));
}

#[tokio::test]
async fn a_fresh_node_tells_what_it_is_and_that_it_runs_nothing() {
    let (_dir, router) = node().await;
    let (status, answer) = as_control(&router, "GET", "/node/v1/status", Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(answer["servers"], json!([]));
    assert!(answer["inventory"]["cpu"].as_u64().unwrap() > 0);
    assert!(
        answer["inventory"]["qemu"]
            .as_str()
            .unwrap()
            .starts_with(char::is_numeric)
    );
}

#[tokio::test]
async fn what_is_not_here_is_told_as_such() {
    let (_dir, router) = node().await;
    for (method, path, body, status, kind) in [
        (
            "GET",
            format!("/node/v1/servers/{SERVER}"),
            Value::Null,
            404,
            "server-absent",
        ),
        (
            "GET",
            "/node/v1/servers/nonsense".into(),
            Value::Null,
            404,
            "no-server",
        ),
        (
            "POST",
            format!("/node/v1/servers/{SERVER}/stop"),
            json!({"epoch": 1, "grace_s": 1}),
            404,
            "server-absent",
        ),
        (
            "POST",
            format!("/node/v1/servers/{SERVER}/guest"),
            json!({"epoch": 1, "ask": {"ask": "health"}}),
            404,
            "server-absent",
        ),
        (
            "POST",
            format!("/node/v1/servers/{SERVER}/guest"),
            json!({"epoch": 1, "ask": {"ask": "shutdown"}}),
            422,
            "node-asks-this",
        ),
        (
            "POST",
            format!("/node/v1/servers/{SERVER}/guest"),
            json!({"epoch": 1, "ask": {"ask": "sell"}}),
            422,
            "unreadable",
        ),
        (
            "POST",
            format!("/node/v1/servers/{SERVER}/releases?epoch=1"),
            Value::Null,
            422,
            "upload-undescribed",
        ),
        (
            "POST",
            format!("/node/v1/servers/{SERVER}/releases"),
            Value::Null,
            422,
            "no-epoch",
        ),
        (
            "DELETE",
            format!("/node/v1/servers/{SERVER}"),
            Value::Null,
            422,
            "no-epoch",
        ),
    ] {
        let (found, answer) = as_control(&router, method, &path, body).await;
        assert_eq!(
            (found, &answer["type"]),
            (status, &json!(kind)),
            "{method} {path} {answer}"
        );
    }
    // Removing what is not there is what was wanted.
    for path in ["servers", "replicas"] {
        let path = format!("/node/v1/{path}/{SERVER}?epoch=1");
        let (found, answer) = as_control(&router, "DELETE", &path, Value::Null).await;
        assert_eq!(found, 204, "{answer}");
    }
}

#[tokio::test]
async fn a_missing_replica_is_lost_and_never_made_up() {
    let (_dir, router) = node().await;
    let spec = json!({
        "replica": "01890a5d-ac96-774b-bcce-b302099a8058",
        "epoch": 3,
        "size": 1 << 30,
        "create": false,
    });
    let path = format!("/node/v1/replicas/{SERVER}");
    let (status, answer) = as_control(&router, "PUT", &path, spec).await;
    assert_eq!(
        (status, &answer["state"]),
        (200, &json!("lost")),
        "{answer}"
    );
}

#[tokio::test]
async fn an_oversized_request_is_refused_by_its_size() {
    let (_dir, router) = node().await;
    let path = format!("/node/v1/servers/{SERVER}/guest");
    let control = Some(peer(Some(Role::Control)));
    let large = format!("{{\"x\": \"{}\"}}", "a".repeat(21 << 20));
    let (status, answer) = call(&router, control, "POST", &path, large).await;
    assert_eq!(
        (status.as_u16(), &answer["type"]),
        (413, &json!("too-large"))
    );
}

#[tokio::test]
async fn a_server_without_its_image_does_not_start() {
    let (_dir, router) = node().await;
    let file = json!({"file": "f", "sha256": "b".repeat(64), "size": 1});
    let slice = json!({
        "epoch": 1, "name": "web-1", "memory": 1 << 29, "vcpus": 1, "cpu": 1000,
        "machine": "pc-q35-10.0", "cpu_model": "qemu64", "template": false,
        "machine_id": "0".repeat(32), "replicas": [], "blank": true,
        "image": {
            "name": "debian12-web", "release": "bookworm", "hash": "a".repeat(64),
            "files": {"root": file, "kernel": file, "initrd": file},
            "cmdline": "", "data_format": 1,
        },
        "network": {
            "mac": "02:75:6e:01:00:01", "ipv4": "10.214.1.1", "ipv4_prefix": 16,
            "ipv6": "fd5e:d1e0:214::1:1", "ipv6_prefix": 64,
            "gateways": [], "resolvers": [], "smtp": false,
        },
        "manifest": {
            "format": 1, "version": 1, "server": SERVER, "sites": [], "databases": [],
            "profile": {
                "name": "static", "title": "t", "image": "debian12-web", "memory": 1,
                "vcpus": 1, "cpu": 1, "disk": 1, "services": [], "runtimes": {},
            },
        },
    });
    let path = format!("/node/v1/servers/{SERVER}");
    let (status, answer) = as_control(&router, "PUT", &path, slice).await;
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("image-absent")),
        "{answer}"
    );
    let (_, answer) = as_control(&router, "GET", &path, Value::Null).await;
    assert_eq!(answer["phase"], "absent");
}
