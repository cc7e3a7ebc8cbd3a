//! Placeholder until merged.
use std::sync::Arc;

use crate::clock::Clock;
use crate::store::Store;
use crate::store::error::OpenError;
use crate::store::settings::StoreSettings;

/// Placeholder.
pub fn open(_: &StoreSettings, _: &Clock) -> Result<Arc<dyn Store>, OpenError> {
    Err(OpenError::Failed(String::new()))
}
