//! Replicas are looked at before QEMU is asked to open them.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use std::io;

use super::*;

fn child(address: NbdAddress) -> NbdChild {
    NbdChild {
        address,
        export: ExportName::new("web-1", 1, "ab").unwrap(),
        key: None,
    }
}

async fn listener() -> (TcpListener, NbdChild) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NbdAddress::Inet(listener.local_addr().unwrap());
    (listener, child(address))
}

#[tokio::test]
async fn a_replica_that_accepts_and_says_nothing_is_silent() {
    let (_listener, child) = listener().await;
    let error = greeted(1, &child).await.unwrap_err();
    match error {
        VmError::ReplicaSilent {
            slot: 1, source, ..
        } => {
            assert_eq!(source.kind(), io::ErrorKind::TimedOut);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_of_something_else_is_no_replica() {
    let (listener, child) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK").await.unwrap();
    });
    let error = greeted(0, &child).await.unwrap_err();
    assert!(matches!(error, VmError::ReplicaSilent { slot: 0, .. }));
}

#[tokio::test]
async fn a_missing_socket_is_told_at_once() {
    let child = child(NbdAddress::Unix("/nonexistent/nbd.sock".into()));
    let error = greeted(0, &child).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "replica 0 at /nonexistent/nbd.sock does not answer"
    );
}

#[test]
fn an_nbd_node_points_at_its_export() {
    let inet = child(NbdAddress::Inet("10.0.0.1:10809".parse().unwrap()));
    let node = nbd_node(1, &inet);
    assert_eq!(node["node-name"], "data-c1");
    assert_eq!(node["export"], "web-1-e1-ab");
    assert_eq!(
        node["server"],
        json!({"type": "inet", "host": "10.0.0.1", "port": "10809"})
    );
}
