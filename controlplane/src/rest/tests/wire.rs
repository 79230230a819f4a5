//! The API on a real socket, and over a store that refuses.

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::Key;
use crate::store::{Compare, Revision, Store, StoreError, Version, Write};

/// A store whose disk is full.
struct Full(Memory);

#[async_trait]
impl Store for Full {
    async fn txn(&self, _: Vec<Compare>, _: Vec<Write>, _: Arc<str>) -> Result<Revision, StoreError> {
        Err(StoreError::Full("No space left on device".to_owned()))
    }

    async fn load(&self) -> Result<(Revision, Vec<Version>), StoreError> {
        self.0.load().await
    }

    async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError> {
        self.0.at(revision).await
    }

    async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError> {
        self.0.history(key, before, limit).await
    }

    async fn since(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError> {
        self.0.since(after, most).await
    }

    fn newest(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.0.newest()
    }

    async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError> {
        self.0.compact(keep_revisions, keep_ms).await
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_serving() {
    let (admin, _) = admin_over(Arc::new(Full(Memory::new(Arc::new(|| 1)))), Settings::default()).await;
    let api = router(admin);
    let refused = call(&api, "PUT /routes/1", json!({"uri": "/", "plugins": {}})).await;
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(refused.error().contains("No space left on device"), "{}", refused.text);
    assert_eq!(call(&api, "GET /routes", None).await.status, StatusCode::OK);
    assert_eq!(call(&api, "GET /status", None).await.json()["store"]["writable"], json!(false));
}

async fn talk(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("\"list\"") {
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_socket_is_served_until_it_drains() {
    let (admin, _) = admin_over(Arc::new(Memory::new(Arc::new(|| 1))), Settings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (completion, watch) = heddle_node::drain::pair();
    let serving = tokio::spawn(crate::rest::serve(listener, admin, watch));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /apisix/admin/routes HTTP/1.1\r\nHost: {address}\r\nX-API-KEY: {ADMIN}\r\n\r\n");
    for _ in 0..2 {
        let answer = talk(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-api-version: v3"), "{answer}");
    }
    let drained = completion.drain(std::time::Duration::from_secs(10), std::time::Duration::from_secs(1)).await;
    assert_eq!(drained, heddle_node::drain::Drained::Clean);
    serving.await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "an idle connection is closed");
}
