//! How durations, sizes and rates are written, the same in files, JSON, headers, flags and the environment.
//!
//! Each value has one canonical spelling, which `show` (or `Display`) gives and `parse` (or `FromStr`) reads back
//! unchanged. Reading is strict: what is not in the documented form is refused with a [`FormatError`].

pub mod bytes;
pub mod duration;
mod error;
pub mod range;
mod rate;
pub mod secret;

pub use error::FormatError;
pub use rate::{Rate, RatePeriod};
