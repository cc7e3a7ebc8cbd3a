//! One connection: its timers, what came behind a request, and who takes nothing.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::*;

/// Bytes that the system holds at each end of a connection, or twice that.
const BUFFER: u32 = 256 << 10;

/// Both ends of a connection, ours guarded with five seconds for a head.
async fn pair() -> (Guarded, TcpStream) {
    pair_within(&ServerLimits::default()).await
}

async fn pair_within(limits: &ServerLimits) -> (Guarded, TcpStream) {
    let server = TcpSocket::new_v4().expect("a socket");
    server.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let client = TcpSocket::new_v4().expect("a socket");
    // Left alone, the system would have buffers grow to tens of MiB.
    server.set_send_buffer_size(BUFFER).expect("a size");
    client.set_recv_buffer_size(BUFFER).expect("a size");
    let listener = server.listen(1).expect("listens");
    let client = client.connect(listener.local_addr().expect("an address")).await.expect("connects");
    let (stream, _) = listener.accept().await.expect("accepts");
    (Guarded::new(stream, limits.into()), client)
}

async fn read(guarded: &mut Guarded) -> usize {
    guarded.read(&mut [0; 100]).await.expect("no error")
}

/// A request was answered and its answer written.
async fn answer(guarded: &mut Guarded) {
    drop(guarded.connection().serve(Follows::Nothing));
    guarded.flush().await.expect("written");
}

/// What the future gives, and no time passes meanwhile: paused time would run on while the system carries bytes.
async fn timeless<F: Future>(future: F) -> F::Output {
    let (end, ended) = std::sync::mpsc::sync_channel::<()>(0);
    let held = tokio::task::spawn_blocking(move || ended.recv());
    let output = future.await;
    drop(end);
    drop(held.await);
    output
}

async fn ring(connection: &Connection, from: Instant, after_s: u64) -> Duration {
    let deadline = from + Duration::from_secs(after_s);
    poll_fn(|context| connection.poll_until(context, deadline)).await;
    from.elapsed()
}

