//! What a soak found: whether the gateway after it was the one of before.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::course::Watched;
use super::report::{mib, rounded};

/// The 99.9th percentile of a latency at both ends of the run.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Tail {
    pub(super) first: Option<f64>,
    pub(super) last: Option<f64>,
    /// The last over the first.
    pub(super) ratio: Option<f64>,
}

/// Open file descriptors without load: before the first message, and when the last connection was idle for long enough to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct AtRest {
    pub(super) before: Option<u64>,
    /// `None` also where the run was too short to wait for it.
    pub(super) after: Option<u64>,
}

/// Everything that a soak tells beside the rate, the latencies and the costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Endurance {
    /// The most messages a second that were published and received without the queue growing; `None` where a rate was asked for.
    pub(super) knee_per_s: Option<f64>,
    /// How long the begin and the end are, of which `first` and `last` speak.
    pub(super) window_s: f64,
    pub(super) watched: BTreeMap<&'static str, Option<Watched>>,
    /// From due until 202.
    pub(super) until_202_p99_9_ms: Tail,
    /// From due until received.
    pub(super) until_received_p99_9_ms: Tail,
    /// Messages that were answered 202.
    pub(super) accepted: u64,
    /// Different messages that came.
    pub(super) received: u64,
    /// Messages that came once more.
    pub(super) received_again: u64,
    /// Accepted and never received.
    pub(super) lost: u64,
    pub(super) fds_at_rest: AtRest,
    /// Connections to the receiver when the knee was sought: as many as are ever needed.
    pub(super) connections_at_knee: Option<u64>,
    /// What is not as it should be, in words.
    pub(super) faults: Vec<String>,
}

/// Of these none may be more in the end than there ever were at the begin.
const MAY_NOT_GROW: [(&str, &str); 3] =
    [("fds_other", "open files beside connections"), ("threads", "threads"), ("actors", "actors")];

/// So many files more at rest are no fault: what is opened when it is first needed, and the connections over which the bench asks.
const OPENED_LATER: u64 = 8;

impl Endurance {
    /// Finds the faults, with so much growth of memory allowed.
    pub(super) fn judge(&mut self, rss_growth_percent_max: Option<f64>) {
        let watched = |name: &str| self.watched.get(name).and_then(Option::as_ref);
        let mut faults = Vec::new();
        if self.lost > 0 {
            faults.push(format!(
                "{} of {} messages were accepted and never received",
                self.lost, self.accepted
            ));
        }
        if let Some(most) = rss_growth_percent_max {
            let rss = watched("gateway_rss_bytes");
            match rss.and_then(|rss| Some((rss, rss.growth_percent?))) {
                None => faults.push("the memory of the gateway is not known".to_owned()),
                Some((rss, growth)) if growth > most => faults.push(format!(
                    "the memory of the gateway grew by {growth:.1} % ({} to {}), more than {most} %",
                    mib(Some(rss.first)),
                    mib(Some(rss.last)),
                )),
                Some(_) => {}
            }
        }
        for (name, words) in MAY_NOT_GROW {
            if let Some(Watched { first_most, last, .. }) = watched(name)
                && last > first_most
            {
                faults.push(format!("there are more {words}: {last}, at the begin at most {first_most}"));
            }
        }
        // Half of the load needs no more of them than all of it did, also where a burst opens some.
        if let Some((Watched { first_most, last, .. }, knee)) =
            watched("connections").zip(self.connections_at_knee)
            && *last > knee.max(*first_most)
        {
            faults.push(format!("there are more connections to the receiver: {last}, at the knee {knee}"));
        }
        if let AtRest { before: Some(before), after: Some(after) } = self.fds_at_rest
            && after > before + OPENED_LATER
        {
            faults.push(format!(
                "at rest there are more open files: {after}, before the first message {before}"
            ));
        }
        self.faults.extend(faults);
    }

    /// For a person.
    pub(super) fn describe(&self) -> Vec<(&'static str, String)> {
        let knee =
            self.knee_per_s.map(|knee| ("knee", format!("{knee:.1} messages/s, of which half are due")));
        let mut rows: Vec<_> = knee.into_iter().collect();
        rows.push(("first and last", format!("{:.1} s each, medians", self.window_s)));
        for (name, watched) in &self.watched {
            rows.push((
                *name,
                watched.as_ref().map_or("unknown".to_owned(), |watched| watched.describe(name)),
            ));
        }
        let rest = |count: Option<u64>| count.map_or("unknown".to_owned(), |count| count.to_string());
        rows.push((
            "fds at rest",
            format!("{} before, {} after", rest(self.fds_at_rest.before), rest(self.fds_at_rest.after)),
        ));
        rows.push(("p99.9 until 202", self.until_202_p99_9_ms.describe()));
        rows.push(("p99.9 until received", self.until_received_p99_9_ms.describe()));
        rows.push((
            "messages",
            format!(
                "{} accepted, {} received, {} lost, {} more than once",
                self.accepted, self.received, self.lost, self.received_again
            ),
        ));
        rows.extend(self.faults.iter().map(|fault| ("fault", fault.clone())));
        rows
    }
}

