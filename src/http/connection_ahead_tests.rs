//! What comes behind a request under way.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const WITHIN: Duration = Duration::from_secs(10);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

async fn pair() -> (Guarded, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
    let (stream, _) = listener.accept().await.expect("accepts");
    (Guarded::new(stream, (&ServerLimits::default()).into()), client)
}

/// Reads as the server does: all there is. Gives it, and whether it was the end.
async fn read_all(guarded: &mut Guarded) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut room = vec![0; 8 << 10];
    poll_fn(|context| {
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            match Pin::new(&mut *guarded).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Ready((std::mem::take(&mut all), false)),
                Poll::Ready(result) => result.expect("no error"),
            }
            if buffer.filled().is_empty() {
                return Poll::Ready((std::mem::take(&mut all), true));
            }
            all.extend_from_slice(buffer.filled());
        }
    })
    .await
}

/// Waits until the system has something to read.
async fn arrived(guarded: &Guarded) {
    let stream = guarded.stream.clone();
    let came = poll_fn(|context| stream.borrow().poll_read_ready(context));
    timeout(WITHIN, came).await.expect("it comes").expect("no error");
}

/// Is given one request, which has to be the next one, and serves it.
async fn serve(guarded: &mut Guarded, request: &[u8]) -> Serving {
    let (mut given, _) = read_all(guarded).await;
    let follows = match request {
        POST => Follows::Length(5),
        CHUNKED => Follows::Chunks,
        _ => Follows::Nothing,
    };
    let serving = guarded.connection().serve(follows);
    given.extend(read_all(guarded).await.0);
    assert_eq!(String::from_utf8_lossy(&given), String::from_utf8_lossy(request));
    serving
}

#[tokio::test]
async fn the_next_request_is_given_when_the_answer_before_it_was_written() {
    let (mut guarded, mut client) = pair().await;
    let requests = [GET, POST, CHUNKED, GET, CHUNKED, POST, POST, GET];
    client.write_all(&requests.concat()).await.expect("sent");
    arrived(&guarded).await;
    for request in requests {
        let serving = serve(&mut guarded, request).await;
        assert_eq!(read_all(&mut guarded).await, (vec![], false), "it is served");
        drop(serving);
        assert_eq!(read_all(&mut guarded).await, (vec![], false), "nothing of its answer was written");
        guarded.write_all(b"HTTP/1.1 200 OK\r\n").await.expect("written");
        assert_eq!(read_all(&mut guarded).await, (vec![], false), "there is more of it");
        guarded.flush().await.expect("written");
    }
    assert_eq!(read_all(&mut guarded).await, (vec![], false));
    client.write_all(b"GET / HTTP").await.expect("sent");
    arrived(&guarded).await;
    assert_eq!(read_all(&mut guarded).await.0, b"GET / HTTP");
}

#[tokio::test]
async fn the_end_is_seen_behind_other_requests_and_told_behind_them() {
    let (mut guarded, mut client) = pair().await;
    client.write_all(&[GET, GET].concat()).await.expect("sent");
    client.shutdown().await.expect("closed");
    arrived(&guarded).await;
    let first = serve(&mut guarded, GET).await;
    let connection = guarded.connection();
    let seen = async {
        while !connection.is_closed.get() {
            assert_eq!(read_all(&mut guarded).await, (vec![], false));
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, seen).await.expect("the end is seen");
    drop(first);
    guarded.flush().await.expect("written");
    assert_eq!(read_all(&mut guarded).await, (GET.to_vec(), true));
}

#[tokio::test]
async fn no_more_is_kept_than_there_is_room_for_and_nothing_of_it_is_lost() {
    let (mut guarded, client) = pair().await;
    let all = GET.repeat(20_000);
    client.writable().await.expect("an open socket");
    let mut sent_bytes = 0;
    let mut given = Vec::new();
    let mut kept_bytes_max = 0;
    while given.len() < all.len() {
        // As much as the system takes.
        sent_bytes += client.try_write(&all[sent_bytes..]).unwrap_or(0);
        let (part, is_end) = read_all(&mut guarded).await;
        assert!(!is_end);
        if part.is_empty() {
            arrived(&guarded).await;
            continue;
        }
        given.extend(part);
        if given.ends_with(b"\r\n\r\n") {
            let serving = guarded.connection().serve(Follows::Nothing);
            assert_eq!(read_all(&mut guarded).await, (vec![], false));
            kept_bytes_max = kept_bytes_max.max(guarded.ahead.len());
            drop(serving);
            guarded.flush().await.expect("written");
        }
    }
    assert!(given == all);
    assert!(kept_bytes_max > 64 << 10, "{kept_bytes_max}");
    assert!(kept_bytes_max <= AHEAD_BYTES_MAX, "{kept_bytes_max}");
    assert_eq!(guarded.ahead.capacity(), 0, "nothing is kept for who is done");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_head_begins_when_the_answer_before_it_was_written() {
    let (mut guarded, mut client) = pair().await;
    client.write_all(&[GET, b"GET / HT"].concat()).await.expect("sent");
    arrived(&guarded).await;
    let serving = serve(&mut guarded, GET).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    drop(serving);
    tokio::time::sleep(Duration::from_secs(20)).await;
    guarded.flush().await.expect("written");
    let from = Instant::now();
    assert_eq!(guarded.read(&mut [0; 100]).await.expect("no error"), 8);
    assert_eq!(guarded.read(&mut [0; 100]).await.expect("no error"), 0);
    assert_eq!(from.elapsed().as_secs(), 5);
}
