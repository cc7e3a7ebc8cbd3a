//! `posthaste sink`: a receiver that prints what comes and answers as told.

mod print;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Args;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::cli::signals::Signals;
use crate::cli::{Exit, Failure, say};
use crate::clock::Clock;
use crate::domain::format::duration;

use print::{Printer, Received};

/// The largest body that is taken: that of the largest message, and a little.
const BODY_BYTES_MAX: usize = 17 << 20;
/// What a request is answered that was chosen to fail.
const FAILED: u16 = 503;
/// Connections served at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;

const EXAMPLES: &str = "\
Examples:
  posthaste sink
  posthaste sink --listen 127.0.0.1:9000 --answer 503,503,200 --body
  posthaste sink --delay 100ms --fail-rate 0.1 --json

It prints a line for each request: its number, when it came, method and path, the status it is answered, its bytes and type, the id of \
the message and the number of the attempt. With --json a line is a JSON document. Ctrl-C ends it.";

/// Where to receive, and what to answer.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// The status to answer; several, separated by commas, are given in turn, over and over
    #[arg(long, default_value = "200", value_delimiter = ',', value_name = "STATUS",
          value_parser = clap::value_parser!(u16).range(200..=599))]
    answer: Vec<u16>,
    /// How long to wait before each answer
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = duration::parse)]
    delay: Duration,
    /// The part of all requests that is answered 503 whatever --answer says, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "PART", value_parser = part)]
    fail_rate: f64,
    /// Print the bodies too
    #[arg(long)]
    body: bool,
    /// Print each request as a JSON document on a line
    #[arg(long)]
    json: bool,
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "it is a number from 0 to 1".to_owned())
}

/// What all connections share.
struct Receiver {
    answers: Vec<StatusCode>,
    delay: Duration,
    fail_rate: f64,
    came: AtomicU64,
    printer: Printer,
    /// Tells that nobody reads what is printed, and why.
    ended: watch::Sender<Option<Arc<std::io::Error>>>,
}

/// Runs it until a signal.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let answers: Result<_, _> = arguments.answer.iter().map(|&status| StatusCode::from_u16(status)).collect();
    let (ended, mut end) = watch::channel(None);
    let receiver = web::Data::new(Receiver {
        answers: answers.map_err(|error| Failure::new(Exit::Usage, error))?,
        delay: arguments.delay,
        fail_rate: arguments.fail_rate,
        came: AtomicU64::new(0),
        printer: Printer { json: arguments.json, body: arguments.body, clock: Clock::system() },
        ended,
    });
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(Failure::failed)?;
        let shared = receiver.clone();
        let server =
            HttpServer::new(move || App::new().app_data(shared.clone()).default_service(web::to(receive)))
                .workers(1)
                .max_connections(CONNECTIONS_MAX)
                .disable_signals()
                .bind(arguments.listen)
                .map_err(|error| {
                    Failure::failed(format!("cannot listen on {}: {error}", arguments.listen))
                })?;
        let addresses: Vec<String> = server.addrs().iter().map(|at| format!("http://{at}")).collect();
        let server = server.run();
        let handle = server.handle();
        say(&format!("receiving at {}", addresses.join(", ")));
        let result = tokio::select! {
            result = server => result.map_err(Failure::failed),
            _ = signals.next() => Ok(()),
            error = end.wait_for(Option::is_some) => error.map_or(Ok(()), |error| written(error.clone())),
        };
        // What is waiting for its delay is not waited for.
        drop(handle.stop(false));
        say(&format!("{} requests came", receiver.came.load(Ordering::Relaxed)));
        result
    })
}

fn written(error: Option<Arc<std::io::Error>>) -> Result<(), Failure> {
    error.map_or(Ok(()), |error| crate::cli::output::written(Err(error.kind().into())))
}

async fn receive(request: HttpRequest, payload: web::Payload, receiver: web::Data<Receiver>) -> HttpResponse {
    let body = match read(payload, receiver.printer.body).await {
        Ok(body) => body,
        Err(status) => return HttpResponse::build(status).finish(),
    };
    let number = receiver.came.fetch_add(1, Ordering::Relaxed) + 1;
    let status = receiver.status(number);
    let received = Received { number, request: &request, status: status.as_u16(), body };
    if let Err(error) = receiver.printer.print(&received) {
        receiver.ended.send_replace(Some(Arc::new(error)));
    }
    if !receiver.delay.is_zero() {
        tokio::time::sleep(receiver.delay).await;
    }
    HttpResponse::build(status).finish()
}

impl Receiver {
    fn status(&self, number: u64) -> StatusCode {
        if self.fail_rate > 0.0 && fastrand::f64() < self.fail_rate {
            return StatusCode::from_u16(FAILED).unwrap_or_default();
        }
        let turn = (number - 1) % self.answers.len() as u64;
        usize::try_from(turn).ok().and_then(|turn| self.answers.get(turn)).copied().unwrap_or_default()
    }
}

/// What came: its length, and itself where it is printed.
pub(super) struct Body {
    bytes: u64,
    kept: Vec<u8>,
}

/// Reads a body to its end; gives the answer to one that is broken, or larger than that of any message.
async fn read(mut payload: web::Payload, keep: bool) -> Result<Body, StatusCode> {
    let mut body = Body { bytes: 0, kept: Vec::new() };
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| StatusCode::BAD_REQUEST)?;
        body.bytes += chunk.len() as u64;
        if body.bytes > BODY_BYTES_MAX as u64 {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if keep {
            body.kept.extend_from_slice(&chunk);
        }
    }
    Ok(body)
}
