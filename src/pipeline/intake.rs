//! What waits in front of an ingester: the groups, who waits for each, and the call that is on its way.
//!
//! It outlives the actor that works on it, so that a panic loses neither a group nor a waiter. One short lock guards
//! all of it; nobody else contends for it on a thread that publishes to itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::queue::QueueName;
use crate::pipeline::ingester::Refused;
use crate::pipeline::settings::IngestSettings;
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::{StoreError, Stored};

/// The first pause before a call that was set aside is sent again, and the longest.
const ASIDE_MIN: Duration = Duration::from_millis(20);
const ASIDE_MAX: Duration = Duration::from_secs(1);
/// The part of what may wait that groups behind such a call may take.
const HELD_PART: u32 = 4;

/// What a publish comes to.
pub(super) type Answer = Result<GroupResult, Refused>;

/// Groups on their way in, shared by an ingester's handles and its actor.
pub(super) struct Intake {
    settings: IngestSettings,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    /// In the order of arrival.
    waiting: VecDeque<Waiting>,
    waiting_messages: usize,
    waiting_bytes: u64,
    waiters: Waiters,
    in_flight: Option<Call>,
    /// Calls of which the store answered all but the groups of some queues: other queues do not wait for those. At most one of each
    /// queue, whose further groups wait for its fate.
    aside: VecDeque<Call>,
    closed: bool,
}

struct Waiting {
    group: Group,
    weight: Weight,
    waiter: usize,
}

/// What a group counts of what waits, and of what a call carries: a large one as one full call, since it leaves alone. So a
/// batch keeps no more out than its call holds up.
#[derive(Clone, Copy)]
struct Weight {
    messages: usize,
    bytes: u64,
}

impl Weight {
    fn of(group: &Group, settings: &IngestSettings) -> Self {
        let bytes: u64 = group.messages.iter().map(|message| message.record.len() as u64).sum();
        Self {
            messages: group.messages.len().min(settings.call_messages_max as usize),
            bytes: bytes.min(settings.call_bytes_max),
        }
    }
}

/// A call to the store that was begun; it keeps its id until its answer is known.
struct Call {
    id: CallId,
    groups: Arc<Vec<Group>>,
    first_sent: Instant,
    // Beside each group; `None` once that waiter has been answered.
    waiters: Vec<Option<usize>>,
    // Beside each group: whether a sending of it may have been stored without an answer.
    is_unknown: Vec<bool>,
    /// When it is sent again at the earliest, and how often it was set aside.
    again_at: Instant,
    times_aside: u32,
}

impl Call {
    /// Whether a group of that queue has no answer yet.
    fn is_open(&self, queue: &QueueName) -> bool {
        let groups = self.groups.iter().zip(&self.waiters);
        groups.into_iter().any(|(group, waiter)| waiter.is_some() && group.queue.name == *queue)
    }
}

/// What an actor needs to know of a call to send it.
pub(super) struct Sending {
    pub(super) id: CallId,
    pub(super) groups: Arc<Vec<Group>>,
    pub(super) first_sent: Instant,
}

/// A table of waiters with reused places. A place belongs to one future and to at most one group.
#[derive(Default)]
struct Waiters {
    places: Vec<Waiter>,
    free: Vec<usize>,
}

struct Waiter {
    deadline: Instant,
    waker: Option<Waker>,
    answer: Option<Answer>,
    // Its future was dropped: nobody will fetch the answer.
    abandoned: bool,
}

impl Waiters {
    fn add(&mut self, deadline: Instant) -> usize {
        let waiter = Waiter { deadline, waker: None, answer: None, abandoned: false };
        if let Some(place) = self.free.pop() {
            self.places[place] = waiter;
            place
        } else {
            self.places.push(waiter);
            self.places.len() - 1
        }
    }

    fn answer(&mut self, place: usize, answer: Answer, wakers: &mut Vec<Waker>) {
        let waiter = &mut self.places[place];
        if waiter.abandoned {
            self.free.push(place);
            return;
        }
        waiter.answer = Some(answer);
        wakers.extend(waiter.waker.take());
    }
}

