//! Each refusal with its place, what a PUT replaces, what a PATCH leaves.

use std::time::Duration;

use serde_json::json;

use super::*;

fn defaults() -> Value {
    json!({"timeout": "20s", "retry": {"jitter": 0.5}, "delivery": {"headers": {"x-from": "us"}}})
}

fn read(body: &Value) -> Result<QueueSettings, Box<Problem>> {
    SettingsGiven::of_put(body.to_string().as_bytes())?.put(&defaults())
}

#[test]
fn what_is_absent_is_the_operators_default_and_then_the_products() {
    let body = json!({"processor": "log", "retry": {"schedule": ["1s"]}, "limits": {"payload_max": "2MiB"}});
    let settings = read(&body).expect("valid");
    assert_eq!(settings.timeout, Duration::from_secs(20));
    assert!((settings.retry.jitter - 0.5).abs() < f64::EPSILON);
    assert_eq!(settings.retry.schedule, [Duration::from_secs(1)]);
    assert_eq!(settings.limits.payload_max, 2 << 20);
    assert_eq!(settings.limits.length_max, 1_000_000);
    assert_eq!(settings.delivery.headers["x-from"], "us");
    let replaced =
        read(&json!({"processor": "log", "delivery": {"headers": {"x-to": "you"}}})).expect("valid");
    assert_eq!(replaced.delivery.headers.len(), 1);
    let null = read(&json!({"processor": "log", "ttl": null, "destination": null})).expect("valid");
    assert_eq!((null.ttl, null.destination), (None, None));
}

