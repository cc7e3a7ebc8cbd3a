//! Queues: making, changing, holding and deleting them; stats and health.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use posthaste::domain::destination::Destination;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::queue::{Generation, ParkReason, QueueSettings, Source};
use posthaste::domain::retry::Verdict;
use posthaste::domain::secret::{SealedText, SecretSetting};
use posthaste::store::dead::{DeadFilter, DeadGrouping, Selection};
use posthaste::store::enqueue::{CallId, Due};
use posthaste::store::error::{StoreError, Stored};
use posthaste::store::lease::{Extended, Settled};
use posthaste::store::stats::{Counters, Gauges};
use posthaste::store::{Changed, Deleted, Hold, Put, QueueEntry, QueueRef, Scheduled};

use super::stand::{Draft, START, Stand, dead, draft, plain_settings, refusal, request, seconds, settlement};

pub(super) async fn queues_are_listed_by_name_with_their_settings(stand: &mut Stand) {
    assert_eq!(stand.connection.queues().await, Ok(vec![]));
    for (name, length_max) in [("mails", 7), ("orders", 8), ("Zebra", 9), ("a.b-c_d", 10)] {
        stand.queue_with(name, |settings| settings.limits.length_max = length_max).await;
    }
    let all = stand.connection.queues().await.expect("the store answers");
    let shown: Vec<_> =
        all.iter().map(|entry| (entry.name.as_str(), entry.settings.limits.length_max)).collect();
    assert_eq!(shown, [("Zebra", 9), ("a.b-c_d", 10), ("mails", 7), ("orders", 8)]);
    assert!(all.iter().all(|entry| entry.source == Source::Api && !entry.paused && entry.parked.is_none()));
    let generations: HashSet<u64> = all.iter().map(|entry| entry.generation.0).collect();
    assert_eq!(generations.len(), 4);
}

pub(super) async fn every_setting_of_a_queue_is_kept(stand: &mut Stand) {
    let settings = QueueSettings {
        destination: Some("https://shop.example/hook".parse().expect("a destination")),
        destination_override: posthaste::domain::queue::DestinationOverride::Origins(vec![
            "https://a.example".to_owned(),
        ]),
        ttl: Some(std::time::Duration::from_millis(1_234_567)),
        lookup: false,
        lease: Some(seconds(61)),
        ..plain_settings()
    };
    let queue = stand.queue_with("orders", |own| own.clone_from(&settings)).await;
    assert_eq!(*stand.entry(&queue).await.settings, settings);
    if stand.restart().await {
        assert_eq!(*stand.entry(&queue).await.settings, settings);
    }
}

pub(super) async fn a_put_without_a_secret_leaves_the_one_there_is(stand: &mut Stand) {
    let sealed = SecretSetting::Sealed(SealedText::new("AAAA"));
    let with = |secret: Option<&SecretSetting>| {
        Arc::new(QueueSettings { secret: secret.cloned(), timeout: seconds(7), ..plain_settings() })
    };
    let queue = stand.queue_with("orders", |own| own.secret = Some(sealed.clone())).await;
    let put = stand.connection.put_queue(queue.name.clone(), with(None)).await.expect("the store answers");
    let Put::Updated(entry) = put else { panic!("{put:?}") };
    assert_eq!(entry.settings, with(Some(&sealed)));
    stand.restart().await;
    assert_eq!(stand.entry(&queue).await.settings, with(Some(&sealed)));
    // Another one takes its place, and only who names what was there takes it away.
    let other = SecretSetting::Sealed(SealedText::new("BBBB"));
    let put = stand.connection.put_queue(queue.name.clone(), with(Some(&other))).await;
    assert!(put.is_ok_and(|put| matches!(put, Put::Updated(entry) if entry.settings == with(Some(&other)))));
    let changed = stand.connection.change_queue(queue.clone(), with(Some(&other)), with(None)).await;
    assert!(matches!(changed, Ok(Changed::Changed(entry)) if entry.settings == with(None)));
    assert_eq!(stand.entry(&queue).await.settings, with(None));
}

