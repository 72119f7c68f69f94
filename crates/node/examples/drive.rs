//! Drives one agent by hand, without a cluster: a stand-in for control.
//!
//! ```text
//! drive init DIR CONTROL NODE      both IP:PORT; a cluster CA, and a node's state folder in DIR/node
//! drive serve DIR IP:PORT IMAGE   takes reports and leases, serves the image's files
//! drive call DIR METHOD PATH [FILE]   one call to the node as control; FILE is the body
//! drive upload DIR PATH UPLOAD FILE   streams FILE with the description UPLOAD (JSON)
//! drive start DIR IMAGE PROFILES PROFILE N [template]   image, replica, start, and waits
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use undine_api::internal::{ClusterNetwork, LeaseAnswer, LeaseRequest, Role};
use undine_api::node::{
    FetchImage, ImageManifest, ImageStatus, Phase, ReplicaSpec, ReplicaStatus, ReplicaTarget,
    ServerNetwork, ServerStatus, StartSpec, UPLOAD_HEADER,
};
use undine_link::{Authority, Credentials, Identity, Method, PeerClient};
use undine_manifest::Manifest;
use undine_model::{Bytes, MilliCpu, NodeId, ReplicaId, ServerId};
use undine_node::settings::{Declared, Settings, guard_folder, identity_folder};

const SOON: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    undine_link::install_crypto();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["init", dir, control, node] => init(Path::new(dir), control.parse()?, node.parse()?),
        ["serve", dir, listen, image] => {
            serve(Path::new(dir), listen.parse()?, PathBuf::from(image)).await
        }
        ["call", dir, method, path, body @ ..] => {
            let body = body.first().map(std::fs::read).transpose()?;
            let request = client(Path::new(dir))?.request(method.parse()?, path);
            let request = match body {
                Some(body) => request
                    .header("content-type", "application/json")
                    .body(body),
                None => request,
            };
            print(request).await
        }
        [
            "start",
            dir,
            image,
            profiles,
            profile,
            number,
            template @ ..,
        ] => {
            let wish = Wish {
                image: PathBuf::from(image),
                profiles: PathBuf::from(profiles),
                profile: (*profile).to_owned(),
                number: number.parse()?,
                template: !template.is_empty(),
            };
            start(Path::new(dir), &wish).await
        }
        ["upload", dir, path, upload, file] => {
            let request = client(Path::new(dir))?
                .request(Method::POST, path)
                .header(UPLOAD_HEADER, *upload)
                .body(std::fs::read(file)?);
            print(request).await
        }
        _ => anyhow::bail!("see the head of examples/drive.rs"),
    }
}

fn init(dir: &Path, control: SocketAddr, node: SocketAddr) -> anyhow::Result<()> {
    let now = time::OffsetDateTime::now_utc();
    let (authority, _) = Authority::create("drive", now)?;
    let id = NodeId::from_parts(1_700_000_000_000, rand::random());
    let state = dir.join("node");
    for (role, id, folder) in [
        (Role::Control, "one".to_owned(), dir.join("control")),
        (Role::Node, id.to_string(), identity_folder(&state)),
        (Role::Guard, id.to_string(), guard_folder(&state)),
    ] {
        let (key, csr) = undine_link::csr()?;
        let certificate = authority.issue(&csr, &Identity { role, id }, now)?;
        let ca = authority.certificate_pem().to_owned();
        Credentials {
            key,
            certificate,
            ca,
        }
        .save(&folder)?;
    }
    Settings {
        node: id,
        name: "drive".parse()?,
        address: node,
        control: vec![control],
        network: ClusterNetwork {
            management: vec!["10.213.0.0/24".into()],
            servers_ipv4: "10.214.0.0/16".into(),
            servers_ipv6: "fd5e:d1e0:214::/64".into(),
            gateways: vec!["10.214.0.1".parse()?, "fd5e:d1e0:214::1".parse()?],
            gateway_mac: "02:75:6e:00:00:01".into(),
            edges: vec!["10.214.0.2".parse()?],
        },
        declared: Declared::default(),
        server_uplink: None,
        egress_interface: None,
    }
    .save(&state)?;
    println!("{id}");
    Ok(())
}

fn client(dir: &Path) -> anyhow::Result<PeerClient> {
    let settings = Settings::load(&dir.join("node"))?.context("run init first")?;
    let credentials = Credentials::load(&dir.join("control"))?;
    let id = settings.node.to_string();
    Ok(PeerClient::new(
        &credentials,
        Role::Node,
        &id,
        settings.address,
    )?)
}

struct Wish {
    image: PathBuf,
    profiles: PathBuf,
    profile: String,
    number: u8,
    template: bool,
}

