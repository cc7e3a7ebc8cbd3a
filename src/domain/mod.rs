//! Pure values and decisions: no I/O, no clock, no tokio.

pub mod format;
pub mod timestamp;
