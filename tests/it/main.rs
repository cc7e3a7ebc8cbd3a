//! The integration tests.

mod command_line;
mod conformance;
mod durability;
mod end_to_end;
mod life;
mod messages;
mod model;
mod processor_http;
mod processor_http_hostile;
mod readme;
mod support;
mod tidy;
