/**
 * A way to the broker that stops the requests that a test chooses, and that can break down. Metadata answers name the broker's
 * own port: they are rewritten to this one, or clients would go round it.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

/** The bytes of a request begin with its length, its key and its version. */
export class RequestGate {
  readonly port: number;
  /** Which requests do not reach the broker. */
  stops: (request: Buffer) => boolean = () => false;
  /** The requests that were stopped, whole. */
  readonly stopped: Buffer[] = [];
  readonly #target: { host: string; port: number };
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number, target: { host: string; port: number }) {
    this.port = port;
    this.#target = target;
    const address = (of: number) => {
      const bytes = Buffer.from(`\0\x09127.0.0.1\0\0\0\0`, 'latin1');
      bytes.writeInt32BE(of, 11);
      return bytes;
    };
    this.#server = createServer((near) => {
      const far = connect(target);
      let waiting = Buffer.alloc(0);
      near.on('data', (data) => {
        waiting = Buffer.concat([waiting, data]);
        while (waiting.length >= 8) {
          const length = 4 + waiting.readInt32BE(0);
          if (waiting.length < length) return;
          const request = waiting.subarray(0, length);
          if (this.stops(request)) this.stopped.push(Buffer.from(request));
          else far.write(request);
          waiting = waiting.subarray(length);
        }
      });
      far.on('data', (data: Buffer) => {
        for (
          let at = data.indexOf(address(target.port));
          at >= 0;
          at = data.indexOf(address(target.port), at + 1)
        ) {
          address(port).copy(data, at);
        }
        near.write(data);
      });
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on('error', () => undefined);
        socket.on('close', () => {
          near.destroy();
          far.destroy();
        });
      }
    });
  }

  static async to(target: { host: string; port: number }, port: number): Promise<RequestGate> {
    const gate = new RequestGate(port, target);
    await gate.open();
    return gate;
  }

  async open(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.listen(this.port, '127.0.0.1', resolve);
    await promise;
  }

  /** Sends a request that was stopped, from a connection of its own. @returns the response, without its length */
  async deliver(request: Buffer): Promise<Buffer> {
    const socket = connect(this.#target);
    try {
      socket.write(request);
      let response = Buffer.alloc(0);
      for await (const data of socket) {
        response = Buffer.concat([response, data as Buffer]);
        if (response.length >= 4 && response.length >= 4 + response.readInt32BE(0)) break;
      }
      return response.subarray(4);
    } finally {
      socket.destroy();
    }
  }

  /** Breaks all connections and refuses new ones, until it is opened again. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
