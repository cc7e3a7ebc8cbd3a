//! Destinations by the dozen: every kind that must be refused, and a control group that must not.

use std::io;

use super::*;
use crate::domain::destination::Destination;

fn guard_of(allow: &[&str], dev: bool) -> Guard {
    let allow = allow.iter().map(|entry| entry.parse().expect(entry)).collect();
    Guard::with_lookup(&EgressSettings { allow }, dev, Arc::new(scripted))
}

/// A resolver as hostile name servers are.
fn scripted(name: &str) -> io::Result<Vec<IpAddr>> {
    let texts: &[&str] = match name {
        "public.example" => &["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"],
        "private.example" => &["10.0.0.7"],
        "mixed.example" => &["93.184.216.34", "1.1.1.1", "127.0.0.1"],
        "mixed6.example" => &["2606:2800:220:1:248:1893:25c8:1946", "::ffff:10.0.0.7"],
        "metadata.example" => &["169.254.169.254"],
        "carrier.example" => &["100.64.0.1", "10.0.0.7"],
        "nat64.example" => &["64:ff9b::7f00:1"],
        "localhost" | "app.localhost" => &["127.0.0.1", "::1"],
        "many.example" => {
            return Ok((0..2_000_u32).map(|low| IpAddr::from((0x6440_0000 + low).to_be_bytes())).collect());
        }
        "empty.example" => &[],
        _ => return Err(io::Error::other("no such name")),
    };
    Ok(texts.iter().map(|text| text.parse().expect(text)).collect())
}

#[tokio::test]
async fn nothing_is_delivered_to_the_gateway_itself_whatever_is_allowed() {
    let allow = [
        "http://127.0.0.1:8080",
        "http://localhost:8080",
        "http://private.example:8080",
        "10.0.0.0/8",
        "::1",
    ];
    for (own, refused, allowed) in [
        (
            "127.0.0.1:8080",
            &["http://127.0.0.1:8080/", "http://127.1:8080/", "http://localhost:8080/"][..],
            &["http://127.0.0.1:8081/", "http://private.example:8080/"][..],
        ),
        (
            "0.0.0.0:8080",
            &["http://127.0.0.1:8080/", "http://[::ffff:127.0.0.1]:8080/", "http://localhost:8080/"],
            &["http://private.example:8080/"],
        ),
        ("[::]:8080", &["http://127.0.0.1:8080/", "http://[::1]:8080/", "http://localhost:8080/"], &[]),
        (
            "10.0.0.7:8080",
            &["http://10.0.0.7:8080/", "http://private.example:8080/"],
            &["http://10.0.0.8:8080/"],
        ),
    ] {
        let guard = guard_of(&allow, true);
        guard.listens_at(own.parse().expect(own));
        for text in refused {
            let refusal = guard.judge_now(&destination(text)).await.expect_err(text);
            assert!(refusal.cure().is_empty(), "{own}: {text}");
            assert!(refusal.to_string().ends_with("is where this gateway itself listens. Nothing allows it: publish to the other queue instead"), "{refusal}");
        }
        for text in allowed {
            assert_eq!(guard.judge_now(&destination(text)).await, Ok(Resolution::Resolved), "{own}: {text}");
        }
        let peer =
            guard.judge_peer(&destination("https://public.example/"), own.parse().expect(own), Trust::Origin);
        peer.expect_err("a connection that came out at the gateway itself");
    }
}

#[tokio::test]
async fn a_publish_waits_for_a_name_only_so_long_and_judges_the_rest_at_once() {
    let guard = Guard::with_lookup(
        &EgressSettings::default(),
        false,
        Arc::new(|name| match name {
            "slow.example" => {
                std::thread::sleep(Duration::from_millis(300));
                Ok(vec![IpAddr::from([10, 0, 0, 7])])
            }
            _ => scripted(name),
        }),
    );
    let soon = Duration::from_secs(1);
    let judge = |text: &'static str, within| {
        let guard = guard.clone();
        async move { guard.judge_soon(&destination(text), within).await }
    };
    assert_eq!(judge("http://public.example/", soon).await, Ok(()));
    assert_eq!(judge("http://unknown.example/", soon).await, Ok(()), "it may resolve by its turn");
    assert_eq!(judge("http://1.1.1.1/", Duration::ZERO).await, Ok(()));
    judge("http://10.0.0.7/", Duration::ZERO).await.expect_err("what it says needs no look");
    judge("http://mixed.example/", soon).await.expect_err("one bad address");
    judge("http://mixed.example/", Duration::ZERO).await.expect_err("it is known");
    assert_eq!(judge("http://slow.example/", Duration::ZERO).await, Ok(()), "nobody waits");
    judge("http://slow.example/", Duration::from_secs(30)).await.expect_err("known in the end");
}

