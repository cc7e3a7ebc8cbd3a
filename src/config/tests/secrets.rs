//! What a configuration keeps to itself: secrets and passwords, also where something is wrong with them.

use super::*;

#[test]
fn no_password_is_shown_of_what_was_meant_as_a_url() {
    for text in [
        "[queues.a]\nprocessor = 'http'\ndestination = 'https://u:pAss@exa mple/hook?token=pAss'",
        "[queues.a]\nprocessor = 'http'\ndestination_override = 'https://u:pAss@shop.example'",
        "[queues.a]\nprocessor = 'http'\ndestination_override = ['https://pAss@shop.example']",
        "[egress]\nallow = ['u:pAss@shop.example', 'https://pAss@shop.example']",
        "[lanes.'https://u:pAss@shop.example']\nrate = '5/s'",
        "[lanes.'https://u:pAss@shop.example']\nrate = 'fast'\nratte = 1",
        "[lanes]\n'https://u:pAss@shop.example' = 5",
        "[lanes]\n'u:pAss@shop.example' = 5",
    ] {
        let given = Given { file: text, ..Given::default() };
        let problems = given.problems().join("\n");
        assert!(problems.contains("***@") && !problems.contains("pAss"), "{problems}");
    }
    let flags =
        Flags { set: vec!["lanes.'https://u:pAss@shop.example'.rate='fast'".to_owned()], ..Flags::default() };
    let problems = Given { flags, ..Given::default() }.problems().join("\n");
    assert!(problems.contains("***@") && !problems.contains("pAss"), "{problems}");
}

#[test]
fn no_problem_shows_a_secret() {
    let text = "
        [queue_defaults.delivery.headers]
        Authorization = ['s3cret']
        X-Team = ['shown']
        [queue_defaults]
        secret = 's3cret'";
    let problems = file(text).problems();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems.iter().all(|one| !one.contains("s3cret")), "{problems:#?}");
    let given = set(&["s3cret", "queue_defaults.delivery.headers.authorization=s3cret", "foo=s3cret"]);
    let problems = given.problems();
    assert!(problems.iter().all(|one| !one.contains("s3cret")), "{problems:#?}");
}

#[test]
fn a_secret_is_one_queues_alone_and_stands_in_one_place() {
    let secret = format!("whsec_{}", "A".repeat(32));
    let text = format!(
        "[queues.one]
processor = 'log'
secret = '{secret}'
secret_file = 'a'
secret_overlap = '31d'
[queues.two]
processor = 'log'
secret = 'sealed:AAAA'
[queues.three]
processor = 'log'
secret = '***'
[queue_defaults]
secret_env = 'ONE'
[secrets]
master_key = 's3cret'
master_key_file = 'key'"
    );
    let no_secret = "is no secret (not shown): it begins with whsec_ (HMAC-SHA256) or whsk_ (ed25519), and base64 follows";
    assert_eq!(
        file(&text).problems(),
        [
            "posthaste.toml:4: queues.one.secret_file: is set beside another of secret, secret_file and secret_env: \
             one of them is possible"
                .to_owned(),
            "posthaste.toml:5: queues.one.secret_overlap: 31d is out of range: 0s to 30d".to_owned(),
            format!("posthaste.toml:8: queues.two.secret: {no_secret}"),
            format!("posthaste.toml:11: queues.three.secret: {no_secret}"),
            "posthaste.toml:13: queue_defaults.secret_env: is not for all queues at once: \
             give each queue a secret of its own, under [queues.NAME]"
                .to_owned(),
            "posthaste.toml:16: secrets.master_key_file: is set beside secrets.master_key: one of them is possible"
                .to_owned(),
        ]
    );
}
