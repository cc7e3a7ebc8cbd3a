//! Posthaste: a self-hosted, high-throughput HTTP message gateway.

pub mod actor;