#[tokio::test]
async fn a_name_is_refused_for_what_it_is_now_and_not_for_what_it_was() {
    let answers = Arc::new(std::sync::Mutex::new(IpAddr::from([10, 0, 0, 7])));
    let current = answers.clone();
    let lookup: Lookup = Arc::new(move |_| Ok(vec![*current.lock().expect("unbroken")]));
    let guard = Guard::with_lookup(&EgressSettings::default(), false, lookup);
    let resolve = || guard.resolve("moves.example", Trust::Public);
    resolve().await.expect_err("private");
    *answers.lock().expect("unbroken") = IpAddr::from([1, 1, 1, 1]);
    resolve().await.expect_err("it is not asked for again at once");
    tokio::time::pause();
    tokio::time::advance(REFUSED_AGE_MAX + Duration::from_millis(2)).await;
    tokio::time::resume();
    assert_eq!(resolve().await, Ok(vec![IpAddr::from([1, 1, 1, 1])]));
    *answers.lock().expect("unbroken") = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(
        resolve().await,
        Ok(vec![IpAddr::from([1, 1, 1, 1])]),
        "what was judged is what is connected to"
    );
    guard
        .judge_now(&destination("http://moves.example/"))
        .await
        .expect_err("who sets it is told what is now");
    resolve().await.expect_err("and so is everybody from then on");
}

