//! Posthaste: a self-hosted, high-throughput HTTP message gateway.
//!
//! A client POSTs a message; a `202` means that the store has it safely; a supervised pool of workers processes it: pushes
//! it to an HTTP service, hands it to a function of the embedding program, or keeps it for a consumer that pulls. The same
//! gateway runs as the program `posthaste` ([`cli`]) and inside other programs ([`App`], [`Handle`]).
//!
//! # The map
//!
//! The modules in the order in which a message meets them, after what they all stand on:
//!
//! | module | what it is |
//! |---|---|
//! | [`domain`] | values and decisions: no I/O, no clock, no runtime |
//! | [`clock`] [`telemetry`] | time as a value that is handed in; log lines |
//! | [`actor`] | the supervised actor runtime; knows nothing of messages |
//! | [`api`] | the JSON of the HTTP API and its table of errors |
//! | [`http`] | the edge: accept → parse → admit, and confirm |
//! | [`pipeline`] | the actors: persist, wake, lease, assign, settle, sweep |
//! | [`store`] | where messages rest: one trait, several backends |
//! | [`processor`] | what is done with one message: process |
//! | [`config`] | settings: built in, file, environment, flags |
//! | [`app`] | puts it all together; the embedding API |
//! | [`cli`] | the command line |
//!
//! # The hops of a message
//!
//! accept → parse → admit → persist (group commit of many publishes) → confirm (202) → wake → lease (batch) → assign (lane) →
//! process → decide (pure) → settle (batch) → sweep (due retries, lost leases, expiry).
//!
//! # Embedding
//!
//! ```no_run
//! use posthaste::{App, Outcome, Publication, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut settings = Settings::default();
//! settings.declare("thumbnails", "resize")?;
//! let gateway = App::builder(settings)
//!     .processor("resize", |message| async move {
//!         println!("{} bytes to resize", message.payload.len());
//!         Outcome::Done
//!     })
//!     .build()?
//!     .start()?;
//! gateway.publish(Publication::new("thumbnails", "a picture")).await?;
//! gateway.stop(std::time::Duration::from_secs(20)).await;
//! # Ok(())
//! # }
//! ```

pub mod actor;
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod pipeline;
pub mod processor;
pub mod store;
pub mod telemetry;

pub use app::{App, Builder, Handle, Message, Outcome, Publication, StartError};
pub use config::Settings;
