//! Pure values and decisions: no I/O, no clock, no runtime. Time and chance come in as arguments.

pub mod destination;
pub mod format;
pub mod header;
pub mod id;
pub mod message;
pub mod outcome;
pub mod phases;
pub mod queue;
pub mod record;
pub mod retry;
pub mod secret;
pub mod timestamp;
