//! Error replies of Redis, and what becomes of the calls that they answer: from a real server where it can be brought to say
//! them, else from a proxy that says them in its place.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::enqueue::{CallId, Group, GroupResult};
use posthaste::store::error::{StoreError, Stored};

use super::{run, stand_at};
use crate::conformance::stand::{START, Stand, draft, refusal, request, seconds};
use crate::support::proxy::{Fault, Proxy};
use crate::support::redis::RedisServer;

/// A publish that can be sent again.
struct Offer(CallId, Arc<Vec<Group>>);

impl Offer {
    fn new(stand: &Stand, queue: &QueueRef) -> Self {
        Self(CallId::random(), Arc::new(vec![stand.group(queue, &[draft()])]))
    }

    async fn send(&self, stand: &Stand) -> Result<Vec<GroupResult>, StoreError> {
        stand.connection.enqueue(self.0, Arc::clone(&self.1)).await
    }

    /// Sends it until it is accepted.
    async fn send_until_accepted(&self, stand: &Stand) {
        let begun = std::time::Instant::now();
        loop {
            match self.send(stand).await {
                Ok(results) => return assert_eq!(results, [GroupResult::Accepted]),
                Err(error) => assert!(begun.elapsed() < seconds(20), "{error:?}"),
            }
            tokio::time::sleep(seconds(1) / 50).await;
        }
    }
}

/// The variant's name, and whether what was published may be stored.
fn outcome(error: &StoreError) -> (String, Stored) {
    let shown = format!("{error:?}");
    (shown.split('(').next().expect("one part").to_owned(), error.stored())
}

/// Each reply, and what a call that writes is told of it.
const REPLIES: &[(&str, &str)] = &[
    ("LOADING Redis is loading the dataset in memory", "Unavailable"),
    ("BUSY Redis is busy running a script", "Unavailable"),
    ("MASTERDOWN Link with MASTER is down", "Unavailable"),
    ("READONLY You can't write against a read only replica.", "Unavailable"),
    ("CLUSTERDOWN The cluster is down", "Unavailable"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "Unavailable"),
    ("MOVED 3999 127.0.0.1:6381", "Unavailable"),
    ("ASK 3999 127.0.0.1:6381", "Unavailable"),
    ("CROSSSLOT Keys in request don't hash to the same slot", "Unavailable"),
    ("UNBLOCKED force unblock from blocking operation", "Unavailable"),
    ("OOM command not allowed when used memory > 'maxmemory'.", "Full"),
    ("MISCONF Errors writing to the AOF file", "NotDurable"),
    ("NOREPLICAS Not enough good replicas to write.", "NotDurable"),
    ("NOAUTH Authentication required.", "Unavailable"),
    ("WRONGPASS invalid username-password pair", "Unavailable"),
    ("NOPERM this user has no permissions to run this command", "Unavailable"),
    ("WRONGTYPE Operation against a key of another kind", "Unknown"),
    ("EXECABORT Transaction discarded", "Unknown"),
    ("ERR something nobody knows", "Unknown"),
    ("NEVERHEARDOF it", "Unknown"),
];

#[test]
fn every_error_reply_has_its_outcome_and_the_call_sent_again_counts_once() {
    run(async || {
        let server = RedisServer::start(&[]);
        for (number, (line, told)) in REPLIES.iter().enumerate() {
            let proxy = Proxy::start(server.socket());
            let stand = stand_at(proxy.url(), &Clock::manual(START));
            let queue = stand.queue(&format!("q{number}")).await;
            stand.publish_plain(&queue, 1).await;
            stand.run(&queue, 1, Verdict::Ack).await;

            let offer = Offer::new(&stand, &queue);
            proxy.arm(Fault::Say(line));
            // Of what Redis answered, only the fate of this group may be unknown.
            let error = match offer.send(&stand).await.map(|mut results| results.pop()) {
                Ok(Some(GroupResult::Failed(error))) if *told == "Unknown" => error,
                offered => refusal(offered),
            };
            assert!(proxy.has_struck(), "{line}");
            let stored = if *told == "Unknown" { Stored::Unknown } else { Stored::No };
            assert_eq!(outcome(&error), ((*told).to_owned(), stored), "{line}");
            offer.send_until_accepted(&stand).await;

            let wanted = request(&queue);
            proxy.arm(Fault::Say(line));
            let error = refusal(stand.connection.lease(wanted.clone()).await);
            assert_eq!(outcome(&error).0, *told, "{line}");
            let leased = stand.take(wanted).await;
            assert_eq!(leased.leases.len(), 1, "{line}");
            stand.settle_all(leased, Verdict::Ack).await;
            let stats = stand.stats(&queue).await;
            assert_eq!((stats.counters.accepted, stats.counters.delivered), (2, 2), "{line}");
            stand.connection.close().await.expect("it closes");
        }
    });
}

