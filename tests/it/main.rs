//! The integration tests.

mod http_answers;
mod http_bodies;
mod http_faults;
mod http_fuzz;
mod http_gateway;
mod http_lookups;
mod http_queues;
mod http_refusals;
mod http_slow;
mod http_status;
mod tidy;
