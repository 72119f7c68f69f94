//! The internal API: who may call what, joining, leases, the edges' routes.

use std::time::Duration;

use serde_json::{Value, json};
use undine_api::edge::RouteUpdate;
use undine_api::internal::{
    Instances, JoinRequest, LeaseAnswer, LeaseRequest, RenewAnswer, RenewRequest, Role,
};
use undine_control::commands::token::token;
use undine_control::internal::{TABLE, Who};
use undine_link::{CallError, ControlClient, Credentials, Identity, JoinToken, Method};
use undine_model::Bytes;
use undine_store::Joiner;

use crate::world::World;

const QUICK: Duration = Duration::from_secs(10);

/// A program of this role, as if it had joined.
fn program(world: &World, role: Role, id: &str) -> Credentials {
    let control = &world.instances[0].control;
    let (key, csr) = undine_link::csr().unwrap();
    let identity = Identity {
        role,
        id: id.to_owned(),
    };
    let now = undine_control::clock::now_utc();
    let certificate = control.authority.issue(&csr, &identity, now).unwrap();
    Credentials {
        key,
        certificate,
        ca: control.authority.certificate_pem().to_owned(),
    }
}

async fn edge(world: &World, name: &str) -> Credentials {
    let text = token(&world.instances[0].state, Joiner::Edge, None, None)
        .await
        .unwrap();
    let token: JoinToken = text.parse().unwrap();
    let (key, csr) = undine_link::csr().unwrap();
    let wish = JoinRequest {
        secret: token.secret.clone(),
        role: Role::Edge,
        name: name.parse().unwrap(),
        csr,
        guard_csr: None,
        address: "127.0.0.1:7400".parse().unwrap(),
        inventory: None,
    };
    let answer = undine_link::join(&token, &wish).await.unwrap();
    Credentials {
        key,
        certificate: answer.certificate,
        ca: answer.ca,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_is_open_to_its_roles_and_to_nobody_else() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(1)).await;
    let edge = edge(&world, "edge-1").await;
    let own = world.instances[0].control.credentials.clone();
    let callers = [
        (Role::Control, own),
        (Role::Node, node.credentials.clone()),
        (Role::Guard, node.guard.clone()),
        (Role::Edge, edge),
    ];
    let at = world.instances[0].internal;
    for (role, credentials) in &callers {
        let peer = ControlClient::new(credentials.clone(), &[at])
            .unwrap()
            .peers()
            .remove(0);
        for guarded in TABLE {
            let path = guarded.path.replace("{hash}", &"0".repeat(64));
            let request = peer.request(guarded.method.clone(), &path).json(&json!({}));
            let status = request.send().await.unwrap().status().as_u16();
            if guarded.who.allows(Some(*role)) {
                assert_ne!(status, 403, "{role:?} may {}", guarded.path);
            } else {
                assert_eq!(status, 403, "{role:?} may not {}", guarded.path);
            }
        }
        // A visitor behind an edge has none of the edge's rights.
        for guarded in TABLE {
            let path = guarded.path.replace("{hash}", &"0".repeat(64));
            let request = peer.request(guarded.method.clone(), &path).json(&json!({}));
            let answer = request
                .header("x-forwarded-for", "192.0.2.7")
                .send()
                .await
                .unwrap();
            assert_eq!(
                answer.status().as_u16(),
                404,
                "{role:?} for a visitor, {path}"
            );
        }
        // The panel and the public API are for edges, and for instances.
        let status = peer
            .request(Method::GET, "/v1/whoami")
            .send()
            .await
            .unwrap()
            .status();
        let wanted = if matches!(role, Role::Edge | Role::Control) {
            401
        } else {
            403
        };
        assert_eq!(status.as_u16(), wanted, "{role:?}");
    }
    // Without a certificate only joining is open; one of a stranger's node is none of ours.
    for guarded in TABLE {
        assert_eq!(guarded.who.allows(None), guarded.who == Who::Anybody);
    }
    let removed = program(&world, Role::Node, "01890a5d-ac96-774b-bcce-b302099a8057");
    let client = ControlClient::new(removed, &[at]).unwrap();
    let path = "/internal/v1/instances";
    let error = client
        .call::<Instances>(Method::GET, path, None::<&()>, QUICK)
        .await
        .unwrap_err();
    assert_eq!(error.problem().unwrap().kind, "removed");
}

