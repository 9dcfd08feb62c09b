/** `/healthz` and `/readyz` for supervisors, on 127.0.0.1 only. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { messageOf, ReelflowError } from '../errors.ts';

export interface HealthView {
  readonly isHealthy: boolean;
  readonly isReady: boolean;
}

/**
 * Serves until the process ends: 200 or 503, with the view as JSON.
 * @throws ReelflowError usage, when the port cannot be listened on
 */
export async function serveHealth(port: number, health: () => HealthView): Promise<void> {
  const server = createServer((request, response) => {
    const view = health();
    const isGood = { '/healthz': view.isHealthy, '/readyz': view.isReady }[request.url ?? ''];
    response.writeHead(isGood === undefined ? 404 : isGood ? 200 : 503, {
      'content-type': 'application/json',
    });
    response.end(isGood === undefined ? '' : JSON.stringify(view));
  });
  server.listen(port, '127.0.0.1');
  server.unref();
  try {
    await once(server, 'listening');
  } catch (thrown) {
    throw new ReelflowError('usage', `Port ${port} cannot be listened on`, {
      detail: messageOf(thrown),
      hint: 'Choose another --health-port.',
      cause: thrown,
    });
  }
}
