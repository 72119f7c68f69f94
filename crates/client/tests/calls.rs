//! What the generated methods send, and what they make of answers, on a real connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use undine_api::public::{CreateAccount, UpdateNode};
use undine_client::{Client, ClientError, ListSitesQuery};
use undine_model::NodeId;

/// Answers one request after the other and tells what was asked: head and body.
async fn control(
    answers: Vec<(u16, &'static str)>,
) -> (Client, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the connection holds");
    let base = format!(
        "http://{}/",
        listener.local_addr().expect("the connection holds")
    );
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.expect("the connection holds");
            let mut text = String::new();
            let mut piece = [0; 4096];
            while !whole(&text) {
                let count = stream.read(&mut piece).await.expect("the connection holds");
                text += &String::from_utf8_lossy(&piece[..count]);
            }
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream
                .write_all((head + body).as_bytes())
                .await
                .expect("the connection holds");
            asked.push(text);
        }
        asked
    });
    (
        connect(&base, "secret-token").expect("the connection holds"),
        asked,
    )
}

fn connect(base: &str, token: &str) -> Result<Client, ClientError> {
    // Whoever uses the client chooses the cryptography, in the first line that runs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(base, token.to_owned())
}

fn whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")
            .map(str::to_owned)
    });
    body.len() >= length.map_or(0, |length| length.parse().expect("the connection holds"))
}

#[tokio::test]
async fn a_change_names_its_version_and_a_create_its_key() {
    let refusal = r#"{"type":"x","title":"t","status":409,"detail":"taken","field":"name"}"#;
    let (client, asked) = control(vec![(409, refusal), (409, refusal)]).await;
    let id = NodeId::from_parts(1, [7; 10]);
    let state = serde_json::from_str::<UpdateNode>(r#"{"state":"cordoned"}"#).unwrap();
    let error = client.update_node(id, "\"3\"", &state).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(it) if it.status == 409));
    assert!(error.to_string().contains("field: name"), "{error}");
    let wish: CreateAccount = serde_json::from_str(r#"{"name":"shop","plan":"small"}"#).unwrap();
    assert!(client.create_account("key-1", &wish).await.is_err());
    let asked = asked.await.unwrap();
    assert!(
        asked[0].starts_with(&format!("PATCH /v1/nodes/{id} ")),
        "{}",
        asked[0]
    );
    assert!(asked[0].contains("if-match: \"3\""), "{}", asked[0]);
    assert!(
        asked[0].contains("authorization: Bearer secret-token"),
        "{}",
        asked[0]
    );
    assert!(
        asked[0].ends_with(r#"{"state":"cordoned"}"#),
        "{}",
        asked[0]
    );
    assert!(asked[1].starts_with("POST /v1/accounts "), "{}", asked[1]);
    assert!(asked[1].contains("idempotency-key: key-1"), "{}", asked[1]);
}

#[tokio::test]
async fn a_list_is_read_page_after_page() {
    let (client, asked) = control(vec![
        (200, r#"{"items":[],"next":"a b&c"}"#),
        (200, r#"{"items":[]}"#),
    ])
    .await;
    let query = ListSitesQuery {
        domain: Some("shop.example".to_owned()),
        ..ListSitesQuery::default()
    };
    assert!(client.every_sites(query).await.unwrap().is_empty());
    let asked = asked.await.unwrap();
    let first = "GET /v1/sites?limit=200&domain=shop.example ";
    let second = "GET /v1/sites?limit=200&cursor=a+b%26c&domain=shop.example ";
    assert!(asked[0].starts_with(first), "{}", asked[0]);
    assert!(asked[1].starts_with(second), "{}", asked[1]);
}

#[tokio::test]
async fn a_name_in_a_path_stays_one_segment() {
    let (client, asked) = control(vec![(500, "oops")]).await;
    let error = client.get_profile("../v1/tokens?x=1").await.unwrap_err();
    assert!(matches!(error, ClientError::Status(500)));
    let asked = asked.await.unwrap();
    let path = "GET /v1/profiles/..%2Fv1%2Ftokens%3Fx=1 ";
    assert!(asked[0].starts_with(path), "{}", asked[0]);
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_a_refusal_and_the_token_stays_out() {
    let client = connect("http://127.0.0.1:9", "secret-token").unwrap();
    let error = client.who_am_i().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(!format!("{client:?} {error:?}").contains("secret-token"));
    assert!(matches!(
        connect("no address", ""),
        Err(ClientError::Address(_))
    ));
}
