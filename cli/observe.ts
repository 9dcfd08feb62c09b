/**
 * The HTTP endpoints of a running stage: `/healthz` and `/readyz` answer 200 or 503 with the view as JSON, `/metrics` in
 * Prometheus' text format. They are read-only and contain no secret.
 */
import { collectDefaultMetrics, Registry } from 'prom-client';
import { listenOn } from '../monitor/listen.ts';
import { messageOf } from '../runtime/errors.ts';
import { loadHttp } from '../runtime/http.ts';
import type { ListenAddress } from './options.ts';

export interface HealthView {
  readonly isHealthy: boolean;
  readonly isReady: boolean;
  /** Why it is not ready, for a person. */
  readonly detail?: string;
}

/** A registry with the metrics of this process: memory, CPU, garbage collection, event-loop delay. */
export function processRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return registry;
}

/**
 * Serves until the process ends.
 * @returns the registry for the metrics of the stage
 * @throws ReelflowError usage, when the address cannot be listened on
 */
export async function serveObservers(
  { host, port }: ListenAddress,
  health: () => HealthView,
): Promise<Registry> {
  const registry = processRegistry();
  const server = loadHttp().createServer((request, response) => {
    const path = request.url ?? '';
    if (path === '/metrics') {
      registry.metrics().then(
        (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
        (thrown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(messageOf(thrown)),
      );
      return;
    }
    const view = health();
    const isGood = { '/healthz': view.isHealthy, '/readyz': view.isReady }[path];
    response.writeHead(isGood === undefined ? 404 : isGood ? 200 : 503, {
      'content-type': 'application/json',
    });
    response.end(isGood === undefined ? '' : JSON.stringify(view));
  });
  await listenOn(server, host, port);
  server.unref();
  return registry;
}
