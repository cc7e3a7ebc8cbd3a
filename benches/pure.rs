//! The pure parts on the path of a message, each alone and without a store or a socket: `cargo bench --bench pure [-- NAME]`.
//!
//! A part is named by what it does once. What a message costs as a whole, with the system calls that are most of it, is measured by
//! `benches/figures` and `posthaste bench`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use actix_http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use posthaste::domain::id::{MessageId, Shard};
use posthaste::domain::message::{Headers, Priority};
use posthaste::domain::outcome::Outcome;
use posthaste::domain::queue::{Generation, QueueName, QueueSettings, Source};
use posthaste::domain::record::{self, Head, Record};
use posthaste::domain::retry::{RetryPolicy, decide};
use posthaste::domain::secret::SecretSetting;
use posthaste::domain::timestamp::Timestamp;
use posthaste::http::pure;
use posthaste::http::settings::ServerLimits;
use posthaste::pipeline::catalog::Catalog;
use posthaste::processor::Keyring;
use posthaste::store::QueueEntry;

const NOW: Timestamp = Timestamp::from_millis(1_795_353_900_250);
const PAYLOAD: &[u8] = &[b'x'; 200];
/// An example secret of Standard Webhooks, and the seed of RFC 8032, 7.1, test 1.
const SECRETS: [(&str, &str); 2] = [
    ("v1", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("v1a", "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="),
];

fn main() {
    let mut criterion =
        Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    criterion = criterion.configure_from_args();
    framing(&mut criterion);
    options(&mut criterion);
    ids(&mut criterion);
    records(&mut criterion);
    queues(&mut criterion);
    verdicts(&mut criterion);
    signing(&mut criterion);
    batches(&mut criterion);
    criterion.final_summary();
}

/// A publish as most clients write it, with so many bytes of payload.
fn request(payload_bytes: usize) -> Vec<u8> {
    let head = format!(
        "POST /v1/queues/orders/messages HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {payload_bytes}\r\n\r\n"
    );
    [head.into_bytes(), vec![b'x'; payload_bytes]].concat()
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find the end of a request");
    for payload_bytes in [200, 10 << 10] {
        let request = request(payload_bytes);
        let length = u64::try_from(payload_bytes).expect("it is small");
        group.bench_function(format!("payload of {payload_bytes} B"), |bencher| {
            bencher.iter(|| pure::frame(black_box(&request), length));
        });
    }
    group.finish();
}

fn options(criterion: &mut Criterion) {
    let plain = [("content-type", "application/json"), ("user-agent", "curl/8.5.0"), ("accept", "*/*")];
    let own = [
        ("idempotency-key", "order-184467"),
        ("posthaste-delay", "5m"),
        ("posthaste-priority", "high"),
        ("posthaste-forward-x-tenant", "c-9f31"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let limits = ServerLimits::default();
    let mut group = criterion.benchmark_group("read the options of a publish");
    for (name, lines) in [("none", plain.to_vec()), ("five", [&plain[..], &own].concat())] {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        assert!(pure::read_options(&headers, &limits, NOW), "{name}: they are accepted");
        group.bench_function(name, |bencher| {
            bencher.iter(|| pure::read_options(black_box(&headers), &limits, NOW));
        });
    }
    group.finish();
}

fn random() -> [u8; 10] {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    random
}

fn ids(criterion: &mut Criterion) {
    criterion.bench_function("make an id and write it", |bencher| {
        bencher.iter(|| {
            let mut text = [0; 36];
            MessageId::new(black_box(NOW), random(), Shard::default()).encode(&mut text);
            text
        });
    });
    let text = MessageId::new(NOW, random(), Shard::default()).to_string();
    criterion.bench_function("read an id", |bencher| {
        bencher.iter(|| black_box(&text).parse::<MessageId>().expect("an id"));
    });
}

fn records(criterion: &mut Criterion) {
    let id = MessageId::new(NOW, random(), Shard::default());
    let head = Head { id, attempts_max: 12, priority: Priority::Normal, accepted_at: NOW, ttl: None };
    let headers = Headers { content_type: "application/json".to_owned(), ..Headers::default() };
    for payload_bytes in [200, 10 << 10] {
        let payload = vec![b'x'; payload_bytes];
        let bytes = u64::try_from(payload_bytes).expect("it is small");
        let mut group = criterion.benchmark_group(format!("record with {payload_bytes} B"));
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                let headers = black_box(&headers).encode().expect("they are short");
                record::encode(&head, &headers, black_box(&payload))
            });
        });
        let encoded = Bytes::from(record::encode(&head, &headers.encode().expect("short"), &payload));
        group.bench_function("decode and check", |bencher| {
            bencher.iter(|| {
                let record = Record::decode(black_box(&encoded).clone()).expect("just encoded");
                Headers::decode(&record.headers()).expect("just encoded")
            });
        });
        group.finish();
    }
}

