//! Gateways on a Redis that they share, and that comes and goes.

mod away;
mod idle;
mod outage;
mod shared;
mod visible;
