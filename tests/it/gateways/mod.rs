//! Gateways on a Redis that they share, and that comes and goes.

mod away;
mod failover;
mod full;
mod idle;
mod outage;
mod shared;
mod visible;
