//! The program itself: its command line, its words, its end.

use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use undine_link::JoinToken;

use crate::support::{Brain, Instance, Server, nobody, raw, route, to, until};

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_undine-edge"));
    command.args(args).kill_on_drop(true);
    command
}

async fn said(args: &[&str]) -> (bool, String) {
    let Output { status, stderr, .. } = program(args).output().await.unwrap();
    (status.success(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn it_joins_serves_logs_and_ends_when_asked() {
    let brain = Brain::new();
    let instance = Instance::start(&brain, 1).await;
    let one = Server::start("one").await;
    brain.set_panel(&[&instance], None);
    brain.put(route("a.test", to(&[one.address])));
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().to_str().unwrap();
    let token = JoinToken {
        addresses: vec![instance.address],
        ca_fingerprint: JoinToken::fingerprint(brain.ca.certificate_pem()).unwrap(),
        secret: "open-sesame".to_owned(),
    }
    .to_string();
    let join = [
        "join",
        &token,
        "--name",
        "e1",
        "--address",
        "127.0.0.1:7400",
        "--state-dir",
        state_dir,
    ];
    let (joined, words) = said(&join).await;
    assert!(joined, "{words}");
    let (again, words) = said(&join).await;
    assert!(
        !again && words.contains("has joined a cluster already"),
        "{words}"
    );
    assert!(!words.contains("open-sesame"));

    let listen = nobody().await;
    let text = listen.to_string();
    let run = [
        "run",
        "--state-dir",
        state_dir,
        "--listen-http",
        &text,
        "--access-log",
    ];
    let mut child = program(&run)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it listens", || async {
        tokio::net::TcpStream::connect(listen).await.is_ok()
    })
    .await;
    until("it has the route", || async {
        let get = b"GET /x?secret=1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        raw(listen, get).await.starts_with("HTTP/1.1 200")
    })
    .await;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let served = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["status"] == 200 {
            break line;
        }
    };
    assert_eq!(served["host"], "a.test");
    assert_eq!(served["path"], "/x", "the query may hold secrets");
    assert_eq!(served["upstream"], one.address.to_string());

    let (started, words) = said(&run).await;
    assert!(
        !started && words.contains("taken by another program"),
        "{words}"
    );
    assert_eq!(words.trim().lines().count(), 1, "one sentence: {words}");

    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
}

#[tokio::test]
async fn wrong_input_is_told_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().to_str().unwrap();
    let (ok, words) = said(&[
        "run",
        "--state-dir",
        state_dir,
        "--listen-http",
        "127.0.0.1:0",
    ])
    .await;
    assert!(
        !ok && words.contains("has not joined a cluster yet"),
        "{words}"
    );
    let (ok, words) = said(&[
        "join",
        "nonsense",
        "--name",
        "e1",
        "--address",
        "127.0.0.1:1",
        "--state-dir",
        state_dir,
    ])
    .await;
    assert!(!ok && words.contains("not a join token"), "{words}");
    let (ok, words) = said(&["run", "--state-dir", state_dir]).await;
    assert!(!ok && words.contains("--listen-http"), "{words}");
}
