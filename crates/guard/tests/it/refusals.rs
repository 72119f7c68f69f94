//! Who may ask a guard, and what it refuses.

use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use undine_api::Problem;
use undine_api::internal::Role;
use undine_guard::api::ENDPOINTS;
use undine_link::{CallError, Credentials, Method, PeerClient};

use crate::support::{Ca, World, node, until};

async fn guarded() -> World {
    let mut world = World::new(0).await;
    world.start_guard();
    let control = world.control.clone();
    until("heard of", || control.heard.lock().unwrap().len() > 1).await;
    world
}

async fn ask(world: &World, who: &Credentials, path: &str) -> Result<serde_json::Value, CallError> {
    let id = node(1).to_string();
    let client = PeerClient::new(who, Role::Guard, &id, world.listen).unwrap();
    let deadline = Duration::from_secs(5);
    client.call(Method::GET, path, None::<&()>, deadline).await
}

fn problem(answer: Result<serde_json::Value, CallError>) -> Problem {
    match answer {
        Err(CallError::Refused(problem)) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_is_closed_to_all_but_guards_and_control() {
    let world = guarded().await;
    for (method, path) in ENDPOINTS {
        assert_eq!(method, "GET");
        let path = path.replace("{node}", &format!("{}?address=127.0.0.1:9", node(2)));
        for role in [Role::Node, Role::Edge] {
            let who = world.ca.credentials(role, "x1");
            let problem = problem(ask(&world, &who, &path).await);
            assert_eq!(
                (problem.status, problem.kind.as_str()),
                (403, "wrong-role"),
                "{path}"
            );
        }
        for role in [Role::Control, Role::Guard] {
            let who = world.ca.credentials(role, "x1");
            assert!(ask(&world, &who, &path).await.is_ok(), "{path}");
        }
        // A certificate of another cluster, under our CA as its trust.
        let stranger = Credentials {
            ca: world.ca.credentials(Role::Control, "c").ca,
            ..Ca::new().credentials(Role::Control, "c1")
        };
        let answer = ask(&world, &stranger, &path).await;
        assert!(
            matches!(answer, Err(CallError::Unreachable { .. })),
            "{path}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_nothing_is_told() {
    let world = guarded().await;
    let config = world.ca.credentials(Role::Control, "c1");
    let mut roots = rustls::RootCertStore::empty();
    let pem = rustls::pki_types::CertificateDer::pem_slice_iter;
    for certificate in pem(config.ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = format!("{}.guard.undine.internal", node(1));
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .resolve(&host, world.listen)
        .no_proxy()
        .build()
        .unwrap();
    let url = format!("https://{host}:{}/guard/v1/alive", world.listen.port());
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
    assert!(!answer.text().await.unwrap().contains(&node(1).to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_question_is_refused_with_field_and_remedy() {
    let world = guarded().await;
    let who = world.ca.credentials(Role::Control, "c1");
    let node = node(2);
    for (path, status, field) in [
        (
            "/guard/v1/reach/me?address=127.0.0.1:1".to_owned(),
            422,
            "node",
        ),
        (format!("/guard/v1/reach/{node}"), 422, "address"),
        (
            format!("/guard/v1/reach/{node}?address=here"),
            422,
            "address",
        ),
        (
            format!("/guard/v1/reach/{node}?address=127.0.0.1:0"),
            422,
            "address",
        ),
        (
            format!("/guard/v1/reach/{node}?address=127.0.0.1:1&storage=x"),
            422,
            "storage",
        ),
    ] {
        let problem = problem(ask(&world, &who, &path).await);
        assert_eq!(problem.status, status, "{path}");
        assert_eq!(problem.field.as_deref(), Some(field), "{path}");
        assert!(problem.remedy.is_some(), "{path}");
    }
    let problem = problem(ask(&world, &who, "/guard/v1/nothing").await);
    assert_eq!(problem.status, 404);
}
