/**
 * What the three stage commands (process, sink, replay) share: a signal that ends them, the endpoints, and a server for
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
  const context = await openContext(flags, undefined, signal, { component, level });
  const { logger, endpoints } = context;
  // Full paths: the working directory may be removed meanwhile.
  const { gold, state, namespace } = context.places;
  const places = { gold: resolve(gold), state: resolve(state), namespace };
  logger.info({ brokers: endpoints.brokers, ...places }, 'started');
  signal.addEventListener('abort', () => setTimeout(() => endNow(logger), leaveMs).unref());
  tellWhenReady(health);
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
 * Ends a stage that cannot end in order, for example because a broker takes its requests and answers none. Nothing is lost, as
 * after a crash. A supervisor would kill it.
 */
function endNow(logger: Logger): void {
  logger.warn({ seconds: leaveMs / 1000 }, 'it has not ended in order: ending at once');
  process.exit(stoppedExitCode());
}

/** Tells a parent process once that this stage is ready. */
function tellWhenReady(health: () => HealthView): void {
  if (process.send === undefined) return;
  const timer = setInterval(() => {
    if (!health().isReady) return;
    clearInterval(timer);
    process.send?.(readyMessage);
  }, readyCheckMs).unref();
}

/** The message with which a stage tells its parent that it is ready, as `/readyz` says it. */
export const readyMessage = 'ready';

/** The message with which a parent asks a stage to finish. */
export const finishMessage = 'finish';

/** The message with which a parent asks a processor to apply what is on the topics without waiting for a window to end. */
export const flushMessage = 'flush';

/** The message with which a processor tells its parent that it has published everything, before it closes its stores. */
export const caughtUpMessage = 'caught up';

/** The message with which a sink tells its parent that CURRENT names a new snapshot, before it cleans up and ends. */
export const publishedMessage = 'published';

/** Aborts when the parent process asks this one to finish, or at once with `now`. */
export function finishSignal(now: boolean): AbortSignal {
  const controller = new AbortController();
  if (now) controller.abort();
  process.on('message', (message) => {
    if (message === finishMessage) controller.abort();
  });
  // A parent that was killed cannot ask any more, and a stage without it would run on unseen.
  process.once('disconnect', () => stop('SIGTERM'));
  // The channel to the parent alone must not keep this process alive.
  process.channel?.unref();
  return controller.signal;
}
