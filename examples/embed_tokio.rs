//! The gateway inside a program that has a Tokio runtime: it runs on threads of its own beside it.
//!
//! ```sh
//! cargo run --release --example embed_tokio
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use posthaste::{App, Outcome, Publication, Settings};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = Settings::default();
    settings.server.listen = "127.0.0.1:0".parse()?;
    settings.store.url = String::from("sqlite:data/embed_tokio.db");
    settings.declare("greetings", "greet")?.retry.schedule = vec![Duration::from_millis(100)];

    let (told, mut heard) = mpsc::channel(16);
    let gateway = App::builder(settings)
        .processor("greet", move |message| {
            let told = told.clone();
            async move {
                // The first attempt fails, to show that there is a second.
                if message.attempt == 1 {
                    return Outcome::Retry { after: None };
                }
                match told.send(message).await {
                    Ok(()) => Outcome::Done,
                    Err(_) => Outcome::Retry { after: Some(Duration::from_mins(1)) },
                }
            }
        })
        .build()?
        .start()?;

    for name in ["Ada", "Grace", "Edsger"] {
        gateway.publish(Publication::new("greetings", name)).await?;
    }
    for _ in 0..3 {
        let message = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await?.ok_or("no more")?;
        let name = String::from_utf8_lossy(&message.payload).into_owned();
        println!("hello {name}, at attempt {}", message.attempt);
    }
    let report = gateway.stop(Duration::from_secs(10)).await;
    println!("stopped, {} late", report.late.len());
    Ok(())
}