fn queues(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find a queue by its name");
    for count in [1, 10_000] {
        let settings = Arc::new(QueueSettings::default());
        let catalog = Catalog::default();
        let entry = |number| QueueEntry {
            name: format!("customer-{number}.orders").parse().expect("a name"),
            generation: Generation(1),
            source: Source::Api,
            settings: settings.clone(),
            paused: false,
            parked: None,
        };
        catalog.replace_all((0..count).map(entry).collect());
        let view = catalog.view();
        let names: Vec<String> = (0..count).map(|number| format!("customer-{number}.orders")).collect();
        let mut turn = 0;
        group.bench_function(format!("of {count}"), |bencher| {
            bencher.iter(|| {
                // A step without a common divisor, so that neighbours in memory do not follow each other.
                turn = (turn + 7_919) % names.len();
                view.find(black_box(&names[turn])).expect("it is there")
            });
        });
    }
    group.finish();
    criterion.bench_function("read the name of a queue", |bencher| {
        bencher.iter(|| black_box("customer-4711.orders").parse::<QueueName>().expect("a name"));
    });
}

fn verdicts(criterion: &mut Criterion) {
    let settings = QueueSettings::default();
    let policy = RetryPolicy::of(&settings, settings.attempts_max());
    let mut group = criterion.benchmark_group("decide what follows an attempt");
    group.bench_function("done", |bencher| {
        bencher.iter(|| decide(black_box(Outcome::Done), 1, policy, NOW, 0.5));
    });
    group.bench_function("to be retried", |bencher| {
        bencher.iter(|| decide(black_box(Outcome::Retry { after: None }), 3, policy, NOW, fastrand::f64()));
    });
    group.finish();
    criterion.bench_function("delay before a retry", |bencher| {
        bencher.iter(|| policy.backoff(black_box(3), fastrand::f64()));
    });
}

fn signing(criterion: &mut Criterion) {
    let queue: QueueName = "orders".parse().expect("a name");
    let mut group = criterion.benchmark_group("sign a delivery of 200 B");
    for (version, secret) in SECRETS {
        let secret = Some(SecretSetting::Given(secret.into()));
        let settings = Arc::new(QueueSettings { secret, ..QueueSettings::default() });
        let signer =
            Keyring::default().signer(&queue, &settings, NOW).expect("it can sign").expect("it has a secret");
        let id = MessageId::new(NOW, random(), Shard::default()).to_string();
        group.bench_function(version, |bencher| {
            bencher.iter(|| signer.header(NOW, id.as_bytes(), b"1795353900", black_box(PAYLOAD)));
        });
    }
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    const LINES: usize = 1_000;
    let line = format!("{{\"x\":\"{}\"}}\n", "x".repeat(PAYLOAD.len() - 8));
    let body = Bytes::from(line.repeat(LINES));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("walk over NDJSON");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1000 lines of 200 B", |bencher| {
        bencher.iter(|| assert_eq!(runtime.block_on(pure::walk_lines(black_box(body.clone()))), LINES));
    });
    group.finish();
}
