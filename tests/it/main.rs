//! The integration tests.

mod command_line;
mod conformance;
mod durability;
mod embedding;
mod end_to_end;
mod fairness;
mod http_answers;
mod http_bodies;
mod http_docs;
mod http_faults;
mod http_fuzz;
mod http_gateway;
mod http_lookups;
mod http_queues;
mod http_refusals;
mod http_slow;
mod http_status;
mod life;
mod messages;
mod model;
mod processor_http;
mod processor_http_hostile;
mod processor_log;
mod readme;
mod support;
mod tidy;
