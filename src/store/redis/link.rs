//! One connection to Redis: made when it is needed, on the thread that uses it, given up when it fails.
//!
//! Calls of one link travel together; Redis answers them in order. What only looks is sent once more on a new connection when the
//! old one turns out to be dead: servers and firewalls close what is idle, and say so to nobody. A link that could not be made is
//! tried again at the next call, after a pause that grows to [`RETRY_MAX`]; calls meanwhile are refused at once. When one link
//! finds a replica where the master was, or comes to another server than an older one, every link of the process is made anew: the
//! address leads elsewhere by then. What is written for a 202 travels on a connection whose server was judged, and on no other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::store::error::StoreError;
use crate::store::redis::error::{Cure, Effect, cure, is_lost};
use crate::store::redis::probe::{Refused, Server, Tails};
use crate::store::redis::script::LOADED;
use crate::store::redis::state::State;
use crate::store::redis::url::why_none;

/// The longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The longest wait for an answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The first pause after a connection could not be made.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Commands that may wait for their turn to be written.
const PIPELINE_COMMANDS: usize = 1_024;
/// Bytes that may wait to be written before senders wait.
const WRITE_BYTES: usize = 256 << 10;

/// A connection, and how many had been made by then.
type Numbered = (MultiplexedConnection, u64);

/// A connection that is made when it is needed.
pub(super) struct Link {
    client: Client,
    tails: Arc<Tails>,
    refused: Arc<Refused>,
    connection: RefCell<Option<Numbered>>,
    /// Who makes a connection holds it, so that only one is made.
    making: Mutex<()>,
    failed: Cell<Option<(Instant, Duration)>>,
    why: RefCell<String>,
    /// How many connections were made so far.
    made: Cell<u64>,
    /// Grows with each connection that fails, of this link and of others.
    broken: Arc<AtomicU64>,
    /// Grows when the server turns out to be no master any more; and what it was when the connection was begun.
    moves: Arc<AtomicU64>,
    moves_before: Cell<u64>,
    /// Connections that were begun by all links, and which of them the last of this one was.
    all_begun: Arc<AtomicU64>,
    begun: Cell<u64>,
    /// Whether the last connection carries transactions, and whether one was not carried out as such by any.
    transacts: Cell<bool>,
    is_torn: Cell<bool>,
    /// Where the connection of that number was found to lead.
    server: RefCell<Option<(u64, Server)>>,
}

impl Link {
    pub(super) fn new(state: &State) -> Rc<Self> {
        Rc::new(Self {
            client: state.client.clone(),
            tails: Arc::clone(&state.tails),
            refused: Arc::clone(&state.refused),
            connection: RefCell::default(),
            making: Mutex::new(()),
            failed: Cell::new(None),
            why: RefCell::default(),
            made: Cell::new(0),
            broken: Arc::clone(&state.broken),
            moves: Arc::clone(&state.moves),
            moves_before: Cell::new(0),
            all_begun: Arc::clone(&state.begun),
            begun: Cell::new(0),
            transacts: Cell::new(false),
            is_torn: Cell::new(false),
            server: RefCell::default(),
        })
    }

    /// The number of the connection that the next call will use; makes one when there is none.
    ///
    /// # Errors
    /// None can be made now.
    pub(super) async fn ready(&self) -> Result<u64, StoreError> {
        self.leave_what_moved();
        self.connection().await?;
        Ok(self.made.get())
    }

    /// How many connections were made so far: the number of the last.
    pub(super) fn made(&self) -> u64 {
        self.made.get()
    }

    /// Whether the next call will use that connection.
    pub(super) fn is_on(&self, made: u64) -> bool {
        self.made.get() == made && self.connection.borrow().is_some()
    }

    /// Whether that connection is the next call's, and carried a transaction out.
    pub(super) fn transacts(&self, made: u64) -> bool {
        self.is_on(made) && self.transacts.get() && !self.is_torn.get()
    }

