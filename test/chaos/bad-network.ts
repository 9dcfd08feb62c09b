/**
 * A TCP proxy that misbehaves on request: cuts, delays, connections that are open and dead, acknowledgements that are
 * lost on their way. What a connection holds back is dropped when its client goes, as a network would drop it: nothing is
 * delivered on behalf of a process that no longer exists.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
}

export class BadNetwork {
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  #delayMs = 0;
  #dead = new WeakSet<Pair>();
  /** Answers that are still to be swallowed, each with its connection. */
  #answersToCut = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(port: number, target: { host: string; port: number }): Promise<BadNetwork> {
    const server = createServer();
    const proxy = new BadNetwork(server);
    server.on('connection', (near) => proxy.#accept(near, connect(target)));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
    await promise;
    return proxy;
  }

  get connections(): number {
    return this.#pairs.size;
  }

  /** Cuts every connection. @returns how many */
  cut(): number {
    const count = this.#pairs.size;
    for (const { near, far } of [...this.#pairs]) {
      near.destroy();
      far.destroy();
    }
    return count;
  }

  /** From now on every byte comes so much later; 0 ends it. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** The connections of now stay open and carry nothing any more, until they are cut after so long. */
  halfOpen(forMs: number): number {
    const chosen = [...this.#pairs];
    for (const pair of chosen) this.#dead.add(pair);
    setTimeout(() => {
      for (const { near, far } of chosen) {
        near.destroy();
        far.destroy();
      }
    }, forMs);
    return chosen.length;
  }

  /** The next answers of the broker are lost, and their connections with them: the requests were carried out. */
  cutAnswers(count: number): void {
    this.#answersToCut += count;
  }

  calm(): void {
    this.#delayMs = 0;
    this.#answersToCut = 0;
  }

  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.cut();
    await promise;
  }

  #accept(near: Socket, far: Socket): void {
    const pair = { near, far };
    this.#pairs.add(pair);
    near.setNoDelay(true);
    far.setNoDelay(true);
    this.#pass(pair, near, far, false);
    this.#pass(pair, far, near, true);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.on('error', () => socket.destroy());
      socket.on('close', () => {
        this.#pairs.delete(pair);
        other.destroy();
      });
    }
  }

  #pass(pair: Pair, from: Socket, to: Socket, isAnswer: boolean): void {
    const waiting: { bytes: Buffer; atMs: number }[] = [];
    const deliver = (): void => {
      for (let head = waiting[0]; head !== undefined; head = waiting[0]) {
        const leftMs = head.atMs - Date.now();
        if (leftMs > 0) {
          setTimeout(deliver, leftMs);
          return;
        }
        waiting.shift();
        if (to.destroyed || this.#dead.has(pair)) continue;
        if (!to.write(head.bytes)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      }
    };
    from.on('data', (bytes: Buffer) => {
      if (this.#dead.has(pair)) return;
      if (isAnswer && this.#answersToCut > 0) {
        this.#answersToCut -= 1;
        pair.near.destroy();
        pair.far.destroy();
        return;
      }
      // In the order in which they came, also when the delay has changed meanwhile.
      waiting.push({ bytes, atMs: Date.now() + this.#delayMs });
      if (waiting.length === 1) deliver();
    });
  }
}
