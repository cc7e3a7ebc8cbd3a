//! What an IP address is: the tables of the egress guard.
//!
//! Sources: the IANA special-purpose registries of IPv4 and IPv6 (RFC 6890 and its updates), RFC 6052 (NAT64), RFC 3056
//! (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP), and the documents of the clouds for their metadata services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, as far as the guard cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressKind {
    /// Global unicast: anybody's server.
    Public,
    /// This machine.
    Loopback,
    /// Somebody's own network.
    Private,
    /// Of a range that no public server has; in words.
    Reserved(&'static str),
    /// Link-local, or one that clouds serve credentials from: only an entry of its very own allows it; in words.
    Sensitive(&'static str),
}

use AddressKind::{Loopback, Private, Public, Reserved, Sensitive};

const METADATA: AddressKind = Sensitive("a metadata address, from which clouds serve credentials");
const LINK_LOCAL: AddressKind = Sensitive("link-local");
const DOCUMENTATION: AddressKind = Reserved("a documentation address");
const SPECIAL: AddressKind = Reserved("kept for protocols");

/// First match wins; what no row has is public.
const V4: [(Ipv4Addr, u32, AddressKind); 21] = [
    (Ipv4Addr::new(168, 63, 129, 16), 32, METADATA),
    (Ipv4Addr::new(169, 254, 169, 254), 32, METADATA),
    (Ipv4Addr::new(100, 100, 100, 200), 32, METADATA),
    (Ipv4Addr::new(192, 0, 0, 192), 32, METADATA),
    (Ipv4Addr::new(169, 254, 0, 0), 16, LINK_LOCAL),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Loopback),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Private),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Private),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Private),
    (Ipv4Addr::UNSPECIFIED, 8, Reserved("of the range \"this network\"")),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Reserved("a carrier's own (CGNAT)")),
    (Ipv4Addr::new(192, 0, 0, 0), 24, SPECIAL),
    (Ipv4Addr::new(192, 0, 2, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(198, 51, 100, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(203, 0, 113, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(233, 252, 0, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Reserved("a 6to4 relay")),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Reserved("a benchmark address")),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Reserved("multicast")),
    (Ipv4Addr::BROADCAST, 32, Reserved("broadcast")),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Reserved("reserved")),
];

/// First match wins; what no row has is public inside `2000::/3` and reserved outside.
const V6: [(Ipv6Addr, u32, AddressKind); 16] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, LINK_LOCAL),
    (Ipv6Addr::LOCALHOST, 128, Loopback),
    (Ipv6Addr::UNSPECIFIED, 128, Reserved("no address at all")),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Reserved("site-local, which is no more")),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Private),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Reserved("multicast")),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, Reserved("discard-only")),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, DOCUMENTATION),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, DOCUMENTATION),
    (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48, Reserved("a benchmark address")),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, SPECIAL),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, Reserved("of a test network that is no more")),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, Reserved("a segment identifier")),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, Public),
];

impl AddressKind {
    /// What `address` is; an IPv4 address written as IPv6 (`::ffff:…`) is judged as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let bits = address.to_bits();
        let inside =
            |(network, length, _): &&(Ipv4Addr, u32, Self)| (bits ^ network.to_bits()) >> (32 - length) == 0;
        V4.iter().find(inside).map_or(Public, |row| row.2)
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let bits = address.to_bits();
        let inside =
            |(network, length, _): &&(Ipv6Addr, u32, Self)| (bits ^ network.to_bits()) >> (128 - length) == 0;
        let kind = V6.iter().find(inside).map_or(Reserved("not global unicast"), |row| row.2);
        let settled = matches!(kind, Sensitive(_) | Loopback) || address.is_unspecified();
        match embedded(address) {
            Some((form, hidden)) if !settled => {
                let sensitive = hidden.iter().any(|hidden| matches!(Self::of_v4(*hidden), Sensitive(_)));
                if sensitive { Sensitive(form) } else { Reserved(form) }
            }
            _ => kind,
        }
    }
}

