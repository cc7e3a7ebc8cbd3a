//! The options of a publish, read from its headers: strictly, each once, nothing unknown among those that are ours.

pub(super) mod value;

use std::time::Duration;

use actix_http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::api::code::Code;
use crate::api::nearest::nearest;
use crate::domain::destination::Destination;
use crate::domain::header::is_credential;
use crate::domain::message::{Headers, Priority};
use crate::domain::timestamp::Timestamp;
use crate::http::error::Refusal;
use crate::http::extract::shown;
use crate::http::options::value::Wrong;
use crate::http::settings::ServerLimits;
use crate::http::trace;
use crate::store::enqueue::Due;

const PREFIX: &str = "posthaste-";
const FORWARD: &str = "posthaste-forward-";
/// The options that are ours, as they are documented.
const KNOWN: [&str; 9] = [
    "Posthaste-Delay",
    "Posthaste-Deliver-At",
    "Posthaste-TTL",
    "Posthaste-Priority",
    "Posthaste-Max-Attempts",
    "Posthaste-Destination",
    "Posthaste-Method",
    "Posthaste-Timeout",
    "Posthaste-Forward-<Name>",
];
/// What a publish takes as well, by the names that others gave it.
const OTHERS: [&str; 4] = ["Idempotency-Key", "Content-Type", "traceparent", "tracestate"];
/// What a delivery of a gateway carries: no options, and no mistake.
const OF_DELIVERIES: [&str; 3] = ["posthaste-attempt", "posthaste-queue", VIA];
/// The stores that a message came by.
const VIA: &str = "posthaste-via";
/// Stores that a message may have come by: one more would be a loop, or nothing that was meant.
const HOPS_MAX: usize = 8;
/// The most bytes of their ids: those of the stores that there are take a fraction of it.
const VIA_BYTES_MAX: usize = 1_024;

/// Refuses what begins like an option on a route that takes none: what looks like one and does nothing would mislead.
pub(super) fn check_none(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_ours = |name: &&str| name.starts_with(PREFIX) && !OF_DELIVERIES.contains(name);
    // The map has no order of its own: of several the same one is named everywhere.
    let Some(name) = headers.keys().map(HeaderName::as_str).filter(is_ours).min() else { return Ok(()) };
    let detail = match meant(name) {
        Some(known) => format!(
            "{:?} is not taken here: {known} is an option of a publish, and this is none",
            shown(name)
        ),
        None => format!("{:?} is not taken here, nor any header that begins like it", shown(name)),
    };
    Err(Refusal::new(Code::UnknownHeader, detail).header(&shown(name)))
}

/// What a publisher asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// The idempotency key.
    pub(super) key: Option<Vec<u8>>,
    /// When to deliver.
    pub(super) due: Option<Due>,
    /// How long it may wait for an attempt.
    pub(super) ttl: Option<Duration>,
    /// Its priority.
    pub(super) priority: Option<Priority>,
    /// Attempts allowed.
    pub(super) attempts_max: Option<u8>,
    /// Where to push it to.
    pub(super) destination: Option<Destination>,
    /// What is kept with the message.
    pub(super) headers: Headers,
}

impl Options {
    /// Reads the options of a publish that came `now`.
    pub(super) fn read(headers: &HeaderMap, limits: &ServerLimits, now: Timestamp) -> Result<Self, Refusal> {
        Self::read_lines(headers.iter(), headers, limits, now).or_else(|_| {
            // The map has no order of its own: of several mistakes the same one is told everywhere.
            let mut lines: Vec<_> = headers.iter().collect();
            lines.sort_by_key(|(name, _)| name.as_str());
            Self::read_lines(lines.into_iter(), headers, limits, now)
        })
    }

    fn read_lines<'h>(
        lines: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
        headers: &HeaderMap,
        limits: &ServerLimits,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let mut reader =
            Reader { options: Self::default(), limits, now, traceparent: Trace::None, tracestate: None };
        let mut seen_content_type = false;
        for (name, value) in lines {
            match name.as_str() {
                "content-type" if seen_content_type => return Err(twice("Content-Type")),
                "content-type" => {
                    seen_content_type = true;
                    text("Content-Type", value)?.clone_into(&mut reader.options.headers.content_type);
                }
                "content-encoding" => check_encoding(value)?,
                "idempotency-key" => reader.key(value)?,
                "traceparent" => reader.traceparent(value),
                "tracestate" => reader.tracestate(value),
                VIA => reader.via(value)?,
                name if name.starts_with(PREFIX) => reader.option(name, value)?,
                _ => {}
            }
        }
        reader.finish(headers)
    }

    /// The header of the first credential that is to be forwarded.
    pub(super) fn credential(&self) -> Option<&str> {
        self.headers.forward.iter().map(|(name, _)| name.as_str()).find(|name| is_credential(name))
    }
}

enum Trace {
    None,
    One(String),
    Broken,
}

struct Reader<'l> {
    options: Options,
    limits: &'l ServerLimits,
    now: Timestamp,
    traceparent: Trace,
    tracestate: Option<String>,
}

