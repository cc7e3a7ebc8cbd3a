//! Which settings of a queue are possible: every range in one table.

use std::time::Duration;

use crate::domain::destination::parse_origin;
use crate::domain::format::{bytes, duration};
use crate::domain::header;
use crate::domain::queue::{DestinationOverride, HTTP, QueueSettings};
use crate::domain::secret::{SecretSetting, SigningSecret};

/// A setting that cannot be: which, and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingProblem {
    /// The key within the queue, dotted.
    pub key: &'static str,
    /// What is wrong and what is allowed.
    pub detail: String,
}

/// Whether a value is possible, and the words for when it is not.
type Check = (bool, String);

const DAY: Duration = Duration::from_hours(24);
const DECADE: Duration = Duration::from_hours(24 * 3_650);
const ATTEMPT_MIN: Duration = Duration::from_millis(100);
const ATTEMPT_MAX: Duration = Duration::from_mins(15);
const COUNT_MAX: u64 = 1_000_000_000;
const TEBIBYTE: u64 = 1 << 40;
const MEBIBYTE: u64 = 1 << 20;
/// Origins that messages of a queue may bring destinations of: each publish that brings one looks at all of them.
const ORIGINS_MAX: usize = 1_000;
/// The numbers among the settings, with their ranges.
const COUNTS: [(&str, u64, u64); 7] = [
    ("limits.length_max", 1, COUNT_MAX),
    ("dead.length_max", 1, COUNT_MAX),
    ("history.finished_max", 0, 10_000_000),
    ("history.attempts", 0, 100),
    ("idempotency.keys_max", 1, COUNT_MAX),
    ("delivery.concurrency_max", 1, 65_536),
    ("delivery.reject", 400, 599),
];
const METHODS: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "GET"];

fn span(value: Duration, least: Duration, most: Duration) -> Check {
    let (shown, from, to) = (duration::show(value), duration::show(least), duration::show(most));
    ((least..=most).contains(&value), format!("{shown} is out of range: {from} to {to}"))
}

fn count(key: &'static str, value: u64) -> (&'static str, Check) {
    let (least, most) = QueueSettings::count_range(key).expect("it is one of the numbers");
    (key, ((least..=most).contains(&value), format!("{value} is out of range: {least} to {most}")))
}

fn size(value: u64, least: u64, most: u64) -> Check {
    let (shown, from, to) = (bytes::show(value), bytes::show(least), bytes::show(most));
    ((least..=most).contains(&value), format!("{shown} is out of range: {from} to {to}"))
}

impl QueueSettings {
    /// The least and the most of a setting that is a number, by its dotted key.
    #[must_use]
    pub fn count_range(key: &str) -> Option<(u64, u64)> {
        COUNTS.iter().find(|(name, ..)| *name == key).map(|(_, least, most)| (*least, *most))
    }

