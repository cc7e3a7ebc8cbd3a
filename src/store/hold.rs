//! Holding a queue and letting it go: what each way of it does to the queue, the same in every store.

use std::sync::Arc;

use crate::domain::destination::Destination;
use crate::domain::queue::{ParkReason, QueueSettings};
use crate::store::QueueEntry;

/// How a queue is held or let go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hold {
    /// By an operator, until resumed.
    Pause,
    /// Lets it go on, un-parking it as well.
    Resume,
    /// By the gateway itself.
    Park(ParkReason),
    /// By the gateway itself, for this destination answered that it is gone: nothing when the queue has another one by now.
    Gone(Destination),
    /// Un-parks it where it is parked for that reason; a pause stays.
    Unpark(ParkReason),
}

impl QueueEntry {
    /// Holds the queue, or lets it go; tells whether something that waits may be leased again.
    pub(in crate::store) fn hold(&mut self, hold: &Hold) -> bool {
        match hold {
            Hold::Pause => self.paused = true,
            Hold::Park(reason) => self.parked = Some(*reason),
            Hold::Gone(destination) => {
                if self.settings.destination.as_ref() == Some(destination) {
                    self.parked = Some(ParkReason::DestinationGone);
                }
            }
            Hold::Unpark(reason) => {
                let is_meant = self.parked == Some(*reason);
                if is_meant {
                    self.parked = None;
                }
                return is_meant;
            }
            Hold::Resume => {
                (self.paused, self.parked) = (false, None);
                return true;
            }
        }
        false
    }

    /// Gives the queue other settings; tells whether that let it go. What parks it for its destination is over with another one.
    pub(in crate::store) fn set(&mut self, settings: Arc<QueueSettings>) -> bool {
        let is_other = self.settings.destination != settings.destination;
        self.settings = settings;
        let is_over =
            is_other && matches!(self.parked, Some(ParkReason::DestinationGone | ParkReason::EgressRefused));
        if is_over {
            self.parked = None;
        }
        is_over
    }
}
