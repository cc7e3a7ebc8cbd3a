//! Which server a connection leads to: an address may move while connections that are open stay where they are.
//!
//! A server names itself anew at each start (`run_id`). Where a younger connection leads to another one than an older did, the
//! address has moved, and every older connection is given up. Where that goes to and fro, several servers stand behind one
//! address: what is published at one would be looked for at another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Servers that were left and are remembered.
const LEFT_MAX: usize = 8;
/// So many returns to servers that were left, within [`RETURNS_WITHIN`], and the address leads to several.
const RETURNS_MAX: usize = 3;
const RETURNS_WITHIN: Duration = Duration::from_secs(30);
/// How long after the last return the address counts as one of several servers.
const SEVERAL_FOR: Duration = Duration::from_secs(15);

/// What tells one server from another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::store::redis) enum Server {
    /// By the name that it gave itself when it started.
    Run(Arc<str>),
    /// One that may not be asked for it: by the connection, of all connections of the process.
    Nameless(u64),
}

/// What a connection says of the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    /// Nothing new.
    Same,
    /// It leads here now: older connections lead elsewhere.
    Moved,
    /// It led here once: a younger connection leads elsewhere.
    Left,
}

/// Where the address leads to, as its connections found it.
#[derive(Default)]
pub(super) struct Address {
    /// Where the youngest connection led, and which that was.
    newest: Option<(Server, u64)>,
    left: VecDeque<Server>,
    returns: VecDeque<Instant>,
}

impl Address {
    /// Notes where a connection leads; a greater number was begun later.
    pub(super) fn meet(&mut self, server: &Server, connection: u64, now: Instant) -> Met {
        let Some((newest, youngest)) = &mut self.newest else {
            self.newest = Some((server.clone(), connection));
            return Met::Same;
        };
        if newest == server {
            *youngest = connection.max(*youngest);
            return Met::Same;
        }
        let are_named = matches!((&*newest, server), (Server::Run(_), Server::Run(_)));
        if are_named && connection < *youngest {
            return Met::Left;
        }
        let before = std::mem::replace(newest, server.clone());
        *youngest = connection.max(*youngest);
        if !are_named {
            return Met::Same;
        }
        if let Some(place) = self.left.iter().position(|left| left == server) {
            self.left.remove(place);
            self.returns.push_back(now);
        }
        self.left.push_back(before);
        keep_last(&mut self.left, LEFT_MAX);
        keep_last(&mut self.returns, RETURNS_MAX);
        Met::Moved
    }

    /// Where the youngest connection leads.
    pub(super) fn newest(&self) -> Option<&Server> {
        self.newest.as_ref().map(|(server, _)| server)
    }

    /// Whether connections lead now to one server, now to another.
    pub(super) fn is_of_several(&self, now: Instant) -> bool {
        let is_within = |at: Option<&Instant>, span| at.is_some_and(|at| now.duration_since(*at) < span);
        // Those that made it so are within the span of the last.
        self.returns.len() == RETURNS_MAX
            && is_within(self.returns.back(), SEVERAL_FOR)
            && self
                .returns
                .back()
                .zip(self.returns.front())
                .is_some_and(|(last, first)| last.duration_since(*first) < RETURNS_WITHIN)
    }
}

/// Keeps the last so many.
fn keep_last<T>(all: &mut VecDeque<T>, most: usize) {
    all.drain(..all.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> Server {
        Server::Run(name.into())
    }

    #[test]
    fn the_youngest_connection_says_where_the_address_leads() {
        let (mut address, now) = (Address::default(), Instant::now());
        assert_eq!(address.meet(&run("a"), 1, now), Met::Same);
        assert_eq!(address.meet(&run("a"), 3, now), Met::Same);
        assert_eq!(address.meet(&run("b"), 2, now), Met::Left, "a younger one led to the other");
        assert_eq!(address.meet(&run("b"), 4, now), Met::Moved);
        assert_eq!(address.meet(&run("a"), 3, now), Met::Left);
        assert_eq!(address.newest(), Some(&run("b")));
        assert!(!address.is_of_several(now));
    }

    #[test]
    fn servers_without_names_are_never_said_to_have_moved() {
        let (mut address, now) = (Address::default(), Instant::now());
        for (server, connection) in
            [(Server::Nameless(1), 1), (Server::Nameless(2), 2), (run("a"), 3), (Server::Nameless(2), 2)]
        {
            assert_eq!(address.meet(&server, connection, now), Met::Same);
        }
    }

    #[test]
    fn an_address_that_leads_to_and_fro_is_of_several_servers_until_it_stays() {
        let (mut address, begun) = (Address::default(), Instant::now());
        for (step, name) in (1..).zip(["a", "b", "a", "b", "a"]) {
            assert!(!address.is_of_several(begun), "a failover and the way back are normal life");
            address.meet(&run(name), step, begun);
        }
        assert!(address.is_of_several(begun));
        assert!(!address.is_of_several(begun + SEVERAL_FOR));
    }

    #[test]
    fn one_that_is_started_anew_again_and_again_is_one_server() {
        let (mut address, now) = (Address::default(), Instant::now());
        for connection in 1..50 {
            address.meet(&run(&connection.to_string()), connection, now);
        }
        assert!(!address.is_of_several(now) && address.left.len() == LEFT_MAX);
    }
}
