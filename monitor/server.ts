/**
 * Serves the page: its files, the view as server-sent events, single dead letters and plots. It only reads and answers only
 * GET. On other than loopback addresses every request needs the token. On a loopback address the Host header must name a
 * loopback address, so that no other web page can read from it through the browser.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ReelflowError, reasonOf } from '../runtime/errors.ts';
import { loadHttp } from '../runtime/http.ts';
import type { Logger } from '../runtime/logger.ts';
import { listenOn } from './listen.ts';
import type { View } from './overview.ts';

export interface PageOptions {
  readonly host: string;
  readonly port: number;
  /** Required in every request; undefined only if `host` is a loopback address. */
  readonly token: string | undefined;
  readonly look: (signal: AbortSignal) => Promise<View>;
  /** A dead letter as JSON; undefined when there is none. */
  readonly letter: (at: { partition: number; offset: number }) => Promise<object | undefined>;
  /** The plots of a snapshot as JSON; undefined when there is none. */
  readonly plots: (snapshot: string) => Promise<object | undefined>;
  /** In the text format of Prometheus. */
  readonly metrics: () => Promise<{ readonly type: string; readonly text: string }>;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

export interface RunningPage {
  /** Contains the token if one is required. */
  readonly url: string;
  readonly done: Promise<void>;
}

const lookEveryMs = 2_000;
const viewersMax = 50;
/** A viewer with more unread bytes is disconnected. */
const unsentBytesMax = 4_000_000;
const answerWithinMs = 15_000;
/** Longer than an observation takes without an answer of a broker. */
const observedWithinMs = 120_000;
const cookie = 'reelflow-monitor';

const files: Readonly<Record<string, { file: string; type: string }>> = {
  '/': { file: 'index.html', type: 'text/html; charset=utf-8' },
  '/style.css': { file: 'style.css', type: 'text/css; charset=utf-8' },
  '/page.js': { file: 'page.js', type: 'text/javascript; charset=utf-8' },
  '/charts.js': { file: 'charts.js', type: 'text/javascript; charset=utf-8' },
  '/icon.svg': { file: 'icon.svg', type: 'image/svg+xml' },
};

const securityHeaders = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};

/** Whether only this machine can reach an address. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(host);
}

/** Serves until the signal. @throws ReelflowError usage, when it cannot listen or a token is missing */
export async function servePage(options: PageOptions): Promise<RunningPage> {
  const { host, port, token } = options;
  if (token === undefined && !isLoopback(host)) {
    throw new ReelflowError('usage', `${host} is reachable from other machines, which requires a token`, {
      hint: 'Set REELFLOW_MONITOR_TOKEN.',
    });
  }
  const page = new Page(options);
  const server = loadHttp().createServer(
    { requestTimeout: 10_000 },
    (request, response) => void page.answer(request, response),
  );
  await listenOn(server, host, port);
  const { port: listening } = server.address() as AddressInfo;
  const shown = host.includes(':') ? `[${host}]` : host;
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return {
    url: `http://${shown}:${listening}/${token === undefined ? '' : `?token=${encodeURIComponent(token)}`}`,
    done: page.run().finally(close),
  };
}

class Page {
  readonly #options: PageOptions;
  readonly #contents = new Map<string, Buffer>();
  readonly #viewers = new Set<ServerResponse>();
  /** The newest event, for viewers that connect between two looks. */
  #last = '';
  /** When the last observation ended, with a view or a failure. */
  #lookedMs = performance.now();

  constructor(options: PageOptions) {
    this.#options = options;
    for (const { file } of Object.values(files)) {
      this.#contents.set(file, readFileSync(new URL(`./page/${file}`, import.meta.url)));
    }
  }

