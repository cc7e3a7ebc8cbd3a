//! Takes what an embedding program asks for, on a thread that can talk to the store.
//!
//! # What it does
//! Publishes and tells the status for the program's handles, many at once.
//!
//! # What it waits for
//! The next request, and the answers to those under way.
//!
//! # What it guarantees
//! At most `server.limits.publishes_in_flight_max` requests are under way and as many wait in the mailbox; who asks for more is
//! refused. When it stops, what was asked for before is answered.
//!
//! # When it fails
//! After a panic the requests under way have no answer: for a publish that means that its outcome is unknown.

use std::future::{Future, pending};
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;

use crate::actor::{Actor, Address, Exit, Inbox, Life, Place, Supervisor};
use crate::api::{Problem, Published, Status};
use crate::app::{Publication, role};
use crate::http::{Door, Edge};
use crate::pipeline::phase;

/// What a program may ask for.
pub(super) enum Request {
    /// To publish.
    Publish(Publication, oneshot::Sender<Result<Published, Box<Problem>>>),
    /// To say what is where.
    Status(oneshot::Sender<Status>),
}

/// Starts it.
pub(super) fn start(
    supervisor: &Supervisor,
    place: &Place,
    edge: &Edge,
    requests_max: usize,
) -> Address<Request> {
    let edge = edge.clone();
    supervisor.start(place, role("reception", phase::INGEST, requests_max), move || Reception {
        door: Door::open(&edge),
        requests_max,
    })
}

struct Reception {
    door: Door,
    requests_max: usize,
}

impl Actor for Reception {
    type Message = Request;

    async fn run(&mut self, inbox: &mut Inbox<Request>, life: &Life) -> Exit {
        let mut under_way: FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>> = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !under_way.is_empty() {
            let has_room = is_open && under_way.len() < self.requests_max;
            tokio::select! {
                request = async { if has_room { life.next(inbox).await } else { pending().await } } => match request {
                    Some(request) => under_way.push(Box::pin(serve(self.door.clone(), request))),
                    None => is_open = false,
                },
                Some(()) = under_way.next() => {}
            }
        }
        Exit::Done
    }
}

async fn serve(door: Door, request: Request) {
    match request {
        Request::Publish(Publication { queue, payload, options }, told) => {
            let result = door.publish(&queue, &options, &payload).await;
            // Who asked may be gone; the message goes its way.
            drop(told.send(result));
        }
        Request::Status(told) => drop(told.send(door.status(None).await)),
    }
}
