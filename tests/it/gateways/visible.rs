//! What one gateway changes is seen by the other.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::queue::QueueSettings;
use posthaste::store::settings::StoreSettings;
use posthaste::store::{Hold, MessageStore, Put, QueueEntry, Store};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Home};
use crate::support::redis::RedisServer;
use crate::support::wait_until;

/// How soon a change is seen everywhere.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_mins(1);

fn open(redis: &RedisServer) -> (Arc<dyn Store>, Rc<dyn MessageStore>) {
    let settings = StoreSettings { url: redis.url(), ..StoreSettings::default() };
    let store = posthaste::store::open(&settings, &Clock::system()).expect("Redis can be opened");
    let connection = store.connect();
    (store, connection)
}

/// The queue as the gateway knows it.
fn queue(gateway: &Gateway) -> Value {
    gateway.request("GET", "/v1/queues/orders", &[], b"").json()
}

async fn put(store: &dyn MessageStore, change: impl FnOnce(&mut QueueSettings)) -> QueueEntry {
    let mut settings = QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() };
    change(&mut settings);
    let put = store.put_queue("orders".parse().expect("a name"), Arc::new(settings)).await;
    match put.expect("Redis answers") {
        Put::Created(entry) | Put::Updated(entry) => entry,
        Put::DeclaredInFile => panic!("no file declares it"),
    }
}

#[tokio::test]
async fn settings_holds_and_the_end_of_a_queue_are_seen_everywhere_within_a_second() {
    let redis = RedisServer::start_durable();
    let mut gateway = Gateway::prepare("", &[]).over(&redis);
    gateway.launch_until_ready();
    let (_store, other) = open(&redis);
    let entry = put(&*other, |_| {}).await;
    wait_until("the queue is known", SEEN_WITHIN, || {
        let status = gateway.status();
        status["queues"].as_array()?.iter().any(|queue| queue["name"] == "orders").then_some(())
    });
    put(&*other, |settings| settings.priority = posthaste::domain::message::Priority::High).await;
    wait_until("its settings are known", SEEN_WITHIN, || {
        (queue(&gateway)["priority"] == "high").then_some(())
    });
    other.hold(entry.queue_ref(), Hold::Pause).await.expect("Redis answers");
    wait_until("it is paused", SEEN_WITHIN, || (queue(&gateway)["paused"] == json!(true)).then_some(()));
    let path = gateway.publish("orders", &[], b"kept");
    other.hold(entry.queue_ref(), Hold::Resume).await.expect("Redis answers");
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    other.delete_queue(entry.queue_ref(), true).await.expect("Redis answers");
    // Gone at once for who publishes, whatever this gateway has heard of it.
    let answer = gateway.request("POST", "/v1/queues/orders/messages", &[], b"late");
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("queue_unknown")), "{}", answer.text());
    gateway.stop();
}

#[test]
fn each_gateway_shows_which_others_live() {
    let home = Home::redis();
    let [mut first, mut second] = [(); 2].map(|()| home.start("", &[]));
    let own = |gateway: &Gateway| gateway.status()["instance"].as_str().expect("a name").to_owned();
    let lives = |gateway: &Gateway, names: &[&String]| {
        let status = gateway.status();
        let shown: Vec<_> = status["instances"].as_array()?.iter().map(|one| one["id"].as_str()).collect();
        (shown.len() == names.len() && names.iter().all(|name| shown.contains(&Some(name)))).then_some(())
    };
    let (one, other) = (own(&first), own(&second));
    wait_until("each knows the other", WITHIN, || {
        lives(&first, &[&one, &other]).and(lives(&second, &[&one, &other]))
    });
    second.stop();
    wait_until("the one that ended has left", WITHIN, || lives(&first, &[&one]));
    second.launch_until_ready();
    let other = own(&second);
    wait_until("it is there under another name", WITHIN, || lives(&first, &[&one, &other]));
    second.kill();
    wait_until("the one that was killed has left", WITHIN, || lives(&first, &[&one]));
    first.stop();
}
