//! Whether the user of `store.url` may send what is needed: looked at before anything else, so that a right that is missing stops the
//! start and not the first message that needs it.

use crate::store::error::StoreError;
use crate::store::redis::answer::Answer;
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::script;

/// What scripts call and what is sent beside them; `docs/OPERATIONS.md` has the same in its line.
const NEEDED: &[&str] = &[
    "evalsha", "exec", "exists", "get", "hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys", "hlen",
    "hmget", "hscan", "hset", "incr", "lindex", "llen", "lpop", "lpush", "lrange", "lset", "ltrim", "multi",
    "pexpire", "publish", "rename", "renamenx", "rpush", "rpushx", "set", "time", "type", "unlink", "zadd",
    "zcard", "zpopmin", "zrange", "zrem", "zscore",
];
/// Those that need no key.
const KEYLESS: [&str; 5] = ["evalsha", "exec", "multi", "publish", "time"];

impl Connection {
    /// What the user may not, in words, and how the rights are given; `None` when nothing is missing.
    ///
    /// # Errors
    /// Redis could not be asked, for another reason than that.
    pub(super) async fn missing_rights(&self) -> Result<Option<String>, StoreError> {
        let mut call = Call::of_store(&self.state, script::RIGHTS);
        call.push(self.state.names.plain("epoch")).push(&self.state.wake_channel).push(NEEDED);
        let missing = match self.link.send(&call.finish(), Effect::Asks).await {
            Ok(answer) => {
                let mut answer = Answer::ok(answer)?;
                let mut missing = Vec::with_capacity(answer.left());
                while answer.left() > 0 {
                    missing.push(answer.text()?);
                }
                missing
            }
            // It may not even ask: Redis names the command.
            Err(StoreError::Internal(words)) if words.contains("NOPERM") => return Ok(Some(words)),
            Err(error) => return Err(error),
        };
        let prefix = &self.state.settings.prefix;
        let keyed = NEEDED.iter().filter(|name| !KEYLESS.contains(name));
        if keyed.clone().all(|name| missing.iter().any(|missing| missing == name)) {
            return Ok(Some(format!("it may not use the keys of store.prefix: ~{prefix}:* &{prefix}:wake")));
        }
        let words = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        Ok((!missing.is_empty()).then(|| format!("it lacks {words} (on ~{prefix}:* &{prefix}:wake)")))
    }
}