#[test]
fn each_refusal_has_its_code_and_pointer() {
    for (body, code, pointer, words) in [
        ("{", Code::Malformed, None, "EOF"),
        (r#"{"processor":"log","processor":"log"}"#, Code::Malformed, None, "there twice"),
        ("[]", Code::InvalidValue, Some(""), "a JSON object"),
        (r#"{"secret":7}"#, Code::InvalidValue, Some("/secret"), "not shown"),
        (r#"{"secrt":"whsec_x"}"#, Code::UnknownField, Some("/secrt"), "secret"),
        (
            r#"{"delivery":{"headers":{"X-Team":"***","Authorization":"***"}}}"#,
            Code::SettingOutOfRange,
            Some("/delivery/headers/Authorization"),
            "send the credential itself",
        ),
        (
            r#"{"destination":"https://a.example/?x=1&token=***"}"#,
            Code::SettingOutOfRange,
            Some("/destination"),
            "send the credential itself",
        ),
        (r#"{"procesor":"log"}"#, Code::UnknownField, Some("/procesor"), r#"did you mean "processor"?"#),
        (
            r#"{"retry":{"shedule":[]}}"#,
            Code::UnknownField,
            Some("/retry/shedule"),
            r#"did you mean "schedule"?"#,
        ),
        (r#"{"a/b":1}"#, Code::UnknownField, Some("/a~1b"), "is not a setting"),
        (r#"{"processor":1}"#, Code::InvalidValue, Some("/processor"), "must be a string, not 1"),
        (r#"{"timeout":15}"#, Code::InvalidValue, Some("/timeout"), "has no unit"),
        (r#"{"timeout":"15"}"#, Code::InvalidValue, Some("/timeout"), "has no unit"),
        (r#"{"timeout":null}"#, Code::InvalidValue, Some("/timeout"), ""),
        (r#"{"retry":5}"#, Code::InvalidValue, Some("/retry"), ""),
        (r#"{"retry":null}"#, Code::InvalidValue, Some("/retry"), ""),
        (r#"{"retry":{"schedule":["1s",2]}}"#, Code::InvalidValue, Some("/retry/schedule"), "has no unit"),
        (
            r#"{"limits":{"payload_max":"1MB"}}"#,
            Code::InvalidValue,
            Some("/limits/payload_max"),
            "unknown unit",
        ),
        (r#"{"limits":[5,6,7]}"#, Code::InvalidValue, Some("/limits"), "is an object"),
        (r#"{"retry":[["1s"],0.5]}"#, Code::InvalidValue, Some("/retry"), "is an object"),
        (r#"{"dead":[]}"#, Code::InvalidValue, Some("/dead"), "is an object"),
        (r#"{"limits":{"length_max":-1}}"#, Code::InvalidValue, Some("/limits/length_max"), ""),
        (r#"{"limits":{"length_max":1e30}}"#, Code::InvalidValue, Some("/limits/length_max"), ""),
        (r#"{"delivery":{"rate":"5"}}"#, Code::InvalidValue, Some("/delivery/rate"), ""),
        (
            r#"{"delivery":{"headers":{"a":1}}}"#,
            Code::InvalidValue,
            Some("/delivery/headers"),
            "must be a string, not 1",
        ),
        (r#"{"destination":"ftp://x.example/"}"#, Code::InvalidValue, Some("/destination"), "scheme"),
        (
            r#"{"destination_override":"all"}"#,
            Code::InvalidValue,
            Some("/destination_override"),
            "list of origins",
        ),
        (r#"{"priority":"urgent"}"#, Code::InvalidValue, Some("/priority"), "urgent"),
        (r#"{"processor":"log","timeout":"16m"}"#, Code::SettingOutOfRange, Some("/timeout"), "100ms to 15m"),
        (r#"{"processor":"log","shards":2}"#, Code::SettingOutOfRange, Some("/shards"), "only 1"),
        (
            r#"{"processor":"log","retry":{"jitter":2}}"#,
            Code::SettingOutOfRange,
            Some("/retry/jitter"),
            "0 to 1",
        ),
        ("{}", Code::SettingOutOfRange, Some("/processor"), "is required"),
        (r#"{"processor":"http"}"#, Code::SettingOutOfRange, Some("/destination"), "is required"),
    ] {
        let problem =
            SettingsGiven::of_put(body.as_bytes()).and_then(|given| given.put(&defaults())).expect_err(body);
        assert_eq!(problem.known_code(), Some(code), "{body}: {problem:?}");
        assert_eq!(problem.pointer.as_deref(), pointer, "{body}");
        assert!(problem.detail.contains(words), "{body}: {}", problem.detail);
    }
    let problem = read(&json!({"processor": "log", "retry": {"jitter": 2}})).expect_err("out of range");
    assert_eq!(problem.setting.as_deref(), Some("retry.jitter"));
}

#[test]
fn a_refusal_says_where_what_is_there_and_what_must_be() {
    for (body, detail) in [
        (
            r#"{"limits":{"length_max":"5"}}"#,
            r#"/limits/length_max: must be a whole number from 1 to 1000000000, not "5""#,
        ),
        (
            r#"{"limits":{"length_max":-1}}"#,
            "/limits/length_max: must be a whole number from 1 to 1000000000, not -1",
        ),
        (
            r#"{"history":{"attempts":256}}"#,
            "/history/attempts: must be a whole number from 0 to 100, not 256",
        ),
        (
            r#"{"dead":{"length_max":null}}"#,
            "/dead/length_max: must be a whole number from 1 to 1000000000, not null",
        ),
        (r#"{"shards":{}}"#, "/shards: must be a whole number from 0 to 65535, not an object"),
        (r#"{"dead":{"when_full":"drop"}}"#, r#"/dead/when_full: must be one of park, trim, not "drop""#),
        (
            r#"{"dead":{"when_full":"prak"}}"#,
            r#"/dead/when_full: must be one of park, trim, not "prak"; did you mean "park"?"#,
        ),
        (r#"{"dead":{"when_full":1}}"#, "/dead/when_full: must be one of park, trim"),
        (r#"{"priority":"urgent"}"#, r#"/priority: must be one of high, normal, low, not "urgent""#),
        (r#"{"lookup":"yes"}"#, r#"/lookup: must be true or false, not "yes""#),
        (r#"{"retry":{"jitter":"x"}}"#, r#"/retry/jitter: must be a number, not "x""#),
        (r#"{"retry":{"schedule":"5s"}}"#, r#"/retry/schedule: must be a list, not "5s""#),
        (
            r#"{"delivery":{"reject":[400,"x"]}}"#,
            r#"/delivery/reject: must be a whole number from 400 to 599, not "x""#,
        ),
        (r#"{"delivery":{"headers":[]}}"#, "/delivery/headers: must be an object, not a list"),
        (
            r#"{"destination_override":"all"}"#,
            r#"/destination_override: must be none, any or a list of origins, not "all""#,
        ),
    ] {
        let problem =
            SettingsGiven::of_put(body.as_bytes()).and_then(|given| given.put(&defaults())).expect_err(body);
        assert_eq!(problem.detail, detail);
    }
}

#[test]
fn every_setting_can_be_given_and_comes_back() {
    let mut body = every_setting();
    body["processor"] = json!("log");
    // It is written and never shown.
    body.as_object_mut().expect("an object").remove("secret");
    let settings = read(&body).expect("valid");
    assert_eq!(serde_json::to_value(&settings).expect("serialises"), body);
}

fn patch(settings: &QueueSettings, body: &Value) -> Result<QueueSettings, Box<Problem>> {
    SettingsGiven::of_patch(body.to_string().as_bytes())?.patch(settings, &defaults())
}

#[test]
fn a_patch_leaves_what_it_does_not_name() {
    let before = read(&json!({
        "processor": "log", "ttl": "1d", "timeout": "1m", "retry": {"schedule": ["1s"], "jitter": 0.1},
        "delivery": {"headers": {"X-A": "1", "X-B": "2"}, "rate": "5/s"},
    }))
    .expect("valid");
    assert_eq!(patch(&before, &json!({})).expect("valid"), before);
    let after = patch(
        &before,
        &json!({"retry": {"jitter": 0}, "delivery": {"headers": {"x-a": "3", "X-B": null, "X-C": "4"}}}),
    );
    let mut expected = before;
    expected.retry.jitter = 0.0;
    expected.delivery.headers =
        [("x-a", "3"), ("X-C", "4")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(after.expect("valid"), expected);
}

#[test]
fn null_in_a_patch_unsets_what_may_be_absent_and_is_the_default_elsewhere() {
    let mut body = every_setting();
    body["processor"] = json!("log");
    body["retry"] = json!({"schedule": ["7s"], "jitter": 0.9});
    body["timeout"] = json!("9s");
    let before = read(&body).expect("valid");
    let null = json!({"ttl": null, "lease": null, "destination": null, "delivery": {"rate": null, "headers": null},
        "timeout": null, "retry": null});
    let after = patch(&before, &null).expect("valid");
    assert_eq!((after.ttl, after.lease, &after.destination, after.delivery.rate), (None, None, &None, None));
    assert_eq!(after.timeout, Duration::from_secs(20), "the operator's default");
    assert_eq!(after.delivery.headers["x-from"], "us");
    assert!((after.retry.jitter - 0.5).abs() < f64::EPSILON);
    assert_eq!(after.retry.schedule, QueueSettings::default().retry.schedule, "then the product's");
    let refused = patch(&before, &json!({"processor": null})).expect_err("it is required");
    assert_eq!(
        (refused.known_code(), refused.pointer.as_deref()),
        (Some(Code::SettingOutOfRange), Some("/processor"))
    );
}

#[test]
fn what_a_patch_gets_wrong_is_refused_with_its_place() {
    let before = read(&json!({"processor": "log"})).expect("valid");
    for (body, code, pointer) in [
        (json!({"retry": {"jiter": 0}}), Code::UnknownField, "/retry/jiter"),
        (json!({"retry": 5}), Code::InvalidValue, "/retry"),
        (json!({"timeout": 5}), Code::InvalidValue, "/timeout"),
        (json!({"timeout": "1ms"}), Code::SettingOutOfRange, "/timeout"),
        (json!({"delivery": {"headers": {"X": 1}}}), Code::InvalidValue, "/delivery/headers"),
        (json!({"delivery": {"headers": "X"}}), Code::InvalidValue, "/delivery/headers"),
        (
            json!({"delivery": {"headers": {"Authorization": "***"}}}),
            Code::SettingOutOfRange,
            "/delivery/headers/Authorization",
        ),
        (json!({"destination": "https://a.example/?token=***"}), Code::SettingOutOfRange, "/destination"),
        (json!({"processor": "http"}), Code::SettingOutOfRange, "/destination"),
    ] {
        let problem = patch(&before, &body).expect_err(pointer);
        assert_eq!(
            (problem.known_code(), problem.pointer.as_deref()),
            (Some(code), Some(pointer)),
            "{problem}"
        );
    }
}

#[test]
fn a_credential_that_is_shown_and_comes_back_in_a_patch_stays() {
    let before = read(&json!({
        "processor": "http", "destination": "https://a.example/?x=1&token=s3cret",
        "delivery": {"headers": {"Authorization": "Bearer s3cret", "X-Team": "a"}},
    }))
    .expect("valid");
    let masked = json!({
        "destination": "https://a.example/?x=1&token=***",
        "delivery": {"headers": {"authorization": "***", "X-Team": "b"}},
    });
    let after = patch(&before, &masked).expect("valid");
    assert_eq!(after.destination, before.destination);
    assert_eq!(after.delivery.headers["Authorization"], "Bearer s3cret");
    assert_eq!(after.delivery.headers["X-Team"], "b");
    let other = json!({"destination": "https://b.example/?x=1&token=***"});
    assert!(patch(&before, &other).is_err(), "it would be another one");
}

#[test]
fn what_is_shown_beside_the_settings_passes_only_as_it_is() {
    let name: QueueName = "orders".parse().expect("a name");
    let given = |body: &Value| SettingsGiven::of_put(body.to_string().as_bytes()).expect("valid");
    let settings = read(&json!({"processor": "log"})).expect("valid");
    let queue = Queue {
        name: name.clone(),
        source: crate::domain::queue::Source::Api,
        paused: true,
        parked: None,
        signed: false,
        secret_set: false,
        warnings: Vec::new(),
        settings,
    };
    let whole = given(&serde_json::to_value(&queue).expect("JSON"));
    assert!(whole.has_shown());
    assert_eq!(whole.check_shown(&name, Some(&queue)), Ok(()));
    assert_eq!(given(&json!({"parked": null})).check_shown(&name, Some(&queue)), Ok(()));
    assert_eq!(
        given(&json!({"name": "orders", "paused": false})).check_shown(&name, None),
        Ok(()),
        "a new one"
    );
    for (body, words) in [
        (json!({"name": "other"}), "/name is shown"),
        (json!({"paused": false}), "/pause or /resume"),
        (json!({"parked": "dead_full"}), "/resume"),
        (json!({"source": "file"}), "leave it out"),
        (json!({"signed": true}), "secret"),
    ] {
        let problem = given(&body).check_shown(&name, Some(&queue)).expect_err(words);
        assert_eq!(problem.known_code(), Some(Code::InvalidValue));
        assert!(problem.detail.contains(words), "{problem}");
    }
    for field in ["secret_file", "secret_env"] {
        let problem = given(&json!({field: "etc/x"})).check_shown(&name, Some(&queue)).expect_err(field);
        assert_eq!(problem.known_code(), Some(Code::SecretNeedsFile));
        assert_eq!(problem.pointer, Some(format!("/{field}")));
    }
    assert_eq!(given(&json!({"secret_file": null})).check_shown(&name, Some(&queue)), Ok(()));
}

#[test]
fn what_is_said_of_a_secret_is_none_of_the_settings() {
    for (body, secret) in [
        (json!({"processor": "log"}), None),
        (json!({"processor": "log", "secret": null}), Some(SecretGiven::Remove)),
        (json!({"processor": "log", "secret": "whsec_x"}), Some(SecretGiven::Text("whsec_x".into()))),
    ] {
        let given = SettingsGiven::of_put(body.to_string().as_bytes()).expect("known fields");
        assert_eq!(given.secret(), secret.as_ref());
        assert_eq!(given.put(&json!({})).map(|settings| settings.is_signed()), Ok(false), "{body}");
    }
}