#[test]
fn scripts_that_are_unknown_once_are_loaded_without_a_word() {
    run(async || {
        let server = RedisServer::start(&[]);
        let proxy = Proxy::start(server.socket());
        let stand = stand_at(proxy.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        proxy.arm(Fault::Say("NOSCRIPT No matching script."));
        assert_eq!(Offer::new(&stand, &queue).send(&stand).await, Ok(vec![GroupResult::Accepted]));
        assert!(proxy.has_struck());
        stand.check().await;
    });
}

#[test]
fn somebody_elses_script_that_does_not_end_is_waited_out() {
    run(async || {
        let server = RedisServer::start(&["--busy-reply-threshold", "20"]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let offer = Offer::new(&stand, &queue);
        let mut stranger = UnixStream::connect(server.socket()).expect("it listens");
        stranger.write_all(b"EVAL 'while true do end' 0\r\n").expect("it reads");
        let begun = std::time::Instant::now();
        while !server.ask(&["PING"]).starts_with("-BUSY") {
            assert!(begun.elapsed() < seconds(20), "the stranger is not heard");
        }
        let error = refusal(offer.send(&stand).await);
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("BUSY")), "{error:?}");
        assert!(refusal(stand.connection.lease(request(&queue)).await).to_string().contains("BUSY"));
        server.order("SCRIPT KILL");
        offer.send_until_accepted(&stand).await;
        assert_eq!(stand.drain(&queue).await.len(), 1);
        stand.check().await;
    });
}

#[test]
fn a_redis_that_is_full_all_at_once_refuses_publishes_and_gives_and_takes_what_it_holds() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 2).await;
        // Nobody looked since.
        server.order("CONFIG SET maxmemory 1mb");
        let offer = Offer::new(&stand, &queue);
        let error = refusal(offer.send(&stand).await);
        assert!(matches!(&error, StoreError::Full(why) if why.contains("no memory left")), "{error:?}");
        stand.run(&queue, 1, Verdict::Retry { delay: seconds(5) }).await;
        assert_eq!(stand.pass(seconds(5)).await.promoted, 1);
        assert_eq!(stand.drain(&queue).await.len(), 2);
        server.order("CONFIG SET maxmemory 0");
        offer.send_until_accepted(&stand).await;
        assert_eq!(stand.drain(&queue).await.len(), 1);
        stand.check().await;
    });
}

#[test]
fn a_redis_that_wants_more_replicas_than_it_has_is_not_durable() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        server.order("CONFIG SET min-replicas-to-write 1");
        let offer = Offer::new(&stand, &queue);
        let error = refusal(offer.send(&stand).await);
        assert!(matches!(&error, StoreError::NotDurable(why) if why.contains("NOREPLICAS")), "{error:?}");
        server.order("CONFIG SET min-replicas-to-write 0");
        offer.send_until_accepted(&stand).await;
        stand.check().await;
    });
}

