//! Which secret a queue's deliveries are signed with, and when none can be had.

use base64::Engine as _;

use super::*;
use crate::domain::secret::BASE64;

fn name(text: &str) -> QueueName {
    text.parse().expect("a name")
}

fn keyring(master: u8) -> Keyring {
    let mut gathering = Gathering::default();
    let settings = SecretsSettings {
        master_key: Some(BASE64.encode([master; 32]).into()),
        ..SecretsSettings::default()
    };
    assert_eq!(gathering.read_masters(&settings), []);
    gathering.finish()
}

fn secret(number: u8) -> SigningSecret {
    SigningSecret::from_random(SecretKind::Hmac, &[number; 32])
}

fn with(secret: Option<SecretSetting>) -> Arc<QueueSettings> {
    Arc::new(QueueSettings { processor: "http".to_owned(), secret, ..QueueSettings::default() })
}

fn why_not(keyring: &Keyring, settings: &Arc<QueueSettings>) -> String {
    assert!(!keyring.may_sign(&name("orders"), settings));
    keyring
        .signer(&name("orders"), settings, Timestamp::default())
        .map(|_| ())
        .expect_err("unsigned")
        .to_string()
}

#[test]
fn a_queue_without_a_secret_is_not_signed_and_one_with_a_sealed_one_is() {
    let (queue, ours) = (name("orders"), keyring(1));
    assert!(ours.signer(&queue, &with(None), Timestamp::default()).is_ok_and(|signer| signer.is_none()));
    let set = SecretSet::lasting(vec![secret(1)]);
    let sealed = with(Some(ours.seal(&queue, &set).expect("sealed")));
    let first = ours.signer(&queue, &sealed, Timestamp::default()).expect("opened").expect("signed");
    let again = ours.signer(&queue, &sealed, Timestamp::default()).expect("opened").expect("signed");
    assert!(Arc::ptr_eq(&first, &again), "the same settings are opened once");
    assert_eq!(ours.secrets(&queue, &sealed, Timestamp::default()), Ok(set));
    assert!(why_not(&keyring(2), &sealed).contains("secrets.master_key_file_old"));
    assert!(why_not(&Keyring::default(), &sealed).contains("POSTHASTE__SECRETS__MASTER_KEY"));
    assert_eq!(Keyring::default().seal(&queue, &SecretSet::default()), Err(Unsealed::NoMasterKey));
}

#[test]
fn a_declared_secret_is_known_where_it_is_declared_and_nowhere_else() {
    let text = secret(1).text();
    let given =
        QueueSettings { secret: Some(SecretSetting::Given(text.clone())), ..QueueSettings::default() };
    let of_env = QueueSettings { secret_env: Some("ORDERS".to_owned()), ..QueueSettings::default() };
    let mut gathering = Gathering::default();
    assert_eq!(gathering.read_declared(&name("orders"), &given, |_| None), None);
    let variable = |name: &str| (name == "ORDERS").then(|| text.expose().to_owned());
    assert_eq!(gathering.read_declared(&name("mail"), &of_env, variable), None);
    let keyring = gathering.finish();
    let (declared, of_env) = (with(Some(SecretSetting::Declared)), Arc::new(of_env));
    assert!(keyring.may_sign(&name("orders"), &declared) && keyring.may_sign(&name("mail"), &of_env));
    assert!(!keyring.can_seal());
    assert!(
        why_not(&Keyring::default(), &declared)
            .contains("a configuration file that this gateway does not have")
    );
    assert!(why_not(&Keyring::default(), &of_env).contains("\"ORDERS\""));
}

#[test]
fn what_cannot_be_read_at_the_start_is_said_without_showing_it() {
    let mut gathering = Gathering::default();
    let mut problem = |settings: QueueSettings, variable: Option<&str>| {
        let found = gathering.read_declared(&name("orders"), &settings, |_| variable.map(str::to_owned));
        found.map(|problem| format!("{}: {}", problem.key, problem.detail)).expect("refused")
    };
    let of_env = QueueSettings { secret_env: Some("ORDERS".to_owned()), ..QueueSettings::default() };
    assert_eq!(
        problem(of_env.clone(), None),
        "secret_env: there is no variable \"ORDERS\" in the environment"
    );
    let shown = problem(of_env, Some("whsec_s3cret!"));
    assert!(shown.starts_with("secret_env: what the variable \"ORDERS\" holds is no secret"), "{shown}");
    assert!(!shown.contains("s3cret"));
    let of_file =
        QueueSettings { secret_file: Some("missing/secret".to_owned()), ..QueueSettings::default() };
    assert!(problem(of_file, None).starts_with("secret_file: \"missing/secret\" cannot be read: "));
    let masters = SecretsSettings {
        master_key: Some("s3cret".into()),
        master_key_file_old: Some("missing/key".to_owned()),
        ..SecretsSettings::default()
    };
    let found = Gathering::default().read_masters(&masters);
    assert_eq!(
        found.iter().map(|problem| problem.key).collect::<Vec<_>>(),
        ["master_key", "master_key_file_old"]
    );
    assert!(found[0].detail.contains("openssl rand -base64 32") && !found[0].detail.contains("s3cret"));
}

#[test]
fn secrets_that_are_made_are_secrets() {
    for kind in [SecretKind::Hmac, SecretKind::Ed25519] {
        let made = new_secret(kind).expect("random bytes");
        assert_eq!(read_secret(made.text().expose()), Ok(made.clone()));
        assert_eq!(public_part(&made).is_some(), kind == SecretKind::Ed25519);
        assert_ne!(new_secret(kind), Ok(made));
    }
}
