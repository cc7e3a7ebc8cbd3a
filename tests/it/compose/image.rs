//! The image: what is copied exists and reaches the build, what is called is the binary, and nobody is root.

use std::collections::BTreeSet;
use std::path::Path;

use super::{SETTINGS, assert_known, check_settings, is_within, read, root, settings};

const DOCKERFILE: &str = "deploy/Dockerfile";
/// Where the image has the binary.
pub(super) const BINARY: &str = "/usr/local/bin/posthaste";

/// An instruction: its name and the rest, joined where a line ends with a backslash.
fn instructions() -> Vec<(String, String)> {
    let text = read(DOCKERFILE);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty());
    let split =
        |line: &str| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()));
    lines.map(|line| split(line).unwrap_or_else(|| panic!("no instruction: {line}"))).collect()
}

/// The instructions of a stage.
fn stage(name: &str) -> Vec<(String, String)> {
    let all = instructions();
    let mut rest = all.into_iter().skip_while(|(_, rest)| !rest.ends_with(&format!(" AS {name}")));
    let from = rest.next().unwrap_or_else(|| panic!("no stage {name}"));
    std::iter::once(from).chain(rest.take_while(|(instruction, _)| instruction != "FROM")).collect()
}

/// The only instruction of that name.
fn only<'a>(stage: &'a [(String, String)], name: &str) -> &'a str {
    let mut found = stage.iter().filter(|(instruction, _)| instruction == name);
    let (Some((_, rest)), None) = (found.next(), found.next()) else { panic!("{name}: not one: {stage:?}") };
    rest
}

/// The words of the exec form: a JSON array, so that no shell stands between.
fn words(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is not the exec form: {error}"))
}

/// What is copied from the repository.
fn copied() -> Vec<String> {
    let copies = instructions().into_iter().filter(|(name, rest)| name == "COPY" && !rest.contains("--from"));
    copies
        .flat_map(|(_, rest)| {
            let mut words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            words.pop();
            words
        })
        .collect()
}

#[test]
fn what_is_copied_exists_and_nothing_else_goes_to_the_build() {
    let copied: BTreeSet<String> = copied().into_iter().collect();
    for path in &copied {
        assert!(root().join(path).exists(), "{path} is copied");
    }
    let ignore = read(".dockerignore");
    let lines: Vec<&str> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*", "everything is left out first");
    let let_through =
        lines[1..].iter().map(|line| line.strip_prefix('!').unwrap_or_else(|| panic!("{line}")));
    assert_eq!(let_through.map(str::to_owned).collect::<BTreeSet<String>>(), copied);
}

/// The files below a folder of the repository.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_file_that_is_compiled_in_is_copied() {
    let copied = copied();
    let mut sources = Vec::new();
    files(&root().join("src"), &mut sources);
    let mut included = 0;
    for source in sources.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(source).expect("a source");
        for part in ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|call| text.split(call).skip(1))
        {
            let path = source.parent().expect("a folder").join(part.split('"').next().expect("a path"));
            let path = path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path =
                path.strip_prefix(root().canonicalize().expect("the root")).expect("within").to_owned();
            let path = path.to_str().expect("a name");
            assert!(copied.iter().any(|folder| is_within(path, folder)), "{path} is not copied");
            included += 1;
        }
    }
    assert!(included > 0, "the default settings are compiled in");
}

#[test]
fn the_image_runs_the_gateway_as_nobody_in_particular() {
    let gateway = stage("gateway");
    assert_eq!(
        instructions().iter().rfind(|(name, _)| name == "FROM"),
        gateway.first(),
        "it is what is built"
    );
    assert_eq!(words(only(&gateway, "ENTRYPOINT")), [BINARY]);
    let command = words(only(&gateway, "CMD"));
    assert_eq!(command, ["serve", "--config", SETTINGS]);
    assert_known(&command.iter().map(String::as_str).collect::<Vec<&str>>());
    let (_, check) = only(&gateway, "HEALTHCHECK").split_once("CMD ").expect("a command");
    let check = words(check);
    assert_eq!(check[0], BINARY);
    assert_known(&check[1..].iter().map(String::as_str).collect::<Vec<&str>>());
    assert_eq!(only(&gateway, "STOPSIGNAL"), "SIGTERM");
    assert!(
        gateway.contains(&("COPY".into(), format!("--from=build /build/target/release/posthaste {BINARY}")))
    );
    for stage in [&gateway, &stage("loadtest")] {
        let user = only(stage, "USER");
        let (user, group) = user.split_once(':').expect("a user and a group");
        assert!(
            user.parse::<u32>().is_ok_and(|id| id > 0) && group.parse::<u32>().is_ok_and(|id| id > 0),
            "{user}"
        );
    }
}

#[test]
fn the_image_builds_with_the_oldest_rust_and_runs_on_the_debian_it_was_built_on() {
    let build = stage("build");
    let from = only(&build, "FROM");
    let manifest: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let rust = manifest["package"]["rust-version"].as_str().expect("a version");
    assert!(from.starts_with(&format!("rust:{rust}-slim-bookworm ")), "{from}: Cargo.toml says {rust}");
    let runs_on = stage("gateway");
    assert!(only(&runs_on, "FROM").contains("debian12"), "bookworm is Debian 12");
    let builds =
        build.iter().filter(|(name, rest)| name == "RUN" && rest.contains("cargo build --locked --release"));
    assert_eq!(builds.count(), 2, "the dependencies in a layer of their own, then the rest");
    let before_the_first =
        build.iter().take_while(|(name, _)| name != "RUN").filter(|(name, _)| name == "COPY");
    let copied: Vec<&str> = before_the_first.map(|(_, rest)| rest.as_str()).collect();
    assert_eq!(copied, ["Cargo.toml Cargo.lock ./"], "a change of a source builds no dependency again");
}

#[test]
fn the_image_keeps_messages_in_its_volume_and_refuses_to_be_open_by_accident() {
    let gateway = stage("gateway");
    assert_eq!(words(only(&gateway, "VOLUME")), ["/data"]);
    let copies: Vec<&str> =
        gateway.iter().filter(|(name, _)| name == "COPY").map(|(_, rest)| rest.as_str()).collect();
    let user = only(&gateway, "USER");
    assert!(
        copies.contains(&format!("--from=build --chown={user} /build/data /data").as_str()),
        "{copies:?}"
    );
    let file = copies.iter().find_map(|copy| copy.strip_suffix(SETTINGS)).expect("its settings").trim();
    let refused = check_settings(file, &[]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("insecure_no_auth"), "{refused:?}");
    let sound = check_settings(file, &[("POSTHASTE__SERVER__INSECURE_NO_AUTH", "true")]);
    assert_eq!(sound.code, Some(0), "{sound:?}");
    let port = only(&gateway, "EXPOSE");
    let opened: toml::Table = read(file).parse().expect("settings");
    assert_eq!(opened["server"]["listen"].as_str(), Some(format!("0.0.0.0:{port}").as_str()));
    assert_eq!(opened["store"]["url"].as_str(), Some("sqlite:/data/posthaste.db"));
    let by_default = settings("config/default.toml")["server"]["listen"].clone();
    assert_eq!(by_default, format!("127.0.0.1:{port}"), "`posthaste ready` asks there unless told otherwise");
}
