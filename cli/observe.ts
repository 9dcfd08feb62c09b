/**
 * What supervisors and Prometheus ask a running stage: `/healthz` and `/readyz` answer 200 or 503 with the view as JSON,
 * `/metrics` answers in Prometheus' text format. On 127.0.0.1 unless a host is named; there is nothing to change there,
 * and no secret to read.
 */
import { createServer } from 'node:http';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { listenOn } from '../monitor/listen.ts';
import { messageOf } from '../runtime/errors.ts';
import type { ListenAddress } from './context.ts';

export interface HealthView {
  readonly isHealthy: boolean;
  readonly isReady: boolean;
}

/** The metrics of this process: memory, CPU, garbage collection and event-loop delay are in it already. */
export function processRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return registry;
}

/**
 * Serves until the process ends.
 * @returns where metrics are to be registered
 * @throws ReelflowError usage, when the address cannot be listened on
 */
export async function serveObservers(
  { host, port }: ListenAddress,
  health: () => HealthView,
): Promise<Registry> {
  const registry = processRegistry();
  const server = createServer((request, response) => {
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