  /** Observes and sends the view to all viewers, until the signal. */
  async run(): Promise<void> {
    const { look, signal, logger } = this.#options;
    // An observation that waits for a broker must not delay the end: it changes nothing.
    const ended = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    ended.catch(() => undefined);
    while (!signal.aborted) {
      try {
        const looking = look(signal);
        looking.catch(() => undefined);
        this.#send('view', await Promise.race([looking, ended]));
      } catch (thrown) {
        if (signal.aborted) break;
        logger.error({ reason: reasonOf(thrown) }, 'the observation failed');
        this.#send('failure', { text: reasonOf(thrown) });
      }
      this.#lookedMs = performance.now();
      await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined);
    }
    for (const viewer of this.#viewers) viewer.end();
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://page');
    for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value);
    try {
      if (request.method !== 'GET' && request.method !== 'HEAD')
        return say(response, 405, 'Only GET is supported.');
      // For supervisors, which have no token and call by address: it shows only whether the page observes.
      if (url.pathname === '/healthz')
        return json(response, this.#isHealthy ? 200 : 503, { isHealthy: this.#isHealthy });
      if (!this.#isKnownHost(request)) return say(response, 421, 'Unknown Host header.');
      if (!this.#isAdmitted(request, url, response)) return;
      await this.#route(url, request, response);
    } catch (thrown) {
      if (!(thrown instanceof ReelflowError))
        this.#options.logger.error({ reason: reasonOf(thrown) }, 'a request failed');
      if (!response.headersSent) json(response, 502, { error: reasonOf(thrown) });
      else response.destroy();
    }
  }

  get #isHealthy(): boolean {
    return performance.now() - this.#lookedMs < observedWithinMs;
  }

  /** A page whose name points to this address (DNS rebinding) sends its own name as Host. */
  #isKnownHost({ headers }: IncomingMessage): boolean {
    if (this.#options.token !== undefined) return true;
    const name = (headers.host ?? '').replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
    return isLoopback(name);
  }

  /** The token arrives once in the URL, or as a bearer token; later requests carry a cookie that no script can read. */
  #isAdmitted(request: IncomingMessage, url: URL, response: ServerResponse): boolean {
    const { token } = this.#options;
    if (token === undefined) return true;
    const { authorization = '', cookie: cookies = '' } = request.headers;
    const given = url.searchParams.get('token');
    if (given !== null && isSame(given, token)) {
      response.setHeader('set-cookie', `${cookie}=${digest(token)}; HttpOnly; SameSite=Strict; Path=/`);
      response.writeHead(303, { location: url.pathname });
      response.end();
      return false;
    }
    const known = cookies
      .split(/;\s*/)
      .some((pair) => pair.startsWith(`${cookie}=`) && isSame(pair.slice(cookie.length + 1), digest(token)));
    if (known || isSame(authorization, `Bearer ${token}`)) return true;
    response.setHeader('www-authenticate', 'Bearer');
    say(
      response,
      401,
      'Token missing or wrong. Open the URL that `reelflow monitor` printed, with ?token=….',
    );
    return false;
  }

  async #route(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { letter, plots, metrics } = this.#options;
    const file = files[url.pathname];
    if (file !== undefined) {
      response.writeHead(200, { 'content-type': file.type });
      response.end(request.method === 'HEAD' ? undefined : this.#contents.get(file.file));
      return;
    }
    if (url.pathname === '/events') return this.#addViewer(response);
    if (url.pathname === '/metrics') {
      const { type, text } = await metrics();
      response.writeHead(200, { 'content-type': type }).end(text);
      return;
    }
    if (url.pathname === '/letter') {
      const [, partition, offset] = /^(\d{1,6}):(\d{1,15})$/.exec(url.searchParams.get('at') ?? '') ?? [];
      if (partition === undefined) return json(response, 400, { error: 'Expected at=partition:offset.' });
      const found = await inTime(letter({ partition: Number(partition), offset: Number(offset) }));
      return json(response, found === undefined ? 404 : 200, found ?? { error: 'Dead letter not found.' });
    }
    if (url.pathname === '/plots') {
      const found = await inTime(plots(url.searchParams.get('snapshot') ?? ''));
      return json(response, found === undefined ? 404 : 200, found ?? { error: 'Snapshot not found.' });
    }
    say(response, 404, 'Not found.');
  }

  #addViewer(response: ServerResponse): void {
    if (this.#viewers.size >= viewersMax) {
      say(response, 503, 'Too many viewers.');
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(`retry: 2000\n\n${this.#last}`);
    this.#viewers.add(response);
    response.on('close', () => this.#viewers.delete(response));
  }

  #send(event: 'view' | 'failure', data: object): void {
    this.#last = `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
    for (const viewer of this.#viewers) {
      if (viewer.writableLength > unsentBytesMax) viewer.destroy();
      else viewer.write(this.#last);
    }
  }
}

/** @throws ReelflowError stuck, if the work takes too long */
async function inTime<T>(work: Promise<T>): Promise<T> {
  const tooLate = sleep(answerWithinMs, undefined, { ref: false }).then(() => {
    throw new ReelflowError('stuck', 'The answer takes too long', {
      detail: `No answer within ${answerWithinMs / 1000} s.`,
    });
  });
  // The loser of the race must not count as an unhandled rejection.
  for (const either of [work, tooLate]) either.catch(() => undefined);
  return Promise.race([work, tooLate]);
}

function say(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' });
  response.end(`${text}\n`);
}

function json(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

const digest = (text: string) => createHash('sha256').update(`reelflow ${text}`).digest('hex');

/** Compares in constant time. */
function isSame(a: string, b: string): boolean {
  return timingSafeEqual(Buffer.from(digest(a)), Buffer.from(digest(b)));
}
