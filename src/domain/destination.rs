//! Where a message is pushed to: a URL parsed once and trusted afterwards.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::domain::format::{FormatError, secret};

/// The longest destination, in bytes.
pub const DESTINATION_BYTES_MAX: usize = 2048;

/// An `http` or `https` URL without user-info and fragment. Whether its host may be reached is the egress guard's
/// to judge, by the typed host, never by the text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Destination(Url);

/// Why a text is no destination.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DestinationError {
    /// No URL at all; the text is without what may be a secret.
    #[error("{0:?} is not a URL such as https://example.com/hook ({1})")]
    NotAUrl(String, url::ParseError),
    /// Another scheme.
    #[error("the scheme {0:?} is not allowed: a destination starts with http:// or https://")]
    Scheme(String),
    /// A user name or password in the URL.
    #[error("a destination carries no user name or password: send credentials in a header")]
    UserInfo,
    /// A `#fragment`.
    #[error("a destination has no #fragment")]
    Fragment,
    /// Port 0.
    #[error("port 0 is no port to connect to")]
    PortZero,
    /// More than [`DESTINATION_BYTES_MAX`] bytes.
    #[error("a destination has at most 2048 bytes, this one has {0}")]
    TooLong(usize),
}

impl Destination {
    /// The URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// The text of the URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The same with `***` for the values of secret parameters in its query, as it is shown.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut url = self.0.clone();
        if let Cow::Owned(shown) = secret::destination(self.as_str()) {
            url.set_query(shown.split_once('?').map(|(_, query)| query));
        }
        Self(url)
    }

    /// Scheme, host and port in their one spelling: `scheme://host[:port]`, the port only where it is not the scheme's own.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// The key of the lane that everything sent there shares: its origin.
    #[must_use]
    pub fn lane_key(&self) -> String {
        self.origin()
    }

    /// Where a message goes to: the destination that it brought, else its queue's own. `None` when there is neither, and when
    /// what it brought cannot be read.
    #[must_use]
    pub fn of_message<'q>(brought: Option<&str>, own: Option<&'q Self>) -> Option<Cow<'q, Self>> {
        match brought {
            Some(brought) => brought.parse().ok().map(Cow::Owned),
            None => own.map(Cow::Borrowed),
        }
    }
}

/// Reads an origin, and nothing but an origin, to its one spelling.
///
/// # Errors
/// The text is more than that, or something else; a password in it is not shown.
pub fn parse_origin(text: &str) -> Result<String, FormatError> {
    let refused = || {
        let shown = secret::unreadable(text);
        FormatError::new(
            &shown,
            "is not an origin: write http:// or https://, a host and perhaps a port, no more",
        )
    };
    let url = Url::parse(text).map_err(|_| refused())?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.port() != Some(0);
    if bare && matches!(url.scheme(), "http" | "https") {
        Ok(url.origin().ascii_serialization())
    } else {
        Err(refused())
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if text.len() > DESTINATION_BYTES_MAX {
            return Err(DestinationError::TooLong(text.len()));
        }
        let url = Url::parse(text)
            .map_err(|error| DestinationError::NotAUrl(secret::unreadable(text).into_owned(), error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(DestinationError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(DestinationError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(DestinationError::Fragment);
        }
        if url.port() == Some(0) {
            return Err(DestinationError::PortZero);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_parsed_once_and_knows_its_origin() {
        let destination: Destination = "https://Example.COM:443/hook?a=1".parse().expect("a destination");
        assert_eq!(destination.as_str(), "https://example.com/hook?a=1");
        assert_eq!(destination.origin(), "https://example.com");
        assert_eq!(destination.lane_key(), "https://example.com");
    }

    #[test]
    fn a_message_goes_where_it_says_else_where_its_queue_says() {
        let own: Destination = "https://own.example/hook".parse().expect("a destination");
        let shown = |brought, own| Destination::of_message(brought, own).map(|known| known.to_string());
        assert_eq!(shown(None, Some(&own)).as_deref(), Some("https://own.example/hook"));
        assert_eq!(shown(Some("http://b.example"), Some(&own)).as_deref(), Some("http://b.example/"));
        assert_eq!(shown(Some("http://b.example"), None).as_deref(), Some("http://b.example/"));
        assert_eq!((shown(None, None), shown(Some("nowhere"), Some(&own))), (None, None));
    }

    #[test]
    fn what_is_no_destination_is_refused_with_its_reason() {
        for (text, reason) in [
            ("example.com", "is not a URL"),
            ("ftp://example.com/", "the scheme \"ftp\""),
            ("http://user:word@example.com/", "no user name or password"),
            ("http://example.com/#top", "no #fragment"),
            ("http://example.com:0/", "port 0"),
        ] {
            let error = text.parse::<Destination>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = format!("http://example.com/{}", "a".repeat(2048));
        assert!(matches!(long.parse::<Destination>(), Err(DestinationError::TooLong(_))));
    }

    #[test]
    fn what_is_no_url_is_named_without_its_password() {
        for text in [
            "http://user:pAss@127.0.0.1:99999/x",
            "https://pAss@exa mple/hook?token=pAss#pAss",
            "user_of:pAss@shop.example",
        ] {
            let error = text.parse::<Destination>().expect_err(text).to_string();
            assert!(error.contains("***") && !error.contains("pAss"), "{error}");
            let error = parse_origin(text).expect_err(text).to_string();
            assert!(error.contains("***") && !error.contains("pAss"), "{error}");
        }
    }

    #[test]
    fn a_destination_is_masked_however_long_it_becomes() {
        let masked = |text: &str| text.parse::<Destination>().expect("a URL").masked().to_string();
        assert_eq!(
            masked("https://a.example:1/@me?x=1&token=s3cret"),
            "https://a.example:1/@me?x=1&token=***"
        );
        assert_eq!(masked("https://a.example/hook"), "https://a.example/hook");
        let most = format!("https://a.example/?{}", ["key=a"; 330].join("&"));
        assert_eq!(masked(&most), format!("https://a.example/?{}", ["key=***"; 330].join("&")));
    }
}
