//! A program with the gateway inside: no runtime of its own, one function that processes the messages of one queue.
//!
//! ```sh
//! cargo run --release --example embed
//! ```
//!
//! Publishes a message to itself, waits until it is processed, and prints where to publish more. Ctrl-C would end it at once
//! here; a program that serves for long waits for its signals and calls `stop`, as this one does at its end.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::mpsc;
use std::time::Duration;

use posthaste::{App, Outcome, Publication, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = Settings::default();
    settings.server.listen = "127.0.0.1:0".parse()?;
    settings.store.url = String::from("sqlite:data/embed.db");
    settings.declare("thumbnails", "resize")?.retry.schedule = vec![Duration::from_secs(1); 3];

    // The function is cloned for each worker thread; its future stays there and need not be `Send`.
    let (processed, is_processed) = mpsc::sync_channel(16);
    let gateway = App::builder(settings)
        .processor("resize", move |message| {
            let processed = processed.clone();
            async move {
                if message.payload.is_empty() {
                    return Outcome::Reject { reason: "there is nothing to resize".to_owned() };
                }
                match processed.try_send((message.id, message.attempt)) {
                    Ok(()) => Outcome::Done,
                    Err(_) => Outcome::Retry { after: Some(Duration::from_mins(1)) },
                }
            }
        })
        .build()?
        .start()?;

    // Any runtime, or none: `block_on` of any executor will do.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let published = runtime
        .block_on(gateway.publish(Publication::new("thumbnails", "a picture").content_type("image/png")))?;
    println!("published {} and it is safe", published.id);

    let (id, attempt) = is_processed.recv_timeout(Duration::from_secs(10))?;
    println!("processed {id} at attempt {attempt}");
    println!("publish more: curl -d data http://{}/v1/queues/thumbnails/messages", gateway.address());

    let report = runtime.block_on(gateway.stop(Duration::from_secs(10)));
    println!("stopped, {} late", report.late.len());
    Ok(())
}