pub(super) async fn new_settings_leave_messages_generation_and_holds(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 2).await;
    stand.hold(&queue, Hold::Pause).await;
    stand.hold(&queue, Hold::Park(ParkReason::DestinationGone)).await;
    stand.change(&queue, |settings| settings.limits.length_max = 2).await;
    let entry = stand.entry(&queue).await;
    assert_eq!((entry.generation, entry.settings.limits.length_max), (queue.generation, 2));
    assert_eq!((entry.paused, entry.parked), (true, Some(ParkReason::DestinationGone)));
    let full = stand.offer(stand.group(&queue, &[draft()])).await;
    assert!(matches!(full, posthaste::store::enqueue::GroupResult::QueueFull { limit: 2, .. }), "{full:?}");
    stand.hold(&queue, Hold::Resume).await;
    assert_eq!(stand.drain(&queue).await, published);
}

pub(super) async fn a_queue_is_paused_parked_and_resumed(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let holds = |entry: posthaste::store::QueueEntry| (entry.paused, entry.parked);
    let gone = Some(ParkReason::DestinationGone);
    assert_eq!(holds(stand.hold(&queue, Hold::Pause).await), (true, None));
    assert_eq!(holds(stand.hold(&queue, Hold::Park(ParkReason::DestinationGone)).await), (true, gone));
    assert_eq!(holds(stand.entry(&queue).await), (true, gone));
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.paused, stats.parked), (true, gone));
    if stand.restart().await {
        assert_eq!(holds(stand.entry(&queue).await), (true, gone), "across restarts");
    }
    assert_eq!(holds(stand.hold(&queue, Hold::Resume).await), (false, None));
    assert_eq!(holds(stand.entry(&queue).await), (false, None));
}

pub(super) async fn a_queue_that_is_parked_for_its_destination_goes_on_with_another_one(stand: &mut Stand) {
    let url = |text: &str| -> Destination { text.parse().expect("a destination") };
    let (first, second) = (url("https://a.example/"), url("https://b.example/"));
    let queue = stand.queue_with("orders", |own| own.destination = Some(first.clone())).await;
    let published = stand.publish_plain(&queue, 2).await;
    for reason in [ParkReason::DestinationGone, ParkReason::EgressRefused] {
        stand.change(&queue, |settings| settings.destination = Some(first.clone())).await;
        stand.hold(&queue, Hold::Pause).await;
        stand.hold(&queue, Hold::Park(reason)).await;
        stand.change(&queue, |settings| settings.limits.length_max = 7).await;
        assert_eq!(stand.entry(&queue).await.parked, Some(reason), "the destination is the same");
        stand.change(&queue, |settings| settings.destination = Some(second.clone())).await;
        let entry = stand.entry(&queue).await;
        assert_eq!((entry.paused, entry.parked), (true, None), "and an operator's pause stays");
        stand.hold(&queue, Hold::Resume).await;
    }
    // An answer that comes late is that of a destination that the queue has no more.
    assert_eq!(stand.hold(&queue, Hold::Gone(first)).await.parked, None);
    let entry = stand.hold(&queue, Hold::Gone(second)).await;
    assert_eq!((entry.paused, entry.parked), (false, Some(ParkReason::DestinationGone)));
    assert_eq!(stand.sweep().await.ready, []);
    let other = Hold::Unpark(ParkReason::EgressRefused);
    assert_eq!(stand.hold(&queue, other).await.parked, Some(ParkReason::DestinationGone));
    let entry = stand.hold(&queue, Hold::Unpark(ParkReason::DestinationGone)).await;
    assert_eq!((entry.paused, entry.parked), (false, None));
    assert_eq!(stand.sweep().await.ready, std::slice::from_ref(&queue.name));
    assert_eq!(stand.drain(&queue).await, published);
}

fn declared(queues: &[(&str, u64)]) -> Vec<(posthaste::domain::queue::QueueName, Arc<QueueSettings>)> {
    let of = |(name, length_max): &(&str, u64)| {
        let mut settings = plain_settings();
        settings.limits.length_max = *length_max;
        (name.parse().expect("a name"), Arc::new(settings))
    };
    queues.iter().map(of).collect()
}

