//! Queues by API: made, replaced, shown; and each way in which settings are refused.

use posthaste::api::{Problem, Queue};
use serde_json::{Value, json};

use super::http_gateway::{Plan, Reply, TestGateway, chunked};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    an_unknown_queue_is_told_how_to_make_it_by_its_whole_name
    a_queue_is_made_replaced_and_shown
    a_credential_is_never_shown_and_what_stands_for_it_is_not_taken_for_it
    the_operators_defaults_are_under_what_the_api_sets
    a_queue_of_the_file_is_not_the_apis_to_change
    each_bad_setting_is_refused_with_its_place
    settings_come_as_json_of_bounded_size
    a_queue_may_keep_credentials_to_itself
    a_queue_that_another_gateway_made_or_made_again_is_found
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn problem(reply: &Reply) -> Problem {
    serde_json::from_slice(&reply.body).expect("a problem")
}

fn a_queue_is_made_replaced_and_shown(home: &Home) {
    let gateway = TestGateway::start(home);
    let made =
        gateway.put("orders", &json!({"processor": "log", "timeout": "20s", "delivery": {"rate": "5/s"}}));
    assert_eq!((made.status, made.header("location")), (201, Some("/v1/queues/orders")), "{made:?}");
    assert_eq!(made.header("content-type"), Some("application/json"));
    let queue = made.json();
    for (pointer, value) in [
        ("/name", json!("orders")),
        ("/source", json!("api")),
        ("/processor", json!("log")),
        ("/paused", json!(false)),
        ("/signed", json!(false)),
        ("/timeout", json!("20s")),
        ("/connect_timeout", json!("5s")),
        ("/delivery/rate", json!("5/s")),
        ("/limits/payload_max", json!("1MiB")),
        ("/limits/length_max", json!(1_000_000)),
        ("/retry/schedule/0", json!("5s")),
        ("/dead/when_full", json!("park")),
        ("/idempotency/window", json!("10m")),
    ] {
        assert_eq!(queue.pointer(pointer), Some(&value), "{pointer}");
    }
    assert!(queue.get("parked").is_none() && queue.get("ttl").is_none());
    assert_eq!(gateway.look("/v1/queues/orders").json(), queue);
    let read: Queue = serde_json::from_value(queue).expect("the client reads it");
    assert_eq!(read.settings.processor, "log");

    // PUT replaces: what is absent is the default again.
    let replaced = gateway.put("orders", &json!({"processor": "pull", "ttl": "1d"}));
    assert_eq!((replaced.status, replaced.header("location")), (200, None));
    let queue = gateway.look("/v1/queues/orders").json();
    assert_eq!(
        (&queue["processor"], &queue["timeout"], &queue["ttl"]),
        (&json!("pull"), &json!("15s"), &json!("1d"))
    );
    assert!(queue["delivery"].get("rate").is_none());
    assert_eq!(gateway.publish("orders", &[], b"x").status, 202);
}

fn a_credential_is_never_shown_and_what_stands_for_it_is_not_taken_for_it(home: &Home) {
    let gateway = TestGateway::start(home);
    let mut settings = json!({
        "processor": "http", "destination": "https://a.example/hook?x=1&token=s3cret",
        "delivery": {"headers": {"Authorization": "Bearer s3cret", "X-Shopify-Hmac": "s3cret", "X-Team": "mail"}},
    });
    let made = gateway.put("orders", &settings);
    let published = gateway.publish("orders", &[], b"x");
    let message = gateway.look(published.header("location").expect("a location"));
    let shown = gateway.look("/v1/queues/orders");
    for (reply, status) in [(&made, 201), (&message, 200), (&shown, 200)] {
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(!String::from_utf8_lossy(&reply.body).contains("s3cret"), "{reply:?}");
    }
    assert_eq!(message.json()["destination"], "https://a.example/hook?x=1&token=***");
    let mut queue = shown.json();
    assert_eq!(queue["destination"], "https://a.example/hook?x=1&token=***");
    let masked = json!({"Authorization": "***", "X-Shopify-Hmac": "***", "X-Team": "mail"});
    assert_eq!(queue["delivery"]["headers"], masked);

    // What was shown, put back as it is: refused for one credential after the other, and nothing changes.
    for (pointer, setting) in [
        ("/delivery/headers/Authorization", "delivery.headers"),
        ("/delivery/headers/X-Shopify-Hmac", "delivery.headers"),
        ("/destination", "destination"),
    ] {
        let refused = gateway.put("orders", &queue);
        assert_eq!((refused.status, refused.code().as_str()), (422, "setting_out_of_range"), "{refused:?}");
        let problem = problem(&refused);
        assert_eq!((problem.pointer.as_deref(), problem.setting.as_deref()), (Some(pointer), Some(setting)));
        *queue.pointer_mut(pointer).expect("there") = settings.pointer(pointer).expect("there").clone();
    }
    // With the credentials themselves all of it comes back as it was shown.
    let replaced = gateway.put("orders", &queue);
    assert_eq!((replaced.status, replaced.json()), (200, shown.json()));
    settings["delivery"]["headers"] = json!({"X-Team": "***"});
    assert_eq!(gateway.put("orders", &settings).status, 200, "no credential by its name");
}