fn destination(text: &str) -> Destination {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What one must never reach: spelled every way that `url` understands.
const REFUSED: [&str; 93] = [
    // Loopback: decimal, octal, hexadecimal, short, full-width, percent-encoded, with every port and scheme.
    "http://127.0.0.1/",
    "https://127.0.0.1/",
    "http://127.0.0.1:8080/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://0x7f.0x0.0x0.0x1/",
    "http://0177.0.0.01/",
    "http://127.0.0.1./",
    "http://127.255.255.254/",
    "http://１２７.０.０.１/",
    "http://127。0。0。1/",
    "http://%31%32%37.0.0.1/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    // This network, and what Linux takes for this machine.
    "http://0.0.0.0/",
    "http://0/",
    "http://0x0/",
    "http://[::]/",
    "http://[::ffff:0.0.0.0]/",
    // Private networks.
    "http://10.0.0.1/",
    "http://167772161/",
    "http://0xa000001/",
    "http://012.0.0.1/",
    "http://10.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://3232235777/",
    "http://0xc0a80101/",
    "http://[fc00::1]/",
    "http://[fd12:3456:789a::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:c0a8:101]/",
    // Metadata and link-local.
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://169.254.1.1/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://[fd00:ec2::254]/",
    "http://[fd20:ce::254]/",
    "http://[fe80::1]/",
    // Carriers, documentation, benchmarks, multicast, reserved.
    "http://100.64.0.1/",
    "http://192.0.0.1/",
    "http://192.0.2.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://198.18.0.1/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[100::1]/",
    "http://[2001:db8::1]/",
    "http://[5f00::1]/",
    "http://[3fff::1]/",
    // IPv4 inside IPv6.
    "http://[::8.8.8.8]/",
    "http://[64:ff9b::8.8.8.8]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:808:808::1]/",
    "http://[2a00::5efe:10.0.0.1]/",
    "http://[::ffff:0:10.0.0.1]/",
    // Names.
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://a.localhost/",
    "http://printer.local/",
    "http://metadata.google.internal/",
    "http://nas.home.arpa/",
    "http://redis/",
    "http://public.example./",
    "http://ｌocalhost/",
    // Ports.
    "http://public.example:22/",
    "http://public.example:25/",
    "http://public.example:6379/",
    "https://public.example:2375/",
    "http://93.184.216.34:11211/",
    "http://[2606:2800:220:1:248:1893:25c8:1946]:27017/",
];

const CONTROL: [&str; 18] = [
    "http://public.example/",
    "https://public.example/hook?a=1",
    "http://public.example:80/",
    "https://public.example:8443/",
    "http://PUBLIC.example:3000/",
    "http://public.example:65535/",
    "http://1.1.1.1/",
    "https://93.184.216.34/",
    "http://134744072/",
    "http://0x08080808/",
    "http://[2606:4700:4700::1111]/",
    "http://[2606:4700:4700::1111]:8080/",
    "http://[::ffff:8.8.8.8]/",
    "http://172.32.0.1/",
    "http://100.128.0.1/",
    "http://xn--bcher-kva.example/",
    "http://bücher.example/",
    "http://localhost.example.com/",
];

#[test]
fn what_must_never_be_reached_is_refused_in_every_spelling() {
    let guard = guard_of(&[], false);
    for text in REFUSED {
        let refusal = guard.judge_destination(&destination(text)).expect_err(text);
        assert!(!refusal.rules().is_empty() && !refusal.is_by_resolution(), "{text}");
    }
}

#[test]
fn public_destinations_pass() {
    let guard = guard_of(&[], false);
    for text in CONTROL {
        assert_eq!(guard.judge_destination(&destination(text)), Ok(()), "{text}");
    }
}

#[test]
fn what_is_no_destination_does_not_even_reach_the_guard() {
    for text in [
        "ftp://public.example/",
        "file:///etc/passwd",
        "gopher://public.example/",
        "data:text/plain,x",
        "javascript:alert(1)",
        "http://user@public.example/",
        "http://:pass@public.example/",
        "http://public.example/#f",
        "http://public.example:0/",
        "http://",
        "http:///",
        "//public.example/",
        "http://public.example:99999/",
        "http://[::1",
        "http://1.2.3.4.5/",
        "http://256.256.256.256/",
        "http://[fe80::1%25eth0]/",
    ] {
        assert!(text.parse::<Destination>().is_err(), "{text}");
    }
    assert!(format!("http://public.example/{}", "a".repeat(2_048)).parse::<Destination>().is_err());
}

#[test]
fn every_refusal_prints_the_line_that_would_allow_it() {
    let guard = guard_of(&[], false);
    for text in REFUSED {
        let refused = destination(text);
        let refusal = guard.judge_destination(&refused).expect_err(text);
        let line = refusal.to_string();
        let (_, line) = line.split_once("egress.allow = ").expect(&line);
        let entries: Vec<String> = serde_json::from_str(line).expect(line);
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        assert_eq!(guard_of(&entries, false).judge_destination(&refused), Ok(()), "{text}: {line}");
    }
    let refusal =
        guard.judge_destination(&destination("http://localhost:9000/a?token=s")).expect_err("refused");
    assert_eq!(
        refusal.to_string(),
        "http://localhost:9000 is refused: the name \"localhost\" belongs to this machine or an inner network. \
         The operator's file would allow it with egress.allow = [\"http://localhost:9000\"]"
    );
    let refusal = guard.judge_destination(&destination("http://169.254.169.254:22/")).expect_err("refused");
    assert_eq!(refusal.cure(), ["169.254.169.254/32", "http://169.254.169.254:22"]);
}

#[test]
fn an_origin_opens_its_name_its_port_and_private_addresses_and_nothing_else() {
    let guard = guard_of(
        &["http://redis:6379", "http://10.0.0.7:81", "http://169.254.169.254", "https://[::1]"],
        false,
    );
    for text in ["http://redis:6379/", "http://10.0.0.7:81/x", "https://[::1]/"] {
        assert_eq!(guard.judge_destination(&destination(text)), Ok(()), "{text}");
    }
    for text in [
        "http://redis/",
        "https://redis:6379/",
        "http://redis:6380/",
        "http://10.0.0.7/",
        "http://10.0.0.8:81/",
        "http://169.254.169.254/",
        "http://[::1]/",
    ] {
        guard.judge_destination(&destination(text)).expect_err(text);
    }
}

#[test]
fn a_network_opens_its_addresses_but_neither_ports_nor_metadata() {
    let guard = guard_of(&["0.0.0.0/0", "::/0"], false);
    for text in
        ["http://10.0.0.7/", "http://127.0.0.1:8080/", "http://100.64.0.1/", "http://[64:ff9b::8.8.8.8]/"]
    {
        assert_eq!(guard.judge_destination(&destination(text)), Ok(()), "{text}");
    }
    for text in [
        "http://10.0.0.7:22/",
        "http://169.254.169.254/",
        "http://169.254.1.1/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://100.100.100.200/",
        "http://localhost/",
    ] {
        guard.judge_destination(&destination(text)).expect_err(text);
    }
    let own = guard_of(&["169.254.169.254", "fd00:ec2::254/128", "::ffff:10.0.0.0/104"], false);
    for text in [
        "http://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://10.1.1.1/",
    ] {
        assert_eq!(own.judge_destination(&destination(text)), Ok(()), "{text}");
    }
    own.judge_destination(&destination("http://169.254.169.253/")).expect_err("another address");
}

#[test]
fn dev_opens_loopback_and_only_loopback() {
    let guard = guard_of(&[], true);
    for text in [
        "http://localhost:9000/",
        "http://app.localhost/",
        "http://127.0.0.1:3000/",
        "http://[::1]:3000/",
        "http://127.1/",
    ] {
        assert_eq!(guard.judge_destination(&destination(text)), Ok(()), "{text}");
    }
    for text in [
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://169.254.169.254/",
        "http://redis/",
        "http://localhost:6379/",
        "http://localhost./",
    ] {
        guard.judge_destination(&destination(text)).expect_err(text);
    }
}

#[tokio::test]
async fn one_bad_address_refuses_the_name() {
    let guard = guard_of(&[], false);
    for name in ["private", "mixed", "mixed6", "metadata", "carrier", "nat64"] {
        let refused = destination(&format!("https://{name}.example/hook"));
        assert_eq!(
            guard.judge_destination(&refused),
            Ok(()),
            "{name}: nothing to object to before it resolves"
        );
        let refusal = guard.judge_now(&refused).await.expect_err(name);
        assert!(refusal.is_by_resolution());
        let cured = refusal.cure();
        let cured: Vec<&str> = cured.iter().map(String::as_str).collect();
        assert_eq!(
            guard_of(&cured, false).judge_now(&refused).await,
            Ok(Resolution::Resolved),
            "{name}: {cured:?}"
        );
    }
    let refusal =
        guard.judge_now(&destination("https://mixed.example/")).await.expect_err("refused").to_string();
    assert!(refusal.contains("the address 127.0.0.1 is loopback"), "{refusal}");
    assert!(refusal.ends_with("egress.allow = [\"https://mixed.example\"]"), "{refusal}");
}

#[tokio::test]
async fn what_does_not_resolve_now_is_a_warning_and_not_a_refusal() {
    let guard = guard_of(&[], true);
    let judged = |text: &'static str| {
        let guard = guard.clone();
        async move { guard.judge_now(&destination(text)).await }
    };
    assert_eq!(judged("http://public.example/").await, Ok(Resolution::Resolved));
    assert_eq!(judged("http://localhost:9000/").await, Ok(Resolution::Resolved));
    assert_eq!(judged("http://1.1.1.1/").await, Ok(Resolution::Resolved));
    for text in ["http://unknown.example/", "http://empty.example/"] {
        assert!(matches!(judged(text).await, Ok(Resolution::Unresolved(_))), "{text}");
    }
}