async fn try_join(text: &str, role: Role, name: &str) -> Result<(), String> {
    let token: JoinToken = text.parse().unwrap();
    let (_, csr) = undine_link::csr().unwrap();
    let (_, guard) = undine_link::csr().unwrap();
    let wish = JoinRequest {
        secret: token.secret.clone(),
        role,
        name: name.parse().unwrap(),
        csr,
        guard_csr: Some(guard),
        address: "127.0.0.1:7300".parse().unwrap(),
        inventory: None,
    };
    match undine_link::join(&token, &wish).await {
        Ok(_) => Ok(()),
        Err(CallError::Refused(problem)) => Err(problem.kind),
        Err(other) => Err(other.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_admits_one_program_of_its_role_in_its_time() {
    let world = World::new().await;
    let state = &world.instances[0].state;
    let make = async |kind, name: Option<&str>, ttl| {
        token(
            state,
            kind,
            name.map(|name| name.parse().unwrap()),
            Some(ttl),
        )
        .await
        .unwrap()
    };
    let good = make(Joiner::Node, None, 60).await;
    let wrong = |kind: &str| Err(format!("join-token-{kind}"));
    assert_eq!(
        try_join(&good, Role::Edge, "edge-1").await,
        wrong("wrong-role")
    );
    assert_eq!(try_join(&good, Role::Node, "node-1").await, Ok(()));
    assert_eq!(try_join(&good, Role::Node, "node-2").await, wrong("used"));
    // A name that is taken leaves the token unused.
    let second = make(Joiner::Node, None, 60).await;
    assert_eq!(
        try_join(&second, Role::Node, "node-1").await,
        Err("taken".to_owned())
    );
    assert_eq!(try_join(&second, Role::Node, "node-2").await, Ok(()));
    let named = make(Joiner::Edge, Some("edge-7"), 60).await;
    assert_eq!(
        try_join(&named, Role::Edge, "edge-1").await,
        wrong("wrong-name")
    );
    let brief = make(Joiner::Node, None, 1).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(
        try_join(&brief, Role::Node, "node-3").await,
        wrong("expired")
    );
    let mut forged: JoinToken = brief.parse().unwrap();
    forged.secret = "guess".to_owned();
    assert_eq!(
        try_join(&forged.to_string(), Role::Node, "node-3").await,
        wrong("unknown")
    );
    // SQLite serves one instance.
    assert!(token(state, Joiner::Control, None, None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_renews_its_lease_and_everybody_their_certificate() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(1)).await;
    let at = world.instances[0].internal;
    let guard = ControlClient::new(node.guard.clone(), &[at]).unwrap();
    let wish = LeaseRequest {
        number: 7,
        last_answered: 6,
        confirm: false,
        paused: Vec::new(),
    };
    let path = "/internal/v1/lease";
    let answer: LeaseAnswer = guard
        .call(Method::POST, path, Some(&wish), QUICK)
        .await
        .unwrap();
    assert_eq!((answer.number, answer.lease_ms), (7, 2_000));
    let path = format!("/v1/nodes/{}", node.id);
    for _ in 0..50 {
        if !world.get(&path).await.body["lease_renewed_at"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!world.get(&path).await.body["lease_renewed_at"].is_null());
    let (_, csr) = undine_link::csr().unwrap();
    let path = "/internal/v1/renew";
    let wish = RenewRequest { csr };
    let fresh: RenewAnswer = guard
        .call(Method::POST, path, Some(&wish), QUICK)
        .await
        .unwrap();
    let fresh = Credentials {
        certificate: fresh.certificate,
        ..node.guard.clone()
    };
    assert_eq!(fresh.identity().unwrap(), node.guard.identity().unwrap());
    let wish = RenewRequest {
        csr: "nonsense".to_owned(),
    };
    let bad = guard
        .call::<Value>(Method::POST, path, Some(&wish), QUICK)
        .await
        .unwrap_err();
    assert_eq!(bad.problem().unwrap().field.as_deref(), Some("csr"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_hears_of_a_new_site_while_it_waits() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("static-1", "static").await;
    let (account, _) = world.account("demo").await;
    let edge =
        ControlClient::new(edge(&world, "edge-1").await, &[world.instances[0].internal]).unwrap();
    let ask = async |after: u64, wait_s: u64| {
        let path = format!("/internal/v1/routes?after={after}&wait_s={wait_s}");
        let deadline = Duration::from_secs(40);
        edge.call::<RouteUpdate>(Method::GET, &path, None::<&()>, deadline)
            .await
            .unwrap()
    };
    let first = ask(0, 0).await;
    assert!(first.whole);
    let (news, _) = tokio::join!(ask(first.version, 20), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world
            .site("one.localhost", &account, "static-1", "static")
            .await
    });
    assert!(!news.whole);
    assert_eq!(news.routes.len(), 1, "{news:?}");
    assert_eq!(news.routes[0].host, "one.localhost");
    let quiet = ask(news.version, 0).await;
    assert_eq!(
        (quiet.version, quiet.routes.len(), quiet.removed.len()),
        (news.version, 0, 0)
    );
    assert!(ask(999_999, 0).await.whole, "a version that never was");
}
