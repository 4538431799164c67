//! Admission, warm instances and deadlines of one plugin: [`Sandbox::call`].
//!
//! A call waits for its turn on the caller's side (a caller that goes away there has asked for nothing yet); then it is a task of
//! the plugin, on the plugin's own runtime, which no caller can cancel.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::bindings::types::Lifetime;
use super::context::{Peer, Surroundings};
use super::error::CallError;
use super::instance::{Live, Program};
use super::limits::MemoryMeter;
use super::line::{Full, Line, Permit};
use super::metered::{Metered, Turn};
use super::runtimes::{Class, Handles};
use super::unstoppable::Unstoppable;
use crate::grant::limits::Limits;
use crate::telemetry::context;

/// How an instance is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Taken from the warm ones and put back.
    Pooled,
    /// One call, then gone.
    Fresh,
    /// The one instance, kept.
    Single,
}

/// A future of a call that borrows its instance.
pub type CallFuture<'a, R> = Pin<Box<dyn Future<Output = wasmtime::Result<R>> + Send + 'a>>;

/// A plugin that can be called.
pub struct Sandbox {
    program: Arc<Program>,
    surroundings: Arc<Surroundings>,
    limits: Limits,
    lifetime: Lifetime,
    runtimes: Handles,
    /// Unlike that of any other set of this host.
    set: u64,
    turns: Arc<Line>,
    warm: Mutex<Vec<Live>>,
    meter: Arc<MemoryMeter>,
    live: Arc<AtomicU32>,
    running: Arc<AtomicU32>,
    traps: AtomicU64,
    /// A `single` instance is being started.
    starting: AtomicBool,
}

impl Sandbox {
    /// Wraps a linked program; no instance is made yet.
    #[must_use]
    pub fn new(
        program: Program,
        surroundings: Arc<Surroundings>,
        limits: Limits,
        lifetime: Lifetime,
        runtimes: Handles,
    ) -> Self {
        let meter = Arc::new(MemoryMeter::of(program.engine().memory()));
        let program = Arc::new(program);
        Self::metered(program, surroundings, limits, lifetime, runtimes, meter)
    }

    /// Another set of instances of the same plugin, with the same rights and one sum of memory: its service beside its feature.
    #[must_use]
    pub fn beside(&self, lifetime: Lifetime) -> Self {
        Self::metered(
            self.program.clone(),
            self.surroundings.clone(),
            self.limits.clone(),
            lifetime,
            self.runtimes.clone(),
            self.meter.clone(),
        )
    }

    fn metered(
        program: Arc<Program>,
        surroundings: Arc<Surroundings>,
        limits: Limits,
        lifetime: Lifetime,
        runtimes: Handles,
        meter: Arc<MemoryMeter>,
    ) -> Self {
        let turns = if matches!(lifetime, Lifetime::Single) {
            1
        } else {
            limits.concurrency.max(1) as usize
        };
        Self {
            program,
            set: SETS.fetch_add(1, Ordering::Relaxed),
            surroundings,
            lifetime,
            runtimes,
            turns: Line::new(turns),
            limits,
            warm: Mutex::new(Vec::new()),
            meter,
            live: Arc::default(),
            running: Arc::default(),
            traps: AtomicU64::new(0),
            starting: AtomicBool::new(false),
        }
    }

    /// Tells it from every other set of instances.
    #[must_use]
    pub fn set(&self) -> u64 {
        self.set
    }