/// A queue by its name, who declared it, and a setting.
type Shown = (String, Source, u64);

/// All queues, and as they were those whose settings were replaced.
async fn declare(stand: &Stand, queues: &[(&str, u64)]) -> (Vec<Shown>, Vec<Shown>) {
    let (all, replaced) = stand.connection.declare(declared(queues)).await.expect("the store answers");
    let shown = |entry: QueueEntry| (entry.name.to_string(), entry.source, entry.settings.limits.length_max);
    (all.into_iter().map(shown).collect(), replaced.into_iter().map(shown).collect())
}

pub(super) async fn a_file_declares_queues_and_the_last_one_wins(stand: &mut Stand) {
    let shown = |name: &str, source, length_max| (name.to_owned(), source, length_max);
    stand.queue_with("mails", |settings| settings.limits.length_max = 1).await;
    let (all, replaced) = declare(stand, &[("orders", 5), ("alerts", 6)]).await;
    assert_eq!(
        all,
        [shown("alerts", Source::File, 6), shown("mails", Source::Api, 1), shown("orders", Source::File, 5)]
    );
    assert_eq!(replaced, []);
    let before = stand.connection.queues().await.expect("the store answers");

    // The same again, one changed, one no longer declared, one taken over from the API.
    let (all, replaced) = declare(stand, &[("orders", 7), ("mails", 2)]).await;
    assert_eq!(
        all,
        [shown("alerts", Source::Api, 6), shown("mails", Source::File, 2), shown("orders", Source::File, 7)]
    );
    assert_eq!(replaced, [shown("mails", Source::Api, 1), shown("orders", Source::File, 5)]);
    assert_eq!(declare(stand, &[("orders", 7), ("mails", 2)]).await, (all, vec![]));
    let after = stand.connection.queues().await.expect("the store answers");
    let same = before.iter().zip(&after).all(|(before, after)| before.generation == after.generation);
    assert!(same, "declaring makes nothing anew");
}

pub(super) async fn a_declared_queue_keeps_its_messages(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 2).await;
    declare(stand, &[("orders", 50)]).await;
    declare(stand, &[]).await;
    assert_eq!(stand.drain(&queue).await, published);
}

pub(super) async fn the_api_does_not_change_what_a_file_declared(stand: &mut Stand) {
    declare(stand, &[("orders", 5)]).await;
    let entry = stand.connection.queues().await.expect("the store answers").remove(0);
    let put = stand.connection.put_queue(entry.name.clone(), Arc::new(plain_settings())).await;
    assert_eq!(put, Ok(Put::DeclaredInFile));
    for force in [false, true] {
        assert_eq!(
            stand.connection.delete_queue(entry.queue_ref(), force).await,
            Ok(Deleted::DeclaredInFile)
        );
    }
    assert_eq!(stand.connection.queues().await, Ok(vec![entry.clone()]));
    stand.publish_plain(&entry.queue_ref(), 1).await;
    assert!(stand.hold(&entry.queue_ref(), Hold::Pause).await.paused, "it can be held");
}

pub(super) async fn a_queue_that_holds_messages_is_deleted_only_by_force(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let not_empty = async |stand: &Stand| {
        assert_eq!(stand.connection.delete_queue(queue.clone(), false).await, Ok(Deleted::NotEmpty));
    };
    stand.publish_plain(&queue, 1).await;
    not_empty(stand).await;
    let leased = stand.lease(&queue, 1).await;
    not_empty(stand).await;
    stand.settle_all(leased, dead(DeadReason::Rejected)).await;
    not_empty(stand).await;
    stand
        .connection
        .discard(queue.clone(), Selection::Filter(DeadFilter::default()))
        .await
        .expect("it answers");
    stand.publish(&queue, &[Draft { due: Due::After(seconds(9)), ..draft() }]).await;
    not_empty(stand).await;
    assert_eq!(stand.connection.delete_queue(queue.clone(), true).await, Ok(Deleted::Deleted));
    assert_eq!(stand.connection.queues().await, Ok(vec![]));
    let empty = stand.queue("orders").await;
    stand.publish_plain(&empty, 1).await;
    stand.drain(&empty).await;
    assert_eq!(
        stand.connection.delete_queue(empty, false).await,
        Ok(Deleted::Deleted),
        "what ended does not count"
    );
}