impl Reader<'_> {
    fn option(&mut self, name: &str, value: &HeaderValue) -> Result<(), Refusal> {
        let (options, limits, now) = (&mut self.options, self.limits, self.now);
        match name {
            "posthaste-delay" => {
                let due = parsed(KNOWN[0], value, |text| value::delay(text, limits))?;
                set_due(&mut options.due, KNOWN[0], due)
            }
            "posthaste-deliver-at" => {
                let due = parsed(KNOWN[1], value, |text| value::deliver_at(text, limits, now))?;
                set_due(&mut options.due, KNOWN[1], due)
            }
            "posthaste-ttl" => {
                let ttl = parsed(KNOWN[2], value, |text| value::ttl(text, limits))?;
                set(&mut options.ttl, KNOWN[2], ttl)
            }
            "posthaste-priority" => {
                let priority = parsed(KNOWN[3], value, value::priority)?;
                set(&mut options.priority, KNOWN[3], priority)
            }
            "posthaste-max-attempts" => {
                let attempts = parsed(KNOWN[4], value, value::attempts_max)?;
                set(&mut options.attempts_max, KNOWN[4], attempts)
            }
            "posthaste-destination" => {
                let destination = parsed(KNOWN[5], value, value::destination)?;
                set(&mut options.destination, KNOWN[5], destination)
            }
            "posthaste-method" => {
                let method = parsed(KNOWN[6], value, value::method)?;
                set(&mut options.headers.method, KNOWN[6], method)
            }
            "posthaste-timeout" => {
                let timeout = parsed(KNOWN[7], value, value::timeout)?;
                set(&mut options.headers.timeout, KNOWN[7], timeout)
            }
            _ if OF_DELIVERIES.contains(&name) => Ok(()),
            _ => match name.strip_prefix(FORWARD).filter(|forwarded| !forwarded.is_empty()) {
                Some(forwarded) => self.forward(name, forwarded, value),
                None => Err(unknown(name)),
            },
        }
    }

    fn forward(&mut self, name: &str, forwarded: &str, value: &HeaderValue) -> Result<(), Refusal> {
        value::forwardable(forwarded).map_err(|wrong| not_forwardable(name, &wrong.detail))?;
        if self.options.headers.forward.iter().any(|(known, _)| known == forwarded) {
            return Err(twice(name));
        }
        let value = text(name, value)?.to_owned();
        self.options.headers.forward.push((forwarded.to_owned(), value));
        Ok(())
    }

    /// Several lines are one list (RFC 9110, 5.3). What is no text names no store.
    fn via(&mut self, value: &HeaderValue) -> Result<(), Refusal> {
        let via = &mut self.options.headers.via;
        for store in value.to_str().into_iter().flat_map(stores) {
            *via = Some(via.take().map_or_else(|| store.to_owned(), |before| format!("{before}, {store}")));
            if via.as_ref().is_some_and(|via| via.len() > VIA_BYTES_MAX) {
                let detail = format!("the list is too long: at most {VIA_BYTES_MAX} bytes are taken");
                return Err(invalid("Posthaste-Via", &detail));
            }
        }
        Ok(())
    }

    fn key(&mut self, value: &HeaderValue) -> Result<(), Refusal> {
        const NAME: &str = "Idempotency-Key";
        let key = value::key(value.as_bytes()).map_err(|wrong| invalid(NAME, &wrong.detail))?;
        set(&mut self.options.key, NAME, key)
    }

    fn traceparent(&mut self, value: &HeaderValue) {
        let parent = value.to_str().ok().filter(|text| trace::is_parent(text));
        self.traceparent = match (&self.traceparent, parent) {
            (Trace::None, Some(parent)) => Trace::One(parent.to_owned()),
            _ => Trace::Broken,
        };
    }

    /// Several lines are one list (RFC 9110, 5.3).
    fn tracestate(&mut self, value: &HeaderValue) {
        // What is no text makes the whole list none.
        let text = value.to_str().unwrap_or("=");
        self.tracestate = Some(match self.tracestate.take() {
            None => text.to_owned(),
            Some(before) => format!("{before},{text}"),
        });
    }

    fn finish(self, headers: &HeaderMap) -> Result<Options, Refusal> {
        let Self { mut options, now, traceparent, tracestate, .. } = self;
        options.headers.deliver_at = options.due.map(|due| deliver_at(due, now));
        options.headers.destination = options.destination.as_ref().map(ToString::to_string);
        if let Trace::One(parent) = traceparent {
            options.headers.traceparent = Some(parent);
            options.headers.tracestate = tracestate.filter(|state| trace::is_state(state));
        }
        if !options.headers.forward.is_empty() {
            // The map that they came from has no order of its own.
            options.headers.forward.sort_unstable();
            check_connection(&options.headers.forward, headers)?;
        }
        Ok(options)
    }
}

/// The moment that a publisher asked for, who asked `now`.
pub(super) fn deliver_at(due: Due, now: Timestamp) -> Timestamp {
    match due {
        Due::Now => now,
        Due::After(delay) => now.saturating_add(delay),
        Due::At(at) => at,
    }
}

