//! Publishing: groups, calls sent again, what comes out is what went in.

use std::sync::Arc;
use std::task::Poll;

use posthaste::domain::message::Headers;
use posthaste::domain::record;
use posthaste::domain::retry::Verdict;
use posthaste::store::enqueue::{CallId, GroupResult};
use posthaste::store::lease::LeaseRequest;

use super::stand::{Draft, Stand, draft, ids, request, seconds};

pub(super) async fn a_message_comes_out_byte_for_byte_as_it_went_in(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let payloads: [&[u8]; 5] = [
        b"",
        br#"{"n":9223372036854775807,"tiny":1e-400,"big":123456789012345678901234567890.10}"#,
        &std::array::from_fn::<u8, 256, _>(|byte| u8::try_from(byte).expect("a byte")),
        &[0; 3],
        &vec![b'x'; 300_000],
    ];
    let headers = Headers {
        content_type: "application/json; charset=utf-8".to_owned(),
        forward: vec![("X-Order".to_owned(), "17".to_owned())],
        ..Headers::default()
    };
    let drafts: Vec<_> = payloads
        .iter()
        .map(|payload| Draft { payload: payload.to_vec(), headers: headers.clone(), ..draft() })
        .collect();
    let group = stand.group(&queue, &drafts);
    let sent: Vec<_> = group.messages.iter().map(|message| message.record.clone()).collect();
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    let leased = stand.lease(&queue, 10).await;
    let received: Vec<_> = leased.leases.iter().map(|lease| lease.record.bytes().to_vec()).collect();
    assert_eq!(received, sent);
    for (lease, payload) in leased.leases.iter().zip(payloads) {
        assert_eq!(lease.record.payload(), payload);
        assert_eq!(Headers::decode(&lease.record.headers()).as_ref(), Some(&headers));
    }
}

pub(super) async fn a_group_is_stored_whole(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 3).await;
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.accepted, stats.gauges.pending, stats.gauges.bytes_waiting), (3, 3, 30));
    assert_eq!(stand.drain(&queue).await, published);
}

pub(super) async fn one_groups_refusal_leaves_the_others_alone(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 3).await;
    let (one, three, two) = (1, 3, 2);
    let groups = [one, three, two].map(|count| stand.group(&queue, &vec![draft(); count]));
    let full = GroupResult::QueueFull { setting: "limits.length_max", limit: 3 };
    assert_eq!(stand.enqueue(groups.to_vec()).await, [GroupResult::Accepted, full, GroupResult::Accepted]);
    assert_eq!(stand.stats(&queue).await.gauges.pending, 3);
}

pub(super) async fn one_call_may_publish_to_many_queues(stand: &mut Stand) {
    let (first, second) = (stand.queue("orders").await, stand.queue("mails").await);
    let groups = vec![stand.group(&first, &[draft()]), stand.group(&second, &[draft(), draft()])];
    assert_eq!(stand.enqueue(groups).await, [GroupResult::Accepted, GroupResult::Accepted]);
    assert_eq!(stand.stats(&first).await.gauges.pending, 1);
    assert_eq!(stand.stats(&second).await.gauges.pending, 2);
}

pub(super) async fn a_group_for_a_queue_that_is_gone_is_refused_alone(stand: &mut Stand) {
    let (queue, gone) = (stand.queue("orders").await, stand.queue("mails").await);
    stand.connection.delete_queue(gone.clone(), false).await.expect("an empty queue can be deleted");
    let groups = vec![stand.group(&gone, &[draft()]), stand.group(&queue, &[draft()])];
    assert_eq!(stand.enqueue(groups).await, [GroupResult::Gone, GroupResult::Accepted]);
}

pub(super) async fn a_call_sent_again_stores_nothing_twice(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let groups = Arc::new(vec![stand.group(&queue, &[draft(), draft()])]);
    let call = CallId::random();
    for _ in 0..3 {
        let results = stand.connection.enqueue(call, Arc::clone(&groups)).await.expect("the store answers");
        assert_eq!(results, [GroupResult::Accepted]);
        stand.clock.advance(seconds(19));
    }
    assert_eq!(stand.stats(&queue).await.counters.accepted, 2);
    assert_eq!(stand.drain(&queue).await.len(), 2);
    let results = stand.connection.enqueue(call, groups).await.expect("the store answers");
    assert_eq!(results, [GroupResult::Accepted], "also when everything was delivered since");
    assert_eq!(stand.stats(&queue).await.gauges.pending, 0);
}

