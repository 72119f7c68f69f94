//! Control away: sites go on answering.

use std::time::Duration;

use undine_edge::{Edge, StartError};

use crate::support::{Brain, Instance, Server, World, joined, raw, route, settings, to, until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn sites_go_on_without_control_and_news_come_when_it_is_back() {
    let world = World::new().await;
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    world.put(route("a.test", to(&[one.address]))).await;
    let World {
        instance,
        edge,
        brain,
        directory,
    } = world;
    let address = instance.kill();
    for _ in 0..30 {
        assert!(raw(edge.http()[0], GET).await.contains("\"one\""));
    }
    brain.put(route("a.test", to(&[two.address])));
    let _again = Instance::start_at(&brain, 1, address).await;
    until("the new route is there", || async {
        raw(edge.http()[0], GET).await.contains("\"two\"")
    })
    .await;
    drop(directory);
}

#[tokio::test]
async fn an_edge_that_restarts_without_control_serves_from_its_disk() {
    let world = World::new().await;
    let one = Server::start("one").await;
    let mut site = route("a.test", to(&[one.address]));
    site.certificate = Some(world.brain.certificate("a.test"));
    world.put(site).await;
    let World {
        instance,
        edge,
        brain,
        directory,
    } = world;
    instance.kill();
    edge.stop().await;

    let edge = Edge::start(settings(directory.path())).await.unwrap();
    assert!(edge.has_routes(Duration::ZERO).await, "at once");
    assert!(raw(edge.http()[0], GET).await.contains("\"one\""));
    let world = World {
        instance: Instance::start(&brain, 9).await,
        edge,
        brain,
        directory,
    };
    let browser = world.browser(&["a.test"]);
    let answer = browser.get(world.https_url("a.test", "/")).send().await;
    assert_eq!(
        answer.unwrap().status(),
        200,
        "its certificate was kept too"
    );
}

#[tokio::test]
async fn an_edge_that_dies_has_the_table_on_its_disk_all_the_same() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    until("the table is on disk", || async {
        let kept = std::fs::read_to_string(world.directory.path().join("routes.json"));
        kept.is_ok_and(|text| text.contains("a.test"))
    })
    .await;
    let World {
        instance,
        edge,
        directory,
        ..
    } = world;
    instance.kill();
    drop(edge);
    let edge = Edge::start(settings(directory.path())).await.unwrap();
    assert!(raw(edge.http()[0], GET).await.contains("\"one\""));
}

#[tokio::test]
async fn an_edge_that_never_heard_control_says_try_again() {
    let brain = Brain::new();
    let instance = Instance::start(&brain, 1).await;
    let directory = tempfile::tempdir().unwrap();
    joined(&brain, &instance, directory.path()).await;
    instance.kill();
    let edge = Edge::start(settings(directory.path())).await.unwrap();
    let answer = raw(edge.http()[0], GET).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after"));
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_start_is_told_in_a_sentence() {
    let brain = Brain::new();
    let instance = Instance::start(&brain, 1).await;
    let directory = tempfile::tempdir().unwrap();
    let error = Edge::start(settings(directory.path())).await.err().unwrap();
    assert!(error.to_string().contains("has not joined"), "{error}");

    joined(&brain, &instance, directory.path()).await;
    let mut taken = settings(directory.path());
    taken.http = vec![instance.address];
    let error = Edge::start(taken).await.err().unwrap();
    assert!(error.to_string().contains("taken by another program"));
    let mut none = settings(directory.path());
    (none.http, none.https) = (vec![], vec![]);
    let error = Edge::start(none).await.err().unwrap();
    assert!(matches!(error, StartError::NoDoor));
}
