//! The session against a guest agent that a test plays, over a real unix socket.

use std::path::Path;

use tokio::net::UnixListener;
use undine_api::guest::{ArchiveFormat, FailureKind, Health};

use super::*;

fn hello() -> Answer {
    Answer::Hello(HelloAnswer {
        version: "1".into(),
        manifest_format: 1,
        server: None,
        data_mounted: false,
        manifest_version: 0,
    })
}

fn healthy() -> Answer {
    Answer::Health(Health {
        data_mounted: true,
        manifest_version: 1,
        answers: true,
        trouble: vec![],
    })
}

async fn request(stream: &mut UnixStream) -> Request {
    let (kind, payload) = frame::read(stream).await.unwrap();
    assert_eq!(kind, JSON);
    serde_json::from_slice(&payload).unwrap()
}

async fn answer(stream: &mut UnixStream, id: u64, result: Result<Answer, Failure>) {
    let reply = serde_json::to_vec(&Reply { id, result }).unwrap();
    frame::write(stream, JSON, &reply).await.unwrap();
}

/// Accepts a connection and answers its hello.
async fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let greeting = request(&mut stream).await;
    assert!(matches!(greeting.ask, Ask::Hello));
    answer(&mut stream, greeting.id, Ok(hello())).await;
    stream
}

fn listener(dir: &Path) -> (UnixListener, Guest) {
    let path = dir.join("agent.sock");
    (UnixListener::bind(&path).unwrap(), Guest::new(path))
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn questions_are_answered_in_order_and_late_replies_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, mut guest) = listener(dir.path());
    let playing = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let asked = request(&mut stream).await;
        answer(&mut stream, asked.id - 1, Ok(Answer::Done)).await;
        answer(&mut stream, asked.id, Ok(healthy())).await;
        let asked = request(&mut stream).await;
        let failure = Failure {
            kind: FailureKind::NotFound,
            message: "no such site".into(),
        };
        answer(&mut stream, asked.id, Err(failure)).await;
        let asked = request(&mut stream).await;
        answer(&mut stream, asked.id, Ok(Answer::Done)).await;
    });
    assert!(matches!(
        guest.ask(Ask::Health, SOON).await,
        Ok(Answer::Health(_))
    ));
    let refused = guest.ask(Ask::Usage, SOON).await.unwrap_err();
    assert_eq!(crate::guest::problem(&refused).status, 404);
    // A refusal leaves the session as it is.
    assert!(matches!(
        guest.ask(Ask::Usage, SOON).await,
        Ok(Answer::Done)
    ));
    playing.await.unwrap();
}

#[tokio::test]
async fn a_silent_agent_costs_the_deadline_and_a_new_session() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, mut guest) = listener(dir.path());
    let playing = tokio::spawn(async move {
        let mut first = accept(&listener).await;
        request(&mut first).await;
        let mut second = accept(&listener).await;
        let asked = request(&mut second).await;
        answer(&mut second, asked.id, Ok(healthy())).await;
    });
    let silent = guest
        .ask(Ask::Health, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(silent, GuestError::Silent(_)));
    assert_eq!(crate::guest::problem(&silent).status, 504);
    assert!(guest.ask(Ask::Health, SOON).await.is_ok());
    playing.await.unwrap();
}

#[tokio::test]
async fn hello_waits_for_the_agent_and_gets_past_the_tail_of_an_older_session() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let mut guest = Guest::new(path.clone());
    let playing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let listener = UnixListener::bind(path).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        frame::write(&mut stream, DATA, &[255; 40]).await.unwrap();
        accept(&listener).await
    });
    guest.hello(SOON).await.unwrap();
    playing.await.unwrap();
}

fn upload(size: u64) -> Upload {
    Upload {
        site: undine_model::SiteId::from_parts(1, [1; 10]),
        release: undine_model::ReleaseId::from_parts(1, [2; 10]),
        format: ArchiveFormat::Tar,
        size,
        sha256: "0".repeat(64),
    }
}

fn body(pieces: &[usize]) -> impl Stream<Item = Result<Bytes, io::Error>> + Unpin + use<> {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|size| Ok(Bytes::from(vec![7; *size])))
        .collect();
    futures_util::stream::iter(pieces)
}

#[tokio::test]
async fn an_archive_arrives_in_frames_and_an_empty_one_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, mut guest) = listener(dir.path());
    let playing = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let asked = request(&mut stream).await;
        let mut got = 0;
        loop {
            let (kind, payload) = frame::read(&mut stream).await.unwrap();
            assert_eq!(kind, DATA);
            if payload.is_empty() {
                break;
            }
            got += payload.len();
        }
        let bytes = undine_model::Bytes(got as u64);
        answer(
            &mut stream,
            asked.id,
            Ok(Answer::Uploaded { files: 1, bytes }),
        )
        .await;
        got
    });
    let size = MAX_PAYLOAD * 2 + 5;
    let taken = guest
        .upload(upload(size as u64), body(&[size - 3, 3]), SOON)
        .await
        .unwrap();
    assert!(matches!(taken, Answer::Uploaded { files: 1, .. }));
    assert_eq!(playing.await.unwrap(), size);
}

#[tokio::test]
async fn an_archive_of_another_length_than_announced_is_refused() {
    for (announced, pieces) in [(10, [4, 4]), (10, [8, 8])] {
        let dir = tempfile::tempdir().unwrap();
        let (listener, mut guest) = listener(dir.path());
        let playing = tokio::spawn(async move {
            let mut stream = accept(&listener).await;
            request(&mut stream).await;
            while frame::read(&mut stream).await.is_ok() {}
        });
        let error = guest
            .upload(upload(announced), body(&pieces), SOON)
            .await
            .unwrap_err();
        assert!(matches!(error, GuestError::Body(_)), "{error}");
        // The guest sees the end of the session and forgets what was half sent.
        playing.await.unwrap();
    }
}
