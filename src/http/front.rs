//! The front: every request passes here before anything else looks at it.
//!
//! It names the request, holds its head to the limits, sends a publish down its short way and all else through the router,
//! and turns a panic into an answer.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::header;
use actix_http::{HttpMessage as _, Payload, Request, RequestHead};
use actix_service::{Service, ServiceFactory};
use actix_web::dev::AppConfig;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use crate::api::code::Code;
use crate::domain::format::bytes;
use crate::http::answer::{self, Answer, RequestId};
use crate::http::body;
use crate::http::connection::Connection;
use crate::http::error::Refusal;
use crate::http::framing::Follows;
use crate::http::publish;
use crate::http::routes::{self, Routes};
use crate::http::settings::ServerLimits;
use crate::http::state::{Desk, State};
use crate::store::error::Stored;

/// What the caller hears of a defect.
const FAILED: &str = "the gateway failed on this request; its log says more under the request id";

/// Makes the front of each HTTP thread, on that thread.
pub(super) struct FrontFactory {
    state: Arc<State>,
}

impl FrontFactory {
    /// For the threads that share this state.
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

impl ServiceFactory<Request> for FrontFactory {
    type Response = Answer;
    type Error = Infallible;
    type Config = ();
    type Service = Front;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Front, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let desk = Desk::new(&self.state);
        let routes = routes::factory(&desk).new_service(AppConfig::default());
        Box::pin(async move { Ok(Front { desk, routes: Rc::new(routes.await?) }) })
    }
}

/// The front of one HTTP thread.
pub(super) struct Front {
    desk: Rc<Desk>,
    routes: Rc<Routes>,
}

impl Service<Request> for Front {
    type Response = Answer;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Answer, Infallible>>;

    actix_service::always_ready!();

    fn call(&self, mut request: Request) -> Self::Future {
        let id = RequestId::random();
        let connection = request.conn_data::<Rc<Connection>>().cloned().unwrap_or_default();
        let serving = connection.serve(follows(&mut request));
        let is_publish = publish::segment_of(request.head()).is_some() || publish::is_meant(request.head());
        let answering = answer(self.desk.clone(), self.routes.clone(), request, connection, id, is_publish);
        Box::pin(async move {
            // What a panic leaves behind is the request's own, and goes with it.
            let result = AssertUnwindSafe(answering).catch_unwind().await;
            drop(serving);
            Ok(result.unwrap_or_else(|panic| after_panic(panic.as_ref(), id, is_publish)))
        })
    }
}

/// What follows the head of a request, as the server has decoded it.
fn follows(request: &mut Request) -> Follows {
    if matches!(request.payload(), Payload::None) {
        return Follows::Nothing;
    }
    if request.chunked().unwrap_or(false) {
        return Follows::Chunks;
    }
    // What wants to be a web socket has no end to the server, whatever its length.
    let is_endless = request.headers().get_all(header::UPGRADE).any(|protocol| {
        protocol.to_str().is_ok_and(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    });
    match body::declared(request.headers()) {
        Some(length) if !is_endless => Follows::Length(length),
        _ => Follows::Anything,
    }
}

async fn answer(
    desk: Rc<Desk>,
    routes: Rc<Routes>,
    mut request: Request,
    connection: Rc<Connection>,
    id: RequestId,
    is_publish: bool,
) -> Answer {
    if let Err(refusal) = check_head(request.head(), desk.state.limits()) {
        let stored = is_publish.then_some(Stored::No);
        let payload = request.take_payload();
        return answer::refusal(refusal.unread(payload), id, stored);
    }
    if publish::segment_of(request.head()).is_some() {
        let payload = request.take_payload();
        let head = request.head();
        let segment = publish::segment_of(head).unwrap_or_default();
        return publish::publish(&desk, head, segment, payload, &connection, id).await;
    }
    request.extensions_mut().insert(id);
    match routes.call(request).await {
        Ok(response) => {
            let answer = answer::named(response.into(), id);
            if is_publish { answer::refused_unread(answer) } else { answer }
        }
        Err(error) => {
            let refusal = Refusal::new(Code::Internal, FAILED).cause(format!("the router failed: {error}"));
            answer::refusal(refusal, id, is_publish.then_some(Stored::Unknown))
        }
    }
}

/// Our own limits of a head; those of the server are higher.
fn check_head(head: &RequestHead, limits: &ServerLimits) -> Result<(), Refusal> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    let target_bytes = (target + authority) as u64;
    if target_bytes > limits.uri_bytes_max {
        let (setting, limit) = ("server.limits.uri_bytes_max", limits.uri_bytes_max);
        let detail = format!("the target has {target_bytes} bytes: at most {} are taken", bytes::show(limit));
        return Err(Refusal::new(Code::UriTooLong, detail).setting(setting, Some(limit)));
    }
    let mut count = 0;
    // Each line has a colon, a blank and a line end; the request line has two blanks, the version and a line end.
    let mut head_bytes = target_bytes + head.method.as_str().len() as u64 + 14;
    for (name, value) in &head.headers {
        count += 1;
        head_bytes += (name.as_str().len() + value.len() + 4) as u64;
    }
    if count > u64::from(limits.head_headers_max) {
        let (setting, limit) = ("server.limits.head_headers_max", u64::from(limits.head_headers_max));
        let detail = format!("the request has {count} headers: at most {limit} are taken");
        return Err(Refusal::new(Code::HeadTooLarge, detail).setting(setting, Some(limit)));
    }
    if head_bytes > limits.head_bytes_max {
        let (setting, limit) = ("server.limits.head_bytes_max", limits.head_bytes_max);
        let detail = format!("the head has {head_bytes} bytes: at most {} are taken", bytes::show(limit));
        return Err(Refusal::new(Code::HeadTooLarge, detail).setting(setting, Some(limit)));
    }
    Ok(())
}

fn after_panic(panic: &(dyn Any + Send), id: RequestId, is_publish: bool) -> Answer {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    let refusal = Refusal::new(Code::Internal, FAILED).cause(format!("the handler panicked: {text}"));
    answer::refusal(refusal, id, is_publish.then_some(Stored::Unknown))
}