#[tokio::test(start_paused = true)]
async fn one_timer_rings_for_each_deadline_and_never_before_it() {
    let (connection, from) = (Connection::default(), Instant::now());
    assert_eq!(ring(&connection, from, 2).await.as_secs(), 2);
    // A later one, an earlier one while the later is set, and one that has passed.
    let later = connection.poll_until(
        &mut Context::from_waker(futures_util::task::noop_waker_ref()),
        from + Duration::from_secs(9),
    );
    assert!(later.is_pending());
    assert_eq!(ring(&connection, from, 5).await.as_secs(), 5);
    assert_eq!(ring(&connection, from, 9).await.as_secs(), 9);
    assert_eq!(ring(&connection, from, 1).await.as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_the_time_of_its_head_and_begins_that_of_the_pause() {
    let connection = Rc::new(Connection::default());
    assert!(matches!(connection.phase.get(), Phase::Head(_)));
    let serving = connection.serve(Follows::Nothing);
    assert!(matches!(connection.phase.get(), Phase::Serving));
    drop(serving);
    assert!(matches!(connection.phase.get(), Phase::Idle(since) if since == Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_rings_while_a_request_is_served_is_set_again() {
    let (mut guarded, _client) = pair().await;
    let connection = guarded.connection();
    let mut serving = Some(connection.serve(Follows::Nothing));
    let answered = Instant::now() + Duration::from_secs(70);
    let mut answering = Box::pin(sleep_until(answered));
    let mut buffer = [0; 10];
    // As the server does it: first it reads, then the answer becomes ready, and it reads again when something wakes it.
    let task = poll_fn(|context| {
        let read = Pin::new(&mut guarded).poll_read(context, &mut ReadBuf::new(&mut buffer));
        if serving.is_some() && answering.as_mut().poll(context).is_ready() {
            serving = None;
        }
        read
    });
    let ended = tokio::time::timeout(Duration::from_secs(200), task).await;
    ended.expect("somebody looked").expect("no error");
    assert_eq!(answered.elapsed(), ServerLimits::default().idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_told_so_and_ended() {
    let (mut guarded, mut client) = pair().await;
    let from = Instant::now();
    assert_eq!(read(&mut guarded).await, 0, "a connection on which nothing comes");
    assert_eq!(from.elapsed().as_secs(), 5);
    let mut told = [0; 64];
    let count = timeless(client.read(&mut told)).await.expect("an answer");
    assert!(told[..count].starts_with(b"HTTP/1.1 408 "));

    let (mut guarded, mut client) = pair().await;
    answer(&mut guarded).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.write_all(b"GET / HT").await.expect("sent");
    assert_eq!(timeless(read(&mut guarded)).await, 8);
    let from = Instant::now();
    assert_eq!(read(&mut guarded).await, 0, "the second head of a connection");
    assert_eq!(from.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_too_long_ends_the_connection_without_a_word() {
    let (mut guarded, mut client) = pair().await;
    answer(&mut guarded).await;
    let from = Instant::now();
    assert_eq!(read(&mut guarded).await, 0);
    assert_eq!(from.elapsed(), ServerLimits::default().idle_timeout);
    drop(guarded);
    assert_eq!(timeless(client.read(&mut [0; 10])).await.expect("the end"), 0);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_an_answer_is_cut_and_who_takes_some_is_not() {
    let (mut guarded, mut client) = pair().await;
    let _serving = guarded.connection().serve(Follows::Nothing);
    let answer = vec![7; 32 << 20];
    let from = Instant::now();
    let error = guarded.write_all(&answer).await.expect_err("more than all buffers hold");
    assert_eq!((error.kind(), from.elapsed()), (io::ErrorKind::TimedOut, WRITE_STALL_MAX));

    let (mut guarded, mut reader) = pair().await;
    let write = async {
        guarded.write_all(&answer).await.expect("taken");
        drop(guarded);
    };
    let mut taken = Vec::new();
    let take = async {
        tokio::time::sleep(WRITE_STALL_MAX / 2).await;
        timeless(reader.read_to_end(&mut taken)).await.expect("whole");
    };
    tokio::join!(write, take);
    assert_eq!(taken.len(), answer.len());
    drop(client.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn who_takes_an_answer_too_slowly_on_average_is_cut_though_it_takes_some_all_the_time() {
    const STEP: usize = 2 << 20;
    let limits = ServerLimits { answer_bytes_per_s_min: 1 << 20, ..ServerLimits::default() };
    let (mut guarded, mut reader) = pair_within(&limits).await;
    let _serving = guarded.connection().serve(Follows::Nothing);
    let answer = vec![7; 64 << 20];
    let write = async {
        let written = guarded.write_all(&answer).await;
        drop(guarded);
        written
    };
    let mut buffer = vec![0; STEP];
    // Some 700 KiB a second.
    let take = async {
        while timeless(reader.read_exact(&mut buffer)).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    };
    let (written, ()) = tokio::join!(write, take);
    assert_eq!(written.expect_err("cut").kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_of_an_answer_earns_time_for_the_rest() {
    let since = Instant::now();
    for (least, bytes, seconds) in [
        (1 << 20, 0, Some(10)),
        (1 << 20, 1 << 20, Some(11)),
        (1 << 20, 64 << 20, Some(74)),
        (64 << 10, 64 << 20, Some(10 + 1_024)),
        (1, u64::MAX, Some(10 + u64::MAX / 1_000)),
        (0, 0, None),
        (0, 64 << 20, None),
    ] {
        let patience =
            Patience::from(&ServerLimits { answer_bytes_per_s_min: least, ..ServerLimits::default() });
        let deadline = Taking { since, bytes }.deadline(patience);
        let after = deadline.map(|deadline| deadline.duration_since(since).as_secs());
        assert_eq!(after, seconds, "{bytes} bytes taken of an answer, at least {least} a second");
    }
}
