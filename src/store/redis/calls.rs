//! Until when a publish may be carried out, by the server's clock.
//!
//! Redis remembers a call for [`CALL_MEMORY`] by its own clock, and a call whose answer was lost is sent again. Were it carried out
//! after that, because the clock was set ahead or because it lay in a socket while the server stood still, it would be stored
//! twice. So each sending says until when it may be: a little less than the memory after the *first* sending, in the time that the
//! server is expected to show. What comes later is not carried out, and stays unknown.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Tick;
use crate::store::CALL_MEMORY;
use crate::store::enqueue::CallId;
use crate::store::redis::publish::millis;

/// How long before its memory ends a call is refused: more than the server's time can be behind what was last heard of it.
const MARGIN: Duration = Duration::from_secs(5);
/// Calls of unknown fate that are kept without a look at their age: one a thread as a rule.
const OPEN_FEW: usize = 64;

/// The calls whose fate is not known, and the time that the server shows.
#[derive(Default)]
pub(super) struct Calls {
    /// What the server's clock showed, and when that was heard.
    heard: Option<(u64, Tick)>,
    open: HashMap<CallId, Open>,
}

struct Open {
    until_ms: u64,
    since: Tick,
}

/// What one sending of a call is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sending {
    /// Until when it may be carried out, by the server's clock; 0: whenever it comes, because nothing was heard of that clock.
    pub(super) until_ms: u64,
    /// Whether no sending of this call went before it.
    pub(super) is_first: bool,
}

impl Calls {
    /// Notes what the server's clock shows.
    pub(super) fn heard(&mut self, server_ms: u64, now: Tick) {
        self.heard = Some((server_ms, now));
    }

    /// A call leaves, for the first time or again.
    pub(super) fn sending(&mut self, call: CallId, now: Tick) -> Sending {
        if let Some(open) = self.open.get(&call) {
            return Sending { until_ms: open.until_ms, is_first: false };
        }
        let lasting = CALL_MEMORY.saturating_sub(MARGIN);
        let until = |(heard_ms, at): (u64, Tick)| heard_ms + millis(now.since(at) + lasting);
        let until_ms = self.heard.map_or(0, until);
        if self.open.len() >= OPEN_FEW {
            self.open.retain(|_, open| now.since(open.since) < CALL_MEMORY);
        }
        self.open.insert(call, Open { until_ms, since: now });
        Sending { until_ms, is_first: true }
    }

    /// Its fate is known, or none of its sendings can have been carried out.
    pub(super) fn closed(&mut self, call: CallId) {
        self.open.remove(&call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Tick {
        Tick::new(Duration::from_secs(second))
    }

    #[test]
    fn every_sending_of_a_call_has_the_end_of_the_first() {
        let (mut calls, call) = (Calls::default(), CallId(1));
        calls.heard(1_000_000, at(10));
        let first = calls.sending(call, at(12));
        assert_eq!(first, Sending { until_ms: 1_000_000 + 2_000 + 55_000, is_first: true });
        // The clock was set ahead meanwhile.
        calls.heard(9_000_000, at(13));
        assert_eq!(calls.sending(call, at(14)), Sending { is_first: false, ..first });
        assert_eq!(calls.sending(CallId(2), at(14)).until_ms, 9_000_000 + 1_000 + 55_000);
        calls.closed(call);
        assert!(calls.sending(call, at(14)).is_first);
    }

    #[test]
    fn before_anything_was_heard_of_the_servers_clock_no_end_is_named() {
        assert_eq!(Calls::default().sending(CallId(1), at(1)), Sending { until_ms: 0, is_first: true });
    }

    #[test]
    fn calls_that_nobody_asks_for_any_more_are_forgotten() {
        let mut calls = Calls::default();
        for call in 0..1_000 {
            calls.sending(CallId(call), at(u64::try_from(call).expect("it is small")));
        }
        assert!(calls.open.len() <= OPEN_FEW.max(60) + 1, "{}", calls.open.len());
    }
}