#[test]
fn a_master_that_becomes_a_replica_says_so_and_another_connection_is_made() {
    for (serves_stale_data, word) in [("yes", "READONLY"), ("no", "MASTERDOWN")] {
        run(async || {
            let server = RedisServer::start(&["--replica-serve-stale-data", serves_stale_data]);
            let stand = stand_at(server.url(), &Clock::manual(START));
            let queue = stand.queue("orders").await;
            stand.publish_plain(&queue, 1).await;
            let taken = server.info("total_connections_received");
            // Nobody listens there: its link to the master is down.
            server.order("REPLICAOF 127.0.0.1 1");
            let offer = Offer::new(&stand, &queue);
            let error = match word {
                "READONLY" => refusal(offer.send(&stand).await),
                _ => refusal(stand.connection.stats(None).await),
            };
            assert!(matches!(&error, StoreError::Unavailable(why) if why.contains(word)), "{error:?}");
            let error = refusal(offer.send(&stand).await);
            assert_eq!(error.stored(), Stored::No, "{error:?}");
            let of_whom = if word == "READONLY" { "a replica of 127.0.0.1:1" } else { word };
            assert!(error.to_string().contains(of_whom), "{error:?}");
            // Two were for the questions of this test.
            assert!(server.info("total_connections_received") > taken + 2, "another connection was made");
            server.order("REPLICAOF NO ONE");
            offer.send_until_accepted(&stand).await;
            assert_eq!(stand.drain(&queue).await.len(), 2);
            stand.check().await;
        });
    }
}

#[test]
fn a_user_who_loses_its_password_or_a_command_is_told_so_and_goes_on_when_it_has_them_again() {
    run(async || {
        let server = RedisServer::start(&[]);
        server.order("ACL SETUSER gateway on >first ~* &* +@all");
        let stand = stand_at(format!("{}?user=gateway&pass=first", server.url()), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 1).await;

        server.order("ACL SETUSER gateway -evalsha");
        let offer = Offer::new(&stand, &queue);
        let error = refusal(offer.send(&stand).await);
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("OPERATIONS.md")), "{error:?}");
        server.order("ACL SETUSER gateway +evalsha");
        offer.send_until_accepted(&stand).await;

        server.order("ACL SETUSER gateway resetpass >second");
        server.hang_up();
        let offer = Offer::new(&stand, &queue);
        // The first may meet the connection that was cut.
        let mut error = refusal(offer.send(&stand).await);
        if !error.to_string().to_lowercase().contains("auth") {
            error = refusal(offer.send(&stand).await);
        }
        let said = error.to_string();
        assert!(matches!(error, StoreError::Unavailable(_)) && !said.contains("first"), "{said}");
        server.order("ACL SETUSER gateway >first");
        offer.send_until_accepted(&stand).await;
        assert_eq!(stand.drain(&queue).await.len(), 3);
        stand.check().await;
    });
}

#[test]
fn a_password_that_is_asked_for_all_at_once_is_named() {
    run(async || {
        let server = RedisServer::start(&[]);
        server.order("ACL SETUSER operator on >own ~* &* +@all");
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let operator =
            redis::Client::open(format!("{}?user=operator&pass=own", server.url())).expect("a URL");
        let mut operator = operator.get_connection().expect("it listens");
        let mut set = |password: &str| {
            let mut command = redis::cmd("CONFIG");
            command.arg("SET").arg("requirepass").arg(password);
            command.query::<()>(&mut operator).expect("it may");
        };
        set("secret");
        server_hangs_up(&server, "own");
        let offer = Offer::new(&stand, &queue);
        let mut error = refusal(offer.send(&stand).await);
        if !error.to_string().contains("wants a password") {
            error = refusal(offer.send(&stand).await);
        }
        assert!(
            matches!(&error, StoreError::Unavailable(why) if why.contains("wants a password")),
            "{error:?}"
        );
        set("");
        offer.send_until_accepted(&stand).await;
        stand.check().await;
    });
}

/// Ends the connections of the default user.
fn server_hangs_up(server: &RedisServer, password: &str) {
    let operator = redis::Client::open(format!("{}?user=operator&pass={password}", server.url()));
    let mut operator = operator.expect("a URL").get_connection().expect("it listens");
    let mut command = redis::cmd("CLIENT");
    command.arg("KILL").arg("USER").arg("default");
    let killed: i64 = command.query(&mut operator).expect("it may");
    assert!(killed > 0, "the store was connected");
}
