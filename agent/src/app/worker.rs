//! One worker's thread: a runtime of its own, its pipeline and its listeners, in step with the tables until the drain is over.

use std::rc::Rc;
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_node::readiness::Guard;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use super::presence::Doorkeeper;
use super::troubles::Troubles;
use super::{Common, StartError, is_configured};
use crate::listener::{self, Entry, Listeners, Wanted};
use crate::pipeline::{Pipeline, Worker};
use crate::tables::Tables;
use crate::upstream::Pools;

/// How often waiting access log lines are handed to the writer.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// How often a listener that could not be opened is tried again: an address comes free when somebody else stops.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// Starts all workers. When `inbound` drains, they close the listeners that others call and go on with the rest.
///
/// # Errors
/// A thread or its runtime cannot be made.
pub(super) fn start_all(common: &Common, drain: &DrainWatch, inbound: &DrainWatch, keeper: Doorkeeper) -> Result<(), StartError> {
    for index in 0..common.settings.workers {
        let (common, drain, inbound, keeper) = (common.clone(), drain.clone(), inbound.clone(), keeper.clone());
        let ready = common.readiness.guard(&format!("worker {index}"));
        let failed = |source| StartError::System { what: "a worker cannot be started", source };
        let (built, answer) = std::sync::mpsc::sync_channel(1);
        // A local runtime lives and dies on its thread.
        let body = move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                let _ = built.send(Ok(()));
                runtime.block_on(run(index, common, ready, (drain, inbound), keeper));
            }
            Err(error) => drop(built.send(Err(error))),
        };
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(body).map_err(failed)?;
        let gone = |_| std::io::Error::other("its thread ended");
        answer.recv().map_err(gone).and_then(|built| built).map_err(failed)?;
    }
    Ok(())
}

async fn run(index: usize, common: Common, ready: Guard, (mut drain, inbound): (DrainWatch, DrainWatch), mut keeper: Doorkeeper) {
    let Common { shared, doors, counters, mut tables, log, tracer, settings, troubles, mut status, own, callees, .. } = common;
    let pools = Pools::new();
    let worker = Worker::new(index, pools.clone(), shared, fastrand::Rng::new(), log.map(|log| log.batch()), tracer);
    worker.set_callees(callees);
    worker.follow(tables.clone());
    spawn_local(pools.keep_tidy());
    spawn_local(flush(worker.clone()));
    let door = listener::Worker::new(Pipeline::new(worker.clone()), counters[index].clone());
    let mut listeners = Listeners::new(Rc::new(door), doors, settings.drain_timeout);
    let (mut ready, mut again, mut inbound, mut serving) = (Some(ready), false, Some(inbound), false);
    loop {
        tokio::select! {
            changed = tables.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            Ok(()) = status.changed(), if ready.is_some() => {}
            () = tokio::time::sleep(REOPEN_EVERY), if again => {}
            () = begins(&mut inbound, &mut keeper) => {}
            () = drain.draining() => break,
        }
        // Asked before the tables are looked at, which then hold at least what made it so.
        let configured = is_configured(&status.borrow());
        tables.mark_unchanged();
        let now = worker.catch_up();
        let closed = inbound.as_ref().is_none_or(|inbound| inbound.is_draining() && keeper.has_told());
        // Nobody is let in before it is known who may call.
        serving |= configured;
        let own = if serving { &own[..] } else { &[] };
        again = open(index, &mut listeners, &wanted(own, &now, closed), &troubles, ready.is_some());
        keeper.shut.take_if(|_| listeners.lets_callers_in());
        if let Some(watch) = inbound.take_if(|_| closed) {
            listeners.hold_while_closing(watch);
        }
        ready = ready.filter(|_| !configured);
    }
    drop((ready, inbound));
    // `/ready` says "draining" already; load balancers in front get this long to notice before new connections are refused.
    tokio::time::sleep(settings.drain_delay).await;
    keeper.told().await;
    tokio::select! {
        () = listeners.drain() => {}
        () = drain.forced() => {}
    }
    worker.close_log().await;
}

/// Waits until a drain begins that is still to begin, and callers have been told of it.
async fn begins(drain: &mut Option<DrainWatch>, keeper: &mut Doorkeeper) {
    let Some(drain) = drain else { return std::future::pending().await };
    drain.draining().await;
    keeper.told().await;
}

/// The listeners that should be open; once those that others call are `closed`, what goes out goes on.
fn wanted(own: &[Wanted], tables: &Tables, closed: bool) -> Vec<Wanted> {
    // Those of the tables are called by others, too.
    let told = tables.listeners.values().cloned().map(Wanted::gateway);
    let is_called = |wanted: &Wanted| matches!(wanted.entry, Entry::Gateway | Entry::Inbound(_));
    own.iter().cloned().chain(told).filter(|wanted| !(closed && is_called(wanted))).collect()
}

/// Opens and closes listeners as it is wanted; says whether some could not be opened.
fn open<S: crate::exchange::Service>(
    index: usize,
    listeners: &mut Listeners<S>,
    wanted: &[Wanted],
    troubles: &Troubles,
    starting: bool,
) -> bool {
    let faults = listeners.reconcile(wanted);
    troubles.report(index, &faults, starting);
    !faults.is_empty()
}

async fn flush(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(FLUSH_EVERY);
    loop {
        ticks.tick().await;
        worker.flush_log();
    }
}
