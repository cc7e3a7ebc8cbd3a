//! The integration tests.

mod conformance;
mod model;