    /// Whether its one instance is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.lifetime, Lifetime::Single)
    }

    /// What it was linked from.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What its instances can see.
    #[must_use]
    pub fn surroundings(&self) -> &Arc<Surroundings> {
        &self.surroundings
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of linear memory of all its instances.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.meter.used()
    }

    /// Instances alive, warm ones included.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Calls that run now.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Calls that wait for their turn now.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.turns.waiting()).unwrap_or(u32::MAX)
    }

    /// Calls that ended by a trap, an overrun or a deadline.
    #[must_use]
    pub fn traps(&self) -> u64 {
        self.traps.load(Ordering::Relaxed)
    }

    /// How an instance is used for a call of this class.
    fn mode(&self, class: Class) -> Mode {
        match (self.lifetime, class) {
            (Lifetime::Single, _) => Mode::Single,
            (Lifetime::Fresh, _) | (Lifetime::Automatic, Class::Hosts) => Mode::Fresh,
            (Lifetime::Pooled, _) | (Lifetime::Automatic, _) => Mode::Pooled,
        }
    }

    /// Runs one call. `class` says who waits for it, `peer` who asked in the end.
    ///
    /// Dropping the future while the call waits for its turn gives the turn up; later it changes nothing: the call goes on.
    pub async fn call<R, F>(
        self: &Arc<Self>,
        class: Class,
        peer: Option<Arc<Peer>>,
        call: F,
    ) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Live) -> CallFuture<'a, R> + Send + 'static,
    {
        let work = self.admitted(class, peer, call).await?;
        self.done(class, work).await
    }

    /// Runs a call that ends what another began: it is served before new ones, and no queue is too full for it.
    pub async fn call_again<R, F>(
        self: &Arc<Self>,
        class: Class,
        peer: Option<Arc<Peer>>,
        call: F,
    ) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Live) -> CallFuture<'a, R> + Send + 'static,
    {
        let turn = self.turns.turn_again();
        let turn = tokio::time::timeout(self.limits.queue_time, turn)
            .await
            .map_err(|_elapsed| self.late())?;
        let work = self.clone().work(turn, class, peer, call);
        self.done(class, work).await
    }

    /// Runs a call for a caller that is a plugin itself, and thus on a thread for components already: the call is done there.
    pub(super) async fn call_by_plugin<R, F>(
        self: &Arc<Self>,
        class: Class,
        peer: Option<Arc<Peer>>,
        call: F,
    ) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Live) -> CallFuture<'a, R> + Send + 'static,
    {
        let work = self.admitted(class, peer, call).await?;
        let done = Unstoppable::new(work, self.runtimes.of(class).clone()).await;
        done.unwrap_or_else(|_panic| Err(self.broken(&"it panicked")))
    }

    /// Has the work done on the plugin's threads.
    async fn done<R: Send + 'static>(
        &self,
        class: Class,
        work: impl Future<Output = Result<R, CallError>> + Send + 'static,
    ) -> Result<R, CallError> {
        // What the plugin logs belongs to the request it works for.
        let work = context::carried(context::request_id(), work);
        let done = self.runtimes.of(class).spawn(work).await;
        done.unwrap_or_else(|error| Err(self.broken(&error)))
    }

    /// Waits for a turn; then the call is ready to run.
    async fn admitted<R, F>(
        self: &Arc<Self>,
        class: Class,
        peer: Option<Arc<Peer>>,
        call: F,
    ) -> Result<impl Future<Output = Result<R, CallError>> + Send + use<R, F>, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Live) -> CallFuture<'a, R> + Send + 'static,
    {
        let turn = self.turn(peer.as_deref()).await?;
        Ok(self.clone().work(turn, class, peer, call))
    }

    /// A call whose turn it is.
    async fn work<R, F>(
        self: Arc<Self>,
        turn: Permit,
        class: Class,
        peer: Option<Arc<Peer>>,
        call: F,
    ) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Live) -> CallFuture<'a, R> + Send + 'static,
    {
        let _turn = turn;
        let _running = Counted::new(&self.running);
        self.clone().run(class, peer, call).await
    }

    /// A host panic costs this call; the instance went down with it.
    fn broken(&self, how: &dyn std::fmt::Display) -> CallError {
        self.traps.fetch_add(1, Ordering::Relaxed);
        CallError::Trapped {
            kind: "host",
            detail: format!("the call's task ended: {how}"),
        }
    }

    async fn turn(&self, peer: Option<&Peer>) -> Result<Permit, CallError> {
        let client = peer.and_then(|peer| peer.address.parse().ok());
        let turn = self.turns.turn(client, self.limits.queue as usize);
        match tokio::time::timeout(self.limits.queue_time, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(Full)) => Err(CallError::Busy {
                reason: format!("limits.queue = {} calls wait already", self.limits.queue),
                retry_after: self.turns.retry_after(),
            }),
            Err(_elapsed) => Err(self.late()),
        }
    }

    fn late(&self) -> CallError {
        CallError::Busy {
            reason: format!(
                "no turn within limits.queue-time = {} ms",
                self.limits.queue_time.as_millis()
            ),
            retry_after: self.turns.retry_after(),
        }
    }

    /// On the plugin's runtime: an instance, the call, its end.
    async fn run<R, F>(
        self: Arc<Self>,
        class: Class,
        peer: Option<Arc<Peer>>,
        call: F,
    ) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Live) -> CallFuture<'a, R> + Send + 'static,
    {
        let mode = self.mode(class);
        let heavy = self.runtimes.of(Class::Heavy).clone();
        let (time, cpu) = (self.limits.time, self.limits.cpu);
        let ticking = self.program.engine().ticking();
        let this = self.clone();
        let mut work: Pin<Box<dyn Future<Output = Result<R, CallError>> + Send>> =
            Box::pin(async move {
                let _ticking = ticking;
                let deadline = Instant::now() + time;
                match tokio::time::timeout(time, this.clone().inside(mode, peer, deadline, call))
                    .await
                {
                    Ok(result) => result,
                    Err(_elapsed) => Err(CallError::Deadline(time)),
                }
            });
        let mut used = Duration::ZERO;
        let turn = Metered::new(work.as_mut(), &mut used, cpu, class != Class::Heavy).await;
        let result = match turn {
            Turn::Done(result) => result,
            Turn::Exhausted => Err(CallError::CpuLimit(cpu)),
            Turn::Demote => {
                let rest = heavy.spawn(context::carried(context::request_id(), async move {
                    match Metered::new(work.as_mut(), &mut used, cpu, false).await {
                        Turn::Done(result) => result,
                        Turn::Exhausted | Turn::Demote => Err(CallError::CpuLimit(cpu)),
                    }
                }));
                rest.await.unwrap_or_else(|error| {
                    Err(CallError::Trapped {
                        kind: "host",
                        detail: format!("the call's task ended: {error}"),
                    })
                })
            }
        };
        if matches!(
            result,
            Err(CallError::Trapped { .. } | CallError::Deadline(_) | CallError::CpuLimit(_))
        ) {
            self.traps.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn inside<R, F>(
        self: Arc<Self>,
        mode: Mode,
        peer: Option<Arc<Peer>>,
        deadline: Instant,
        call: F,
    ) -> Result<R, CallError>
    where
        F: for<'a> FnOnce(&'a mut Live) -> CallFuture<'a, R> + Send + 'static,
    {
        let mut held = self.take(mode).await?;
        held.live.store.data_mut().enter(peer, deadline);
        let result = call(&mut held.live).await;
        let context = held.live.store.data_mut();
        context.leave();
        match result {
            Ok(answer) => {
                held.live.uses += 1;
                // The table of host resources is empty again after a well-behaved call; one that leaks is not reused.
                let leaks = context.leftovers() > MAX_LEFTOVERS;
                let keep = match mode {
                    Mode::Fresh => false,
                    Mode::Pooled => held.live.uses < self.limits.reuse && !leaks,
                    Mode::Single => true,
                };
                if keep {
                    self.put(held);
                }
                Ok(answer)
            }
            Err(error) => {
                let refused = held.live.store.data().refused().map(str::to_owned);
                Err(CallError::from_wasmtime(&error, refused.as_deref()))
            }
        }
    }

    /// A warm instance or a new one. The kept instance of a `single` plugin is only made by [`Sandbox::start`].
    async fn take(self: &Arc<Self>, mode: Mode) -> Result<Held, CallError> {
        if mode != Mode::Fresh {
            let now = self.surroundings.guard.generation_now();
            loop {
                let warm = self.warm().pop();
                let Some(live) = warm else { break };
                let held = Held {
                    live,
                    counted: Counted::taken(&self.live),
                };
                // A guest learns its directories once: after a change of policy a new instance sees those of now. The one instance of a
                // `single` plugin holds an index and stays; what it may no longer do is refused all the same.
                if mode == Mode::Single || held.live.generation == now {
                    return Ok(held);
                }
            }
        }
        if mode == Mode::Single {
            self.restart();
            return Err(CallError::NotReady("it is starting".into()));
        }
        self.make().await
    }

    async fn make(&self) -> Result<Held, CallError> {
        let counted = Counted::new(&self.live);
        let live = self
            .program
            .instantiate(&self.surroundings, &self.limits, &self.meter, self.set)
            .await
            .map_err(|error| CallError::from_wasmtime(&error, None))?;
        Ok(Held { live, counted })
    }

    fn put(&self, held: Held) {
        let mut warm = self.warm();
        let room = if matches!(self.lifetime, Lifetime::Single) {
            1
        } else {
            self.limits.warm as usize
        };
        if warm.len() < room {
            let Held { live, counted } = held;
            counted.keep();
            warm.push(live);
        }
    }

    /// Makes an instance and calls its `start`, in the background runtime. It is the probe of a new version, and the kept instance of a `single`
    /// plugin. No deadline but the plugin's CPU limit times [`START_FACTOR`]: an index may take its time, callers get 503 meanwhile.
    pub async fn start(self: &Arc<Self>) -> Result<(), CallError> {
        let this = self.clone();
        let _ticking = self.program.engine().ticking();
        let task = self.runtimes.of(Class::Heavy).spawn(async move {
            let limit = this.limits.cpu * START_FACTOR;
            let within = this.limits.time * START_FACTOR;
            let mut used = Duration::ZERO;
            let mut work = Box::pin(async {
                let mut held = this.make().await?;
                held.live
                    .store
                    .data_mut()
                    .enter(None, Instant::now() + within);
                let started = held.live.lifecycle.call_start(&mut held.live.store).await;
                held.live.store.data_mut().leave();
                match started {
                    Ok(Ok(())) => {
                        this.put(held);
                        Ok(())
                    }
                    Ok(Err(problem)) => Err(CallError::NotReady(problem)),
                    Err(error) => Err(CallError::from_wasmtime(
                        &error,
                        held.live.store.data().refused(),
                    )),
                }
            });
            let metered = Metered::new(work.as_mut(), &mut used, limit, false);
            match tokio::time::timeout(within, metered).await {
                Ok(Turn::Done(result)) => result,
                Ok(Turn::Exhausted | Turn::Demote) => Err(CallError::CpuLimit(limit)),
                Err(_elapsed) => Err(CallError::Deadline(within)),
            }
        });
        task.await.unwrap_or_else(|error| {
            Err(CallError::Trapped {
                kind: "host",
                detail: format!("the start task ended: {error}"),
            })
        })
    }

    /// Starts a lost `single` instance again, once at a time.
    fn restart(self: &Arc<Self>) {
        if self.starting.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        self.runtimes.of(Class::Heavy).spawn(async move {
            if let Err(error) = this.start().await {
                tracing::error!(plugin = this.surroundings.plugin(), %error, "the plugin does not start again");
                // A plugin that fails at once must not spin.
                tokio::time::sleep(RESTART_PAUSE).await;
            }
            this.starting.store(false, Ordering::Release);
        });
    }

    fn warm(&self) -> std::sync::MutexGuard<'_, Vec<Live>> {
        self.warm
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Drops warm instances, e.g. when the plugin has been idle. A `single` instance holds an index and stays.
    pub fn cool(&self) {
        if !matches!(self.lifetime, Lifetime::Single) {
            let dropped = std::mem::take(&mut *self.warm());
            self.live
                .fetch_sub(u32::try_from(dropped.len()).unwrap_or(0), Ordering::Relaxed);
            // Dropping a store with much dirty memory takes milliseconds: not on a thread that serves sockets.
            self.runtimes
                .of(Class::Heavy)
                .spawn(async move { drop(dropped) });
        }
    }

    /// Waits until no call runs or waits, at most so long. True: idle.
    pub async fn drained(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            if self.running() == 0 && self.waiting() == 0 {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Numbers of sets of instances; 0 is the host's own.
static SETS: AtomicU64 = AtomicU64::new(1);
/// Host resources a pooled instance may still hold after a call (its own stdin, preopens) before it is replaced.
const MAX_LEFTOVERS: usize = 256;
/// `start` may use this many times the limits of a call.
const START_FACTOR: u32 = 4;
/// Between two failed starts of a `single` plugin.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

/// An instance in use, and its place in the count of live ones.
struct Held {
    live: Live,
    counted: Counted,
}

/// Counts as long as it lives.
struct Counted(Option<Arc<AtomicU32>>);

impl Counted {
    fn new(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Some(counter.clone()))
    }

    /// For something that is counted already.
    fn taken(counter: &Arc<AtomicU32>) -> Self {
        Self(Some(counter.clone()))
    }

    /// Leaves the count as it is.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(counter) = &self.0 {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