fn the_operators_defaults_are_under_what_the_api_sets(home: &Home) {
    let queue_defaults = json!({"timeout": "1m", "retry": {"schedule": ["1s"]}, "processor": "log"});
    let gateway = TestGateway::start_as(home, Plan { queue_defaults, ..Plan::default() });
    let made = gateway.put("orders", &json!({"retry": {"jitter": 0}}));
    assert_eq!(made.status, 201, "{made:?}");
    let queue = made.json();
    assert_eq!((&queue["timeout"], &queue["processor"]), (&json!("1m"), &json!("log")));
    assert_eq!(queue["retry"], json!({"schedule": ["1s"], "jitter": 0.0}));
}

fn a_queue_of_the_file_is_not_the_apis_to_change(home: &Home) {
    let gateway = TestGateway::start(home);
    let refused = gateway.put("default", &json!({"processor": "pull"}));
    assert_eq!((refused.status, refused.code().as_str()), (409, "queue_declared_in_file"));
    let queue = gateway.look("/v1/queues/default").json();
    assert_eq!((&queue["source"], &queue["processor"]), (&json!("file"), &json!("log")));
}

fn each_bad_setting_is_refused_with_its_place(home: &Home) {
    let gateway = TestGateway::start(home);
    for (body, status, code, pointer) in [
        (r#"{"processor":"log""#, 400, "malformed", None),
        (r#"{"processor":"log"}x"#, 400, "malformed", None),
        (r#"{"processor":"log","processor":"pull"}"#, 400, "malformed", None),
        ("\u{feff}{}", 400, "malformed", None),
        ("", 400, "malformed", None),
        ("null", 400, "invalid_value", Some("")),
        ("[]", 400, "invalid_value", Some("")),
        (r#"{"procesor":"log"}"#, 400, "unknown_field", Some("/procesor")),
        (r#"{"processor":"log","limits":{"length":5}}"#, 400, "unknown_field", Some("/limits/length")),
        (r#"{"name":"others","processor":"log"}"#, 400, "invalid_value", Some("/name")),
        (r#"{"source":"file","processor":"log"}"#, 400, "invalid_value", Some("/source")),
        (r#"{"paused":true,"processor":"log"}"#, 400, "invalid_value", Some("/paused")),
        (r#"{"parked":"dead_full","processor":"log"}"#, 400, "invalid_value", Some("/parked")),
        (r#"{"signed":1,"processor":"log"}"#, 400, "invalid_value", Some("/signed")),
        (r#"{"processor":"log","timeout":15}"#, 400, "invalid_value", Some("/timeout")),
        (r#"{"processor":"log","timeout":"fast"}"#, 400, "invalid_value", Some("/timeout")),
        (r#"{"processor":"log","lookup":"yes"}"#, 400, "invalid_value", Some("/lookup")),
        (
            r#"{"processor":"log","limits":{"payload_max":"1MB"}}"#,
            400,
            "invalid_value",
            Some("/limits/payload_max"),
        ),
        (r#"{"processor":"log","limits":{"length_max":1e999}}"#, 400, "malformed", None),
        (
            r#"{"processor":"log","limits":{"length_max":-1}}"#,
            400,
            "invalid_value",
            Some("/limits/length_max"),
        ),
        (
            r#"{"processor":"log","retry":{"schedule":["5s",5]}}"#,
            400,
            "invalid_value",
            Some("/retry/schedule"),
        ),
        (r#"{"processor":"log","delivery":{"rate":"0/s"}}"#, 400, "invalid_value", Some("/delivery/rate")),
        (r#"{"processor":"http","destination":"nowhere"}"#, 400, "invalid_value", Some("/destination")),
        (r#"{"processor":"log","timeout":"1ms"}"#, 422, "setting_out_of_range", Some("/timeout")),
        (r#"{"processor":"log","ttl":"31d"}"#, 422, "setting_out_of_range", Some("/ttl")),
        (r#"{"processor":"log","shards":2}"#, 422, "setting_out_of_range", Some("/shards")),
        (
            r#"{"processor":"log","limits":{"payload_max":"17MiB"}}"#,
            422,
            "setting_out_of_range",
            Some("/limits/payload_max"),
        ),
        (r#"{"processor":"log","retry":{"jitter":1.5}}"#, 422, "setting_out_of_range", Some("/retry/jitter")),
        (
            r#"{"processor":"log","delivery":{"method":"TRACE"}}"#,
            422,
            "setting_out_of_range",
            Some("/delivery/method"),
        ),
        (r#"{"processor":"http"}"#, 422, "setting_out_of_range", Some("/destination")),
        (r#"{"processor":"lgo"}"#, 422, "setting_out_of_range", Some("/processor")),
        ("{}", 422, "setting_out_of_range", Some("/processor")),
        (r#"{"processor":"log","secret":"whsec_x"}"#, 422, "secret_needs_file", Some("/secret")),
        (
            r#"{"processor":"http","destination":"http://127.0.0.1/"}"#,
            422,
            "destination_refused",
            Some("/destination"),
        ),
        (
            r#"{"processor":"log","delivery":{"headers":{"Host":"x"}}}"#,
            422,
            "header_not_forwardable",
            Some("/delivery/headers/Host"),
        ),
    ] {
        let reply = gateway.send("PUT /v1/queues/orders", &[JSON], body.as_bytes());
        let problem = problem(&reply);
        assert_eq!((reply.status, &*problem.code), (status, code), "{body}: {reply:?}");
        assert_eq!(problem.pointer.as_deref(), pointer, "{body}");
        assert_eq!(reply.header("posthaste-stored"), None, "{body}");
        gateway.assert_alive(body);
    }
    assert_eq!(gateway.look("/v1/queues/orders").status, 404, "nothing was made of it");
    let reply = gateway.put("orders", &json!({"processor": "lgo"}));
    let detail = problem(&reply).detail;
    assert!(detail.contains("log, http, pull") && detail.contains("did you mean \"log\"?"), "{detail}");
}

fn settings_come_as_json_of_bounded_size(home: &Home) {
    let gateway = TestGateway::start(home);
    let body = br#"{"processor":"log"}"#;
    for (headers, status, code) in [
        (vec![], 415, "unsupported_media_type"),
        (vec![("Content-Type", "text/plain")], 415, "unsupported_media_type"),
        (vec![("Content-Type", "application/jsonx")], 415, "unsupported_media_type"),
        (vec![JSON, JSON], 400, "contradictory_options"),
        (vec![JSON, ("Content-Encoding", "gzip")], 415, "unsupported_content_encoding"),
        (vec![("Content-Type", "application/json; charset=latin1")], 415, "unsupported_media_type"),
        (vec![("Content-Type", "Application/JSON; Charset=\"UTF-8\"")], 201, ""),
        (vec![JSON, ("Content-Encoding", "identity")], 200, ""),
    ] {
        let reply = gateway.send("PUT /v1/queues/orders", &headers, body);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{headers:?}: {reply:?}");
    }
    for (name, status) in [("-orders", 400), ("a%2Fb", 400), ("..", 400)] {
        let reply = gateway.send(&format!("PUT /v1/queues/{name}"), &[JSON], body);
        assert_eq!((reply.status, reply.code().as_str()), (status, "invalid_queue_name"), "{name}");
    }
    let reply = gateway.send("PUT /v1/queues/orders?x=1", &[JSON], body);
    assert_eq!((reply.status, reply.code().as_str()), (400, "unknown_parameter"));

    let settings = |length: usize| {
        let mut text = json!({"processor": "log"}).to_string();
        text.push_str(&" ".repeat(length - text.len()));
        text.into_bytes()
    };
    for (length, status) in [(65_536, 200), (65_537, 413)] {
        let plain = gateway.send("PUT /v1/queues/orders", &[JSON], &settings(length));
        assert_eq!(plain.status, status, "{length}");
        let headers = [JSON, ("Transfer-Encoding", "chunked")];
        let parts = gateway.send("PUT /v1/queues/orders", &headers, &chunked(&settings(length), 9_000));
        assert_eq!(parts.status, status, "{length} in chunks");
    }
    let refused = gateway.send("PUT /v1/queues/orders", &[JSON], &settings(65_537));
    assert_eq!((refused.code().as_str(), &refused.json()["limit"]), ("payload_too_large", &json!(65_536)));
}

fn an_unknown_queue_is_told_how_to_make_it_by_its_whole_name(home: &Home) {
    let gateway = TestGateway::start(home);
    for name in ["x".repeat(64), "y".repeat(65), "z".repeat(128)] {
        let unknown = gateway.look(&format!("/v1/queues/{name}"));
        assert_eq!((unknown.status, unknown.code().as_str()), (404, "queue_unknown"));
        let detail = unknown.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(&format!("PUT /v1/queues/{name} ")), "{detail}");
    }
    let impossible = gateway.look(&format!("/v1/queues/{}", "z".repeat(129)));
    assert_eq!((impossible.status, impossible.code().as_str()), (400, "invalid_queue_name"));
    let detail = impossible.json()["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.contains("up to 127") && !detail.contains("PUT"), "{detail}");
}

fn a_queue_may_keep_credentials_to_itself(home: &Home) {
    let gateway = TestGateway::start(home);
    let settings = json!({"processor": "log", "delivery": {"forward_credentials": false}});
    assert_eq!(gateway.put("private", &settings).status, 201);
    for header in ["Posthaste-Forward-Authorization", "Posthaste-Forward-Cookie"] {
        let reply = gateway.publish("private", &[(header, "x")], b"x");
        let problem: Value = reply.json();
        assert_eq!(
            (reply.status, problem["code"].as_str()),
            (422, Some("header_not_forwardable")),
            "{header}"
        );
        assert_eq!(problem["setting"], "delivery.forward_credentials");
        assert_eq!(gateway.publish("default", &[(header, "x")], b"x").status, 202);
    }
    assert_eq!(gateway.publish("private", &[("Authorization", "the caller's own")], b"x").status, 202);
}

fn a_queue_that_another_gateway_made_or_made_again_is_found(home: &Home) {
    let gateway = TestGateway::start(home);
    let settings: posthaste::domain::queue::QueueSettings =
        serde_json::from_value(json!({"processor": "log"})).expect("settings");
    let name: posthaste::domain::queue::QueueName = "elsewhere".parse().expect("a name");
    let put = || {
        let settings = settings.clone().into();
        gateway.with_store(async |store| store.put_queue(name.clone(), settings).await).expect("it is made")
    };
    let posthaste::store::Put::Created(entry) = put() else { panic!("it was not there") };
    assert_eq!(gateway.publish("elsewhere", &[], b"x").status, 202);
    let queue = entry.queue_ref();
    gateway.with_store(async |store| store.delete_queue(queue, true).await).expect("it is deleted");
    let gone = gateway.publish("elsewhere", &[], b"x");
    assert_eq!((gone.status, gone.code().as_str()), (404, "queue_unknown"));
    assert_eq!(gone.header("posthaste-stored"), Some("no"));
    assert!(gone.json()["detail"].as_str().expect("detail").contains("PUT /v1/queues/elsewhere"), "{gone:?}");
    put();
    let again = gateway.publish("elsewhere", &[], b"x");
    assert_eq!(again.status, 202, "{again:?}");
    assert_eq!(gateway.look(&format!("/v1/queues/elsewhere/messages/{}", again.id())).status, 200);
}
