//! Figures with their units, as a table or as JSON.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// What one bench found, in the order in which it was found.
pub(crate) struct Report {
    bench: &'static str,
    began: Instant,
    figures: Vec<(String, f64)>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(bench: &'static str) -> Self {
        let mut report = Self { bench, began: Instant::now(), figures: Vec::new() };
        // Figures from a busy machine say little: the reader should see that it was.
        report.add("load_average_before", load_average());
        report
    }

    /// Adds a figure; its name ends with its unit.
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.figures.push((name.to_owned(), value));
    }

    /// Adds a duration in milliseconds; `_ms` is added to the name.
    pub(crate) fn add_ms(&mut self, name: &str, duration: Duration) {
        self.add(&format!("{name}_ms"), duration.as_secs_f64() * 1e3);
    }

    /// Adds the distribution of some durations.
    pub(crate) fn add_distribution(&mut self, name: &str, mut durations: Vec<Duration>) {
        durations.sort_unstable();
        for (word, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            self.add_ms(&format!("{name}_{word}"), quantile(&durations, part));
        }
    }

    /// A figure that was added before.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        let found = self.figures.iter().find(|(own, _)| own == name);
        found.unwrap_or_else(|| panic!("{name} was not measured")).1
    }

    /// Prints it.
    #[expect(clippy::print_stdout, reason = "a bench gives its figures here")]
    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            let figures: Map<String, Value> =
                self.figures.iter().map(|(name, value)| (name.clone(), json!(rounded(*value)))).collect();
            println!("{}", json!({"bench": self.bench, "figures": figures}));
            return;
        }
        println!("\n{} ({:.0} s)", self.bench, self.began.elapsed().as_secs_f64());
        for (name, value) in &self.figures {
            println!("  {name:<44} {:>14}", rounded(*value));
        }
    }
}

/// How many processes wanted to run, over the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Enough digits to compare.
fn rounded(value: f64) -> f64 {
    let digits = if value.abs() >= 1_000.0 { 1.0 } else { 1_000.0 };
    (value * digits).round() / digits
}

/// The smallest duration that `part` of all do not exceed.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list of few thousands"
    )]
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}

/// The middle one of some figures, at least one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
