//! Whether Redis is fit for what a 202 promises: looked at when a connection is made, and every 30 s.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use crate::store::error::StoreError;
use crate::store::health::{Durability, StoreHealth};
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::state::lock;

/// What the last look at Redis found.
#[derive(Default)]
pub(super) struct Vitals {
    /// Why publishes are refused with `store_full`.
    pub(super) full: Option<String>,
    /// Why publishes are refused with `not_durable`.
    pub(super) unfit: Option<String>,
    /// How long the last answer took.
    pub(super) latency: Option<Duration>,
}

impl Connection {
    /// Refuses to write where it would not be kept as promised.
    pub(super) fn fit_to_write(&self) -> Result<(), StoreError> {
        match &lock(&self.state.vitals).unfit {
            Some(why) => Err(StoreError::NotDurable(why.clone())),
            None => Ok(()),
        }
    }

    /// Why nothing more is taken.
    pub(super) fn full(&self) -> Option<String> {
        lock(&self.state.vitals).full.clone()
    }

    pub(super) async fn look_at_health(&self) -> Result<StoreHealth, StoreError> {
        self.state.check_open()?;
        let asked = Instant::now();
        let mut command = Cmd::new();
        command.arg("PING");
        let answer: Value = self.link.send(&command, Effect::Reads).await?;
        drop(answer);
        let mut vitals = lock(&self.state.vitals);
        vitals.latency = Some(asked.elapsed());
        let newer = lock(&self.state.newer).values().min().cloned();
        Ok(StoreHealth {
            reachable: true,
            latency: vitals.latency,
            durability: Durability::Strict,
            durability_reasons: Vec::new(),
            full: vitals.full.clone(),
            newer,
            warnings: Vec::new(),
        })
    }
}
