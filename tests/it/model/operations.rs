//! The operations of the model test, and how they are drawn.

use std::time::Duration;

use posthaste::domain::message::{Headers, Priority};
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::queue::{ParkReason, QueueSettings, WhenFull};
use posthaste::domain::retry::Verdict;
use posthaste::store::Hold;
use posthaste::store::enqueue::Due;
use posthaste::store::lease::LeaseKind;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::conformance::stand::{Draft, plain_settings, seconds};

/// Queues that an operation may name.
pub(super) const QUEUES: [&str; 3] = ["a", "b", "c"];

/// A queue as an operation names it: by number, and whether as it is now or as it was before it was last deleted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) queue: usize,
    pub(super) old: bool,
}

/// Something that was made before: mostly one of the last few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    index: Index,
    recent: bool,
}

impl Past {
    /// The one that is meant; `None` when there is none yet.
    pub(super) fn of<T>(self, all: &[T]) -> Option<&T> {
        let few = if self.recent { &all[all.len().saturating_sub(4)..] } else { all };
        (!few.is_empty()).then(|| self.index.get(few))
    }
}

/// One settlement to send.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) place: u16,
    pub(super) verdict: Verdict,
    pub(super) status: Option<u16>,
}

/// One group to publish.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) queue: Pick,
    pub(super) key: Option<(u8, u8)>,
    pub(super) drafts: Vec<Draft>,
}

/// Which dead letters are meant: some of all messages ever published, or all.
#[derive(Clone, Debug)]
pub(super) enum Chosen {
    Messages(Vec<Past>),
    All,
    Reason(DeadReason),
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// What others shrink to.
    Nothing,
    Enqueue(Vec<Offer>),
    EnqueueAgain,
    Lease {
        queue: Pick,
        kind: LeaseKind,
        max: u16,
        bytes_max: u64,
        lease: Duration,
        suspects: bool,
    },
    LeaseAgain(Past),
    Settle {
        batch: Past,
        wrong: bool,
        sent: Vec<Sent>,
    },
    SettleAll {
        batch: Past,
        verdict: Verdict,
    },
    Extend {
        batch: Past,
        wrong: bool,
        lease: Duration,
    },
    Sweep,
    Advance(Duration),
    Jump {
        back: bool,
        span: Duration,
    },
    Find(Past),
    Cancel(Past),
    Promote(Vec<(Past, u8)>),
    Purge(Pick),
    Hold {
        queue: Pick,
        hold: Hold,
    },
    Replay {
        queue: Pick,
        chosen: Chosen,
        dry_run: bool,
    },
    Discard {
        queue: Pick,
        chosen: Chosen,
    },
    Put {
        queue: usize,
        settings: Box<QueueSettings>,
    },
    Delete {
        queue: Pick,
        force: bool,
    },
    Browse(Pick),
    Restart,
}

fn pick() -> impl Strategy<Value = Pick> {
    (prop_oneof![10 => Just(0_usize), 3 => Just(1), 1 => Just(2)], prop::bool::weighted(0.03))
        .prop_map(|(queue, old)| Pick { queue, old })
}

fn past() -> impl Strategy<Value = Past> {
    (any::<Index>(), prop::bool::weighted(0.75)).prop_map(|(index, recent)| Past { index, recent })
}

fn delay() -> impl Strategy<Value = Duration> {
    prop_oneof![3 => Just(0_u64), 2 => 1_u64..20_000, 1 => 20_000_u64..200_000]
        .prop_map(Duration::from_millis)
}

fn draft() -> impl Strategy<Value = Draft> {
    let due = prop_oneof![
        6 => Just(Due::Now),
        3 => delay().prop_map(Due::After),
        1 => (0_u64..100).prop_map(|count| Due::At(crate::conformance::stand::START.saturating_add(seconds(count)))),
    ];
    let priority = prop::sample::select(Priority::ALL.to_vec());
    let ttl = prop_oneof![4 => Just(None), 1 => (1_u64..90).prop_map(|count| Some(seconds(count)))];
    (priority, 1_u8..5, ttl, due, 0_usize..40).prop_map(|(priority, attempts_max, ttl, due, bytes)| Draft {
        priority,
        attempts_max,
        ttl,
        due,
        headers: Headers::default(),
        payload: vec![b'm'; bytes],
    })
}

fn offer() -> impl Strategy<Value = Offer> {
    let key = prop::option::weighted(0.3, (0_u8..5, 0_u8..2));
    (pick(), key, prop::collection::vec(draft(), 1..6)).prop_map(|(queue, key, drafts)| Offer {
        queue,
        key,
        drafts,
    })
}

