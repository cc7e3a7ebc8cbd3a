//! The JSON of the HTTP API, version 1: what the server writes and the command line, the tests and every other client
//! read. Values only; how they come about is `http`'s business.
//!
//! | file | noun |
//! |---|---|
//! | `code` | [`Code`]: the table of errors |
//! | `problem` | [`Problem`]: a refusal, RFC 9457 |
//! | `batch` | [`BatchPublished`] and [`ItemsPublished`]: the answers to a batch |
//! | `dead` | dead letters: listed, in full, grouped; which ones are meant; what a replay or a discard did |
//! | `list` | [`List`]: one page of a list |
//! | `message` | [`Message`]: one message and its attempts; [`Published`]: the answer to a publish |
//! | `queue` | [`Queue`]: one queue and its settings |
//! | `settings` | [`SettingsGiven`]: the settings that a PUT or PATCH brings |
//! | `status` | [`Status`]: everything `/status` says |
//! | `ready` | [`Ready`]: whether the gateway can accept and serve |
//! | `lease` | [`Leases`]: what a consumer that pulls says and gets |
//! | `json` | reading JSON strictly: no key twice |
//! | `mistake` | what serde has against a value, in the words of the manual |
//! | `nearest` | the known name a wrong one was probably meant to be |

pub mod batch;
pub mod code;
pub mod dead;
pub mod json;
pub mod lease;
pub mod list;
pub mod message;
pub mod mistake;
pub mod nearest;
pub mod problem;
pub mod queue;
pub mod ready;
pub mod secret;
pub mod settings;
pub mod status;

pub use batch::{BatchPublished, ItemsPublished};
pub use code::Code;
pub use lease::Leases;
pub use list::List;
pub use message::{Message, Published};
pub use problem::Problem;
pub use queue::Queue;
pub use ready::Ready;
pub use settings::SettingsGiven;
pub use status::Status;

/// The header that names a request in answers and in the log.
pub const REQUEST_ID_HEADER: &str = "posthaste-request-id";
/// The header that says of a refused publish whether it may have been stored all the same: `no` or `unknown`.
pub const STORED_HEADER: &str = "posthaste-stored";