impl Intake {
    pub(super) fn new(settings: IngestSettings) -> Self {
        Self { settings, state: Mutex::default(), arrived: Notify::new() }
    }

    /// Takes a group in; gives its waiter's place.
    pub(super) fn admit(&self, group: Group, deadline: Instant) -> Result<usize, Refused> {
        let weight = Weight::of(&group, &self.settings);
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(Refused::ShuttingDown);
        }
        let settings = &self.settings;
        if state.is_held(&group.queue.name) {
            let limit = settings.waiting_messages_max / HELD_PART;
            let (messages, bytes) = state.held();
            if messages + weight.messages > limit as usize
                || bytes + weight.bytes > settings.waiting_bytes_max / u64::from(HELD_PART)
            {
                return Err(Refused::Overloaded {
                    setting: "ingest.waiting_messages_max",
                    limit: limit.into(),
                });
            }
        }
        if !state.waiting.is_empty() {
            let beyond = |setting, limit| Err(Refused::Overloaded { setting, limit });
            if state.waiting_messages + weight.messages > settings.waiting_messages_max as usize {
                return beyond("ingest.waiting_messages_max", settings.waiting_messages_max.into());
            }
            if state.waiting_bytes + weight.bytes > settings.waiting_bytes_max {
                return beyond("ingest.waiting_bytes_max", settings.waiting_bytes_max);
            }
        }
        let waiter = state.waiters.add(deadline);
        // Whoever looks away while groups wait does so because all of them wait for the fate of others.
        let is_first = state.waiting.is_empty() || !state.aside.is_empty();
        state.waiting_messages += weight.messages;
        state.waiting_bytes += weight.bytes;
        state.waiting.push_back(Waiting { group, weight, waiter });
        drop(guard);
        if is_first {
            self.arrived.notify_one();
        }
        Ok(waiter)
    }

    /// Fetches the answer of a waiter, whose place is free afterwards, or leaves a waker for it.
    pub(super) fn poll(&self, place: usize, context: &Context<'_>) -> Poll<Answer> {
        let mut state = self.lock();
        let waiter = &mut state.waiters.places[place];
        if let Some(answer) = waiter.answer.take() {
            state.waiters.free.push(place);
            return Poll::Ready(answer);
        }
        match &waiter.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => waiter.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Forgets a waiter. Its group goes its way all the same.
    pub(super) fn abandon(&self, place: usize) {
        let mut state = self.lock();
        let waiter = &mut state.waiters.places[place];
        waiter.abandoned = true;
        waiter.waker = None;
        if waiter.answer.take().is_some() {
            state.waiters.free.push(place);
        }
    }

    /// Resolves when the first group came in after a time with none. Dropping the future loses nothing.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Whether a group waits or is on its way.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.in_flight.is_some() || !state.aside.is_empty() || !state.waiting.is_empty()
    }

    /// When there is a call to send, if all that waits, waits for the fate of what was set aside.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        let state = self.lock();
        let is_free = |waiting: &Waiting| !state.is_held(&waiting.group.queue.name);
        if state.in_flight.is_some() || state.waiting.iter().any(is_free) {
            return None;
        }
        state.aside.iter().map(|call| call.again_at).min()
    }

    /// Whether a call was begun whose answer is not known yet.
    pub(super) fn is_calling(&self) -> bool {
        self.lock().in_flight.is_some()
    }

    /// Whether so many messages wait, or as many bytes as one call carries. Not while some of it waits for the fate of others.
    pub(super) fn has_enough(&self, messages: usize) -> bool {
        let state = self.lock();
        let is_enough =
            state.waiting_messages >= messages || state.waiting_bytes >= self.settings.call_bytes_max;
        is_enough && state.aside.is_empty()
    }

    /// Messages and bytes that wait for their call; a group that is larger than a call counts as one.
    pub(super) fn depth(&self) -> (usize, u64) {
        let state = self.lock();
        (state.waiting_messages, state.waiting_bytes)
    }

    /// The call to send: the one whose answer is not known yet, else the next one. `None` when nothing waits.
    pub(super) fn next_call(&self, now: Instant) -> Option<Sending> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.in_flight.is_none()
            && let Some(place) = state.aside.iter().position(|call| call.again_at <= now)
        {
            state.in_flight = state.aside.remove(place);
        }
        if state.in_flight.is_none() {
            let next = state.take_next(&self.settings);
            if next.is_empty() {
                return None;
            }
            let waiters: Vec<_> = next.iter().map(|waiting| Some(waiting.waiter)).collect();
            let is_unknown = vec![false; waiters.len()];
            let groups = Arc::new(next.into_iter().map(|waiting| waiting.group).collect());
            state.in_flight = Some(Call {
                id: CallId::random(),
                groups,
                first_sent: now,
                waiters,
                is_unknown,
                again_at: now,
                times_aside: 0,
            });
        }
        let call = state.in_flight.as_ref()?;
        Some(Sending { id: call.id, groups: call.groups.clone(), first_sent: call.first_sent })
    }

    /// Answers the waiters of the call with what the store said. What is unknown is kept for another try unless this
    /// was the last: behind others where the store knew the fate of other groups, or said at least of which it does not. Gives
    /// whether the next call may leave.
    pub(super) fn answered(&self, results: Result<Vec<GroupResult>, StoreError>, is_last: bool) -> bool {
        let mut wakers = Vec::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(call) = &mut state.in_flight else { return true };
        let is_answered = results.is_ok();
        let results = results.map_or_else(
            |error| vec![GroupResult::Failed(error); call.groups.len()],
            |mut results| {
                // A store that answers for too few groups is defective: of the others we know nothing.
                let missing =
                    || GroupResult::Failed(StoreError::Unknown("no answer for this group".to_owned()));
                results.resize_with(call.groups.len(), missing);
                results
            },
        );
        let mut is_over = true;
        for ((waiter, is_unknown), mut result) in
            call.waiters.iter_mut().zip(&mut call.is_unknown).zip(results)
        {
            if let GroupResult::Failed(error) = &mut result {
                *is_unknown |= error.stored() == Stored::Unknown;
                // A store that refuses to look says nothing of what it did with an earlier sending.
                if *is_unknown && error.stored() == Stored::No {
                    *error = StoreError::Unknown(error.to_string());
                }
            } else {
                *is_unknown = false;
            }
            // What only too few replicas have is as much as there is to know.
            let is_final = matches!(result, GroupResult::Failed(StoreError::Unacknowledged(_)));
            if *is_unknown && !is_last && !is_final {
                is_over &= waiter.is_none();
            } else if let Some(place) = waiter.take() {
                state.waiters.answer(place, Ok(result), &mut wakers);
            }
        }
        if is_over {
            state.in_flight = None;
        } else if is_answered && let Some(mut call) = state.in_flight.take() {
            call.again_at = Instant::now() + (ASIDE_MIN * 2_u32.pow(call.times_aside.min(8))).min(ASIDE_MAX);
            call.times_aside += 1;
            state.aside.push_back(call);
            is_over = true;
        }
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
        is_over
    }

    /// Answers those whose deadline has passed: what waits is dropped and was not stored, what is on its way may be.
    pub(super) fn expire(&self, now: Instant) {
        let mut wakers = Vec::new();
        let mut guard = self.lock();
        let State { waiting, waiting_messages, waiting_bytes, waiters, in_flight, aside, .. } = &mut *guard;
        let unknown = Refused::TimedOut { stored: Stored::Unknown };
        for slot in in_flight.iter_mut().chain(aside.iter_mut()).flat_map(|call| &mut call.waiters) {
            if let Some(place) = slot.take_if(|place| waiters.places[*place].deadline <= now) {
                waiters.answer(place, Err(unknown.clone()), &mut wakers);
            }
        }
        // Nobody is left whom its answer could reach.
        in_flight.take_if(|call| call.waiters.iter().all(Option::is_none));
        aside.retain(|call| call.waiters.iter().any(Option::is_some));
        waiting.retain(|item| {
            if waiters.places[item.waiter].deadline > now {
                return true;
            }
            *waiting_messages -= item.weight.messages;
            *waiting_bytes -= item.weight.bytes;
            waiters.answer(item.waiter, Err(Refused::TimedOut { stored: Stored::No }), &mut wakers);
            false
        });
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Refuses all that comes from now on.
    pub(super) fn shut(&self) {
        self.lock().closed = true;
    }

    /// Refuses all that comes, and answers all that wait: nobody works on this any more.
    pub(super) fn close(&self) {
        let mut wakers = Vec::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        state.closed = true;
        let calls = state.in_flight.take().into_iter().chain(std::mem::take(&mut state.aside));
        for place in calls.flat_map(|call| call.waiters).flatten() {
            let unknown = StoreError::Unknown("the gateway stopped before the store answered".to_owned());
            state.waiters.answer(place, Ok(GroupResult::Failed(unknown)), &mut wakers);
        }
        for waiting in std::mem::take(&mut state.waiting) {
            state.waiters.answer(waiting.waiter, Err(Refused::ShuttingDown), &mut wakers);
        }
        (state.waiting_messages, state.waiting_bytes) = (0, 0);
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic for a reason of its own is done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a group of that queue has no answer yet, so that those behind it wait.
    fn is_held(&self, queue: &QueueName) -> bool {
        self.aside.iter().any(|call| call.is_open(queue))
    }

    /// Messages and bytes that wait for the fate of others.
    fn held(&self) -> (usize, u64) {
        let held = self.waiting.iter().filter(|waiting| self.is_held(&waiting.group.queue.name));
        held.fold((0, 0), |(messages, bytes), waiting| {
            (messages + waiting.weight.messages, bytes + waiting.weight.bytes)
        })
    }

    /// The groups of the next call: all that wait, or as many as it may carry, in turns of the queues.
    fn take_next(&mut self, settings: &IngestSettings) -> Vec<Waiting> {
        let (messages_max, bytes_max) = (settings.call_messages_max as usize, settings.call_bytes_max);
        let next = if !self.aside.is_empty() {
            let all = std::mem::take(&mut self.waiting);
            let is_held = |waiting: &Waiting| self.is_held(&waiting.group.queue.name);
            let (held, mut free): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(is_held);
            let next = take_in_turns(&mut free, messages_max, bytes_max);
            // Only the order within each queue counts.
            free.extend(held);
            self.waiting = free;
            next
        } else if self.waiting_messages <= messages_max && self.waiting_bytes <= bytes_max {
            self.waiting.drain(..).collect()
        } else {
            take_in_turns(&mut self.waiting, messages_max, bytes_max)
        };
        for waiting in &next {
            self.waiting_messages -= waiting.weight.messages;
            self.waiting_bytes -= waiting.weight.bytes;
        }
        next
    }
}

/// Takes groups up to the bounds, one of each queue in turn, so that a busy queue does not keep the others waiting.
/// A queue whose next group does not fit has had its turns; the first group of all may exceed the bounds alone.
fn take_in_turns(waiting: &mut VecDeque<Waiting>, messages_max: usize, bytes_max: u64) -> Vec<Waiting> {
    let mut queues: Vec<VecDeque<usize>> = Vec::new();
    let mut places: HashMap<&QueueName, usize> = HashMap::new();
    for (index, item) in waiting.iter().enumerate() {
        let place = *places.entry(&item.group.queue.name).or_insert(queues.len());
        if place == queues.len() {
            queues.push(VecDeque::new());
        }
        queues[place].push_back(index);
    }
    let mut is_taken = vec![false; waiting.len()];
    let (mut messages, mut bytes) = (0, 0);
    let mut turns: VecDeque<VecDeque<usize>> = queues.into();
    while let Some(mut queue) = turns.pop_front() {
        let Some(index) = queue.pop_front() else { continue };
        let item = &waiting[index];
        let with = (messages + item.weight.messages, bytes + item.weight.bytes);
        if messages > 0 && (with.0 > messages_max || with.1 > bytes_max) {
            continue;
        }
        (messages, bytes) = with;
        is_taken[index] = true;
        turns.push_back(queue);
    }
    let mut taken = Vec::new();
    for (item, is_taken) in std::mem::take(waiting).into_iter().zip(is_taken) {
        if is_taken { taken.push(item) } else { waiting.push_back(item) }
    }
    taken
}
