//! Which gateways live on this store.

use std::sync::Arc;
use std::time::Duration;

use crate::store::INSTANCE_MEMORY;
use crate::store::error::StoreError;
use crate::store::health::Instance;
use crate::store::redis::answer::Answer;
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::publish::millis;
use crate::store::redis::script;
use crate::store::redis::state::lock;

/// How long saying good-bye may take: whoever ends does not wait for a store that is away.
const LEAVE_WITHIN: Duration = Duration::from_millis(300);

impl Connection {
    /// Says that this gateway lives; gives all that do, as the store's clock has it.
    pub(super) async fn announce_instance(&self, instance: Instance) -> Result<Vec<Instance>, StoreError> {
        self.state.check_open()?;
        let all = self.say(&instance.id, &instance.version).await?;
        *lock(&self.state.announced) = Some(instance.id);
        Ok(all)
    }

    /// Says that this gateway ends, if it ever said that it lives. That it could not is no harm: it is forgotten soon.
    pub(super) async fn leave(&self) {
        let announced = lock(&self.state.announced).take();
        if let Some(id) = announced {
            let left = tokio::time::timeout(LEAVE_WITHIN, self.say(&id, "")).await;
            if !matches!(left, Ok(Ok(_))) {
                log::debug!("the store was not told that this gateway ends");
            }
        }
    }

    async fn say(&self, id: &str, version: &str) -> Result<Vec<Instance>, StoreError> {
        let mut call = Call::of_store(&self.state, script::INSTANCES);
        call.push(self.state.time_ms()).push(id).push(version).push(millis(INSTANCE_MEMORY));
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Reads).await?)?;
        let mut all = Vec::with_capacity(answer.left() / 3);
        while answer.left() > 0 {
            let (id, version): (Arc<str>, Arc<str>) = (answer.text()?.into(), answer.text()?.into());
            all.push(Instance { id, version, last_seen: answer.moment()? });
        }
        Ok(all)
    }
}