pub(super) async fn of_several_who_delete_a_queue_one_does(stand: &mut Stand) {
    for number in 0..10 {
        let queue = stand.queue(&format!("orders{number}")).await;
        stand.publish_plain(&queue, 1).await;
        let deleting = (0..4).map(|_| stand.connection.delete_queue(queue.clone(), true));
        let ended = join_all(deleting).await;
        let deleted = ended.iter().filter(|ended| **ended == Ok(Deleted::Deleted)).count();
        let gone = ended.iter().filter(|ended| **ended == Err(StoreError::Gone)).count();
        assert_eq!((deleted, gone), (1, 3), "{ended:?}");
    }
    assert_eq!(stand.connection.queues().await, Ok(vec![]));
}

pub(super) async fn settings_are_replaced_only_if_they_are_what_was_read(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 1).await;
    stand.hold(&queue, Hold::Pause).await;
    let first = stand.entry(&queue).await;
    let with = |length_max: u64| {
        let mut settings = QueueSettings::clone(&first.settings);
        settings.limits.length_max = length_max;
        Arc::new(settings)
    };
    let change = async |was: &Arc<QueueSettings>, to: u64| {
        stand.connection.change_queue(queue.clone(), Arc::clone(was), with(to)).await
    };
    let Ok(Changed::Changed(second)) = change(&first.settings, 2).await else { panic!("it was as read") };
    assert_eq!(second, QueueEntry { settings: with(2), ..first.clone() }, "all else stays");
    assert_eq!(change(&first.settings, 3).await, Ok(Changed::Otherwise(with(2))));
    assert_eq!(stand.entry(&queue).await, second, "nothing was changed");
    declare(stand, &[("orders", 4)]).await;
    assert_eq!(change(&stand.entry(&queue).await.settings, 5).await, Ok(Changed::DeclaredInFile));
    declare(stand, &[]).await;
    stand.connection.delete_queue(queue.clone(), true).await.expect("the store answers");
    assert_eq!(change(&with(4), 5).await, Err(StoreError::Gone));
    stand.queue("orders").await;
    assert_eq!(change(&with(4), 5).await, Err(StoreError::Gone), "another queue of that name");
}

/// Every call that names a queue is refused and changes nothing.
async fn assert_gone(stand: &Stand, gone: &QueueRef) {
    let (connection, id) = (&stand.connection, draft().build(START).id);
    let of = || gone.clone();
    let errors = [
        refusal(connection.lease(request(gone)).await),
        refusal(connection.find(of(), id).await),
        refusal(connection.cancel(of(), id).await),
        refusal(connection.promote(of(), Arc::new([Scheduled { id, attempts: 0 }])).await),
        refusal(connection.promote(of(), Arc::new([])).await),
        refusal(connection.list_dead(of(), DeadFilter::default(), None, 1).await),
        refusal(connection.dead(of(), id).await),
        refusal(connection.dead_groups(of(), DeadGrouping::Reason).await),
        refusal(connection.replay(of(), Selection::Filter(DeadFilter::default()), false).await),
        refusal(connection.discard(of(), Selection::Filter(DeadFilter::default())).await),
        refusal(connection.purge(of()).await),
        refusal(connection.hold(of(), Hold::Pause).await),
        refusal(connection.delete_queue(of(), true).await),
    ];
    assert_eq!(errors, [const { StoreError::Gone }; 13]);
    assert_eq!(StoreError::Gone.stored(), Stored::No);
}

