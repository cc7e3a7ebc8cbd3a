//! The routes: one table, one file for each thing.

mod dead;
mod health;
mod holds;
mod leases;
mod messages;
mod queues;
mod reach;
mod replay;
mod root;
mod secret;
mod status;

pub(super) use self::status::status;

use std::future::ready;
use std::rc::Rc;

use actix_http::{Payload, Request};
use actix_service::IntoServiceFactory as _;
use actix_service::boxed::{self, BoxService, BoxServiceFactory};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::{App, HttpMessage as _, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use crate::api::code::Code;
use crate::http::answer::{self, Answer, RequestId};
use crate::http::body::SizeLimit;
use crate::http::connection::Connection;
use crate::http::error::Refusal;
use crate::http::extract::shown;
use crate::http::state::Desk;
use crate::http::{input, options, publish};

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
    Route { path: "/v1/queues", methods: &[("GET", |call| Box::pin(queues::list(call)))] },
    Route {
        path: "/v1/queues/{queue}",
        methods: &[
            ("GET", |call| Box::pin(queues::show(call))),
            ("PUT", |call| Box::pin(queues::put(call))),
            ("PATCH", |call| Box::pin(queues::patch(call))),
            ("DELETE", |call| Box::pin(queues::delete(call))),
        ],
    },
    Route { path: "/v1/queues/{queue}/pause", methods: &[("POST", |call| Box::pin(holds::pause(call)))] },
    Route { path: "/v1/queues/{queue}/resume", methods: &[("POST", |call| Box::pin(holds::resume(call)))] },
    Route { path: "/v1/queues/{queue}/purge", methods: &[("POST", |call| Box::pin(holds::purge(call)))] },
    Route { path: "/v1/queues/{queue}/secret", methods: &[("POST", |call| Box::pin(secret::rotate(call)))] },
    Route {
        path: "/v1/queues/{queue}/dead",
        methods: &[
            ("GET", |call| Box::pin(dead::list(call))),
            ("DELETE", |call| Box::pin(replay::discard(call))),
        ],
    },
    Route {
        path: "/v1/queues/{queue}/dead/groups",
        methods: &[("GET", |call| Box::pin(dead::groups(call)))],
    },
    Route {
        path: "/v1/queues/{queue}/dead/replay",
        methods: &[("POST", |call| Box::pin(replay::replay(call)))],
    },
    Route {
        path: "/v1/queues/{queue}/dead/{id}",
        methods: &[
            ("GET", |call| Box::pin(dead::show(call))),
            ("DELETE", |call| Box::pin(replay::discard_one(call))),
        ],
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

/// Every path with its methods, HEAD aside, in the order of the table.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().flat_map(|route| route.methods.iter().map(|(method, _)| (route.path, *method)))
}

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

    /// A refusal before the body was read keeps it until it is answered; see [`Refusal::unread`].
    fn unread<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        result.map_err(|refusal| refusal.unread(std::mem::replace(&mut self.payload, Payload::None)))
    }

    /// Reads the body, which is JSON.
    async fn json(&mut self, limit: SizeLimit) -> Result<Bytes, Refusal> {
        let payload = std::mem::replace(&mut self.payload, Payload::None);
        input::json(&self.desk.state, self.request.headers(), payload, &self.connection, limit).await
    }

    /// Reads the body, which is JSON or empty.
    async fn json_or_nothing(&mut self, limit: SizeLimit) -> Result<Bytes, Refusal> {
        if matches!(self.payload, Payload::None) {
            return Ok(Bytes::new());
        }
        let payload = std::mem::replace(&mut self.payload, Payload::None);
        input::json_or_nothing(&self.desk.state, self.request.headers(), payload, &self.connection, limit)
            .await
    }

    /// Reads the body, which is to be empty.
    async fn nothing(&mut self) -> Result<(), Refusal> {
        let payload = std::mem::replace(&mut self.payload, Payload::None);
        input::nothing(&self.desk.state, self.request.headers(), payload, &self.connection).await
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
        Some((allowed, handler)) => match check_headers(call) {
            Ok(call) if *allowed == "GET" && !matches!(call.payload, Payload::None) => {
                shown_without_body(*handler, call).await
            }
            Ok(call) => handler(call).await,
            Err(refusal) => Err(refusal),
        },
        None => Err(not_allowed(route, call)),
    };
    result.unwrap_or_else(|refusal| answer::refusal(refusal, id, None)).into()
}

/// What only shows something takes nothing from a body: a filter in one would do nothing.
fn shown_without_body(handler: Handler, mut call: Call) -> LocalBoxFuture<'static, Result<Answer, Refusal>> {
    Box::pin(async move {
        call.nothing().await?;
        handler(call).await
    })
}

/// Refuses the options of a publish where nothing is published.
fn check_headers(mut call: Call) -> Result<Call, Refusal> {
    if !publish::is_meant(call.request.head()) {
        let checked = options::check_none(call.request.headers());
        call.unread(checked)?;
    }
    Ok(call)
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
        assert_eq!(allowed(queue), "GET, HEAD, PUT, PATCH, DELETE");
    }
}
