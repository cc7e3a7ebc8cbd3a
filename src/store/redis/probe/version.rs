//! Which server it is, and whether its version has known holes in Lua.

use std::fmt;

/// The oldest version that has what the scripts need.
pub(super) const VERSION_MIN: Version = Version([7, 0, 0]);
/// The first version that says which replicas wrote and fsynced.
pub(super) const WAITAOF_FROM: Version = Version([7, 2, 0]);

/// A version by its numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::store::redis) struct Version([u16; 3]);

impl Version {
    /// `7.0.15`, also with something behind it; `None` for what does not begin with a number.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(['.', '-']).map_while(|part| part.parse().ok());
        let first = parts.next()?;
        Some(Self([first, parts.next().unwrap_or(0), parts.next().unwrap_or(0)]))
    }

    fn branch(self) -> [u16; 2] {
        [self.0[0], self.0[1]]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(formatter, "{major}.{minor}.{patch}")
    }
}

/// Who made the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Product {
    Redis,
    Valkey,
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
        })
    }
}

/// Code execution through Lua by whoever may run a script, CVE-2025-49844: the first sound version of each branch. A branch
/// older than all of them has none, a newer one was begun sound.
const REDIS_SOUND_FROM: [Version; 5] =
    [Version([7, 2, 11]), Version([7, 4, 6]), Version([8, 0, 4]), Version([8, 2, 2]), Version([8, 3, 0])];
const VALKEY_SOUND_FROM: [Version; 4] =
    [Version([7, 2, 11]), Version([8, 0, 6]), Version([8, 1, 4]), Version([9, 0, 0])];

/// Whether whoever may run a script can take this server over, as far as its version tells.
pub(super) fn has_lua_hole(product: Product, version: Version) -> bool {
    let sound_from: &[Version] = match product {
        Product::Redis => &REDIS_SOUND_FROM,
        Product::Valkey => &VALKEY_SOUND_FROM,
    };
    let newest = sound_from.last().is_some_and(|newest| version >= *newest);
    !newest && !sound_from.iter().any(|sound| sound.branch() == version.branch() && version >= *sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::read(text).expect("a version")
    }

    #[test]
    fn versions_are_read_and_compared_by_their_numbers() {
        assert!(version("7.0.15") > version("7.0.9"));
        assert!(version("6.2.14") < VERSION_MIN);
        assert_eq!(version("7.0.15").to_string(), "7.0.15");
        assert_eq!(version("8.0-m03"), version("8.0.0"));
        assert_eq!(Version::read("unstable"), None);
    }

    #[test]
    fn what_was_not_repaired_has_the_hole() {
        for text in ["7.0.15", "7.2.10", "7.4.5", "8.0.3", "8.1.9", "8.2.1"] {
            assert!(has_lua_hole(Product::Redis, version(text)), "{text}");
        }
        for text in ["7.2.11", "7.4.6", "8.0.4", "8.2.2", "8.4.0", "9.0.0"] {
            assert!(!has_lua_hole(Product::Redis, version(text)), "{text}");
        }
        for text in ["7.2.10", "8.0.5", "8.1.3"] {
            assert!(has_lua_hole(Product::Valkey, version(text)), "{text}");
        }
        for text in ["7.2.11", "8.0.6", "8.1.4", "9.0.0"] {
            assert!(!has_lua_hole(Product::Valkey, version(text)), "{text}");
        }
    }
}
