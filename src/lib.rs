//! Posthaste: a self-hosted, high-throughput HTTP message gateway.

pub mod actor;
pub mod clock;
pub mod domain;
pub mod processor;
pub mod store;
pub mod http {
    //! The HTTP edge.
    pub mod settings;
}
pub mod pipeline;
pub mod telemetry;
