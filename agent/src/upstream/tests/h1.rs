//! HTTP/1: pooling, framing, faults.

use bytes::Bytes;

use super::*;
use crate::exchange::Reason;

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

async fn text(response: UpstreamResponse) -> Result<Bytes, crate::http::BodyError> {
    response.body.collect(1 << 20).await
}

#[test]
fn a_small_answer_comes_whole_and_its_connection_serves_again() {
    run(async {
        let cluster = cluster(&[canned(&[HELLO, HELLO, HELLO]).await], |_| ());
        let pools = Pools::new();
        for nth in 0..3 {
            let response = get(&pools, &cluster).await.unwrap();
            assert!(matches!(&response.body, Body::Full(bytes) if bytes == "hello"));
            assert_eq!((response.head.status, response.reused), (200, nth > 0));
        }
        let totals = totals(&cluster);
        assert_eq!((totals.attempts, totals.answered, totals.connects, totals.reused, totals.active), (3, 3, 1, 2, 0));
    });
}
