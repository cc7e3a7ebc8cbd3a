//! The integration tests.

mod processor_http;
mod processor_http_hostile;
mod support;
mod tidy;
