//! Why a store could not do what it was asked, and what that means for what it was asked to keep.

/// Whether what a failed call carried may be in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// Certainly not.
    No,
    /// It may be: ask again by the same call id.
    Unknown,
}

impl Stored {
    /// The value of the `Posthaste-Stored` header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a store could not. One table; each variant says what the caller may rely on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue of that generation is no more. Nothing was changed.
    #[error("the queue is gone")]
    Gone,
    /// The store is away or closed. Nothing was changed.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// No room. Nothing was changed.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store does not keep what `store.durability` promises. Nothing was changed.
    #[error("the store is not durable as configured: {0}")]
    NotDurable(String),
    /// A record or file of a newer version. Nothing was changed.
    #[error("the store holds what a newer version wrote: {0}")]
    Newer(String),
    /// A key of the store holds what is not ours, named in the words. Nothing was changed.
    #[error("the store holds something of somebody else: {0}")]
    Foreign(String),
    /// Something failed from the moment on when it could have been kept.
    #[error("it is not known whether the store kept it: {0}")]
    Unknown(String),
    /// It is kept, and fewer replicas have it than `store.replicas_ack` asks for: a failover may lose it. Sending it again would
    /// tell nothing new.
    #[error("it is kept, but not by as many replicas as it must be: {0}")]
    Unacknowledged(String),
    /// No answer within the deadline.
    #[error("the store did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// A defect of ours or of the store. Nothing was changed.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether what the call carried may be in the store.
    #[must_use]
    pub const fn stored(&self) -> Stored {
        match self {
            Self::Unknown(_) | Self::Unacknowledged(_) | Self::Timeout(_) => Stored::Unknown,
            _ => Stored::No,
        }
    }
}

/// Why a store could not be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings cannot be: exit code 78.
    #[error("{0}")]
    Configuration(String),
    /// The store is there and cannot be used: exit code 1.
    #[error("{0}")]
    Failed(String),
}
