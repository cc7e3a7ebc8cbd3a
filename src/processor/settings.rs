//! `[egress]`: where messages may be pushed to besides public addresses. `[secrets]`: what seals the secrets they are signed with.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::destination::parse_origin;
use crate::domain::format::{FormatError, range, secret};
use crate::domain::queue::SettingProblem;
use crate::domain::secret::SecretText;

/// Entries that `egress.allow` may have: each connect looks at all of them.
const ALLOW_MAX: usize = 1_000;

/// The settings of what may be reached.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// What may be reached besides public addresses, at most 1,000 entries.
    pub allow: Vec<Allow>,
}

/// The master key, which seals the secrets of queues that come by API.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsSettings {
    /// The key itself, base64 of 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key: Option<SecretText>,
    /// A file that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_file: Option<String>,
    /// A file that has the key before this one: it opens what that one sealed, and seals nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_file_old: Option<String>,
}

impl SecretsSettings {
    /// What does not fit together; empty when all is well. Files are looked at when the gateway is made.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        let twice = self.master_key.is_some() && self.master_key_file.is_some();
        let detail = "is set beside secrets.master_key: one of them is possible";
        twice
            .then(|| SettingProblem { key: "master_key_file", detail: detail.to_owned() })
            .into_iter()
            .collect()
    }
}

/// One exception of the egress guard.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Allow {
    /// An address or a network; an address is a network of one.
    Network(IpNet),
    /// An origin in its normal form: `scheme://host[:port]`, the port only where it is not the scheme's own.
    Origin(String),
}

impl FromStr for Allow {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        if text.contains("://") {
            return parse_origin(text).map(Self::Origin);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        let network = text.parse::<IpNet>().map_err(|_| {
            let write = "write 10.0.0.5, 10.0.0.0/8 or https://service.example:8443";
            let shown = secret::unreadable(text);
            FormatError::new(&shown, format_args!("is not an address, a network or an origin: {write}"))
        })?;
        if network.trunc() != network {
            let meant =
                format!("has bits set beyond its prefix: write {} or {}", network.addr(), network.trunc());
            return Err(FormatError::new(text, meant));
        }
        Ok(Self::Network(network))
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(formatter)
            }
            Self::Network(network) => network.fmt(formatter),
            Self::Origin(origin) => formatter.write_str(origin),
        }
    }
}

impl Serialize for Allow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl EgressSettings {
    /// Everything that is out of its range; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        let entries =
            range::number(self.allow.len(), &(0..=ALLOW_MAX)).map_err(|error| error.about("a length of"));
        range::problems([("allow", entries)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Allow>().expect_err("must be refused").to_string()
    }

    #[test]
    fn addresses_networks_and_origins_are_read_to_one_spelling() {
        for (text, shown) in [
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5/32", "10.0.0.5"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("FD00::/8", "fd00::/8"),
            ("::1", "::1"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("HTTPS://Shop.Example:443/", "https://shop.example"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            let allow: Allow = text.parse().expect(text);
            assert_eq!(allow.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(allow), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let write = "write 10.0.0.5, 10.0.0.0/8 or https://service.example:8443";
        for text in ["localhost", "10.0.0.1:80", "10.0.0.0/33", "", "shop.example"] {
            assert_eq!(refusal(text), format!("{text:?} is not an address, a network or an origin: {write}"));
        }
        let expected = r#""10.0.0.1/8" has bits set beyond its prefix: write 10.0.0.1 or 10.0.0.0/8"#;
        assert_eq!(refusal("10.0.0.1/8"), expected);
        let write = "is not an origin: write http:// or https://, a host and perhaps a port, no more";
        for text in ["ftp://a.example", "http://a.example/path", "http://", "http://a:0"] {
            assert_eq!(refusal(text), format!("{text:?} {write}"));
        }
        assert_eq!(refusal("http://a.example?q"), format!(r#""http://a.example?***" {write}"#));
        assert_eq!(refusal("http://u:pw@a.example"), format!(r#""http://***@a.example" {write}"#));
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let allow = vec![Allow::Origin("http://a.example".to_owned()); 1_001];
        let problems = EgressSettings { allow }.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].detail, "a length of 1001 is out of range: 0 to 1000");
    }
}