impl Watched {
    fn describe(&self, name: &str) -> String {
        let show = |value: u64| if name.ends_with("_bytes") { mib(Some(value)) } else { value.to_string() };
        let mut text = format!("{} first, {} last", show(self.first), show(self.last));
        if let Some(growth) = self.growth_percent {
            write!(text, " ({growth:+.1} %)").expect("a string grows");
        }
        write!(text, ", {} at most", show(self.most)).expect("a string grows");
        text
    }
}

impl Tail {
    /// That of two ends.
    pub(super) fn of(first: Option<f64>, last: Option<f64>) -> Self {
        let ratio = first.zip(last).filter(|(first, _)| *first > 0.0);
        Self { first, last, ratio: ratio.map(|(first, last)| rounded(last / first)) }
    }

    fn describe(&self) -> String {
        let ms = |value: Option<f64>| value.map_or("unknown".to_owned(), |ms| format!("{ms:.3} ms"));
        let mut text = format!("{} first, {} last", ms(self.first), ms(self.last));
        if let Some(ratio) = self.ratio {
            write!(text, " (× {ratio:.2})").expect("a string grows");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::report::decimal;

    fn watched(first: u64, last: u64) -> Watched {
        Watched {
            first,
            first_most: first,
            last,
            most: last.max(first),
            growth_percent: Some((decimal(last) / decimal(first) - 1.0) * 100.0),
            per_hour: None,
            parts: Vec::new(),
        }
    }

    fn faults(change: impl FnOnce(&mut Endurance), rss_growth_percent_max: Option<f64>) -> String {
        let mut found = Endurance {
            knee_per_s: None,
            window_s: 20.0,
            watched: [
                ("gateway_rss_bytes", Some(watched(100 << 20, 101 << 20))),
                ("fds_other", Some(watched(13, 13))),
                ("threads", Some(watched(13, 12))),
                ("actors", None),
            ]
            .into(),
            until_202_p99_9_ms: Tail::of(Some(2.0), Some(90.0)),
            until_received_p99_9_ms: Tail::of(None, Some(1.0)),
            accepted: 100,
            received: 100,
            received_again: 0,
            lost: 0,
            fds_at_rest: AtRest { before: Some(10), after: None },
            connections_at_knee: None,
            faults: Vec::new(),
        };
        change(&mut found);
        found.judge(rss_growth_percent_max);
        found.faults.join("; ")
    }

    #[test]
    fn a_gateway_that_stayed_as_it_was_has_no_faults_however_slow_it_became() {
        assert_eq!(faults(|_| {}, Some(2.0)), "");
        assert_eq!(faults(|_| {}, None), "");
    }

    #[test]
    fn each_thing_that_grew_is_a_fault_with_its_figures() {
        let grown = faults(|_| {}, Some(0.5));
        assert_eq!(
            grown,
            "the memory of the gateway grew by 1.0 % (100.0 MiB to 101.0 MiB), more than 0.5 %"
        );
        for (name, words) in MAY_NOT_GROW {
            let grown = faults(|found| drop(found.watched.insert(name, Some(watched(13, 14)))), None);
            assert_eq!(grown, format!("there are more {words}: 14, at the begin at most 13"));
        }
        let open = faults(|found| found.fds_at_rest.after = Some(19), None);
        assert_eq!(open, "at rest there are more open files: 19, before the first message 10");
        let grown = |knee, last| {
            move |found: &mut Endurance| {
                found.connections_at_knee = Some(knee);
                found.watched.insert("connections", Some(watched(20, last)));
            }
        };
        assert_eq!(
            faults(grown(60, 61), None),
            "there are more connections to the receiver: 61, at the knee 60"
        );
        assert_eq!(faults(grown(60, 60), None) + &faults(grown(19, 20), None), "");
        let lost = faults(|found| found.lost = 3, None);
        assert_eq!(lost, "3 of 100 messages were accepted and never received");
    }

    #[test]
    fn memory_that_is_not_known_is_not_taken_for_flat() {
        let unknown = |found: &mut Endurance| drop(found.watched.insert("gateway_rss_bytes", None));
        assert_eq!(faults(unknown, Some(2.0)), "the memory of the gateway is not known");
        assert_eq!(faults(unknown, None), "");
    }

    #[test]
    fn a_ratio_is_of_what_is_known() {
        assert_eq!(Tail::of(Some(2.0), Some(3.0)).ratio, Some(1.5));
        assert_eq!((Tail::of(None, Some(3.0)).ratio, Tail::of(Some(0.0), Some(3.0)).ratio), (None, None));
    }
}
