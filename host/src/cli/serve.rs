//! `bulkhead serve`: runs the proxy.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use sd_notify::NotifyState;

use super::check;
use super::exit::Failure;
use super::host::{Host, HostError, took};
use super::place::Place;
use super::trial::banner as trial_banner;
use crate::api::control::PluginState;
use crate::api::core::OWN_VERSION;
use crate::plugin::registry::Bundled;
use crate::server::{Inherited, TrialFiles};
use crate::settings::{Config, Problems};
use crate::telemetry::log::Logging;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::output::Format;
use crate::telemetry::ring::LogRing;

/// Run the proxy
///
/// Without a configuration file it starts as a trial: every bundled feature, on loopback only, with certificates it makes for itself.
/// It prints what listens where and a few requests to try.
///
/// Signals: TERM and INT finish running requests and stop; HUP reads configuration and policies again (a wrong one changes nothing); USR1
/// opens the log file anew; TTIN logs what each plugin does at the moment.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead serve\n  \
    bulkhead serve --state /tmp/try\n  \
    bulkhead serve --config /etc/bulkhead/proxy.toml\n  \
    bulkhead serve --profile client --log-format json")]
pub struct Serve {
    /// Where configuration and state are.
    #[command(flatten)]
    pub place: Place,

    /// Shape of log lines on standard output, whatever the configuration says
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

/// Shapes of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl Serve {
    /// Serves until it is told to stop.
    pub fn run(self, bundled: Vec<Bundled>) -> Result<(), Failure> {
        let (config, trial) = self
            .configuration()
            .map_err(|failure| self.with_all_problems(failure, &bundled))?;
        let began = Instant::now();
        // Memory is touched here and there: with huge pages the heap of an idle proxy is three times as large.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
        let metrics = Metrics::new(OWN_VERSION);
        let inherited =
            Inherited::from_environment().map_err(|error| Failure::Start(error.to_string()))?;
        let ring = LogRing::new(config.log.buffer, config.log.buffer_errors)
            .map_err(|error| Failure::Configuration(error.to_string()))?;
        let ring = Arc::new(ring);
        let logging = Logging::start(&config.log.options, &ring, &metrics.log_lines_lost)
            .map_err(|error| Failure::Start(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(|error| Failure::Start(format!("no threads: {error}")))?;
        let result = runtime.block_on(self.serve(
            config,
            trial,
            ring,
            metrics,
            bundled,
            Arc::new(inherited),
            &logging,
            began,
        ));
        runtime.shutdown_timeout(SHUTDOWN);
        if let Err(failure) = &result {
            tracing::error!("{failure}");
        }
        logging.finish();
        result
    }

    /// The configuration, and the certificates of a trial.
    fn configuration(&self) -> Result<(Config, Option<TrialFiles>), Failure> {
        let mut config = self.place.configuration()?;
        self.log_format(&mut config);
        if let Some(file) = config.file.as_ref().filter(|_| !config.trial) {
            let unusable = check::unusable(&config, file);
            if !unusable.is_empty() {
                return Err(Failure::Configuration(Problems(unusable).to_string()));
            }
        }
        if !config.trial {
            return Ok((config, None));
        }
        let files = TrialFiles::prepare(&config.state, &own_name())
            .map_err(|error| Failure::Start(error.to_string()))?;
        let plugins = [&config.plugins.directory, &config.plugins.policies];
        let plugins = plugins.into_iter().flatten().cloned();
        for path in plugins.chain([config.state.join("tftpboot")]) {
            std::fs::create_dir_all(&path).map_err(|source| Failure::File { path, source })?;
        }
        Ok((config, Some(files)))
    }

    /// A configuration that is wrong anywhere is looked at as a whole: it does not start, so there is time.
    fn with_all_problems(&self, failure: Failure, bundled: &[Bundled]) -> Failure {
        let (Failure::Configuration(_), Some(file)) = (&failure, self.place.config_file()) else {
            return failure;
        };
        let problems = self.place.state_directory();
        match problems.and_then(|state| check::problems(&file, &state, bundled)) {
            Ok(problems) if !problems.is_empty() => {
                Failure::Configuration(Problems(problems).to_string())
            }
            _ => failure,
        }
    }

    fn log_format(&self, config: &mut Config) {
        match self.log_format {
            Some(LogFormat::Text) => config.log.options.format = Format::Text,
            Some(LogFormat::Json) => config.log.options.format = Format::Json,
            None => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn serve(
        &self,
        config: Config,
        trial: Option<TrialFiles>,
        ring: Arc<LogRing>,
        metrics: Arc<Metrics>,
        bundled: Vec<Bundled>,
        inherited: Arc<Inherited>,
        logging: &Logging,
        began: Instant,
    ) -> Result<(), Failure> {
        let mut signals =
            Signals::listen().map_err(|error| Failure::Start(format!("signals: {error}")))?;
        let progress = |what: &str| tracing::info!(after = took(began), "bringing up {what}");
        let started = Host::start(config, ring, metrics, bundled, inherited, progress);
        let mut host = tokio::select! {
            started = started => started.map_err(|error| match error {
                HostError::Start(reason) => Failure::Start(reason),
                HostError::Configuration(problems) => Failure::Configuration(problems.to_string()),
            })?,
            () = signals.stopped() => return Ok(()),
        };
        tracing::info!(
            "Smart proxy has launched on {} socket(s), waiting for requests",
            host.bound().len()
        );
        tracing::info!(after = took(began), "ready");
        if let Some(files) = &trial {
            let mut out = std::io::stdout();
            let _ = out
                .write_all(trial_banner(&host, files).as_bytes())
                .and_then(|()| out.flush());
        }
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status(&host))]);
        let watchdog = watchdog();
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => break,
                    Signal::Reload => self.reload(&mut host, logging).await,
                    Signal::Reopen => logging.reopen(),
                    Signal::Tell => host.tell(),
                },
                () = tokio::time::sleep(watchdog.unwrap_or(Duration::MAX)), if watchdog.is_some() => {
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
            }
        }
        tracing::info!("stopping: requests in progress may finish");
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        tokio::select! {
            () = host.stop() => tracing::info!("stopped"),
            () = signals.stopped() => tracing::warn!("stopped at once by a second signal"),
        }
        Ok(())
    }

    /// Reads configuration and policies again. A wrong one changes nothing.
    async fn reload(&self, host: &mut Host, logging: &Logging) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
        let reloaded = match self.configuration() {
            Ok((config, _)) => {
                let level = config.log.options.level;
                let result = host.reload(config).await.map_err(|error| error.to_string());
                if result.is_ok() {
                    logging.set_level(level);
                }
                result
            }
            Err(failure) => Err(failure.to_string()),
        };
        match reloaded {
            Ok(changes) if changes.is_empty() => {
                tracing::info!("configuration read again: nothing changed")
            }
            Ok(changes) => {
                for change in changes {
                    tracing::info!("configuration read again: {change}");
                }
            }
            Err(problem) => {
                host.refused_reload();
                for line in problem.lines() {
                    tracing::error!("configuration not taken over: {line}");
                }
            }
        }
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status(host))]);
    }
}

/// How long blocked file operations may hold up the end of the program.
const SHUTDOWN: Duration = Duration::from_secs(2);

fn status(host: &Host) -> String {
    let views = host.registry().views();
    let running = views
        .iter()
        .filter(|it| it.state == PluginState::Running)
        .count();
    format!("{running} of {} plugins running", views.len())
}

fn own_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Half of what systemd allows between two signs of life.
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|time| time / 2)
}

enum Signal {
    Stop,
    Reload,
    Reopen,
    Tell,
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
    usr1: tokio::signal::unix::Signal,
    ttin: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            ttin: signal(SignalKind::from_raw(libc::SIGTTIN))?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Stop,
            _ = self.int.recv() => Signal::Stop,
            _ = self.hup.recv() => Signal::Reload,
            _ = self.usr1.recv() => Signal::Reopen,
            _ = self.ttin.recv() => Signal::Tell,
        }
    }

    async fn stopped(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
