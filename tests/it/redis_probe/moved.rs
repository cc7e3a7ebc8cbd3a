//! The address moves to another server while connections that are open stay where they are.

use std::rc::Rc;

use posthaste::store::MessageStore;
use posthaste::store::error::StoreError;
use posthaste::store::health::Durability;
use posthaste::store::lease::LeaseRequest;
use posthaste::store::settings::StoreSettings;

use super::{RedisServer, Rig, WITHIN, not_durable, run, until};
use crate::conformance::stand::{draft, ids, request};
use crate::support::proxy::Proxy;
use crate::support::redis::STRICT;
use crate::support::wait_until;

/// What only a publish names: the key of its call.
const OF_PUBLISHES: &[u8] = b"{orders#0}:e:";

/// A strict server, one with these options that has all that it has, and an address that leads to the first.
fn pair(options: &[&str]) -> (RedisServer, RedisServer, Proxy) {
    let (first, port) = RedisServer::start_on_port(&STRICT);
    let second = RedisServer::start(options);
    second.order(&format!("REPLICAOF 127.0.0.1 {port}"));
    wait_until("the replica is there", WITHIN, || {
        second.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let address = Proxy::start(first.socket());
    (first, second, address)
}

fn catch_up(first: &RedisServer, second: &RedisServer) {
    wait_until("the replica is in step", WITHIN, || {
        (second.info("slave_repl_offset") >= first.info("master_repl_offset")).then_some(())
    });
}

async fn rig(address: &Proxy) -> (Rig, Rc<dyn MessageStore>) {
    let rig = Rig::open(&StoreSettings { url: address.url(), ..StoreSettings::default() }).await;
    rig.publish().await;
    let other = rig.store.connect();
    other.health().await.expect("Redis answers");
    (rig, other)
}

/// The address leads to `second` from now on, and only what publishes is cut off.
fn move_to(first: &RedisServer, second: &RedisServer, address: &Proxy) {
    catch_up(first, second);
    second.order("REPLICAOF NO ONE");
    address.point_at(second.socket());
    assert!(address.cut_those_that_sent(OF_PUBLISHES) > 0);
}

#[test]
fn a_publish_is_judged_by_the_server_it_travels_to_whatever_others_see_elsewhere() {
    let (first, second, address) = pair(&["--appendonly", "no"]);
    run(async {
        let (rig, other) = rig(&address).await;
        move_to(&first, &second, &address);
        let mut refused = 0;
        until("it is refused again and again", async || {
            let _looked = other.health().await;
            match rig.offer(&[draft()]).await {
                Err(StoreError::NotDurable(why)) => {
                    assert!(why.contains("appendonly is no"), "{why}");
                    refused += 1;
                }
                Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {}
                other => panic!("{other:?}"),
            }
            (refused == 100).then_some(())
        })
        .await;
        let health = other.health().await.expect("Redis answers");
        assert_eq!(health.durability, Durability::None, "the others came after it");
        assert_eq!(second.ask(&["LLEN", "ph:{orders#0}:p1"]), ":1\r\n");
    });
}

#[test]
fn what_was_published_on_the_new_server_is_leased_there_while_the_old_one_lives() {
    let (first, second, address) = pair(&STRICT);
    run(async {
        let (rig, other) = rig(&address).await;
        let lease = async || {
            let request = LeaseRequest { max: 10, ..request(&rig.queue) };
            ids(&other.lease(request).await.expect("leasing goes on")).len()
        };
        assert_eq!(lease().await, 1);
        move_to(&first, &second, &address);
        rig.offer_when_connected().await.expect("it is fit");
        until("it is leased", async || (lease().await > 0).then_some(())).await;
        assert_eq!(first.ask(&["HGET", "ph:{orders#0}:c", "accepted"]), "$1\r\n1\r\n");
    });
}

#[test]
fn a_publish_that_is_sent_again_for_want_of_the_scripts_never_leaves_for_another_server() {
    let (first, second, address) = pair(&["--appendonly", "no"]);
    run(async {
        let (rig, _other) = rig(&address).await;
        catch_up(&first, &second);
        second.order("REPLICAOF NO ONE");
        address.point_at(second.socket());
        // Its mark in the due index is answered READONLY, the publish itself NOSCRIPT.
        first.order_together(&["SCRIPT FLUSH", "REPLICAOF 127.0.0.1 1"]);
        let offered = rig.offer(&[draft()]).await;
        assert!(matches!(offered, Err(StoreError::Unavailable(_))), "{offered:?}");
        assert!(not_durable(rig.offer_when_connected().await).contains("appendonly is no"));
        assert_eq!(second.ask(&["HGET", "ph:{orders#0}:c", "accepted"]), "$1\r\n1\r\n");
    });
}

#[test]
fn an_address_behind_which_two_masters_stand_takes_no_publishes_and_is_warned_of() {
    let (first, second, address) = pair(&STRICT);
    run(async {
        let (rig, other) = rig(&address).await;
        catch_up(&first, &second);
        second.order("REPLICAOF NO ONE");
        address.share_with(second.socket());
        address.cut_those_that_sent(OF_PUBLISHES);
        let why = until("publishes are refused", async || {
            let _looked = other.health().await;
            // Only a new connection tells.
            address.cut_those_that_sent(OF_PUBLISHES);
            match rig.offer(&[draft()]).await {
                Err(StoreError::NotDurable(why)) => Some(why),
                _ => None,
            }
        })
        .await;
        assert!(why.contains("now to one server, now to another"), "{why}");
        let health = other.health().await.expect("Redis answers");
        assert_eq!(health.durability, Durability::Unknown);
        assert!(health.warnings.iter().any(|warning| warning.code == "servers_differ"), "{health:?}");
    });
}
