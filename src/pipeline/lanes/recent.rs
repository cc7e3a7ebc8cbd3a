//! The lanes of destinations that messages brought lately to one thread, so that not each of them is read as a URL.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::domain::destination::Destination;
use crate::pipeline::lanes::{Lane, Lanes};

/// How many destinations are remembered; then it begins anew.
const RECENT_MAX: usize = 256;

/// What one thread knows. A lane that is forgotten meanwhile is asked for again.
pub(in crate::pipeline) struct Recent {
    lanes: Lanes,
    by_destination: RefCell<HashMap<Box<str>, Weak<Lane>>>,
}

impl Recent {
    /// Of these lanes, none yet.
    pub(in crate::pipeline) fn new(lanes: Lanes) -> Self {
        Self { lanes, by_destination: RefCell::default() }
    }

    /// The lane of a destination as a message brought it; `None` where that cannot be read.
    pub(in crate::pipeline) fn of(&self, brought: &str) -> Option<Arc<Lane>> {
        let mut recent = self.by_destination.borrow_mut();
        if let Some(lane) = recent.get(brought).and_then(Weak::upgrade) {
            return Some(lane);
        }
        let destination = Destination::of_message(Some(brought), None)?;
        let lane = self.lanes.of(&destination.lane_key());
        if recent.len() >= RECENT_MAX {
            recent.clear();
        }
        recent.insert(brought.into(), Arc::downgrade(&lane));
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::pipeline::lanes::settings::LaneSettings;

    #[test]
    fn what_was_brought_lately_leads_to_the_same_lane_as_its_origin() {
        let lanes = Lanes::new(LaneSettings::default(), Clock::system());
        let recent = Recent::new(lanes.clone());
        let lane = recent.of("http://a.example/one").expect("it is a URL");
        for brought in ["http://a.example/one", "http://a.example/two", "HTTP://A.example:80/"] {
            assert!(Arc::ptr_eq(&recent.of(brought).expect("it is a URL"), &lane), "{brought}");
        }
        assert!(Arc::ptr_eq(&lanes.of("http://a.example"), &lane));
        assert!(recent.of("no URL").is_none());
        for number in 0..2 * RECENT_MAX {
            recent.of(&format!("http://a.example/{number}"));
            assert!(recent.by_destination.borrow().len() <= RECENT_MAX);
        }
    }
}
