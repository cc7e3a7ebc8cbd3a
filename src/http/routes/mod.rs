//! The routes: one table, one file for each thing.

mod health;
mod leases;
mod messages;
mod queues;
mod root;
mod status;

pub(super) use self::status::status;

use std::future::ready;
use std::rc::Rc;

use actix_http::{Payload, Request};
use actix_service::IntoServiceFactory as _;
use actix_service::boxed::{self, BoxService, BoxServiceFactory};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::{App, HttpMessage as _, HttpRequest, HttpResponse, web};
use futures_util::future::LocalBoxFuture;

use crate::api::code::Code;
use crate::http::answer::{self, Answer, RequestId};
use crate::http::connection::Connection;
use crate::http::error::Refusal;
use crate::http::extract::shown;
use crate::http::state::Desk;

/// One path and what may be done with it.
pub(super) struct Route {
    /// The path; `{name}` is one segment.
    path: &'static str,
    /// The methods; HEAD comes with GET by itself.
    methods: &'static [(&'static str, Handler)],
}

/// Handles a request: may refuse it.
type Handler = fn(Call) -> LocalBoxFuture<'static, Result<Answer, Refusal>>;

/// Every route there is.
static ROUTES: &[Route] = &[
    Route { path: "/", methods: &[("GET", |call| Box::pin(ready(root::show(&call))))] },
    Route { path: "/health", methods: &[("GET", |call| Box::pin(ready(health::health(&call))))] },
    Route { path: "/ready", methods: &[("GET", |call| Box::pin(ready(health::ready(&call))))] },
    Route { path: "/status", methods: &[("GET", |call| Box::pin(status::show(call)))] },
    Route {
        path: "/v1/queues/{queue}",
        methods: &[("GET", |call| Box::pin(queues::show(call))), ("PUT", |call| Box::pin(queues::put(call)))],
    },
    Route { path: "/v1/queues/{queue}/leases", methods: &[("POST", |call| Box::pin(leases::lease(call)))] },
    Route {
        path: "/v1/queues/{queue}/leases/extend",
        methods: &[("POST", |call| Box::pin(leases::extend(call)))],
    },
    Route {
        path: "/v1/queues/{queue}/leases/settle",
        methods: &[("POST", |call| Box::pin(leases::settle(call)))],
    },
    Route {
        path: "/v1/queues/{queue}/messages",
        methods: &[("POST", |call| Box::pin(messages::publish(call)))],
    },
    // Before what it would be taken for: a message of that id.
    Route {
        path: "/v1/queues/{queue}/messages/batch",
        methods: &[("POST", |call| Box::pin(messages::publish_batch(call)))],
    },
    Route {
        path: "/v1/queues/{queue}/messages/{id}",
        methods: &[
            ("GET", |call| Box::pin(messages::show(call))),
            ("DELETE", |call| Box::pin(messages::cancel(call))),
        ],
    },
];

/// A request on its way to its handler.
struct Call {
    /// The thread's own.
    desk: Rc<Desk>,
    /// The request.
    request: HttpRequest,
    /// Its body.
    payload: Payload,
    /// Its connection.
    connection: Rc<Connection>,
    /// Its name.
    id: RequestId,
}

impl Call {
    /// A segment of the path as it came, but for what the router has decoded already.
    fn segment(&self, name: &str) -> &str {
        self.request.match_info().get(name).unwrap_or_default()
    }
}

/// The router, type-erased.
pub(super) type Routes = BoxService<Request, ServiceResponse, actix_web::Error>;
type RoutesFactory = BoxServiceFactory<AppConfig, Request, ServiceResponse, actix_web::Error, ()>;

/// Makes the router of one thread.
pub(super) fn factory(desk: &Rc<Desk>) -> RoutesFactory {
    let mut app = App::new().app_data(desk.clone());
    for route in ROUTES {
        let handle = move |request, payload: web::Payload| dispatch(route, request, payload.into_inner());
        app = app.service(web::resource(route.path).to(handle));
    }
    boxed::factory(app.default_service(web::to(unknown)).into_factory())
}

async fn dispatch(route: &'static Route, request: HttpRequest, payload: Payload) -> HttpResponse {
    let call = call(request, payload);
    let id = call.id;
    let method = match call.request.method().as_str() {
        "HEAD" => "GET",
        method => method,
    };
    let result = match route.methods.iter().find(|(allowed, _)| *allowed == method) {
        Some((_, handler)) => handler(call).await,
        None => Err(not_allowed(route, call)),
    };
    result.unwrap_or_else(|refusal| answer::refusal(refusal, id, None)).into()
}

async fn unknown(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let call = call(request, payload.into_inner());
    let detail =
        format!("there is nothing at {:?}; docs/API.md lists what there is", shown(call.request.path()));
    answer::refusal(Refusal::new(Code::RouteUnknown, detail).unread(call.payload), call.id, None).into()
}

fn call(request: HttpRequest, payload: Payload) -> Call {
    let desk = request.app_data::<Rc<Desk>>().expect("given to the app when it was made").clone();
    let connection = request.conn_data::<Rc<Connection>>().cloned().unwrap_or_default();
    let id = request.extensions().get::<RequestId>().copied().unwrap_or_else(RequestId::random);
    Call { desk, request, payload, connection, id }
}

fn not_allowed(route: &Route, call: Call) -> Refusal {
    let allowed = allowed(route);
    let detail = format!("{} is not allowed here, but {allowed}", shown(call.request.method().as_str()));
    Refusal::new(Code::MethodNotAllowed, detail).allow(allowed).unread(call.payload)
}

/// The methods of a route as the `Allow` header lists them.
fn allowed(route: &Route) -> String {
    let mut methods = Vec::new();
    for (method, _) in route.methods {
        methods.push(*method);
        if *method == "GET" {
            methods.push("HEAD");
        }
    }
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_is_there_twice_and_none_ends_with_a_slash() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        assert!(paths.iter().all(|path| *path == "/" || !path.ends_with('/')));
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), ROUTES.len());
    }

    #[test]
    fn head_is_allowed_where_get_is() {
        let queue = ROUTES.iter().find(|route| route.path == "/v1/queues/{queue}").expect("there");
        assert_eq!(allowed(queue), "GET, HEAD, PUT");
    }
}
