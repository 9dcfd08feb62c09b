/** An HTTP proxy before the real Schema Registry, as an ingress is: it passes requests on, or answers in its place. */
import {
  createServer,
  type IncomingHttpHeaders,
  type RequestListener,
  request,
  type Server,
} from 'node:http';
import { createServer as createSecureServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';

export interface ProxyAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Ends the connection after the body. The announced length stays. */
  readonly isCut?: boolean;
  /** Sends a space every hundredth of a second, and nothing else. */
  readonly isEndless?: boolean;
}

interface ProxyRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly atMs: number;
}

/** What an ingress without a backend says. */
export const ingressPage: ProxyAnswer = {
  status: 404,
  headers: { 'content-type': 'text/html' },
  body: '<html><head><title>404 Not Found</title></head><body>nginx</body></html>',
};

export class RegistryProxy {
  readonly #server: Server;
  readonly #target: URL;
  readonly #scheme: string;
  /** Answers in place of the registry, or undefined to pass the request on. */
  answer: (request: ProxyRequest) => ProxyAnswer | undefined = () => undefined;
  readonly requests: ProxyRequest[] = [];

  private constructor(target: string, tls: ServerOptions | undefined) {
    this.#target = new URL(target);
    this.#scheme = tls === undefined ? 'http' : 'https';
    const { hostname, port } = this.#target;
    const listener: RequestListener = (incoming, outgoing) => {
      const { method = '', url: path = '', headers } = incoming;
      const asked = { method, path, headers, atMs: performance.now() };
      this.requests.push(asked);
      const answer = this.answer(asked);
      if (answer === undefined) {
        const passed = request({ hostname, port, method, path, headers }, (response) => {
          outgoing.writeHead(response.statusCode ?? 502, response.headers);
          response.pipe(outgoing);
        });
        passed.on('error', () => outgoing.destroy());
        incoming.pipe(passed);
        return;
      }
      incoming.resume();
      const { status, body = '', isCut = false, isEndless = false } = answer;
      outgoing.writeHead(status, {
        ...answer.headers,
        ...(isCut && { 'content-length': String(body.length + 100) }),
      });
      if (isEndless) {
        const drip = setInterval(() => outgoing.write(' '), 10);
        outgoing.once('close', () => clearInterval(drip));
      } else if (isCut) outgoing.write(body, () => outgoing.destroy());
      else outgoing.end(body);
    };
    this.#server = tls === undefined ? createServer(listener) : createSecureServer(tls, listener);
  }

  /** @param target URL of the registry, with its path. @param tls makes it an https server */
  static async before(target: string, tls?: ServerOptions): Promise<RegistryProxy> {
    const proxy = new RegistryProxy(target, tls);
    const { promise, resolve } = Promise.withResolvers<void>();
    proxy.#server.listen(0, '127.0.0.1', resolve);
    await promise;
    return proxy;
  }

  /** The URL of the registry through this proxy. */
  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `${this.#scheme}://127.0.0.1:${port}${this.#target.pathname.replace(/\/$/, '')}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }
}
