//! Posthaste: a self-hosted, high-throughput HTTP message gateway.

pub mod actor;
pub mod api;
pub mod clock;
pub mod config;
pub mod domain;
pub mod processor;
pub mod store;
pub mod http {
    //! The HTTP edge.
    pub mod settings;
}
pub mod pipeline {
    //! The actors between store and processor.
    pub mod settings;
}
pub mod telemetry;
