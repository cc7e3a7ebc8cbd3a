//! A program with the gateway inside, on its SQLite store: nothing is used but what a program has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use posthaste::{App, Builder, Handle, Message, Outcome, Publication, Settings};
use rustls::crypto::CryptoProvider;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::support::sink::{Answer, Sink};

const WITHIN: Duration = Duration::from_secs(30);

/// Settings of a gateway with a store of its own.
fn settings() -> (TempDir, Settings) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = Settings::default();
    settings.server.listen.0.set_port(0);
    settings.store.url = format!("sqlite:{}", folder.path().join("posthaste.db").display());
    (folder, settings)
}

fn start(app: Builder) -> Handle {
    app.build().expect("settings that can be").start().expect("it starts")
}

/// One queue of the status, once that is as wanted.
async fn until(gateway: &Handle, queue: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + WITHIN;
    loop {
        let status = gateway.status().await.expect("it runs");
        assert_eq!(status.consistent, Some(true), "both laws hold");
        let found = status.queues.into_iter().find(|own| own.name.as_str() == queue);
        let found = serde_json::to_value(found.expect("the queue is there")).expect("it is JSON");
        if wanted(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {WITHIN:?}: {found:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_program_publishes_processes_looks_and_stops() {
    let (_folder, mut settings) = settings();
    settings.declare("thumbnails", "resize").expect("a name");
    let (told, mut heard) = mpsc::channel::<Message>(8);
    let resize = move |message| {
        let told = told.clone();
        async move {
            told.send(message).await.expect("the test listens");
            Outcome::Done
        }
    };
    let gateway = start(App::builder(settings).processor("resize", resize));
    let publication =
        Publication::new("thumbnails", "a picture").content_type("image/png").idempotency_key("one");
    let published = gateway.publish(publication.clone()).await.expect("it is safe");
    let message = timeout(WITHIN, heard.recv()).await.expect("in time").expect("a message");
    assert_eq!((message.id, &message.payload[..], message.attempt), (published.id, &b"a picture"[..], 1));
    assert_eq!((message.queue.as_str(), message.content_type.as_str()), ("thumbnails", "image/png"));
    let again = gateway.publish(publication).await.expect("the same again");
    assert!(again.duplicate && again.id == published.id);
    let queue = until(&gateway, "thumbnails", |queue| queue["delivered"] == 1).await;
    assert_eq!([&queue["accepted"], &queue["pending"], &queue["leased"], &queue["dead"]], [1, 0, 0, 0]);
    let unknown =
        gateway.publish(Publication::new("nowhere", "x")).await.expect_err("there is no such queue");
    assert_eq!((unknown.code.as_ref(), unknown.retryable), ("queue_unknown", false));

    let report = gateway.stop(WITHIN).await;
    assert!(report.is_clean(), "{report:?}");
    let late = gateway.publish(Publication::new("thumbnails", "late")).await.expect_err("it has stopped");
    assert_eq!(late.code, "shutting_down");
    assert!(gateway.status().await.is_none());
    assert!(heard.try_recv().is_err(), "the function was called once");
}

#[tokio::test]
async fn what_was_published_before_a_stop_is_processed_after_the_next_start() {
    let (_folder, mut settings) = settings();
    settings.declare("jobs", "work").expect("a name");
    let hanging = |_| async { std::future::pending::<Outcome>().await };
    let gateway = start(App::builder(settings.clone()).processor("work", hanging));
    gateway.publish(Publication::new("jobs", "one")).await.expect("it is safe");
    until(&gateway, "jobs", |queue| queue["leased"] == 1).await;
    gateway.stop(Duration::from_millis(200)).await;

    let gateway = start(App::builder(settings).processor("work", |_| async { Outcome::Done }));
    let queue = until(&gateway, "jobs", |queue| queue["delivered"] == 1).await;
    assert_eq!([&queue["accepted"], &queue["recovered"]], [1, 1], "the attempt that was cut off counts");
    assert!(gateway.stop(WITHIN).await.is_clean());
}

#[tokio::test]
async fn a_message_whose_function_panics_is_dead_after_its_attempts_and_the_gateway_stays_up() {
    const ATTEMPTS: usize = 4;
    let (_folder, mut settings) = settings();
    settings.declare("risky", "boom").expect("a name").retry.schedule =
        vec![Duration::from_millis(20); ATTEMPTS - 1];
    let tried = Arc::new(AtomicUsize::new(0));
    let noted = tried.clone();
    // In the call, before there is a future, and without the panic hook, which would print a page for each.
    let boom = move |message: Message| {
        if message.payload == "boom" {
            noted.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("a panic of the test's own making"));
        }
        async { Outcome::Done }
    };
    let gateway = start(App::builder(settings).processor("boom", boom));
    gateway.publish(Publication::new("risky", "boom")).await.expect("it is safe");
    until(&gateway, "risky", |queue| queue["dead"] == 1).await;
    gateway.publish(Publication::new("risky", "fine")).await.expect("it is safe");
    let queue = until(&gateway, "risky", |queue| queue["delivered"] == 1).await;
    assert_eq!([&queue["retried"], &queue["recovered"], &queue["dead"]], [ATTEMPTS as u64 - 1, 0, 1]);
    assert_eq!(tried.load(Ordering::SeqCst), ATTEMPTS);
    let status = gateway.status().await.expect("it runs");
    assert!(
        !status.actors.is_empty() && status.actors.iter().all(|actor| actor.restarts == 0),
        "{:?}",
        status.actors
    );
    assert!(gateway.stop(WITHIN).await.is_clean());
}

#[tokio::test]
async fn a_program_that_installed_no_tls_provider_pushes_over_http() {
    let sink = Sink::start(|_| Answer::status(200));
    let (_folder, mut settings) = settings();
    settings.dev = true;
    settings.declare("hooks", "http").expect("a name").destination =
        Some(sink.url("/hook").parse().expect("a destination"));
    assert!(CryptoProvider::get_default().is_none(), "this test shows nothing where one is installed");
    let gateway = start(App::builder(settings));
    gateway.publish(Publication::new("hooks", "x")).await.expect("it is safe");
    let queue =
        until(&gateway, "hooks", |queue| ["delivered", "retried", "dead"].iter().any(|key| queue[key] != 0))
            .await;
    assert_eq!([&queue["delivered"], &queue["retried"], &queue["dead"]], [1, 0, 0]);
    assert_eq!(sink.only().target, "/hook");
    assert!(CryptoProvider::get_default().is_none(), "and the gateway has left the process alone");
    assert!(gateway.stop(WITHIN).await.is_clean());
}
