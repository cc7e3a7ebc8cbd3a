//! The rules that need no address: names and ports. And how any broken rule is told.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::address::AddressKind;

/// The ports below 1024 that messages may be pushed to.
const LOW_PORTS: [u16; 2] = [80, 443];

/// Ports from 1024 on where something listens that obeys whoever reaches it, or that must never be fed HTTP.
///
/// Databases, caches, brokers, the control ports of clusters, remote desktops. Sorted.
const SERVICE_PORTS: [u16; 66] = [
    1099,  // Java RMI, JMX
    1433,  // SQL Server
    1434,  // SQL Server Browser
    1521,  // Oracle
    1883,  // MQTT
    2049,  // NFS
    2181,  // ZooKeeper
    2375,  // Docker
    2376,  // Docker, TLS
    2377,  // Docker Swarm
    2379,  // etcd clients
    2380,  // etcd peers
    3260,  // iSCSI
    3306,  // MySQL
    3389,  // Remote Desktop
    4222,  // NATS
    4369,  // Erlang port mapper
    4505,  // Salt publish
    4506,  // Salt return
    5432,  // PostgreSQL
    5433,  // PostgreSQL, second instance
    5671,  // AMQP, TLS
    5672,  // AMQP
    5800,  // VNC over HTTP
    5900,  // VNC
    5901,  // VNC, second display
    5984,  // CouchDB
    5985,  // WinRM
    5986,  // WinRM, TLS
    6000,  // X11
    6379,  // Redis
    6380,  // Redis, TLS
    6443,  // Kubernetes API
    7000,  // Cassandra between nodes
    7001,  // Cassandra between nodes, TLS
    7199,  // Cassandra JMX
    7473,  // Neo4j, TLS
    7474,  // Neo4j
    7687,  // Neo4j Bolt
    8086,  // InfluxDB
    8125,  // StatsD
    8200,  // Vault
    8300,  // Consul servers
    8301,  // Consul gossip
    8500,  // Consul
    8501,  // Consul, TLS
    8529,  // ArangoDB
    9042,  // Cassandra clients
    9092,  // Kafka
    9093,  // Kafka, TLS
    9160,  // Cassandra Thrift
    9200,  // Elasticsearch
    9300,  // Elasticsearch between nodes
    10250, // kubelet
    10255, // kubelet, read-only
    11211, // memcached
    15672, // RabbitMQ management
    16379, // Redis Cluster bus
    25672, // RabbitMQ between nodes
    26257, // CockroachDB
    26379, // Redis Sentinel
    27017, // MongoDB
    27018, // MongoDB shard
    27019, // MongoDB configuration
    28015, // RethinkDB
    50000, // Db2, Jenkins agents
];

/// Endings of names that only mean something inside somebody's own network.
const INNER_ENDINGS: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// What is wrong with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameRule {
    /// It ends in a dot.
    TrailingDot,
    /// It is, or ends in, a name for this machine or somebody's own network.
    Inner,
    /// It has one label only.
    SingleLabel,
}

/// A rule that a destination breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The name of the host.
    Name(String, NameRule),
    /// The port.
    Port(u16),
    /// An address: the host itself, or what its name resolves to.
    Address(IpAddr, AddressKind),
    /// It is where this gateway itself listens.
    Own(SocketAddr),
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, NameRule::TrailingDot) => write!(formatter, "the name {name:?} ends in a dot"),
            Self::Name(name, NameRule::Inner) => {
                write!(formatter, "the name {name:?} belongs to this machine or an inner network")
            }
            Self::Name(name, NameRule::SingleLabel) => {
                write!(formatter, "the name {name:?} has no dot, so it belongs to an inner network")
            }
            Self::Port(port) if *port < 1024 => {
                write!(formatter, "port {port} is neither 80, 443 nor above 1023")
            }
            Self::Port(port) => {
                write!(formatter, "port {port} belongs to a service that must not be fed messages")
            }
            Self::Own(own) => write!(formatter, "{own} is where this gateway itself listens"),
            Self::Address(address, kind) => {
                let words = match kind {
                    AddressKind::Public => "not the one that was judged",
                    AddressKind::Loopback => "loopback",
                    AddressKind::Private => "private",
                    AddressKind::Reserved(words) | AddressKind::Sensitive(words) => words,
                };
                write!(formatter, "the address {address} is {words}")
            }
        }
    }
}

/// The rule that `name`, in lower case as `url` gives it, breaks.
pub(super) fn of_name(name: &str) -> Option<NameRule> {
    if name.ends_with('.') {
        return Some(NameRule::TrailingDot);
    }
    if INNER_ENDINGS.iter().any(|ending| is_under(name, ending)) {
        return Some(NameRule::Inner);
    }
    (!name.contains('.')).then_some(NameRule::SingleLabel)
}

/// Whether `name` means this machine by its own definition (RFC 6761).
pub(super) fn is_localhost(name: &str) -> bool {
    is_under(name, "localhost")
}

fn is_under(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether messages may be pushed to `port`.
pub(super) fn is_open_port(port: u16) -> bool {
    LOW_PORTS.contains(&port) || (port >= 1024 && SERVICE_PORTS.binary_search(&port).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_ports_are_open_and_those_of_services_are_not() {
        assert!(SERVICE_PORTS.is_sorted(), "the search needs the order");
        for port in
            [80, 443, 1024, 3000, 4000, 5000, 5001, 8000, 8080, 8443, 8888, 9000, 9443, 49_152, 65_535]
        {
            assert!(is_open_port(port), "{port}");
        }
        for port in [0, 1, 21, 22, 23, 25, 53, 79, 81, 110, 389, 442, 444, 445, 631, 853, 1023] {
            assert!(!is_open_port(port), "{port}");
        }
        for port in [2375, 2379, 3306, 5432, 5672, 6379, 6443, 9092, 9200, 10_250, 11_211, 26_379, 27_017] {
            assert!(!is_open_port(port), "{port}");
        }
    }

    #[test]
    fn names_of_inner_networks_are_known_and_look_alikes_are_not() {
        for (name, rule) in [
            ("example.com.", NameRule::TrailingDot),
            ("localhost.", NameRule::TrailingDot),
            ("localhost", NameRule::Inner),
            ("a.localhost", NameRule::Inner),
            ("printer.local", NameRule::Inner),
            ("metadata.google.internal", NameRule::Inner),
            ("nas.home.arpa", NameRule::Inner),
            ("home.arpa", NameRule::Inner),
            ("redis", NameRule::SingleLabel),
        ] {
            assert_eq!(of_name(name), Some(rule), "{name}");
        }
        for name in
            ["example.com", "notlocalhost.com", "local.example", "mylocal.net", "xn--bcher-kva.example"]
        {
            assert_eq!(of_name(name), None, "{name}");
        }
        assert_eq!(of_name("mylocalhost.test"), None);
        assert!(is_localhost("localhost") && is_localhost("a.b.localhost"));
        assert!(!is_localhost("alocalhost") && !is_localhost("localhost.example.com"));
    }
}
