//! The smallest server that Prometheus understands: every request gets the figures.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::shared::{Shared, boottime_ms};
use crate::status;

const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(500);

/// Serves for ever.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let text = status::figures(&status::of(&shared.brain(), boottime_ms()));
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let reading = tokio::time::timeout(PATIENCE, stream.read(&mut request));
            if !matches!(reading.await, Ok(Ok(1..))) {
                return;
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}
