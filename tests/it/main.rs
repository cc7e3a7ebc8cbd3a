//! The integration tests.

mod command_line;
mod durability;
mod end_to_end;
mod life;
mod messages;
mod processor_http;
mod processor_http_hostile;
mod readme;
mod support;
mod tidy;
