//! The actors together, on the memory store and real threads.

mod consuming;
mod dispatching;
mod fairness;
mod ingesting;
mod lanes;
mod peer;
mod rig;
mod settling;
mod stopping;
mod time;
mod working;
