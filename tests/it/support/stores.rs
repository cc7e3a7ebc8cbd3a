//! A behaviour on each kind of store.

/// Makes a test of each function on a file and on a Redis of its own: `sqlite::NAME` and `redis::NAME`. Each takes a
/// [`Home`](crate::support::gateway::Home).
macro_rules! on_both_stores {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&$crate::support::gateway::Home::Sqlite); })*
        }
        mod redis {
            $(#[test] fn $name() { super::$name(&$crate::support::gateway::Home::redis()); })*
        }
    };
}

pub(crate) use on_both_stores;
