/** Listening on the address that a user named, by the page and by what a stage serves to its observers. */
import { once } from 'node:events';
import type { Server } from 'node:http';
import { messageOf, ReelflowError } from '../runtime/errors.ts';

/** Waits until the server listens. @throws ReelflowError usage, when it cannot */
export async function listenOn(server: Server, host: string, port: number): Promise<void> {
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (thrown) {
    throw new ReelflowError('usage', `${host}:${port} cannot be listened on`, {
      detail: messageOf(thrown),
      hint: 'Choose another --listen.',
      cause: thrown,
    });
  }
}