pub(super) async fn a_deleted_queue_is_gone_for_every_call(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 1).await;
    stand.connection.delete_queue(queue.clone(), true).await.expect("the store answers");
    for made_again in [false, true] {
        if made_again {
            let again = stand.queue("orders").await;
            assert_ne!(again.generation, queue.generation);
            stand.publish_plain(&again, 1).await;
        }
        assert_gone(stand, &queue).await;
        assert_gone(stand, &QueueRef { generation: Generation(0), ..queue.clone() }).await;
        assert_eq!(stand.settle(&leased.batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Lost]);
        assert_eq!(stand.connection.extend(leased.batch.clone(), seconds(9)).await, Ok(Extended::Lost));
    }
    let stats = stand.connection.stats(None).await.expect("the store answers").remove(0);
    let expected = (
        Counters { accepted: 1, ..Counters::default() },
        Gauges { pending: 1, bytes_waiting: 10, ..Gauges::default() },
    );
    assert_eq!((stats.counters, stats.gauges), expected, "a new series, untouched by old references");
}

pub(super) async fn a_deleted_queue_leaves_nothing_behind(stand: &mut Stand) {
    for _ in 0..3 {
        let queue = stand.queue("orders").await;
        stand.publish_dead(&queue, 2).await;
        stand.publish(&queue, &[draft(), Draft { due: Due::After(seconds(1)), ..draft() }, draft()]).await;
        stand.lease(&queue, 1).await;
        stand.connection.delete_queue(queue, true).await.expect("the store answers");
        let swept = stand.pass(seconds(60)).await;
        assert_eq!((swept.promoted, swept.reaped, swept.ready, swept.next_at), (0, 0, vec![], None));
    }
    let queue = stand.queue("orders").await;
    assert_eq!(stand.stats(&queue).await.gauges, Gauges::default());
    assert!(stand.lease(&queue, 10).await.leases.is_empty());
}

pub(super) async fn stats_are_of_all_queues_or_of_those_named(stand: &mut Stand) {
    for name in ["a", "b", "c"] {
        let queue = stand.queue(name).await;
        stand.publish_plain(&queue, 1).await;
    }
    let names = async |asked: Option<&[&str]>| {
        let asked = asked.map(|names| names.iter().map(|name| name.parse().expect("a name")).collect());
        let stats = stand.connection.stats(asked).await.expect("the store answers");
        stats.iter().map(|stats| stats.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None).await, ["a", "b", "c"]);
    assert_eq!(names(Some(&["c", "nowhere", "a", "c"])).await, ["a", "c"]);
    assert_eq!(names(Some(&[])).await, Vec::<String>::new());
}

pub(super) async fn the_oldest_pending_message_tells_its_age(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    assert_eq!(stand.stats(&queue).await.oldest_pending_at, None);
    stand.publish(&queue, &[Draft { due: Due::After(seconds(900)), ..draft() }]).await;
    assert_eq!(stand.stats(&queue).await.oldest_pending_at, None, "what is scheduled is not pending");
    for _ in 0..3 {
        stand.clock.advance(seconds(10));
        stand.publish_plain(&queue, 1).await;
    }
    for count in [10, 20, 30] {
        assert_eq!(stand.stats(&queue).await.oldest_pending_at, Some(START.saturating_add(seconds(count))));
        stand.run(&queue, 1, Verdict::Ack).await;
    }
    assert_eq!(stand.stats(&queue).await.oldest_pending_at, None);
}

pub(super) async fn a_sound_store_says_so(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    let health = stand.connection.health().await.expect("the store answers");
    assert!(health.reachable);
    assert_eq!((health.full, health.newer, health.durability_reasons), (None, None, vec![]));
    assert_eq!(stand.store.kind(), stand.kind());
}

pub(super) async fn a_closed_store_refuses_every_call(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    let groups = Arc::new(vec![stand.group(&queue, &[draft()])]);
    stand.close().await;
    for connection in [std::rc::Rc::clone(&stand.connection), stand.store.connect()] {
        let errors = [
            refusal(connection.enqueue(CallId::random(), Arc::clone(&groups)).await),
            refusal(connection.lease(request(&queue)).await),
            refusal(connection.sweep().await),
            refusal(connection.stats(None).await),
            refusal(connection.queues().await),
        ];
        assert!(errors.iter().all(|error| matches!(error, StoreError::Unavailable(_))), "{errors:?}");
        assert!(errors.iter().all(|error| error.stored() == Stored::No));
        connection.close().await.expect("closing twice is no error");
    }
}