    /// A transaction was not carried out as one: gives that connection up, and sends none any more.
    pub(super) fn tore(&self, made: u64) {
        self.is_torn.set(true);
        self.is_broken(made);
    }

    /// When its last connection was begun, among all of the process.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Where that connection was found to lead, when somebody looked.
    pub(super) fn server(&self, made: u64) -> Option<Server> {
        self.server.borrow().as_ref().filter(|(number, _)| *number == made).map(|(_, server)| server.clone())
    }

    /// Notes where that connection leads.
    pub(super) fn leads_to(&self, made: u64, server: Server) {
        *self.server.borrow_mut() = Some((made, server));
    }

    /// The connection there is, or a new one.
    async fn connection(&self) -> Result<Numbered, StoreError> {
        if let Some(connection) = self.connection.borrow().as_ref() {
            return Ok(connection.clone());
        }
        let _making = self.making.lock().await;
        if let Some(connection) = self.connection.borrow().as_ref() {
            return Ok(connection.clone());
        }
        if let Some((at, pause)) = self.failed.get()
            && at.elapsed() < pause
        {
            return Err(StoreError::Unavailable(self.why.borrow().clone()));
        }
        let moves_before = self.moves.load(Ordering::Relaxed);
        let begun = self.all_begun.fetch_add(1, Ordering::Relaxed) + 1;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_pipeline_buffer_size(PIPELINE_COMMANDS)
            .set_write_backpressure_boundary(WRITE_BYTES);
        let making = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            self.tails.look(&mut connection).await?;
            let transacts = transacts(&mut connection).await?;
            Ok((connection, transacts))
        };
        // What is said first on a connection has no deadline of its own.
        let made = timeout(CONNECT_WITHIN, making).await;
        match made.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())) {
            Ok((connection, transacts)) => {
                self.failed.set(None);
                self.transacts.set(transacts);
                let number = self.made.get() + 1;
                self.made.set(number);
                self.moves_before.set(moves_before);
                self.begun.set(begun);
                *self.connection.borrow_mut() = Some((connection.clone(), number));
                Ok((connection, number))
            }
            Err(error) => {
                let pause = self.failed.get().map_or(RETRY_MIN, |(_, pause)| (pause * 2).min(RETRY_MAX));
                self.failed.set(Some((Instant::now(), pause)));
                let why = format!("Redis: {}", why_none(&self.client, &error));
                why.clone_into(&mut self.why.borrow_mut());
                Err(StoreError::Unavailable(why))
            }
        }
    }

    /// Sends one command and waits for its answer.
    ///
    /// # Errors
    /// As the table of `error` says. Dropping the future leaves it open whether the command is carried out.
    pub(super) async fn send(&self, command: &Cmd, effect: Effect) -> Result<Value, StoreError> {
        self.leave_what_moved();
        let (mut has_loaded, known) = (false, self.made.get());
        loop {
            let (mut connection, number) = self.connection().await?;
            let error = match connection.send_packed_command(command).await.and_then(Value::extract_error) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if Self::is_worth_another(&error, effect, number <= known) {
                self.is_broken(number);
                continue;
            }
            self.mend((&mut connection, number), &error, effect, &mut has_loaded).await?;
        }
    }

    /// Whether what failed may be sent again: it changes nothing, and the connection, which was there before, was found dead.
    fn is_worth_another(error: &RedisError, effect: Effect, is_old: bool) -> bool {
        is_old && effect != Effect::Writes && is_lost(error)
    }

    /// The connection of that number, and no other.
    fn very(&self, made: u64) -> Result<MultiplexedConnection, StoreError> {
        let connection = self.connection.borrow();
        let is_this = |numbered: &&Numbered| numbered.1 == made;
        connection.as_ref().filter(is_this).map(|(connection, _)| connection.clone()).ok_or_else(|| {
            StoreError::Unavailable("Redis: the connection that was judged is lost".to_owned())
        })
    }

    /// Sends one command on the connection of that number, and on no other.
    ///
    /// # Errors
    /// As for [`send`](Self::send); nothing was sent when that connection is no more.
    pub(super) async fn send_on(
        &self,
        made: u64,
        command: &Cmd,
        effect: Effect,
    ) -> Result<Value, StoreError> {
        let mut connection = self.very(made)?;
        let mut has_loaded = false;
        loop {
            match connection.send_packed_command(command).await.and_then(Value::extract_error) {
                Ok(answer) => return Ok(answer),
                Err(error) => self.mend((&mut connection, made), &error, effect, &mut has_loaded).await?,
            }
        }
    }

    /// Sends commands together and waits for all answers, each with its own fate.
    ///
    /// # Errors
    /// When the connection fails: that is every command's fate.
    pub(super) async fn send_each(
        &self,
        commands: Vec<Cmd>,
        effect: Effect,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.send_numbered(commands, effect).await.map(|(_, fates)| fates)
    }

    /// The same, with the number of the connection that answered.
    pub(super) async fn send_numbered(
        &self,
        commands: Vec<Cmd>,
        effect: Effect,
    ) -> Result<(u64, Vec<Result<Value, StoreError>>), StoreError> {
        if commands.is_empty() {
            return Ok((self.made.get(), Vec::new()));
        }
        let pipeline = together(commands);
        let known = self.made.get();
        let (number, answers) = loop {
            let (mut connection, number) = self.connection().await?;
            match connection.send_packed_commands(&pipeline, 0, pipeline.len()).await {
                Ok(answers) => break (number, answers),
                Err(error) if Self::is_worth_another(&error, effect, number <= known) => {
                    self.is_broken(number);
                }
                Err(error) => return Err(self.all_failed((&mut connection, number), &error, effect).await),
            }
        };
        let mut fates = Vec::with_capacity(pipeline.len());
        for (command, answer) in pipeline.cmd_iter().zip(answers) {
            fates.push(match self.fate(answer, number, effect) {
                None => self.send(command, effect).await,
                Some(fate) => fate,
            });
        }
        Ok((number, fates))
    }

    /// Sends commands together on the connection of that number, and gives what Redis answers, its errors as well.
    ///
    /// # Errors
    /// When the connection fails: that is every command's fate. Nothing was sent when that connection is no more.
    pub(super) async fn exchange_on(
        &self,
        made: u64,
        commands: Vec<Cmd>,
        effect: Effect,
    ) -> Result<Vec<Value>, StoreError> {
        let pipeline = together(commands);
        let mut connection = self.very(made)?;
        match connection.send_packed_commands(&pipeline, 0, pipeline.len()).await {
            Ok(answers) => Ok(answers),
            Err(error) => Err(self.all_failed((&mut connection, made), &error, effect).await),
        }
    }

    /// What all of them are told when they failed together.
    async fn all_failed(
        &self,
        connection: (&mut MultiplexedConnection, u64),
        error: &RedisError,
        effect: Effect,
    ) -> StoreError {
        let mended = self.mend(connection, error, effect, &mut true).await;
        mended.err().unwrap_or_else(|| StoreError::Unavailable("Redis forgot the scripts".to_owned()))
    }

    /// What one of several commands is told; `None` when it is to be sent again.
    pub(super) fn fate(
        &self,
        answer: Value,
        number: u64,
        effect: Effect,
    ) -> Option<Result<Value, StoreError>> {
        let error = match answer.extract_error() {
            Ok(answer) => return Some(Ok(answer)),
            Err(error) => error,
        };
        Some(Err(match cure(&error, effect, ANSWER_WITHIN) {
            Cure::Load => return None,
            Cure::Reconnect(told) => {
                self.is_broken(number);
                told
            }
            Cure::Move(told) => {
                self.has_moved(number);
                told
            }
            Cure::Tell(told) => {
                self.refused.heard(&told);
                told
            }
        }))
    }

    /// Does what a failure asks for; `Ok` when the command is to be sent again.
    async fn mend(
        &self,
        (connection, number): (&mut MultiplexedConnection, u64),
        error: &RedisError,
        effect: Effect,
        has_loaded: &mut bool,
    ) -> Result<(), StoreError> {
        match cure(error, effect, ANSWER_WITHIN) {
            Cure::Load if !*has_loaded => {
                *has_loaded = true;
                self.load(connection, number).await
            }
            Cure::Load => Err(StoreError::Unavailable("Redis forgets scripts as they are loaded".to_owned())),
            Cure::Reconnect(told) => {
                self.is_broken(number);
                Err(told)
            }
            Cure::Move(told) => {
                self.has_moved(number);
                Err(told)
            }
            Cure::Tell(told) => {
                self.refused.heard(&told);
                Err(told)
            }
        }
    }

    /// Loads every script.
    async fn load(&self, connection: &mut MultiplexedConnection, number: u64) -> Result<(), StoreError> {
        let mut commands = Pipeline::with_capacity(LOADED.len());
        for script in LOADED.iter() {
            commands.cmd("SCRIPT").arg("LOAD").arg(&script.source);
        }
        let answers = connection.send_packed_commands(&commands, 0, LOADED.len()).await;
        let answers = answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        let loaded: Result<Vec<Value>, RedisError> = answers;
        match loaded {
            Ok(_) => Ok(()),
            Err(error) => match cure(&error, Effect::Reads, ANSWER_WITHIN) {
                Cure::Reconnect(told) => {
                    self.is_broken(number);
                    Err(told)
                }
                Cure::Move(told) => {
                    self.has_moved(number);
                    Err(told)
                }
                Cure::Tell(told) => Err(told),
                Cure::Load => Err(StoreError::Unavailable("Redis loads no scripts".to_owned())),
            },
        }
    }

    /// Gives that connection up, unless another was made since: calls that fail together cost one new connection.
    pub(super) fn is_broken(&self, number: u64) {
        let is_this = |numbered: &mut Numbered| numbered.1 == number;
        if self.connection.borrow_mut().take_if(is_this).is_some() {
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up every connection of this process that was made before: behind that one is no master any more.
    pub(super) fn has_moved(&self, number: u64) {
        let before = self.moves_before.get();
        if self.made.get() == number {
            // Whoever finds out second finds it counted.
            let _counted =
                self.moves.compare_exchange(before, before + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.is_broken(number);
    }

    /// Gives up every connection of this process but that one: it is the first that leads where the address leads now.
    pub(super) fn is_first(&self, number: u64) {
        let moves = self.moves.fetch_add(1, Ordering::Relaxed) + 1;
        if self.made.get() == number {
            self.moves_before.set(moves);
        }
        // Who listens is on an older one.
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives a connection up that may lead to what was the master once. Not in between a look and the publish that relies on it.
    fn leave_what_moved(&self) {
        if self.moves.load(Ordering::Relaxed) != self.moves_before.get() {
            self.connection.borrow_mut().take();
        }
    }

    /// Gives the connection up: the next call makes another.
    pub(super) fn give_up(&self) {
        self.connection.borrow_mut().take();
    }
}

/// Whether a transaction without commands is carried out as one.
async fn transacts(connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
    let empty = together(vec![redis::cmd("MULTI"), redis::cmd("EXEC")]);
    let answers = connection.send_packed_commands(&empty, 0, empty.len()).await?;
    match &answers[..] {
        [Value::Okay, Value::Array(results)] => Ok(results.is_empty()),
        [Value::Okay, Value::ServerError(error)] if error.code() == "EXECABORT" => Ok(false),
        // It was begun and is not over: all that follows would only be put into it.
        [Value::Okay, _] => {
            connection.send_packed_command(&redis::cmd("DISCARD")).await?.extract_error()?;
            Ok(false)
        }
        _ => Ok(false),
    }
}

fn together(commands: Vec<Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}
