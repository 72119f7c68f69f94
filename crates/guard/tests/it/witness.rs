//! What a guard tells of itself and, as a witness, of others.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use undine_api::guard::{Alive, Reach};
use undine_api::internal::Role;
use undine_link::{Method, PeerClient};

use crate::support::{Ca, Door, World, node, peer, until};

const DEADLINE: Duration = Duration::from_secs(5);

async fn ask<T: serde::de::DeserializeOwned>(world: &World, path: &str) -> T {
    let control = world.ca.credentials(Role::Control, "c1");
    let id = node(1).to_string();
    let client = PeerClient::new(&control, Role::Guard, &id, world.listen).unwrap();
    client
        .call(Method::GET, path, None::<&()>, DEADLINE)
        .await
        .unwrap()
}

async fn guarded() -> World {
    let mut world = World::new(0).await;
    world.start_guard();
    let control = world.control.clone();
    until("heard of", || control.heard.lock().unwrap().len() > 1).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_says_how_it_stands() {
    let world = guarded().await;
    let alive: Alive = ask(&world, "/guard/v1/alive").await;
    assert_eq!(alive.node, node(1));
    assert!(alive.held && !alive.isolated && alive.paused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_reaches_a_node_by_its_guard_or_by_its_agent_alone() {
    let world = guarded().await;
    let (there, mut door) = peer(&world.ca, 5).await;
    let path = format!("/guard/v1/reach/{}?address={}", there.node, there.address);
    let found: Reach = ask(&world, &path).await;
    assert!(found.reachable && found.storage.is_none());
    door.kill();
    let found: Reach = ask(&world, &path).await;
    assert!(!found.reachable);
    // An agent refuses a guard: it lives.
    let id = node(6).to_string();
    let router = Router::new().route("/node/v1/status", get(async || StatusCode::FORBIDDEN));
    let agent = Door::open(world.ca.credentials(Role::Node, &id), router).await;
    let path = format!("/guard/v1/reach/{id}?address={}", agent.address());
    let found: Reach = ask(&world, &path).await;
    assert!(found.reachable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_network_is_told_apart() {
    let world = guarded().await;
    let (there, _door) = peer(&world.ca, 5).await;
    let nowhere = "127.0.0.1:9";
    let node = there.node;
    let at = there.address;
    let path = format!("/guard/v1/reach/{node}?address={nowhere}&storage={at}");
    let found: Reach = ask(&world, &path).await;
    assert_eq!((found.reachable, found.storage), (true, Some(true)));
    let path = format!("/guard/v1/reach/{node}?address={at}&storage={nowhere}");
    let found: Reach = ask(&world, &path).await;
    assert_eq!((found.reachable, found.storage), (true, Some(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_silent_port_nor_a_stranger_is_life_and_the_answer_comes_in_time() {
    let world = guarded().await;
    // The kernel accepts, nobody speaks.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut at = mute.local_addr().unwrap();
    at.set_port(at.port() - 1);
    let path = format!("/guard/v1/reach/{}?address={at}", node(5));
    let begun = Instant::now();
    let found: Reach = ask(&world, &path).await;
    assert!(!found.reachable);
    assert!(begun.elapsed() < Duration::from_millis(1_500));
    // A guard of another node, and one of another cluster.
    let (there, _door) = peer(&world.ca, 7).await;
    let path = format!("/guard/v1/reach/{}?address={}", node(5), there.address);
    let found: Reach = ask(&world, &path).await;
    assert!(!found.reachable);
    let (there, _other) = peer(&Ca::new(), 5).await;
    let path = format!("/guard/v1/reach/{}?address={}", there.node, there.address);
    let found: Reach = ask(&world, &path).await;
    assert!(!found.reachable);
}
