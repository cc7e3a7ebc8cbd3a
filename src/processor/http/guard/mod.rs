//! The egress guard: where messages may be pushed to, so that nobody reaches inner services through the gateway.
//!
//! A destination is judged by its typed host, never by its text, at three points: when it is set, at every connect (the client
//! gets only addresses that passed; one bad address of a name refuses the name), and by the address of the peer once connected.
//!
//! Public addresses pass, on ports 80, 443 and 1024 up less a list of well-known services. `egress.allow` opens more: a network
//! opens its addresses; an origin `scheme://host[:port]` is exempt from the rules for names and ports and may lead to private or
//! loopback addresses. Link-local and metadata addresses need an entry of their very own. `--dev` opens loopback.

mod address;
mod cache;
mod lookup;
mod places;
mod rule;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::time::timeout;
use url::Host;

pub use self::address::AddressKind;
use self::lookup::{Found, Lookups};
pub use self::lookup::{LOOKUP_TIMEOUT, Lookup, LookupError};
pub use self::rule::{NameRule, Rule};
use crate::domain::destination::Destination;
use crate::processor::settings::{Allow, EgressSettings};

/// Broken rules that one refusal tells: a name may have thousands of addresses.
const RULES_TOLD_MAX: usize = 8;

/// How old what a name resolves to may be when it is refused for it: a message that is refused dies, so what was kept for longer
/// is looked up anew.
const REFUSED_AGE_MAX: Duration = Duration::from_secs(3);

/// Judges destinations. Cloning shares the policy and the lookups under way; there is one in a process.
#[derive(Clone)]
pub struct Guard {
    policy: Arc<Policy>,
    lookups: Arc<Lookups>,
}

struct Policy {
    dev: bool,
    origins: HashSet<String>,
    networks: Vec<IpNet>,
    /// Where this gateway listens, once it does.
    own: OnceLock<SocketAddr>,
}

/// What a destination is granted by its origin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Trust {
    /// Nothing: public addresses only.
    Public,
    /// Its origin is in `egress.allow`: private and loopback addresses too.
    Origin,
}

/// A destination that the guard refuses: which rules it breaks, and the line that would allow it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    origin: String,
    rules: Vec<Rule>,
    resolved: bool,
}

/// What the name of an accepted destination resolves to now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Addresses that all passed.
    Resolved,
    /// Nothing, now: a warning for whoever sets the destination, no refusal.
    Unresolved(LookupError),
}

/// Why the client gets no addresses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("the addresses of the name are refused")]
    Refused(Vec<Rule>),
}

impl Guard {
    /// The guard of these settings; `dev` opens loopback.
    #[must_use]
    pub fn new(settings: &EgressSettings, dev: bool) -> Self {
        Self::with_lookup(settings, dev, lookup::system())
    }

    /// The same, with names looked up by `lookup`.
    #[must_use]
    pub fn with_lookup(settings: &EgressSettings, dev: bool, lookup: Lookup) -> Self {
        let mut policy = Policy { dev, origins: HashSet::new(), networks: Vec::new(), own: OnceLock::new() };
        for entry in &settings.allow {
            match entry {
                Allow::Origin(origin) => drop(policy.origins.insert(origin.clone())),
                Allow::Network(network) => policy.networks.push(canonical(*network)),
            }
        }
        Self { policy: Arc::new(policy), lookups: Arc::new(Lookups::new(lookup)) }
    }

    /// Says where this gateway itself listens: nothing is delivered there, whatever `egress.allow` says. The first call counts.
    pub fn listens_at(&self, own: SocketAddr) {
        self.policy.own.get_or_init(|| own);
    }

    /// Judges what can be judged without looking anything up: names, ports and literal addresses.
    ///
    /// # Errors
    /// The rules it breaks.
    pub fn judge_destination(&self, destination: &Destination) -> Result<(), Refusal> {
        self.trust(destination).map(drop)
    }

    /// Judges a destination that is being set, and what its name resolves to now. Waits for at most [`LOOKUP_TIMEOUT`].
    ///
    /// # Errors
    /// The rules it breaks, or those that any of its addresses breaks.
    pub async fn judge_now(&self, destination: &Destination) -> Result<Resolution, Refusal> {
        let trust = self.trust(destination)?;
        let Some(Host::Domain(name)) = destination.url().host() else { return Ok(Resolution::Resolved) };
        self.judge_found(destination, self.look(name, trust, Duration::ZERO).await)
    }

