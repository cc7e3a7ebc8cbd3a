//! Mailboxes: bounds, order, what is given back.

use std::thread;

use futures_util::future::join;
use tokio::time::Instant;

use super::super::mailbox::mailbox;
use super::*;

#[test]
fn a_full_mailbox_refuses_and_gives_the_message_back() {
    let (address, mut inbox) = mailbox(2);
    address.try_send("a").unwrap();
    address.try_send("b").unwrap();
    assert_eq!((address.depth(), address.capacity()), (2, 2));
    let refused = address.try_send("c").unwrap_err();
    assert!(matches!(refused, SendError::Full("c")), "{refused:?}");
    assert_eq!(inbox.try_next(), Some("a"));
    address.try_send(refused.into_message()).unwrap();
    assert_eq!((inbox.try_next(), inbox.try_next(), inbox.try_next()), (Some("b"), Some("c"), None));
    assert_eq!(address.depth(), 0);
}

#[test]
fn a_closed_mailbox_refuses_and_gives_the_message_back() {
    let (address, inbox) = mailbox(2);
    drop(inbox);
    assert!(address.is_closed());
    assert!(matches!(address.try_send("a"), Err(SendError::Closed("a"))));
}

#[tokio::test]
async fn a_closed_inbox_refuses_what_is_new_and_hands_out_what_is_queued() {
    let (address, mut inbox) = mailbox(2);
    address.try_send("a").unwrap();
    inbox.close();
    assert!(matches!(address.send("b", NEVER).await, Err(SendError::Closed("b"))));
    assert_eq!(inbox.next().await, Some("a"));
    assert_eq!(inbox.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn send_waits_for_room_until_its_deadline() {
    let (address, _inbox) = mailbox(1);
    address.try_send("a").unwrap();
    let start = Instant::now();
    let refused = address.send("b", Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(SendError::Full("b"))));
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(address.depth(), 1);
}

#[tokio::test(start_paused = true)]
async fn send_goes_through_as_soon_as_there_is_room() {
    let (address, mut inbox) = mailbox(1);
    address.try_send("a").unwrap();
    let start = Instant::now();
    let reader = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        inbox.next().await
    };
    let (sent, read) = join(address.send("b", Duration::from_secs(5)), reader).await;
    assert!(sent.is_ok());
    assert_eq!(read, Some("a"));
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(inbox.next().await, Some("b"));
}

#[tokio::test(start_paused = true)]
async fn send_learns_that_the_mailbox_closes_while_it_waits() {
    let (address, inbox) = mailbox(1);
    address.try_send("a").unwrap();
    let closer = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(inbox);
    };
    let (sent, ()) = join(address.send("b", NEVER), closer).await;
    assert!(matches!(sent, Err(SendError::Closed("b"))));
}

#[tokio::test]
async fn a_send_dropped_while_it_waits_sends_nothing() {
    let (address, mut inbox) = mailbox(1);
    address.try_send("a").unwrap();
    assert!(address.send("b", NEVER).now_or_never().is_none());
    assert_eq!(inbox.try_next(), Some("a"));
    address.try_send("c").unwrap();
    assert_eq!((inbox.try_next(), inbox.try_next()), (Some("c"), None));
}

#[tokio::test]
async fn next_many_takes_what_is_there_up_to_its_maximum() {
    let (address, mut inbox) = mailbox(8);
    for number in 0..5 {
        address.try_send(number).unwrap();
    }
    let mut messages = vec![99];
    assert_eq!(inbox.next_many(&mut messages, 3).await, 3);
    assert_eq!(messages, [99, 0, 1, 2]);
    assert_eq!((inbox.depth(), address.depth()), (2, 2));
    assert_eq!(inbox.next_many(&mut messages, 0).await, 1, "a maximum of 0 counts as 1");
    drop(address);
    assert_eq!(inbox.next_many(&mut messages, 3).await, 1);
    assert_eq!(inbox.next_many(&mut messages, 3).await, 0);
    assert_eq!(messages, [99, 0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn next_answers_none_once_all_addresses_are_gone_and_nothing_is_left() {
    let (address, mut inbox) = mailbox(2);
    let other = address.clone();
    address.try_send("a").unwrap();
    drop(address);
    assert!(!inbox.is_closed());
    drop(other);
    assert!(inbox.is_closed());
    assert_eq!(inbox.next().await, Some("a"));
    assert_eq!(inbox.next().await, None);
}

/// Reads until all addresses are gone.
struct Reader(mpsc::SyncSender<Vec<(usize, u32)>>);

impl Actor for Reader {
    type Message = (usize, u32);

    async fn run(&mut self, inbox: &mut Inbox<Self::Message>, _life: &Life) -> Exit {
        let mut messages = Vec::new();
        while inbox.next_many(&mut messages, 7).await > 0 {}
        self.0.send(messages).unwrap();
        Exit::Quit
    }
}

#[test]
fn thousands_of_messages_across_threads_arrive_in_order_per_sender() {
    const SENDERS: usize = 4;
    const MESSAGES: u32 = 5_000;
    let supervisor = Supervisor::new(PHASES);
    let arbiter = supervisor.arbiter("reader");
    let (done, result) = mpsc::sync_channel(16);
    let role = Role { mailbox_capacity: 16, ..role("reader", "first") };
    let address = supervisor.start(&Place::On(arbiter), role, move || Reader(done.clone()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let address = address.clone();
            thread::spawn(move || {
                in_system(async {
                    for number in 0..MESSAGES {
                        address.send((sender, number), PATIENCE).await.unwrap();
                    }
                });
            })
        })
        .collect();
    drop(address);
    for sender in senders {
        sender.join().unwrap();
    }
    let messages = result.recv_timeout(PATIENCE).unwrap();
    for sender in 0..SENDERS {
        let numbers = messages.iter().filter(|(from, _)| *from == sender).map(|(_, number)| *number);
        assert!(numbers.eq(0..MESSAGES), "sender {sender}");
    }
    assert!(in_system(supervisor.shutdown(None)).is_clean());
}