/// The IPv4 addresses that an IPv6 address may stand for, and the form that hides them.
///
/// More than one where the form leaves open where it hides them: each is a possible target.
fn embedded(address: Ipv6Addr) -> Option<(&'static str, Vec<Ipv4Addr>)> {
    let b = address.octets();
    let at = |place: [usize; 4]| Ipv4Addr::from(place.map(|place| b[place]));
    let tail = || at([12, 13, 14, 15]);
    match address.segments() {
        [0, 0, 0, 0, 0, 0, ..] => Some(("an IPv4-compatible address", vec![tail()])),
        [0, 0, 0, 0, 0xffff, 0, ..] => Some(("an IPv4-translated address", vec![tail()])),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(("a NAT64 address", vec![tail()])),
        [0x64, 0xff9b, 1, ..] => {
            // RFC 6052 lets the operator choose the prefix length; bits 64 to 71 are left out.
            let places = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
            Some(("a local NAT64 address", places.map(at).to_vec()))
        }
        [0x2002, ..] => Some(("a 6to4 address", vec![at([2, 3, 4, 5])])),
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from_bits(!tail().to_bits());
            Some(("a Teredo address", vec![at([4, 5, 6, 7]), client]))
        }
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some(("an ISATAP address", vec![tail()])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> AddressKind {
        AddressKind::of(text.parse().expect(text))
    }

    #[test]
    fn public_addresses_are_public_up_to_the_edges_of_every_range() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2a00:1450:4001:81b::200e",
            "3ffd::1",
            "2620:fe::fe",
        ] {
            assert_eq!(kind(text), Public, "{text}");
        }
    }

    #[test]
    fn private_and_loopback_ranges_are_known_to_their_edges() {
        for text in
            ["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"]
        {
            assert_eq!(kind(text), Private, "{text}");
            assert_eq!(kind(&format!("::ffff:{text}")), Private, "{text}");
        }
        for text in ["fc00::", "fc00::1", "fd00:ec2::253", "fdff:ffff::1"] {
            assert_eq!(kind(text), Private, "{text}");
        }
        for text in ["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(kind(text), Loopback, "{text}");
        }
    }

    #[test]
    fn what_no_public_server_has_is_reserved() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.7",
            "192.88.99.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "233.252.0.1",
            "::",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "3fff:fff::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff::1",
            "3ffe::1",
            "5f00::1",
            "4000::1",
            "1::1",
            "e000::1",
            "fe00::1",
            "64:ff9b:2::1",
            "100:0:0:1::1",
        ] {
            assert!(matches!(kind(text), Reserved(_)), "{text}: {:?}", kind(text));
        }
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_is_never_public() {
        for (text, form) in [
            ("::8.8.8.8", "IPv4-compatible"),
            ("::2", "IPv4-compatible"),
            ("::ffff:0:8.8.8.8", "IPv4-translated"),
            ("64:ff9b::8.8.8.8", "NAT64"),
            ("64:ff9b::10.0.0.1", "NAT64"),
            ("64:ff9b:1::8.8.8.8", "local NAT64"),
            ("2002:808:808::1", "6to4"),
            ("2002:7f00:1::1", "6to4"),
            ("2001:0:5ef5:79fd::1", "Teredo"),
            ("2a00::5efe:8.8.8.8", "ISATAP"),
            ("2a00::200:5efe:10.0.0.1", "ISATAP"),
        ] {
            assert!(
                matches!(kind(text), Reserved(words) if words.contains(form)),
                "{text}: {:?}",
                kind(text)
            );
        }
    }

    #[test]
    fn metadata_and_link_local_addresses_are_sensitive_however_they_are_hidden() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fe80::1",
            "febf::1",
            "fe80::5efe:8.8.8.8",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00::",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::1",
            "2001:0:808:808::5601:5601",
            "2a00::5efe:169.254.169.254",
            "64:ff9b::168.63.129.16",
        ] {
            assert!(matches!(kind(text), Sensitive(_)), "{text}: {:?}", kind(text));
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_the_same_thing_in_its_ipv6_spelling(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let mapped = IpAddr::V6(address.to_ipv6_mapped());
            prop_assert_eq!(AddressKind::of(mapped), AddressKind::of(IpAddr::V4(address)));
        }

        #[test]
        fn nothing_outside_global_unicast_is_public(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let public = AddressKind::of(IpAddr::V6(address)) == Public;
            let mapped = address.to_ipv4_mapped().is_some();
            prop_assert!(!public || bits >> 125 == 1 || mapped);
        }
    }
}
