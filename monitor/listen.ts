/** Listens on the address of `--listen`, for the page and for the endpoints of a stage. */
import { once } from 'node:events';
import type { Server } from 'node:http';
import { messageOf, ReelflowError } from '../runtime/errors.ts';

/** Waits until the server listens. @throws ReelflowError usage, when it cannot */
export async function listenOn(server: Server, host: string, port: number): Promise<void> {
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (thrown) {
    throw new ReelflowError(
      'usage',
      `${host.includes(':') ? `[${host}]` : host}:${port} cannot be listened on`,
      {
        detail: messageOf(thrown),
        hint: 'Choose another address with --listen.',
        cause: thrown,
      },
    );
  }
}
