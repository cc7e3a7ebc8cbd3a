//! The memory of `enqueue` calls: what lets a lost answer be asked for again.
//!
//! It lives in memory: who sends a call again is a part of this process and ends with it. A call is remembered group by
//! group, because after an error each group has a transaction and so a fate of its own.

use std::collections::HashMap;

use crate::store::CALL_MEMORY;
use crate::store::enqueue::{CallId, GroupResult};
use crate::store::sqlite::state::Now;

use crate::clock::Tick;

/// What became of a call's groups.
enum Results {
    /// So many, all of them stored: the common case, kept small.
    Accepted(usize),
    /// Each by itself; `None` where nothing is known, so that it is to be done.
    Each(Vec<Option<GroupResult>>),
}

/// Calls of the last [`CALL_MEMORY`]. Bounded by that time: about 50 bytes a call, and a call carries what gathered while
/// the one before was under way.
#[derive(Default)]
pub(super) struct Calls {
    known: HashMap<CallId, (Tick, Results)>,
    staged: Vec<(CallId, usize)>,
}

impl Calls {
    /// What became of one group of a call.
    pub(super) fn result(&self, call: CallId, index: usize, now: Now) -> Option<GroupResult> {
        let (at, results) = self.known.get(&call)?;
        if now.tick.since(*at) >= CALL_MEMORY {
            return None;
        }
        match results {
            Results::Accepted(count) => (index < *count).then_some(GroupResult::Accepted),
            Results::Each(each) => each.get(index).cloned().flatten(),
        }
    }

    /// Notes what becomes of one group of a call of `count` groups, if the transaction holds.
    pub(super) fn stage(&mut self, call: CallId, index: usize, count: usize, result: GroupResult, now: Now) {
        let (at, results) =
            self.known.entry(call).or_insert_with(|| (now.tick, Results::Each(vec![None; count])));
        if now.tick.since(*at) >= CALL_MEMORY {
            (*at, *results) = (now.tick, Results::Each(vec![None; count]));
        }
        if let Results::Each(each) = results
            && let Some(place) = each.get_mut(index)
        {
            *place = Some(result);
            self.staged.push((call, index));
        }
    }

    /// The transaction holds.
    pub(super) fn commit(&mut self) {
        for (call, _) in self.staged.drain(..) {
            if let Some((_, results)) = self.known.get_mut(&call)
                && let Results::Each(each) = results
                && each.iter().all(|result| *result == Some(GroupResult::Accepted))
            {
                *results = Results::Accepted(each.len());
            }
        }
    }

    /// The transaction does not hold.
    pub(super) fn roll_back(&mut self) {
        for (call, index) in self.staged.drain(..) {
            if let Some((_, Results::Each(each))) = self.known.get_mut(&call) {
                each[index] = None;
                if each.iter().all(Option::is_none) {
                    self.known.remove(&call);
                }
            }
        }
    }

    /// Drops what is over.
    pub(super) fn forget(&mut self, now: Now) {
        self.known.retain(|_, (at, _)| now.tick.since(*at) < CALL_MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::timestamp::Timestamp;

    fn at(seconds: u64) -> Now {
        Now { wall: Timestamp::default(), tick: Tick::new(Duration::from_secs(seconds)) }
    }

    #[test]
    fn a_committed_call_is_known_for_its_time_and_a_rolled_back_one_is_not() {
        let (mut calls, kept, undone) = (Calls::default(), CallId(1), CallId(2));
        for index in 0..2 {
            calls.stage(kept, index, 2, GroupResult::Accepted, at(0));
        }
        calls.commit();
        calls.stage(undone, 0, 1, GroupResult::Accepted, at(0));
        calls.roll_back();
        assert_eq!(calls.result(kept, 1, at(59)), Some(GroupResult::Accepted));
        assert_eq!(calls.result(kept, 2, at(59)), None);
        assert_eq!(calls.result(kept, 1, at(60)), None);
        assert_eq!(calls.result(undone, 0, at(0)), None);
        calls.forget(at(60));
        assert!(calls.known.is_empty());
    }

    #[test]
    fn groups_of_one_call_may_have_fates_of_their_own() {
        let (mut calls, call) = (Calls::default(), CallId(3));
        calls.stage(call, 0, 2, GroupResult::Gone, at(0));
        calls.commit();
        calls.stage(call, 1, 2, GroupResult::Accepted, at(1));
        calls.roll_back();
        assert_eq!(calls.result(call, 0, at(2)), Some(GroupResult::Gone));
        assert_eq!(calls.result(call, 1, at(2)), None, "it is to be done again");
    }
}
