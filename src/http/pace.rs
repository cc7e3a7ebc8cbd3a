//! Long work on a thread that others need: done in pieces, with a turn for the others in between.

/// Counts the bytes that were worked on since the others had a turn.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: usize,
}

impl Pace {
    /// Bytes worked on between two turns: some tens of microseconds.
    pub(super) const BYTES: usize = 64 << 10;

    /// Notes that so many bytes were worked on; lets the others have a turn when it is theirs.
    pub(super) async fn spend(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= Self::BYTES {
            self.bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_others_have_a_turn_after_so_many_bytes_and_no_sooner() {
        let mut pace = Pace::default();
        let mut context = Context::from_waker(Waker::noop());
        for (bytes, turns) in [(Pace::BYTES - 1, false), (1, true), (1, false), (10 * Pace::BYTES, true)] {
            let mut spending = pin!(pace.spend(bytes));
            assert_eq!(spending.as_mut().poll(&mut context) == Poll::Pending, turns, "{bytes}");
            if turns {
                assert_eq!(spending.poll(&mut context), Poll::Ready(()), "one turn");
            }
        }
    }
}