/// Many without options, of one kind: what Redis appends by itself.
fn plenty() -> impl Strategy<Value = Offer> {
    let plain = (prop::sample::select(Priority::ALL.to_vec()), 0_usize..40);
    let plain = plain.prop_map(|(priority, bytes)| Draft {
        priority,
        attempts_max: 3,
        ttl: None,
        due: Due::Now,
        headers: Headers::default(),
        payload: vec![b'm'; bytes],
    });
    (pick(), plain, 24_usize..32).prop_map(|(queue, draft, count)| Offer {
        queue,
        key: None,
        drafts: vec![draft; count],
    })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let reason =
        prop::sample::select(vec![DeadReason::Rejected, DeadReason::Exhausted, DeadReason::Undeliverable]);
    let detail = prop::option::of(Just("because".to_owned()));
    prop_oneof![
        4 => Just(Verdict::Ack),
        4 => delay().prop_map(|delay| Verdict::Retry { delay }),
        4 => (reason, detail).prop_map(|(reason, detail)| Verdict::Dead { reason, detail }),
        2 => delay().prop_map(|delay| Verdict::Defer { delay }),
        1 => delay().prop_map(|delay| Verdict::Postpone { delay }),
        2 => Just(Verdict::Release),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    let status = prop::option::of(prop::sample::select(vec![200_u16, 404, 503]));
    (0_u16..7, verdict(), status).prop_map(|(place, verdict, status)| {
        // Where none was counted there is none to remember.
        let counted = !matches!(verdict, Verdict::Release | Verdict::Defer { .. } | Verdict::Postpone { .. });
        Sent { place, verdict, status: status.filter(|_| counted) }
    })
}

fn lease() -> impl Strategy<Value = Operation> {
    let kind = prop::sample::select(vec![LeaseKind::Worker, LeaseKind::Worker, LeaseKind::Pull]);
    let bytes_max = prop_oneof![3 => Just(1_u64 << 20), 1 => 0_u64..100];
    (
        pick(),
        kind,
        prop_oneof![9 => 1_u16..8, 1 => 8_u16..40],
        bytes_max,
        1_u64..60,
        prop::bool::weighted(0.7),
    )
        .prop_map(|(queue, kind, max, bytes_max, lease, suspects)| {
            let lease = seconds(lease);
            Operation::Lease { queue, kind, max, bytes_max, lease, suspects }
        })
}

fn chosen() -> impl Strategy<Value = Chosen> {
    prop_oneof![
        3 => Just(Chosen::All),
        2 => prop::collection::vec(past(), 0..6).prop_map(Chosen::Messages),
        1 => prop::sample::select(DeadReason::ALL.to_vec()).prop_map(Chosen::Reason),
    ]
}

fn hold() -> impl Strategy<Value = Hold> {
    let reasons = vec![ParkReason::DeadFull, ParkReason::DestinationGone, ParkReason::EgressRefused];
    prop_oneof![
        1 => Just(Hold::Pause),
        9 => Just(Hold::Resume),
        1 => prop::sample::select(reasons).prop_map(Hold::Park),
    ]
}

/// Settings with limits that a few operations reach.
pub(super) fn settings() -> impl Strategy<Value = QueueSettings> {
    let room = prop_oneof![3 => (6_u64..40, 100_u64..1_500), 1 => (40_u64..300, 1_500_u64..10_000)];
    let limits = (room, 1_u64..6);
    let dead = (1_u64..12, 40_u64..400, any::<bool>(), 50_u64..1_000);
    (limits, dead, 0_u8..5, 20_u64..200).prop_map(|(limits, dead, attempts, window)| {
        let mut settings = plain_settings();
        (settings.limits.length_max, settings.limits.bytes_max) = limits.0;
        settings.idempotency.keys_max = limits.1;
        settings.idempotency.window = seconds(window);
        (settings.dead.length_max, settings.dead.bytes_max) = (dead.0, dead.1);
        settings.dead.when_full = if dead.2 { WhenFull::Trim } else { WhenFull::Park };
        settings.dead.retention = seconds(dead.3);
        settings.history.attempts = attempts;
        settings
    })
}

fn advance() -> impl Strategy<Value = Operation> {
    let span = prop_oneof![4 => 0_u64..2_000, 3 => 2_000_u64..40_000, 1 => 40_000_u64..300_000];
    span.prop_map(|span| Operation::Advance(Duration::from_millis(span)))
}

fn jump() -> impl Strategy<Value = Operation> {
    (any::<bool>(), prop_oneof![3 => 0_u64..30, 1 => Just(3_600)])
        .prop_map(|(back, span)| Operation::Jump { back, span: seconds(span) })
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    let settle = (past(), prop::bool::weighted(0.05), prop::collection::vec(sent(), 0..8));
    let extend = (past(), prop::bool::weighted(0.1), 1_u64..100);
    let attempts = prop_oneof![4 => Just(0_u8), 2 => Just(1), 1 => 2_u8..5];
    prop_oneof![
        1 => Just(Operation::Nothing),
        18 => prop::collection::vec(offer(), 1..4).prop_map(Operation::Enqueue),
        2 => plenty().prop_map(|offer| Operation::Enqueue(vec![offer])),
        2 => Just(Operation::EnqueueAgain),
        20 => lease(),
        3 => past().prop_map(Operation::LeaseAgain),
        12 => settle.prop_map(|(batch, wrong, sent)| Operation::Settle { batch, wrong, sent }),
        8 => (past(), verdict()).prop_map(|(batch, verdict)| Operation::SettleAll { batch, verdict }),
        3 => extend.prop_map(|(batch, wrong, lease)| Operation::Extend { batch, wrong, lease: seconds(lease) }),
        10 => Just(Operation::Sweep),
        10 => advance(),
        2 => jump(),
        3 => past().prop_map(Operation::Find),
        4 => past().prop_map(Operation::Cancel),
        6 => prop::collection::vec((past(), attempts), 1..8).prop_map(Operation::Promote),
        1 => pick().prop_map(Operation::Purge),
        5 => (pick(), hold()).prop_map(|(queue, hold)| Operation::Hold { queue, hold }),
        9 => (pick(), chosen(), prop::bool::weighted(0.2))
            .prop_map(|(queue, chosen, dry_run)| Operation::Replay { queue, chosen, dry_run }),
        2 => (pick(), chosen()).prop_map(|(queue, chosen)| Operation::Discard { queue, chosen }),
        2 => (0..QUEUES.len(), settings().prop_map(Box::new))
            .prop_map(|(queue, settings)| Operation::Put { queue, settings }),
        1 => (pick(), any::<bool>()).prop_map(|(queue, force)| Operation::Delete { queue, force }),
        2 => pick().prop_map(Operation::Browse),
        2 => Just(Operation::Restart),
    ]
}
