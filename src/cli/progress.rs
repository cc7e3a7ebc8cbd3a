//! Progress of long work: a bar on stderr where that is a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for so much work; one that only turns where nobody knows how much it is.
pub(super) fn bar(total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = if total.is_some() { "{bar:40} {percent}% {msg}, {eta} left" } else { "{spinner} {msg}" };
    bar.set_style(ProgressStyle::with_template(template).expect("a template that is known"));
    bar
}
