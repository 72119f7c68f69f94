//! The client against a fake at the wire, and against a real QEMU without a machine.

use std::process::Stdio;

use tokio::net::UnixListener;
use tokio::process::{Child, Command};

use super::*;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "p"}, "capabilities": []}}"#;

/// A monitor that greets, accepts the capabilities and then follows `script`.
async fn fake<F, Fut>(script: F) -> (Qmp, tempfile::TempDir)
where
    F: FnOnce(BufReader<OwnedReadHalf>, OwnedWriteHalf) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (read, mut write) = listener.accept().await.unwrap().0.into_split();
        let mut read = BufReader::new(read);
        say(&mut write, GREETING).await;
        let id = asked(&mut read, "qmp_capabilities").await;
        say(&mut write, &json!({"return": {}, "id": id}).to_string()).await;
        script(read, write).await;
    });
    (
        Qmp::connect(&path, Duration::from_secs(5)).await.unwrap(),
        dir,
    )
}

async fn say(write: &mut OwnedWriteHalf, line: &str) {
    write
        .write_all(format!("{line}\r\n").as_bytes())
        .await
        .unwrap();
}

async fn asked(read: &mut BufReader<OwnedReadHalf>, name: &str) -> Value {
    let line = read_line(read).await.unwrap().unwrap();
    let command: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(command["execute"], name);
    command["id"].clone()
}

#[tokio::test]
async fn replies_find_their_commands_though_events_and_other_replies_come_between() {
    let (qmp, _dir) = fake(|mut read, mut write| async move {
        let first = asked(&mut read, "one").await;
        let second = asked(&mut read, "two").await;
        say(
            &mut write,
            r#"{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}"#,
        )
        .await;
        say(&mut write, &json!({"return": 2, "id": second}).to_string()).await;
        say(
            &mut write,
            r#"{"event": "SHUTDOWN", "data": {"guest": true}}"#,
        )
        .await;
        say(&mut write, &json!({"return": 1, "id": first}).to_string()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut events = qmp.events();
    let (one, two) = tokio::join!(qmp.execute("one", json!({})), qmp.execute("two", json!({})));
    assert_eq!((one.unwrap(), two.unwrap()), (json!(1), json!(2)));
    assert_eq!(events.recv().await.unwrap().name, "STOP");
    assert_eq!(events.recv().await.unwrap().data["guest"], true);
}

#[tokio::test]
async fn a_command_without_an_answer_ends_at_its_deadline_and_the_next_one_works() {
    let (qmp, _dir) = fake(|mut read, mut write| async move {
        let slow = asked(&mut read, "slow").await;
        let quick = asked(&mut read, "quick").await;
        // The late answer of the command that was given up comes first.
        say(
            &mut write,
            &json!({"return": "late", "id": slow}).to_string(),
        )
        .await;
        say(
            &mut write,
            &json!({"return": "now", "id": quick}).to_string(),
        )
        .await;
        std::future::pending::<()>().await;
    })
    .await;
    let slow = qmp
        .execute_within("slow", json!({}), Duration::from_millis(50))
        .await;
    assert!(matches!(slow, Err(QmpError::TimedOut { command, .. }) if command == "slow"));
    assert_eq!(qmp.execute("quick", json!({})).await.unwrap(), "now");
    assert!(qmp.inner.pending.lock().is_empty());
}

#[tokio::test]
async fn a_peer_that_goes_away_ends_waiting_commands_and_refuses_new_ones() {
    let (qmp, _dir) = fake(|mut read, write| async move {
        asked(&mut read, "any").await;
        drop(write);
    })
    .await;
    assert!(matches!(
        qmp.execute("any", json!({})).await,
        Err(QmpError::Closed)
    ));
    qmp.closed().await;
    assert!(qmp.is_closed());
    assert!(matches!(
        qmp.execute("any", json!({})).await,
        Err(QmpError::Closed)
    ));
}

#[tokio::test]
async fn nonsense_on_the_wire_is_passed_over() {
    let (qmp, _dir) = fake(|mut read, mut write| async move {
        let id = asked(&mut read, "any").await;
        say(&mut write, "][").await;
        say(&mut write, r#"{"return": 1, "id": 999}"#).await;
        say(&mut write, r#"{"return": 2}"#).await;
        say(&mut write, &json!({"return": 3, "id": id}).to_string()).await;
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(qmp.execute("any", json!({})).await.unwrap(), 3);
}

#[tokio::test]
async fn a_missing_socket_and_a_silent_peer_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let brief = Duration::from_millis(50);
    assert!(matches!(
        Qmp::connect(&path, brief).await,
        Err(QmpError::Connect { .. })
    ));
    let _listener = UnixListener::bind(&path).unwrap();
    assert!(matches!(
        Qmp::connect(&path, brief).await,
        Err(QmpError::NoGreeting { .. })
    ));
}

fn machineless(path: &Path) -> Child {
    Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "none",
            "-nodefaults",
            "-display",
            "none",
            "-chardev",
        ])
        .arg(format!(
            "socket,id=q,path={},server=on,wait=off",
            path.display()
        ))
        .args(["-mon", "chardev=q,mode=control"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_real_qemu_answers_refuses_with_its_class_and_says_goodbye() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let mut child = machineless(&path);
    let qmp = Qmp::connect(&path, Duration::from_secs(30)).await.unwrap();
    assert!(qmp.version().qemu.major >= 8);
    let mut events = qmp.events();
    let name = qmp.execute("query-name", json!({})).await.unwrap();
    assert_eq!(name, json!({}));
    match qmp.execute("device_del", json!({"id": "nothing"})).await {
        Err(QmpError::Refused { command, class, .. }) => {
            assert_eq!(
                (command.as_str(), class.as_str()),
                ("device_del", "DeviceNotFound")
            );
        }
        other => panic!("{other:?}"),
    }
    qmp.execute("quit", json!({})).await.unwrap();
    assert_eq!(events.recv().await.unwrap().name, "SHUTDOWN");
    qmp.closed().await;
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_dropped_client_frees_the_monitor_for_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let _child = machineless(&path);
    for _ in 0..3 {
        let qmp = Qmp::connect(&path, Duration::from_secs(30)).await.unwrap();
        qmp.execute("query-status", json!({})).await.unwrap();
    }
}