#[tokio::test]
async fn a_name_with_thousands_of_bad_addresses_makes_a_short_refusal() {
    let refusal =
        guard_of(&[], false).judge_now(&destination("http://many.example/")).await.expect_err("refused");
    assert_eq!(refusal.rules().len(), RULES_TOLD_MAX);
    assert!(refusal.to_string().len() < 1_000);
}

#[tokio::test]
async fn the_origin_that_is_exempt_lends_nothing_to_another_port_of_the_same_name() {
    let guard = guard_of(&["http://private.example:9000"], false);
    assert_eq!(guard.judge_now(&destination("http://private.example:9000/")).await, Ok(Resolution::Resolved));
    guard.judge_now(&destination("http://private.example:9001/")).await.expect_err("another origin");
}

#[test]
fn the_peer_of_a_connection_is_judged_like_any_address() {
    let guard = guard_of(&["http://private.example"], false);
    let public = destination("https://public.example/");
    let peer = |text: &str, trust| {
        let address: IpAddr = text.parse().expect(text);
        guard.judge_peer(&public, SocketAddr::new(address, 443), trust)
    };
    assert_eq!(peer("93.184.216.34", Trust::Public), Ok(()));
    assert_eq!(peer("10.0.0.7", Trust::Origin), Ok(()));
    assert!(
        peer("10.0.0.7", Trust::Public).expect_err("refused").to_string().contains("10.0.0.7 is private")
    );
    assert!(guard.judge_address("8.8.8.8".parse().expect("an address")).is_ok());
    assert_eq!(guard.judge_address("127.0.0.1".parse().expect("an address")), Err(AddressKind::Loopback));
}
