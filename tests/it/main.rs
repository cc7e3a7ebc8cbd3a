//! The integration tests.

mod conformance;
mod model;
mod processor_http;
mod processor_http_hostile;
mod support;
mod tidy;
