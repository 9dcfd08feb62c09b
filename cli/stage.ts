/**
 * What the stage commands (process, sink, replay, refresh) share: a signal that ends them, the endpoints, and a server for
 * health and metrics. A stage may also run as a child of a pipeline, which asks it to finish.
 */
import { resolve } from 'node:path';
import type { Registry } from 'prom-client';
import type { Logger } from '../runtime/logger.ts';
import { type Context, logLevelOf, openContext } from './context.ts';
import type { HealthView } from './observe.ts';
import type { CommonFlags, ListenAddress } from './options.ts';
import { stop, stoppedExitCode, stopReason, stopSignal } from './stop.ts';

export interface StageFlags extends CommonFlags {
  listen?: ListenAddress;
}

interface Stage<Metrics> extends Context {
  readonly signal: AbortSignal;
  /** Logs that the stage has ended, and why. */
  readonly stopped: () => void;
  /** Absent without --listen; spread into the options of the stage. */
  readonly observed: { readonly metrics?: Metrics };
}

/** How long a stage may take to end in order after a signal. Kubernetes kills a container after half a minute. */
const leaveMs = 20_000;
const readyCheckMs = 50;

/**
 * @param component names the stage in its log
 * @param health answers the supervisor at any time, also while the stage is starting
 * @param metricsIn registers the metrics of the stage; loads their module only with --listen
 */
export async function openStage<Metrics>(
  component: 'process' | 'sink' | 'replay',
  flags: StageFlags,
  health: () => HealthView,
  metricsIn: (registry: Registry) => Promise<Metrics>,
): Promise<Stage<Metrics>> {
  const signal = stopSignal();
  // A replay shows bars on a terminal; the services show their events.
  const level = component === 'replay' || flags.verbose === true ? logLevelOf(flags) : 'info';
  const context = await openContext(flags, { signal, component, level });
  const { logger, endpoints } = context;
  // Full paths, because the working directory may be removed meanwhile.
  const { gold, state, namespace } = context.places;
  const places = { gold: resolve(gold), state: resolve(state), namespace };
  logger.info({ brokers: endpoints.brokers, ...places }, 'started');
  signal.addEventListener('abort', () => setTimeout(() => endNow(logger), leaveMs).unref());
  reportReady(health);
  const stage = {
    ...context,
    places,
    signal,
    stopped: () => logger.info({ reason: stopReason() ?? 'done' }, 'stopped'),
  };
  if (flags.listen === undefined) return { ...stage, observed: {} };
  const { serveObservers } = await import('./observe.ts');
  const registry = await serveObservers(flags.listen, health);
  return { ...stage, observed: { metrics: await metricsIn(registry) } };
}

/**
 * Ends a stage that cannot end in order, for example because a broker accepts its requests and answers none. A supervisor would
 * kill it. Like a crash, this loses nothing.
 */
function endNow(logger: Logger): void {
  logger.warn({ seconds: leaveMs / 1000 }, 'the stage has not ended in order: ending at once');
  process.exit(stoppedExitCode());
}

/** Sends one message to a parent process when this stage is ready. */
function reportReady(health: () => HealthView): void {
  if (process.send === undefined) return;
  const timer = setInterval(() => {
    if (!health().isReady) return;
    clearInterval(timer);
    process.send?.(readyMessage);
  }, readyCheckMs).unref();
}

/** From a stage to its parent: it is ready, by the same rule as `/readyz`. */
export const readyMessage = 'ready';

/** From a parent to a stage: finish the backlog and end. */
export const finishMessage = 'finish';

/** From a parent to a processor: apply what is on the topics without waiting for a window to end. */
export const flushMessage = 'flush';

/** From a processor to its parent: it has published everything, and closes its stores next. */
export const caughtUpMessage = 'caught up';

/** From a sink to its parent: CURRENT names a new snapshot, and the sink cleans up and ends next. */
export const publishedMessage = 'published';

/** Aborts when the parent process asks this one to finish, or at once with `now`. */
export function finishSignal(now: boolean): AbortSignal {
  const controller = new AbortController();
  if (now) controller.abort();
  process.on('message', (message) => {
    if (message === finishMessage) controller.abort();
  });
  // A killed parent cannot ask any more, and the stage would continue to run unseen.
  process.once('disconnect', () => stop('SIGTERM'));
  // The channel to the parent alone must not keep this process alive.
  process.channel?.unref();
  return controller.signal;
}