/// What control's operation does, step by step.
async fn start(dir: &Path, wish: &Wish) -> anyhow::Result<()> {
    let settings = Settings::load(&dir.join("node"))?.context("run init first")?;
    let client = client(dir)?;
    let mut image: Value = serde_json::from_slice(&std::fs::read(wish.image.join("image.json"))?)?;
    image["packages"] = json!([]);
    let image: ImageManifest = serde_json::from_value(image)?;
    let fetch = FetchImage {
        manifest: image.clone(),
        sources: vec![format!("https://{}/internal/v1/blobs", settings.control[0])],
    };
    let path = format!("/node/v1/images/{}", image.hash);
    loop {
        let status: ImageStatus = client.call(Method::PUT, &path, Some(&fetch), SOON).await?;
        if status.present {
            break;
        }
        eprintln!(
            "image {} of {} {:?}",
            status.have, status.total, status.error
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let server = ServerId::from_parts(1_700_000_000_000, [wish.number; 10]);
    let spec = ReplicaSpec {
        replica: ReplicaId::from_parts(1_700_000_000_000, [wish.number; 10]),
        epoch: 1,
        size: Bytes::gib(2),
        create: true,
        accept_stale: true,
        remote: false,
        resync: false,
        tls: false,
        committed: None,
    };
    let path = format!("/node/v1/replicas/{server}");
    let replica: ReplicaStatus = client.call(Method::PUT, &path, Some(&spec), SOON).await?;
    let spec = start_spec(&settings, wish, image, server, &replica)?;
    let path = format!("/node/v1/servers/{server}");
    let begin = std::time::Instant::now();
    let mut status: ServerStatus = client.call(Method::PUT, &path, Some(&spec), SOON).await?;
    while matches!(status.phase, Phase::Booting | Phase::Configuring) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        status = client.call(Method::GET, &path, None::<&()>, SOON).await?;
    }
    println!("{}", serde_json::to_string_pretty(&status)?);
    eprintln!(
        "{server} {:?} after {:.2} s",
        status.phase,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

fn start_spec(
    settings: &Settings,
    wish: &Wish,
    image: ImageManifest,
    server: ServerId,
    replica: &ReplicaStatus,
) -> anyhow::Result<StartSpec> {
    let mut files = BTreeMap::new();
    read_below(&wish.profiles, &wish.profiles, &mut files)?;
    let profile = undine_manifest::load::profiles(&files)?
        .into_iter()
        .find(|profile| profile.name.as_str() == wish.profile)
        .context("no such profile")?;
    let number = wish.number;
    let node = settings.node;
    Ok(StartSpec {
        epoch: 1,
        version: 0,
        name: format!("server-{number}"),
        image,
        memory: profile.memory,
        vcpus: profile.vcpus,
        cpu: MilliCpu(profile.vcpus * 1000),
        machine: "pc-q35-10.0".into(),
        cpu_model: "qemu64".into(),
        template: wish.template,
        network: ServerNetwork {
            mac: format!("02:75:6e:01:00:{number:02x}"),
            ipv4: std::net::Ipv4Addr::new(10, 214, 1, number),
            ipv4_prefix: 16,
            ipv6: format!("fd5e:d1e0:214::1:{number:x}").parse()?,
            ipv6_epoch: None,
            ipv6_prefix: 64,
            gateways: settings.network.gateways.clone(),
            resolvers: settings.network.gateways.clone(),
            smtp: false,
        },
        machine_id: format!("{number:032x}"),
        replicas: vec![ReplicaTarget {
            node,
            replica: replica.replica,
            export: replica.export.clone().context("the replica is not open")?,
            address: None,
            key: None,
        }],
        slots: 1,
        blank: true,
        manifest: Manifest {
            format: 1,
            version: 1,
            server,
            profile,
            sites: vec![],
            databases: vec![],
        },
    })
}

fn read_below(root: &Path, at: &Path, files: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(at)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_below(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            files.insert(name, std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

async fn print(request: reqwest::RequestBuilder) -> anyhow::Result<()> {
    let response = request.timeout(Duration::from_secs(900)).send().await?;
    eprintln!("{}", response.status());
    println!("{}", response.text().await?);
    Ok(())
}

async fn serve(dir: &Path, listen: SocketAddr, image: PathBuf) -> anyhow::Result<()> {
    let credentials = Credentials::load(&dir.join("control"))?;
    let router = Router::new()
        .route("/internal/v1/nodes/report", post(report))
        .route("/internal/v1/lease", post(lease))
        .route("/internal/v1/blobs/{sha256}", get(blob))
        .with_state(image);
    undine_link::serve(
        TcpListener::bind(listen).await?,
        &credentials,
        router,
        async {
            let _ = tokio::signal::ctrl_c().await;
        },
    )
    .await?;
    Ok(())
}

async fn report(Json(report): Json<Value>) -> Json<Value> {
    println!("{report}");
    Json(Value::Null)
}

async fn lease(Json(request): Json<LeaseRequest>) -> Json<LeaseAnswer> {
    Json(LeaseAnswer {
        number: request.number,
        lease_ms: 2000,
        owns: None,
        peers: Vec::new(),
    })
}

/// The file of the image's folder with this hash, from the first byte that was asked for.
async fn blob(
    State(image): State<PathBuf>,
    UrlPath(sha256): UrlPath<String>,
    headers: HeaderMap,
) -> Result<(axum::http::StatusCode, [(&'static str, String); 1], Vec<u8>), axum::http::StatusCode>
{
    let missing = axum::http::StatusCode::NOT_FOUND;
    let from = headers
        .get("range")
        .and_then(|range| range.to_str().ok())
        .unwrap_or("bytes=0-");
    let from: usize = from
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .unwrap_or(0);
    for entry in std::fs::read_dir(image).map_err(|_| missing)?.flatten() {
        let content = std::fs::read(entry.path()).unwrap_or_default();
        if hex::encode(Sha256::digest(&content)) == sha256 {
            let end = content.len();
            let range = format!("bytes {from}-{}/{end}", end.saturating_sub(1));
            let status = axum::http::StatusCode::PARTIAL_CONTENT;
            return Ok((
                status,
                [("content-range", range)],
                content[from.min(end)..].to_vec(),
            ));
        }
    }
    Err(missing)
}
