//! The end of what a client sends, seen behind what nobody reads.

use std::future::pending;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const WITHIN: Duration = Duration::from_secs(10);

async fn pair() -> (Guarded, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
    let (stream, _) = listener.accept().await.expect("accepts");
    (Guarded::new(stream, (&ServerLimits::default()).into()), client)
}

#[tokio::test]
async fn an_end_behind_what_nobody_reads_is_seen_and_what_is_before_it_is_no_end() {
    let (guarded, mut client) = pair().await;
    let connection = guarded.connection();
    client.write_all(&[b'x'; 1_000]).await.expect("sent");
    let stream = guarded.stream.clone();
    let came = poll_fn(|context| stream.borrow().poll_read_ready(context));
    timeout(WITHIN, came).await.expect("it comes").expect("no error");
    assert!(!connection.has_ended(), "it may send more");
    drop(client);
    let seen = async {
        while !connection.has_ended() {
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, seen).await.expect("the end is seen");
}

#[tokio::test]
async fn a_wait_goes_on_while_all_that_comes_is_read_and_ends_when_something_is_not() {
    let (mut guarded, mut client) = pair().await;
    let connection = guarded.connection();
    let mut buffer = [0; 100];
    let mut reads = 0;
    // As the server does it: it reads what it wants, then looks at the request.
    let mut waiting = pin!(connection.unless_closed(pending::<()>()));
    let mut serve = async |wanted: usize| {
        poll_fn(|context| {
            while reads < wanted {
                let read = Pin::new(&mut guarded).poll_read(context, &mut ReadBuf::new(&mut buffer));
                match read {
                    Poll::Ready(result) => result.expect("no error"),
                    Poll::Pending => break,
                }
                reads += 1;
            }
            waiting.as_mut().poll(context).map(Some)
        })
        .await
    };
    client.write_all(b"GET / HTTP/1.1").await.expect("sent");
    let goes_on = timeout(Duration::from_millis(100), serve(usize::MAX)).await;
    assert!(goes_on.is_err(), "it was read");
    client.write_all(b"unread").await.expect("sent");
    let ended = timeout(WITHIN, serve(0)).await.expect("the wait ends");
    assert_eq!(ended, Some(None));
}