pub(super) async fn a_call_sent_again_on_another_connection_is_the_same_call(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let groups = Arc::new(vec![stand.group(&queue, &[draft()])]);
    let call = CallId::random();
    for _ in 0..2 {
        let results =
            stand.store.connect().enqueue(call, Arc::clone(&groups)).await.expect("the store answers");
        assert_eq!(results, [GroupResult::Accepted]);
    }
    assert_eq!(stand.stats(&queue).await.counters.accepted, 1);
}

pub(super) async fn a_call_repeats_its_refusals_until_it_is_forgotten(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 1).await;
    stand.publish_plain(&queue, 1).await;
    let groups = Arc::new(vec![stand.group(&queue, &[draft()])]);
    let call = CallId::random();
    let again = || stand.connection.enqueue(call, Arc::clone(&groups));
    let full = [GroupResult::QueueFull { setting: "limits.length_max", limit: 1 }];
    assert_eq!(again().await.expect("the store answers"), full);
    stand.drain(&queue).await;
    stand.clock.advance(seconds(59));
    assert_eq!(again().await.expect("the store answers"), full);
    stand.clock.advance(seconds(2));
    stand.sweep().await;
    assert_eq!(again().await.expect("the store answers"), [GroupResult::Accepted]);
}

pub(super) async fn a_clock_set_back_does_not_make_a_call_forgotten(stand: &mut Stand) {
    if stand.is_shared() {
        return;
    }
    let queue = stand.queue("orders").await;
    let groups = Arc::new(vec![stand.group(&queue, &[draft()])]);
    let call = CallId::random();
    for jump in [seconds(0), seconds(3_600), seconds(60)] {
        stand.clock.set_wall(stand.now().saturating_sub(jump));
        stand.connection.enqueue(call, Arc::clone(&groups)).await.expect("the store answers");
        stand.clock.set_wall(stand.now().saturating_add(jump + jump));
        stand.connection.enqueue(call, Arc::clone(&groups)).await.expect("the store answers");
    }
    assert_eq!(stand.stats(&queue).await.counters.accepted, 1);
}

pub(super) async fn a_group_larger_than_any_budget_is_stored_alone(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let large = Draft { payload: vec![7; 6 << 20], ..draft() };
    let group = stand.group(&queue, &[large.clone(), large]);
    let bytes: u64 = group.messages.iter().map(|message| record::charged_bytes(&message.record)).sum();
    let small = stand.group(&queue, &vec![draft(); 1_000]);
    assert_eq!(stand.enqueue(vec![group, small]).await, [GroupResult::Accepted, GroupResult::Accepted]);
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.pending, stats.gauges.bytes_waiting), (1_002, bytes + 10_000));
    let leased = stand.take(LeaseRequest { bytes_max: 1 << 20, ..request(&queue) }).await;
    assert_eq!(leased.leases.len(), 1, "one message may exceed the bytes alone");
    stand.settle_all(leased, Verdict::Ack).await;
}

pub(super) async fn publishes_of_many_connections_at_once_are_all_kept(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let publishes = (0..40).map(|_| {
        let (connection, groups) = (stand.store.connect(), vec![stand.group(&queue, &[draft(), draft()])]);
        async move { connection.enqueue(CallId::random(), Arc::new(groups)).await }
    });
    for result in futures_util::future::join_all(publishes).await {
        assert_eq!(result.expect("the store answers"), [GroupResult::Accepted]);
    }
    assert_eq!(stand.stats(&queue).await.counters.accepted, 80);
    assert_eq!(ids(&stand.lease(&queue, 1_000).await).len(), 80);
}

pub(super) async fn a_call_whose_answer_nobody_awaits_happens_once_or_not_at_all(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let groups = Arc::new(vec![stand.group(&queue, &[draft()])]);
    let call = CallId::random();
    let connection = std::rc::Rc::clone(&stand.connection);
    let dropped = connection.enqueue(call, Arc::clone(&groups));
    drop(dropped);
    let mut polled = connection.enqueue(call, Arc::clone(&groups));
    let ready = std::future::poll_fn(|context| Poll::Ready(polled.as_mut().poll(context).is_ready())).await;
    drop(polled);
    let before = stand.stats(&queue).await.counters.accepted;
    assert!(before <= 1 && (!ready || before == 1), "{before}");
    let results = stand.connection.enqueue(call, groups).await.expect("the store answers");
    assert_eq!(results, [GroupResult::Accepted]);
    assert_eq!(stand.stats(&queue).await.counters.accepted, 1);
}
