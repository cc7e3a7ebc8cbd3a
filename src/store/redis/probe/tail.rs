//! What the append-only file ends with: nothing is written behind half a transaction.
//!
//! A Redis that ends while it writes what a script did leaves the beginning of it in its file. At the next start it carries that
//! beginning not out, and cuts only the last command of it off: the `MULTI` stays, and at the start after that one the half is
//! carried out with the first transaction behind it, which takes messages away and brings others twice (repaired in Valkey by
//! valkey-io/valkey#4342 of 2026, seen in Redis 7.0.15 and 8.2.3). Nothing that Redis tells shows whether its file is such a one.
//! So whoever connects to a Redis that began from a file and has not written it anew lets it do so, before anything else is sent:
//! from there on what is written goes to another file.

use std::sync::{Arc, LazyLock, Mutex};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use crate::store::health::Warning;
use crate::store::redis::probe::seen::{Aof, Seen, ask_info};
use crate::store::redis::state::lock;

static REWRITE: LazyLock<Cmd> = LazyLock::new(|| redis::cmd("BGREWRITEAOF"));

/// What is to be done about the end of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tail {
    /// What is there is whole, or nothing is there.
    Whole,
    /// It may be half a transaction.
    Doubtful,
    /// Redis says too little, or it is not its file that counts.
    Unseen,
}

/// What is known of the file by what Redis tells.
pub(super) fn tail(seen: &Seen) -> Tail {
    match seen.aof {
        Some(Aof::On) if seen.is_replica() => Tail::Unseen,
        Some(Aof::On) if seen.is_rewriting || seen.aof_tail_bytes == Some(0) => Tail::Whole,
        Some(Aof::On) => match seen.aof_is_rewritten {
            Some(true) => Tail::Whole,
            Some(false) => Tail::Doubtful,
            None => Tail::Unseen,
        },
        Some(Aof::Off | Aof::Starting) | None => Tail::Unseen,
    }
}

/// What is known of the files of all Redis that were met.
#[derive(Default)]
pub(in crate::store::redis) struct Tails {
    /// Whose file was found whole last, by what it calls itself since it was started.
    whole: Mutex<Option<Arc<str>>>,
    /// What Redis said when it did not write its file anew.
    refused: Mutex<Option<String>>,
}

impl Tails {
    /// Looks at the Redis behind a connection that was made just now and has it write its file anew where its end is in doubt.
    ///
    /// # Errors
    /// The connection fails, or Redis is loading its data.
    pub(in crate::store::redis) async fn look(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        // Whether it may be asked is nothing to a connection.
        let Ok(info) = ask(connection, &ask_info()).await? else { return Ok(()) };
        let seen = Seen::of(Some(&info), None);
        if seen.is_loading {
            return Err((ErrorKind::Server(ServerErrorKind::BusyLoading), "it is loading its data").into());
        }
        self.see(&seen);
        if tail(&seen) != Tail::Doubtful || self.is_whole(&seen) {
            return Ok(());
        }
        match ask(connection, &REWRITE).await? {
            Ok(_) => {
                log::info!(
                    "Redis writes its append-only file anew: it began from one whose end may be half a transaction"
                );
                self.found_whole(&seen);
            }
            // Somebody else was faster.
            Err(error) if error.to_string().contains("in progress") => self.found_whole(&seen),
            Err(error) => self.was_refused(&error.to_string()),
        }
        Ok(())
    }

    /// Notes what was seen of a Redis later on.
    pub(super) fn see(&self, seen: &Seen) {
        if tail(seen) == Tail::Whole {
            self.found_whole(seen);
        }
    }

    fn is_whole(&self, seen: &Seen) -> bool {
        seen.run.is_some() && *lock(&self.whole) == seen.run
    }

    fn found_whole(&self, seen: &Seen) {
        lock(&self.whole).clone_from(&seen.run);
        *lock(&self.refused) = None;
    }

    fn was_refused(&self, why: &str) {
        let before = lock(&self.refused).replace(why.to_owned());
        if before.is_none() {
            log::warn!("cause" = why; "Redis does not write its append-only file anew, whose end may be half a transaction");
        }
    }

    /// What an operator should look at.
    pub(in crate::store::redis) fn warning(&self) -> Option<Warning> {
        let refused = lock(&self.refused);
        let detail = format!(
            "Redis began from its append-only file and does not write it anew ({}): where a crash cut that file off, half of what a script \
             did is carried out at its next start; redis-cli BGREWRITEAOF once after each start, or let the user of store.url do it \
             (redis-cli ACL SETUSER NAME +bgrewriteaof)",
            refused.as_ref()?
        );
        Some(Warning { code: "aof_not_rewritten", detail })
    }
}

/// What Redis says, or how it refuses.
async fn ask(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Result<Value, RedisError>, RedisError> {
    Ok(connection.send_packed_command(command).await?.extract_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::probe::seen::Role;
    use crate::store::redis::probe::seen::tests::sound;

    /// Began from a file to which something was appended.
    fn doubtful() -> Seen {
        Seen { aof_is_rewritten: Some(false), aof_tail_bytes: Some(7), ..sound() }
    }

    #[test]
    fn only_what_was_loaded_and_not_written_anew_is_doubtful() {
        assert_eq!(tail(&doubtful()), Tail::Doubtful);
        assert_eq!(tail(&Seen { aof_tail_bytes: None, ..doubtful() }), Tail::Doubtful);
        let whole = [
            Seen { aof_is_rewritten: Some(true), ..doubtful() },
            Seen { is_rewriting: true, ..doubtful() },
            Seen { aof_tail_bytes: Some(0), ..doubtful() },
        ];
        for seen in whole {
            assert_eq!(tail(&seen), Tail::Whole, "{seen:?}");
        }
    }

    #[test]
    fn a_file_that_does_not_count_or_is_not_shown_is_left_alone() {
        let unseen = [
            Seen { aof: Some(Aof::Off), ..doubtful() },
            Seen { aof: Some(Aof::Starting), ..doubtful() },
            Seen { aof: None, ..doubtful() },
            Seen { aof_is_rewritten: None, ..doubtful() },
            Seen { role: Some(Role::Replica("db:1".to_owned())), ..doubtful() },
        ];
        for seen in unseen {
            assert_eq!(tail(&seen), Tail::Unseen, "{seen:?}");
        }
    }
}
