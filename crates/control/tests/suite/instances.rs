//! Three equal instances on PostgreSQL: any of them serves, one dies over an operation and another
//! ends it, once.

use serde_json::json;
use undine_control::failpoint::Action;
use undine_model::Bytes;
use undine_testkit::postgres::TestDatabase;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_ends_what_a_dead_one_began() {
    let database = TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    world.another_instance().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, own) = world.account("demo").await;

    // Any of them serves any request.
    for instance in 0..3 {
        let reply = world
            .send(instance, &own, "GET", "/v1/whoami", None, &[])
            .await;
        assert_eq!(reply.expect(200).text("/token/account"), account);
    }
    let list = world.get("/v1/instances").await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 3);

    // Whichever of them takes the operation, dies over it.
    for instance in &world.instances {
        instance
            .failpoints
            .set("site.create/apply/done", Action::Halt);
    }
    let wish =
        json!({"domain": "one.localhost", "account": account, "server": "web-1", "runtime": "php"});
    let reply = world
        .send(1, &world.provider, "POST", "/v1/sites", Some(wish), &[])
        .await;
    let reply = reply.expect(202);
    let halted = futures_util::future::select_all(
        world
            .instances
            .iter()
            .map(|it| Box::pin(it.failpoints.halted())),
    );
    let (_, dead, _) = halted.await;
    world.instances[dead].kill();
    for (index, instance) in world.instances.iter().enumerate() {
        if index != dead {
            instance.failpoints.clear();
        }
    }
    let alive = (dead + 1) % 3;
    let ended = world.ended(&reply.text("/operation/id")).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let path = format!("/v1/sites/{}", reply.text("/site/id"));
    let shown = world.send(alive, &own, "GET", &path, None, &[]).await;
    assert_eq!(shown.text("/state"), "active");
    assert_eq!(
        node.count("guest apply_delta"),
        1,
        "what was applied is not applied again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_whichever_instance_has_it() {
    let database = TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    let hash = undine_control::clock::sha256("root");
    let second = world.instances[1].internal;
    let client = undine_link::ControlClient::new(node.credentials.clone(), &[second]).unwrap();
    let peer = client.peers().remove(0);
    let path = format!("/internal/v1/blobs/{hash}");
    let get = || peer.request(undine_link::Method::GET, &path);
    let whole = peer
        .checked(get().send().await)
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(whole, "root");
    let part = peer
        .checked(get().header("range", "bytes=2-").send().await)
        .await
        .unwrap();
    assert_eq!(part.status().as_u16(), 206);
    assert_eq!(part.text().await.unwrap(), "ot");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_any_instance_are_heard_from_where_one_left_off() {
    let database = TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    let store = &world.instances[0].control.store;
    let newest = undine_store::Db::events(store).newest().await.unwrap();
    let url = format!("http://{}/v1/events", world.instances[1].api);
    let request = reqwest::Client::new().get(url).bearer_auth(&world.provider);
    let mut stream = request
        .header("last-event-id", newest.to_string())
        .send()
        .await
        .unwrap();
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let mut text = String::new();
    while !text.contains("event: node.joined") {
        let piece = tokio::time::timeout(std::time::Duration::from_secs(10), stream.chunk()).await;
        text += &String::from_utf8_lossy(&piece.unwrap().unwrap().unwrap());
    }
    assert!(text.contains(&format!("id: {}", newest + 1)), "{text}");
}
