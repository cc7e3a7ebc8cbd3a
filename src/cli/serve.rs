//! `posthaste serve`: the gateway as a process, with its signals and its log.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use log::{error, info, warn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, raise};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::app::{App, Handle, StartError};
use crate::cli::signals::Signals;
use crate::cli::{Exit, Failure};
use crate::config::{Flags, Problems, Settings};
use crate::telemetry;

/// Where settings come from besides the environment.
#[derive(Args)]
pub(super) struct SettingArguments {
    /// A file of settings; the last of several is the strongest
    #[arg(long, short, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Where to listen: server.listen
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Where messages rest: store.url
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// What a 202 must mean: store.durability
    #[arg(long, value_name = "strict|relaxed|none")]
    durability: Option<String>,
    /// What is logged, such as warn,posthaste=debug: log.level
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// For development: messages may be pushed to this machine; text logs, our own modules at debug
    #[arg(long)]
    dev: bool,
    /// Listen beyond loopback although nobody is asked for a key: `server.insecure_no_auth`
    #[arg(long)]
    insecure_no_auth: bool,
    /// Any setting
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl SettingArguments {
    /// The settings that hold.
    pub(super) fn load(&self) -> Result<Settings, Failure> {
        let problems = match self.read() {
            (Some(settings), problems) if problems.is_empty() => return Ok(settings),
            (_, problems) => problems,
        };
        Err(Failure::new(Exit::Configuration, format!("configuration:\n{problems}")))
    }

    /// The settings as far as they can be read, and what is wrong with them.
    fn read(&self) -> (Option<Settings>, Problems) {
        let flags = Flags {
            listen: self.listen.clone(),
            store: self.store.clone(),
            durability: self.durability.clone(),
            log: self.log.clone(),
            dev: self.dev,
            insecure_no_auth: self.insecure_no_auth,
            set: self.set.clone(),
        };
        Settings::read_from_process(&self.config, &flags)
    }

    /// The gateway that they make, with everything checked that can be before its address and its store are opened.
    pub(super) fn app(&self) -> Result<App, Failure> {
        let (settings, problems) = self.read();
        let Some(settings) = settings else {
            return Err(Failure::new(Exit::Configuration, format!("configuration:\n{problems}")));
        };
        App::builder(settings).found(problems).build().map_err(|error| Failure::new(exit_of(&error), error))
    }
}

/// How long a start that is all but over has to be over when a signal comes.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(1);

/// How to serve.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: SettingArguments,
    /// Stops when stdin ends: whoever started it and holds the other end of a pipe is gone, however that came
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// Gives this process its TLS provider; the library leaves that to programs.
pub(super) fn install_tls() {
    // A second call finds one installed, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Lets this process open as many files and sockets as the system allows it. The lower limit that it is started with is there
/// for programs that use `select`; the library leaves both to programs.
pub(super) fn raise_open_files() {
    const FILES: Resource = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(FILES).and_then(
        |(soft, hard)| {
            if soft < hard { setrlimit(FILES, hard, hard) } else { Ok(()) }
        },
    );
    if let Err(cause) = raised {
        warn!("cause" = cause.to_string().as_str(); "the limit of open files stays as it is");
    }
}

/// Serves until a signal, or until the gateway gives up.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let app = arguments.settings.app()?;
    let settings = app.settings();
    let grace = settings.server.grace;
    telemetry::install(&settings.log).map_err(|error| Failure::new(Exit::Failed, error))?;
    install_tls();
    raise_open_files();
    if settings.dev {
        warn!("development mode: messages may be pushed to this machine");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error))?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failed, error))?;
        if arguments.until_stdin_ends {
            let watch = std::thread::Builder::new().name("stdin".to_owned()).spawn(stop_when_stdin_ends);
            watch.map_err(Failure::failed)?;
        }
        let (handle, asked) = start(app, &mut signals).await?;
        serve(&handle, asked, &mut signals, grace).await
    })
}

/// Reads stdin to its end, which then is as good as a SIGTERM.
fn stop_when_stdin_ends() {
    drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    if let Err(cause) = raise(Signal::SIGTERM) {
        warn!("cause" = cause.to_string().as_str(); "stdin ended, and this process cannot tell itself to stop");
    }
}

/// Starts the gateway on a thread of its own, since that may wait for another process or recover for long: a signal
/// meanwhile ends this process soon, which loses as little as a kill. Gives the signal that came when it was all but started.
async fn start(app: App, signals: &mut Signals) -> Result<(Handle, Option<&'static str>), Failure> {
    let (told, mut started) = oneshot::channel();
    let run = move || drop(told.send(app.start()));
    let thread = std::thread::Builder::new().name("start".to_owned()).spawn(run);
    thread.map_err(|error| Failure::new(Exit::Failed, error))?;
    let judged = |started: Result<Result<Handle, StartError>, oneshot::error::RecvError>| match started {
        Ok(started) => started.map_err(|error| Failure::new(exit_of(&error), error)),
        Err(_) => Err(Failure::new(Exit::Failed, "the start panicked")),
    };
    let name = tokio::select! {
        biased;
        started = &mut started => return judged(started).map(|handle| (handle, None)),
        name = signals.next() => name,
    };
    // It may have said that it listens, and be here in a moment: then it has clients, and ends in order.
    match timeout(HANDED_OVER_WITHIN, started).await {
        Ok(started) => judged(started).map(|handle| (handle, Some(name))),
        Err(_) => Err(Failure::new(Exit::Failed, format!("ended by {name} while starting"))),
    }
}

fn exit_of(error: &StartError) -> Exit {
    match error {
        StartError::Configuration(_) => Exit::Configuration,
        StartError::Failed(_) => Exit::Failed,
    }
}

async fn serve(
    handle: &Handle,
    asked: Option<&'static str>,
    signals: &mut Signals,
    grace: Duration,
) -> Result<(), Failure> {
    let next = async {
        match asked {
            Some(name) => name,
            None => signals.next().await,
        }
    };
    let gave_up = tokio::select! {
        name = next => {
            info!(signal = name; "stopping");
            None
        }
        name = handle.until_gave_up() => {
            error!("actor.name" = name.as_str(); "an actor gave up: the gateway drains and ends");
            Some(name)
        }
    };
    tokio::select! {
        report = handle.stop(grace) => info!(late = report.late.len(); "stopped"),
        name = signals.next() => {
            warn!(signal = name; "a second signal: ending at once");
            return Err(Failure::new(Exit::Failed, "ended at once by a second signal"));
        }
    }
    match gave_up {
        Some(name) => Err(Failure::new(Exit::Failed, format!("the actor {name} gave up"))),
        None => Ok(()),
    }
}
