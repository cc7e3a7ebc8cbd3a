//! Posthaste: a self-hosted, high-throughput HTTP message gateway.

pub mod actor;
pub mod api;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod pipeline;
pub mod processor;
pub mod store;
pub mod telemetry;
