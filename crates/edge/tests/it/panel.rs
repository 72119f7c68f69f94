//! Panel and API at one name, over every instance of control.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;

use crate::support::{Instance, PANEL, World, until};

async fn who(world: &World) -> Result<String, String> {
    let answer = world.get(PANEL, "/v1/whoami").await;
    if answer.status() != 200 {
        return Err(answer.status().to_string());
    }
    let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
    Ok(answer["instance"].as_str().unwrap().to_owned())
}

async fn seen(world: &World) -> HashSet<String> {
    let mut seen = HashSet::new();
    for _ in 0..8 {
        seen.insert(who(world).await.unwrap());
    }
    seen
}

#[tokio::test]
async fn the_panel_sees_the_visitor_s_address_and_the_edge_s_certificate() {
    let world = World::new().await;
    let answer: Value = world
        .browser(&[PANEL])
        .get(world.http_url(PANEL, "/v1/whoami"))
        .header("X-Forwarded-For", "1.2.3.4")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["role"], "edge");
    assert_eq!(answer["headers"]["x-forwarded-for"][0], "127.0.0.1");
    assert_eq!(
        answer["headers"]["x-forwarded-for"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn no_visitor_reaches_the_internal_part_by_the_edge_s_certificate() {
    let world = World::new().await;
    for path in [
        "/internal/v1/routes?after=77&wait_s=0",
        "//internal/v1/routes?after=77&wait_s=0",
        "/%69nternal/v1/routes?after=77&wait_s=0",
    ] {
        assert_eq!(world.get(PANEL, path).await.status(), 404, "{path}");
    }
    assert!(!world.brain.polls.lock().unwrap().contains(&77));
}

#[tokio::test]
async fn a_new_instance_takes_traffic_and_a_dead_one_harms_no_request() {
    let world = World::new().await;
    let second = Instance::start(&world.brain, 2).await;
    let version = world.brain.set_panel(&[&world.instance, &second], None);
    world.reached(version).await;
    until("both take turns", || async {
        seen(&world).await.len() == 2
    })
    .await;

    second.kill();
    for _ in 0..20 {
        who(&world).await.expect("the other instance answers");
    }
    assert_eq!(
        seen(&world).await,
        HashSet::from([world.instance.id.to_string()])
    );
}

#[tokio::test]
async fn an_instance_that_comes_back_takes_traffic_by_itself() {
    let world = World::new().await;
    let second = Instance::start(&world.brain, 2).await;
    let version = world.brain.set_panel(&[&world.instance, &second], None);
    world.reached(version).await;
    let address = second.kill();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(seen(&world).await.len(), 1);
    let _second = Instance::start_at(&world.brain, 2, address).await;
    until("both take turns again", || async {
        seen(&world).await.len() == 2
    })
    .await;
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let world = World::new().await;
    let sent = world
        .browser(&[PANEL])
        .get(world.http_url(PANEL, "/v1/events"))
        .header("accept", "text/event-stream");
    let mut events = sent.send().await.unwrap().bytes_stream();
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 {
        let part = events.next().await.unwrap().unwrap();
        assert!(part.starts_with(b"data: "));
        times.push(began.elapsed());
    }
    assert!(times[0] < Duration::from_millis(300), "{times:?}");
    assert!(
        times[2] - times[1] > Duration::from_millis(200),
        "{times:?}"
    );
}

#[tokio::test]
async fn a_large_upload_streams_through() {
    let world = World::new().await;
    let part = vec![3_u8; 1 << 20];
    let parts =
        futures_util::stream::iter(0..100).map(move |_| Ok::<_, std::io::Error>(part.clone()));
    let sent = world
        .browser(&[PANEL])
        .post(world.http_url(PANEL, "/v1/upload"))
        .body(reqwest::Body::wrap_stream(parts));
    let answer = sent.send().await.unwrap().text().await.unwrap();
    assert_eq!(answer, (100 << 20).to_string());
}

#[tokio::test]
async fn without_any_instance_the_panel_says_so() {
    let world = World::new().await;
    until("the panel answers", || async { who(&world).await.is_ok() }).await;
    let World {
        instance,
        edge,
        brain,
        directory,
    } = world;
    instance.kill();
    let world = World {
        instance: Instance::start(&brain, 9).await,
        edge,
        brain,
        directory,
    };
    assert_eq!(who(&world).await.unwrap_err(), "503 Service Unavailable");
}
