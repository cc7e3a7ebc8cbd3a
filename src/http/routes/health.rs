//! `/health` and `/ready`: for whoever restarts the process, and for whoever sends it requests.

use actix_http::StatusCode;

use super::Call;
use crate::actor::ActorState;
use crate::api::code::Code;
use crate::api::ready::{Ready, Reason};
use crate::http::answer::{self, Answer};
use crate::http::error::Refusal;
use crate::http::extract::{once, parameters, shown};
use crate::http::observer::stalled_queues;
use crate::http::state::State;

/// Seconds after which to ask again, at least.
const RETRY_AFTER_S: u16 = 1;

/// `OK`: the process lives.
pub(super) fn health(call: &Call) -> Result<Answer, Refusal> {
    parameters(call.request.uri(), &[])?;
    Ok(answer::text(StatusCode::OK, "OK"))
}

/// 200 when the gateway can accept and serve, else 503 with the reasons.
pub(super) fn ready(call: &Call) -> Result<Answer, Refusal> {
    let parameters = parameters(call.request.uri(), &["check"])?;
    let state = &call.desk.state;
    let mut reasons = reasons(state);
    match once(&parameters, "check")? {
        None => {}
        Some("work") => reasons.extend(stalled_queues(state).into_iter().map(|(name, stalled)| {
            let detail = format!("queue {name}: {}: {}", stalled.code, stalled.detail);
            Reason { code: "queue_stalled".into(), detail }
        })),
        Some(other) => {
            let detail = format!("check={:?}: write work, or leave it out", shown(other));
            return Err(Refusal::new(Code::InvalidValue, detail).parameter("check"));
        }
    }
    if reasons.is_empty() {
        return Ok(answer::json(StatusCode::OK, &Ready { ready: true, reasons }));
    }
    let not_ready = answer::json(StatusCode::SERVICE_UNAVAILABLE, &Ready { ready: false, reasons });
    Ok(answer::retry_after(not_ready, RETRY_AFTER_S))
}

/// Why the gateway cannot accept or serve. A full store is none: what is in it is still served.
fn reasons(state: &State) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut add = |code: &'static str, detail: String| reasons.push(Reason { code: code.into(), detail });
    if state.is_draining() {
        add("draining", "the gateway is shutting down".to_owned());
    }
    let store = state.gateway.store_watch.now();
    if !store.reachable {
        let why =
            store.error.as_ref().map_or_else(|| "it has not answered yet".to_owned(), ToString::to_string);
        add("store_unavailable", why);
    }
    if let Some(health) = &store.health {
        if let Some(why) = state.not_durable(health) {
            add("not_durable", why);
        }
        if let Some(why) = &health.newer {
            add("store_newer", why.clone());
        }
        if let Some(why) = &health.unswept {
            add("not_swept", why.clone());
        }
    }
    for actor in state.gateway.supervisor.watch() {
        if actor.state == ActorState::GaveUp {
            add("actor_gave_up", format!("{} broke too often; the process is about to end", actor.name));
        }
    }
    reasons
}