    /// Judges a destination that comes with a message, by what was found lately where something was. Waits for at most `within`:
    /// what a name resolves to that is not known by then, or that does not resolve, is for the delivery to judge.
    ///
    /// # Errors
    /// The rules it breaks, or those that any of its addresses breaks.
    pub async fn judge_soon(&self, destination: &Destination, within: Duration) -> Result<(), Refusal> {
        let trust = self.trust(destination)?;
        let Some(Host::Domain(name)) = destination.url().host() else { return Ok(()) };
        match timeout(within, self.resolve(name, trust)).await {
            Ok(found) => self.judge_found(destination, found).map(drop),
            Err(_) => Ok(()),
        }
    }

    fn judge_found(
        &self,
        destination: &Destination,
        found: Result<Vec<IpAddr>, ResolveError>,
    ) -> Result<Resolution, Refusal> {
        match found {
            Ok(addresses) => {
                let port = destination.url().port_or_known_default().unwrap_or(0);
                let own = addresses.iter().find_map(|address| self.policy.own(*address, port));
                own.map_or(Ok(Resolution::Resolved), |own| Err(Refusal::of_resolved(destination, vec![own])))
            }
            Err(ResolveError::Lookup(error)) => Ok(Resolution::Unresolved(error)),
            Err(ResolveError::Refused(rules)) => Err(Refusal::of_resolved(destination, rules)),
        }
    }

    /// Judges an address that a destination without an exempt origin leads to.
    ///
    /// # Errors
    /// What the address is.
    pub fn judge_address(&self, address: IpAddr) -> Result<(), AddressKind> {
        self.policy.judge_address(address, Trust::Public)
    }

    /// What the destination is granted, if it may be reached at all.
    pub(crate) fn trust(&self, destination: &Destination) -> Result<Trust, Refusal> {
        let (url, origin) = (destination.url(), destination.origin());
        let trust = if self.policy.origins.contains(&origin) { Trust::Origin } else { Trust::Public };
        let port = url.port_or_known_default().unwrap_or(0);
        let mut rules = Vec::new();
        match url.host() {
            Some(Host::Domain(name)) => {
                let exempt = trust == Trust::Origin || (self.policy.dev && rule::is_localhost(name));
                let broken = rule::of_name(name).filter(|_| !exempt);
                rules.extend(broken.map(|broken| Rule::Name(name.to_owned(), broken)));
            }
            Some(Host::Ipv4(address)) => rules.extend(self.policy.broken_at(address.into(), port, trust)),
            Some(Host::Ipv6(address)) => rules.extend(self.policy.broken_at(address.into(), port, trust)),
            None => {}
        }
        if trust == Trust::Public && !rule::is_open_port(port) {
            rules.push(Rule::Port(port));
        }
        if rules.is_empty() { Ok(trust) } else { Err(Refusal { origin, rules, resolved: false }) }
    }

    /// The addresses of `name`, all of which passed. What was found lately is taken, and in need what was found before that,
    /// unless it is refused.
    pub(crate) async fn resolve(&self, name: &str, trust: Trust) -> Result<Vec<IpAddr>, ResolveError> {
        match self.pass(self.lookups.addresses_lately(name).await, trust) {
            Err(ResolveError::Refused(_)) => self.look(name, trust, REFUSED_AGE_MAX).await,
            found => found,
        }
    }

    /// Whether whoever waits for the addresses of the destination waits because too many other names are being looked up.
    pub(crate) fn is_without_place(&self, destination: &Destination) -> bool {
        match destination.url().host() {
            Some(Host::Domain(name)) => self.lookups.is_without_place(name),
            _ => false,
        }
    }

    async fn look(&self, name: &str, trust: Trust, age_max: Duration) -> Result<Vec<IpAddr>, ResolveError> {
        self.pass(self.lookups.addresses(name, age_max).await, trust)
    }

