//! Gateways on a Redis that they share, and that comes and goes.

mod away;
mod failover;
mod full;
mod idle;
mod outage;
mod overwritten;
mod shared;
mod visible;
