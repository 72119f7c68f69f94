//! Who is trusted and who is not, over real TLS on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use undine_api::internal::{ClusterNetwork, Instances, JoinAnswer, JoinRequest, Role};
use undine_link::{
    Authority, CallError, ControlClient, Credentials, Identity, JoinToken, Method, Peer,
    PeerClient, csr, install_crypto, join, serve,
};

const DEADLINE: Duration = Duration::from_secs(5);

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn credentials(ca: &Authority, role: Role, id: &str) -> Credentials {
    let (key, request) = csr().unwrap();
    let identity = Identity {
        role,
        id: id.to_owned(),
    };
    let certificate = ca.issue(&request, &identity, now()).unwrap();
    Credentials {
        key,
        certificate,
        ca: ca.certificate_pem().to_owned(),
    }
}

async fn who(peer: Peer) -> Json<Option<String>> {
    Json(peer.identity.map(|identity| identity.uri()))
}

async fn welcome(peer: Peer, Json(request): Json<JoinRequest>) -> Json<JoinAnswer> {
    assert!(peer.identity.is_none());
    Json(JoinAnswer {
        id: request.secret,
        certificate: String::new(),
        guard_certificate: None,
        ca: String::new(),
        instances: Instances::default(),
        network: ClusterNetwork {
            management: vec![],
            servers_ipv4: String::new(),
            servers_ipv6: String::new(),
            gateways: vec![],
            gateway_mac: String::new(),
            edges: vec![],
        },
        control: None,
    })
}

async fn start(credentials: Credentials) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/who", get(who))
        .route("/port", get(port))
        .route("/internal/v1/join", post(welcome));
    tokio::spawn(async move {
        serve(listener, &credentials, router, std::future::pending())
            .await
            .unwrap();
    });
    address
}

#[tokio::test]
async fn a_caller_is_known_by_its_certificate() {
    install_crypto();
    let (ca, _) = Authority::create("cluster", now()).unwrap();
    let address = start(credentials(&ca, Role::Control, "c1")).await;
    let edge = credentials(&ca, Role::Edge, "e1");
    let client = PeerClient::new(&edge, Role::Control, "c1", address).unwrap();
    let name: Option<String> = client
        .call(Method::GET, "/who", None::<&()>, DEADLINE)
        .await
        .unwrap();
    assert_eq!(name.as_deref(), Some("undine://edge/e1"));
}

async fn port(peer: Peer) -> Json<u16> {
    Json(peer.address.port())
}

#[tokio::test]
async fn control_is_asked_by_a_new_connection_when_that_is_wanted() {
    install_crypto();
    let (ca, _) = Authority::create("cluster", now()).unwrap();
    let address = start(credentials(&ca, Role::Control, "c1")).await;
    let guard = credentials(&ca, Role::Guard, "n1");
    let client = ControlClient::new(guard, &[address]).unwrap();
    let ask = || async {
        let port: u16 = client
            .call(Method::GET, "/port", None::<&()>, DEADLINE)
            .await
            .unwrap();
        port
    };
    let first = ask().await;
    assert_eq!(ask().await, first);
    client.reconnect();
    assert_ne!(ask().await, first);
    assert_eq!(client.addresses(), [address]);
}

#[tokio::test]
async fn a_node_cannot_pass_for_control() {
    install_crypto();
    let (ca, _) = Authority::create("cluster", now()).unwrap();
    let address = start(credentials(&ca, Role::Node, "c1")).await;
    let client = ControlClient::new(credentials(&ca, Role::Edge, "e1"), &[address]).unwrap();
    let answer = client
        .call::<Option<String>>(Method::GET, "/who", None::<&()>, DEADLINE)
        .await;
    assert!(matches!(answer, Err(CallError::Unreachable { .. })));
}

#[tokio::test]
async fn another_cluster_s_certificate_counts_for_nothing() {
    install_crypto();
    let (ca, _) = Authority::create("cluster", now()).unwrap();
    let (other, _) = Authority::create("other", now()).unwrap();
    let address = start(credentials(&ca, Role::Control, "c1")).await;
    let mut stranger = credentials(&other, Role::Control, "c2");
    stranger.ca = ca.certificate_pem().to_owned();
    let client = ControlClient::new(stranger, &[address]).unwrap();
    assert!(
        client
            .call::<()>(Method::GET, "/who", None::<&()>, DEADLINE)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_dead_instance_is_passed_over() {
    install_crypto();
    let (ca, _) = Authority::create("cluster", now()).unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = gone.local_addr().unwrap();
    drop(gone);
    let alive = start(credentials(&ca, Role::Control, "c2")).await;
    let client = ControlClient::new(credentials(&ca, Role::Node, "n1"), &[dead, alive]).unwrap();
    client
        .call::<Option<String>>(Method::GET, "/who", None::<&()>, DEADLINE)
        .await
        .unwrap();
    assert_eq!(
        client.addresses(),
        [alive, dead],
        "the one that answered comes first"
    );
}

fn request(secret: &str) -> JoinRequest {
    JoinRequest {
        secret: secret.to_owned(),
        role: Role::Node,
        name: "n1".parse().unwrap(),
        csr: csr().unwrap().1,
        guard_csr: None,
        address: "127.0.0.1:1".parse().unwrap(),
        inventory: None,
    }
}

#[tokio::test]
async fn one_who_joins_knows_control_by_the_token_s_fingerprint() {
    install_crypto();
    let (ca, _) = Authority::create("cluster", now()).unwrap();
    let address = start(credentials(&ca, Role::Control, "c1")).await;
    let token = JoinToken {
        addresses: vec![address],
        ca_fingerprint: JoinToken::fingerprint(ca.certificate_pem()).unwrap(),
        secret: "open sesame".to_owned(),
    };
    let token: JoinToken = token.to_string().parse().unwrap();
    assert_eq!(
        join(&token, &request(&token.secret)).await.unwrap().id,
        "open sesame"
    );

    let (other, _) = Authority::create("other", now()).unwrap();
    let fooled = JoinToken {
        ca_fingerprint: JoinToken::fingerprint(other.certificate_pem()).unwrap(),
        ..token
    };
    assert!(join(&fooled, &request("x")).await.is_err());
}

#[test]
fn credentials_survive_their_directory_and_name_their_holder() {
    let (ca, key) = Authority::create("cluster", now()).unwrap();
    let again = Authority::from_pem(ca.certificate_pem(), &key).unwrap();
    let made = credentials(&again, Role::Guard, "n7");
    let directory = tempfile::tempdir().unwrap();
    made.save(directory.path()).unwrap();
    let read = Credentials::load(directory.path()).unwrap();
    assert_eq!(read.identity().unwrap().uri(), "undine://guard/n7");
    assert!(read.expires_unix_s().unwrap() > now().unix_timestamp() + 80 * 86_400);
    assert!(Credentials::load(&directory.path().join("nowhere")).is_err());
    assert!("undine1.nonsense".parse::<JoinToken>().is_err());
}