    fn pass(&self, found: Found, trust: Trust) -> Result<Vec<IpAddr>, ResolveError> {
        let addresses = found?;
        let broken = addresses.iter().filter_map(|address| self.policy.broken(*address, trust));
        let rules: Vec<Rule> = broken.take(RULES_TOLD_MAX).collect();
        if !rules.is_empty() {
            return Err(ResolveError::Refused(rules));
        }
        Ok(addresses.iter().map(IpAddr::to_canonical).collect())
    }

    /// Judges the address that a connection really leads to.
    pub(crate) fn judge_peer(
        &self,
        destination: &Destination,
        peer: SocketAddr,
        trust: Trust,
    ) -> Result<(), Refusal> {
        let rules = self.policy.broken_at(peer.ip(), peer.port(), trust);
        if rules.is_empty() { Ok(()) } else { Err(Refusal::of_resolved(destination, rules)) }
    }
}

impl Policy {
    fn broken_at(&self, address: IpAddr, port: u16, trust: Trust) -> Vec<Rule> {
        self.broken(address, trust).into_iter().chain(self.own(address, port)).collect()
    }

    /// The rule that a delivery to this gateway itself breaks. One that listens on every address is known by loopback; by its
    /// other addresses it is known when the delivery comes back, for that names its store.
    fn own(&self, address: IpAddr, port: u16) -> Option<Rule> {
        let own = self.own.get().filter(|own| own.port() == port)?;
        let (address, listens) = (address.to_canonical(), own.ip().to_canonical());
        let is_own = address == listens || (listens.is_unspecified() && address.is_loopback());
        is_own.then_some(Rule::Own(SocketAddr::new(address, port)))
    }

    fn broken(&self, address: IpAddr, trust: Trust) -> Option<Rule> {
        let kind = self.judge_address(address, trust).err()?;
        Some(Rule::Address(address.to_canonical(), kind))
    }

    fn judge_address(&self, address: IpAddr, trust: Trust) -> Result<(), AddressKind> {
        let address = address.to_canonical();
        let kind = AddressKind::of(address);
        let own = || self.networks.contains(&IpNet::from(address));
        let inside = || self.networks.iter().any(|network| network.contains(&address));
        let opened = match kind {
            AddressKind::Public => true,
            AddressKind::Loopback => self.dev || trust == Trust::Origin || inside(),
            AddressKind::Private => trust == Trust::Origin || inside(),
            AddressKind::Reserved(_) => inside(),
            AddressKind::Sensitive(_) => own(),
        };
        if opened { Ok(()) } else { Err(kind) }
    }
}

/// A network in the spelling that addresses are compared in: IPv4 where it was written as `::ffff:…`.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().filter(|_| v6.prefix_len() >= 96);
    v4.and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok()).map_or(network, IpNet::V4)
}

impl Refusal {
    pub(crate) fn of_resolved(destination: &Destination, rules: Vec<Rule>) -> Self {
        Self { origin: destination.origin(), rules, resolved: true }
    }

    /// The rules that are broken, at least one.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether it is refused for what its name resolves to, which may change, and not for what it says.
    #[must_use]
    pub const fn is_by_resolution(&self) -> bool {
        self.resolved
    }

    /// The entries that would allow it; none where nothing does.
    #[must_use]
    pub fn cure(&self) -> Vec<String> {
        let mut entries: Vec<String> = Vec::new();
        if self.rules.iter().any(|rule| matches!(rule, Rule::Own(_))) {
            return entries;
        }
        for rule in &self.rules {
            let entry = match rule {
                Rule::Address(address, AddressKind::Reserved(_) | AddressKind::Sensitive(_)) => {
                    IpNet::from(*address).to_string()
                }
                _ => self.origin.clone(),
            };
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        entries
    }
}

impl fmt::Display for Refusal {
    /// One line, ending in the line of the operator's file that would allow it, if any does.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is refused: ", self.origin)?;
        for (place, rule) in self.rules.iter().enumerate() {
            write!(formatter, "{}{rule}", if place == 0 { "" } else { "; " })?;
        }
        let cure = self.cure();
        if cure.is_empty() {
            return formatter.write_str(". Nothing allows it: publish to the other queue instead");
        }
        write!(formatter, ". The operator's file would allow it with egress.allow = {cure:?}")
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests;
