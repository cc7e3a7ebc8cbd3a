//! The yardstick: what actix-web itself costs. It reads each publish, stores nothing, and answers as a gateway does.
//!
//! `bare PORT` listens on `127.0.0.1` with two threads. It says enough of itself on `/status` for `posthaste bench --url` to load it,
//! so that latencies of both are measured by the same generator.

use std::process::ExitCode;
use std::time::Instant;

use actix_web::{App, HttpResponse, HttpServer, web};
use posthaste::api::status::{DurabilityStatus, ProcessStatus, Status, StoreStatus, Totals};
use posthaste::domain::timestamp::Timestamp;
use serde_json::json;

/// What it allocates is little and short-lived: with this it is as fast as it gets.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as the fastest peers have: on two cores more are no faster.
const THREADS: usize = 2;
const ANSWER: &str = r#"{"id":"0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400","queue":"bench"}"#;

async fn publish(_payload: web::Bytes) -> HttpResponse {
    HttpResponse::Accepted().content_type("application/json").body(ANSWER)
}

async fn queue(name: web::Path<String>) -> HttpResponse {
    HttpResponse::Created().json(json!({ "name": *name, "source": "api", "paused": false }))
}

async fn gone() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

async fn status(started: web::Data<Instant>) -> HttpResponse {
    let durability =
        DurabilityStatus { configured: "none".to_owned(), now: "none".to_owned(), reasons: Vec::new() };
    let (kind, warnings) = ("nothing".to_owned(), Vec::new());
    HttpResponse::Ok().json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: "bare".to_owned(),
        started_at: Timestamp::default(),
        uptime_s: started.elapsed().as_secs(),
        as_of: None,
        consistent: None,
        instances: Vec::new(),
        store: StoreStatus { kind, reachable: true, latency_ms: None, durability, warnings },
        totals: Totals::default(),
        queues: Vec::new(),
        actors: Vec::new(),
        lanes: Vec::new(),
        process: ProcessStatus::default(),
    })
}

/// Serves until it is killed.
fn serve(port: u16) -> std::io::Result<()> {
    let started = web::Data::new(Instant::now());
    let app = move || {
        App::new()
            .app_data(started.clone())
            // What wrk posts to: a path that is compared, not matched.
            .route("/v1/queues/bench/messages", web::post().to(publish))
            .route("/v1/queues/{queue}/messages", web::post().to(publish))
            .route("/v1/queues/{queue}", web::put().to(queue))
            .route("/v1/queues/{queue}", web::delete().to(gone))
            .route("/status", web::get().to(status))
    };
    let server = HttpServer::new(app).workers(THREADS).bind(("127.0.0.1", port))?;
    actix_web::rt::System::new().block_on(server.run())
}

#[expect(clippy::print_stderr, reason = "it talks to who started it")]
fn main() -> ExitCode {
    let first = std::env::args().nth(1);
    let Some(port) = first.as_deref().and_then(|word| word.parse().ok()) else {
        // `cargo bench` starts everything there is; this measures nothing by itself.
        eprintln!("bare PORT: the yardstick of `python3 benches/figures`");
        return ExitCode::SUCCESS;
    };
    match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}