    /// Everything that is out of its range; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        let checks = self.times().into_iter().chain(self.amounts()).chain(self.retries()).chain(self.words());
        let checks = checks.chain(self.secrets());
        checks
            .filter(|(_, (holds, _))| !holds)
            .map(|(key, (_, detail))| SettingProblem { key, detail })
            .collect()
    }

    fn times(&self) -> [(&'static str, Check); 8] {
        let second = Duration::from_secs(1);
        [
            ("timeout", span(self.timeout, ATTEMPT_MIN, ATTEMPT_MAX)),
            ("connect_timeout", span(self.connect_timeout, ATTEMPT_MIN, ATTEMPT_MAX)),
            ("lease", span(self.lease(), second, Duration::from_hours(12))),
            ("ttl", span(self.ttl.unwrap_or(DAY), Duration::from_millis(1), 30 * DAY)),
            ("secret_overlap", span(self.secret_overlap, Duration::ZERO, 30 * DAY)),
            ("dead.retention", span(self.dead.retention, second, DECADE)),
            ("history.retention", span(self.history.retention, second, DECADE)),
            ("idempotency.window", span(self.idempotency.window, second, DAY)),
        ]
    }

    fn amounts(&self) -> [(&'static str, Check); 11] {
        [
            count("limits.length_max", self.limits.length_max),
            ("limits.bytes_max", size(self.limits.bytes_max, 1, TEBIBYTE)),
            ("limits.payload_max", size(self.limits.payload_max, 1, 16 * MEBIBYTE)),
            count("dead.length_max", self.dead.length_max),
            ("dead.bytes_max", size(self.dead.bytes_max, 1, TEBIBYTE)),
            count("history.finished_max", self.history.finished_max),
            count("history.attempts", self.history.attempts.into()),
            count("idempotency.keys_max", self.idempotency.keys_max),
            count("delivery.concurrency_max", self.delivery.concurrency_max.into()),
            ("answer.bytes_max", size(self.answer.bytes_max, 0, MEBIBYTE)),
            ("answer.excerpt_max", size(self.answer.excerpt_max, 0, MEBIBYTE)),
        ]
    }

    fn retries(&self) -> Vec<(&'static str, Check)> {
        let (schedule, jitter) = (&self.retry.schedule, self.retry.jitter);
        let entries = format!("{} entries are too many: at most 99 are allowed", schedule.len());
        let longest = schedule.iter().max().copied().unwrap_or_default();
        let delay = format!("{} is out of range: an entry is at most 1d", duration::show(longest));
        vec![
            ("retry.schedule", (schedule.len() <= 99, entries)),
            ("retry.schedule", (longest <= DAY, delay)),
            ("retry.jitter", ((0.0..=1.0).contains(&jitter), format!("{jitter} is out of range: 0 to 1"))),
        ]
    }

    fn secrets(&self) -> Vec<(&'static str, Check)> {
        let mut checks = Vec::new();
        if let Some(SecretSetting::Given(text)) = &self.secret
            && let Err(error) = SigningSecret::parse_all(text.expose())
        {
            checks.push(("secret", (false, error.to_string())));
        }
        let one = "is set beside another of secret, secret_file and secret_env: one of them is possible";
        let (file, env) = (self.secret_file.as_deref(), self.secret_env.as_deref());
        checks.push(("secret_file", (file.is_none() || self.secret.is_none(), one.to_owned())));
        let is_alone = env.is_none() || (self.secret.is_none() && file.is_none());
        checks.push(("secret_env", (is_alone, one.to_owned())));
        checks.push((
            "secret_file",
            (file.is_none_or(|file| !file.is_empty()), "is the path of a file".to_owned()),
        ));
        let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        checks.push((
            "secret_env",
            (env.is_none_or(is_name), "is the name of an environment variable".to_owned()),
        ));
        checks
    }

    /// What only a store can say of a secret, and no configuration.
    #[must_use]
    pub fn secret_of_a_store(&self) -> Option<SettingProblem> {
        let detail = "is no secret (not shown): it begins with whsec_ (HMAC-SHA256) or whsk_ (ed25519), and base64 follows";
        let is_of_a_store = matches!(self.secret, Some(SecretSetting::Declared | SecretSetting::Sealed(_)));
        is_of_a_store.then(|| SettingProblem { key: "secret", detail: detail.to_owned() })
    }

    /// Everything that the defaults of all queues cannot have: what no queue can, and a secret, which is one queue's alone.
    #[must_use]
    pub fn problems_of_defaults(&self) -> Vec<SettingProblem> {
        let given = [
            ("secret", self.secret.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("secret_env", self.secret_env.is_some()),
        ];
        let detail =
            "is not for all queues at once: give each queue a secret of its own, under [queues.NAME]";
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        let given = given.map(|(key, _)| SettingProblem { key, detail: detail.to_owned() });
        let mut problems: Vec<_> = given.collect();
        let own = self.problems().into_iter();
        let others = own.filter(|own| problems.iter().all(|given| given.key != own.key));
        let others: Vec<_> = others.collect();
        problems.extend(others);
        problems
    }

    /// What is wrong with the list of origins that messages may bring destinations of.
    fn origins(&self) -> Vec<(&'static str, Check)> {
        let key = "destination_override";
        let DestinationOverride::Origins(origins) = &self.destination_override else { return Vec::new() };
        let entries = format!("{} entries are too many: at most {ORIGINS_MAX} are allowed", origins.len());
        let mut checks = vec![(key, (origins.len() <= ORIGINS_MAX, entries))];
        let wrong = origins.iter().filter_map(|origin| parse_origin(origin).err());
        checks.extend(wrong.map(|error| (key, (false, error.to_string()))));
        checks
    }

    fn words(&self) -> Vec<(&'static str, Check)> {
        let processor = "is required: log, http, pull, or a registered name".to_owned();
        let goes_somewhere = self.processor != HTTP
            || self.destination.is_some()
            || self.destination_override != DestinationOverride::None;
        let destination =
            "is required by processor \"http\": a URL such as https://example.com/hook".to_owned();
        let method = &self.delivery.method;
        let methods = format!("{method:?} is not allowed: POST, PUT, PATCH, DELETE or GET");
        let shards = format!("{} is not possible: only 1 in this version", self.shards);
        let statuses = self.delivery.reject.iter().map(|status| count("delivery.reject", (*status).into()));
        let mut checks = vec![
            ("processor", (!self.processor.is_empty(), processor)),
            ("destination", (goes_somewhere, destination)),
            ("delivery.method", (METHODS.contains(&method.as_str()), methods)),
            ("shards", (self.shards == 1, shards)),
        ];
        checks.extend(statuses);
        checks.extend(self.origins());
        checks.extend(self.delivery.headers.iter().map(|(name, value)| {
            let detail = format!(
                "the header {name:?} cannot be sent: a name is letters, digits and hyphens, a value visible ASCII"
            );
            ("delivery.headers", (header::is_name(name) && header::is_value(value), detail))
        }));
        let mut names: Vec<_> = self.delivery.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[one, other]| one == other) {
            let detail = format!("the header {twice:?} is there twice: case does not tell names apart");
            checks.push(("delivery.headers", (false, detail)));
        }
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> QueueSettings {
        QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() }
    }

    #[test]
    fn header_names_that_differ_in_case_only_are_one_name() {
        let mut settings = sound();
        for name in ["X-Tenant", "x-tenant"] {
            settings.delivery.headers.insert(name.to_owned(), "a".to_owned());
        }
        let problems: Vec<_> = settings.problems().into_iter().map(|problem| problem.detail).collect();
        assert_eq!(problems, ["the header \"x-tenant\" is there twice: case does not tell names apart"]);
    }

    #[test]
    fn destinations_of_messages_are_allowed_by_origins_and_nothing_else() {
        let read = |text: &str| -> QueueSettings { serde_json::from_str(text).expect("readable") };
        let mut settings = read(r#"{"processor":"http","destination_override":["HTTPS://A.example:443/"]}"#);
        assert_eq!(settings.problems(), []);
        let origins = DestinationOverride::Origins(vec!["https://a.example".to_owned()]);
        assert_eq!(settings.destination_override, origins);
        let is_allowed = |text: &str| origins.allows(&text.parse().expect("a URL"));
        assert!(is_allowed("https://a.example/hook?x=1") && is_allowed("https://a.example:443/"));
        assert!(!is_allowed("http://a.example/") && !is_allowed("https://a.example:8443/"));
        assert!(!is_allowed("https://b.a.example/"));
        settings = read(r#"{"processor":"http","destination_override":["https://a.example/path","x"]}"#);
        let keys: Vec<_> = settings.problems().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["destination_override"; 2]);
        settings.destination_override =
            DestinationOverride::Origins(vec!["https://a.example".to_owned(); 1_001]);
        let problems = settings.problems();
        assert_eq!(problems[0].detail, "1001 entries are too many: at most 1000 are allowed");
    }

    #[test]
    fn the_defaults_are_possible() {
        assert_eq!(sound().problems(), []);
    }

    #[test]
    fn what_is_out_of_range_is_named_with_what_is_allowed() {
        let mut settings = sound();
        settings.timeout = Duration::from_millis(1);
        settings.limits.length_max = 0;
        settings.retry.schedule = vec![Duration::ZERO; 100];
        settings.retry.jitter = f64::NAN;
        settings.delivery.reject = vec![400, 200];
        settings.delivery.method = "BREW".to_owned();
        settings.shards = 2;
        settings.delivery.headers.insert("X Y".to_owned(), "a".to_owned());
        settings.processor = HTTP.to_owned();
        let problems = settings.problems();
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("{} {}", problem.key, problem.detail)).collect();
        assert_eq!(
            lines,
            [
                "timeout 1ms is out of range: 100ms to 15m",
                "limits.length_max 0 is out of range: 1 to 1000000000",
                "retry.schedule 100 entries are too many: at most 99 are allowed",
                "retry.jitter NaN is out of range: 0 to 1",
                "destination is required by processor \"http\": a URL such as https://example.com/hook",
                "delivery.method \"BREW\" is not allowed: POST, PUT, PATCH, DELETE or GET",
                "shards 2 is not possible: only 1 in this version",
                "delivery.reject 200 is out of range: 400 to 599",
                "delivery.headers the header \"X Y\" cannot be sent: a name is letters, digits and hyphens, a value visible ASCII",
            ]
        );
    }
}