/// What `Connection` names belongs to the caller's connection, and is not forwarded.
fn check_connection(forward: &[(String, String)], headers: &HeaderMap) -> Result<(), Refusal> {
    let lines = headers.get_all("connection").filter_map(|value| value.to_str().ok());
    for named in lines.flat_map(|line| line.split(',')).map(str::trim) {
        if let Some((name, _)) = forward.iter().find(|(name, _)| named.eq_ignore_ascii_case(name)) {
            let detail = format!("{name} is named by Connection, so it belongs to this connection only");
            return Err(not_forwardable(&format!("{FORWARD}{name}"), &detail));
        }
    }
    Ok(())
}

/// The ids in a list of stores.
fn stores(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|store| !store.is_empty())
}

/// Refuses what this store delivered to itself, and what came by too many: it would go round for ever.
pub(super) fn check_loop(via: &str, store_id: &str) -> Result<(), Refusal> {
    let refused = |detail: String| Err(Refusal::new(Code::LoopDetected, detail).header("Posthaste-Via"));
    if stores(via).any(|id| id == store_id) {
        let detail =
            "Posthaste-Via names this store: it would deliver the message to itself, again and again";
        return refused(detail.to_owned());
    }
    let hops = stores(via).count();
    if hops >= HOPS_MAX {
        return refused(format!("Posthaste-Via names {hops} stores: at most {} are taken", HOPS_MAX - 1));
    }
    Ok(())
}

/// Only what is not encoded is taken: what is to be delivered compressed says so in a header that is forwarded.
pub(super) fn check_encoding(value: &HeaderValue) -> Result<(), Refusal> {
    if value.as_bytes().eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    let detail = "a body is taken as it is, never decoded: to pass compressed bytes through, leave Content-Encoding out \
                  and send Posthaste-Forward-Content-Encoding";
    Err(Refusal::new(Code::UnsupportedContentEncoding, detail).header("Content-Encoding"))
}

/// A credential that this queue does not forward.
pub(super) fn credential_refused(name: &str) -> Refusal {
    let detail = format!("{name} is not forwarded in this queue: its delivery.forward_credentials is false");
    not_forwardable(&format!("{FORWARD}{name}"), &detail).setting("delivery.forward_credentials", None)
}

fn not_forwardable(header: &str, detail: &str) -> Refusal {
    Refusal::new(Code::HeaderNotForwardable, detail).header(header)
}

fn unknown(name: &str) -> Refusal {
    let hint = meant(name).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    let detail = format!("{} is not an option of a publish{hint}", shown(name));
    Refusal::new(Code::UnknownHeader, detail).header(&shown(name))
}

/// The option that a name was probably meant to be, by what is behind the beginning that all of ours have.
fn meant(name: &str) -> Option<&'static str> {
    let behind = |known: &'static str| known.split_at_checked(PREFIX.len()).map_or(known, |(_, own)| own);
    let own = name.get(PREFIX.len()..)?;
    let ours = KNOWN.map(|known| (behind(known), known));
    let all = || ours.into_iter().chain(OTHERS.map(|other| (other, other)));
    let nearest = nearest(own, all().map(|(own, _)| own))?;
    all().find(|(own, _)| *own == nearest).map(|(_, known)| known)
}

/// The refusal of a header that may be there once.
pub(super) fn twice(name: &str) -> Refusal {
    Refusal::new(Code::ContradictoryOptions, format!("{name} is there twice")).header(name)
}

fn invalid(name: &str, detail: &str) -> Refusal {
    Refusal::new(Code::InvalidValue, format!("{name}: {detail}")).header(name)
}

/// Puts an option in its place, once.
fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Refusal> {
    if place.is_some() {
        return Err(twice(name));
    }
    *place = Some(value);
    Ok(())
}

/// The same of a delay and a moment, which are two options for one place.
fn set_due(place: &mut Option<Due>, name: &str, due: Due) -> Result<(), Refusal> {
    match place {
        Some(before) if std::mem::discriminant(before) != std::mem::discriminant(&due) => {
            let detail =
                "Posthaste-Delay and Posthaste-Deliver-At say the same thing: send one of them, once";
            Err(Refusal::new(Code::ContradictoryOptions, detail).header(name))
        }
        _ => set(place, name, due),
    }
}

/// The value as text: visible ASCII, blanks and tabs.
fn text<'v>(name: &str, value: &'v HeaderValue) -> Result<&'v str, Refusal> {
    value.to_str().map_err(|_| invalid(name, "it has bytes that are not visible ASCII"))
}

fn parsed<T>(
    name: &str,
    value: &HeaderValue,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Result<T, Refusal> {
    parse(text(name, value)?).map_err(|wrong| {
        let refusal = Refusal::new(wrong.code, format!("{name}: {}", wrong.detail)).header(name);
        wrong.setting.into_iter().fold(refusal, |refusal, setting| refusal.setting(setting, None))
    })
}

#[cfg(test)]
mod tests;
