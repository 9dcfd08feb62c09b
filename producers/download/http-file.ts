/**
 * Requests a file of an HTTP server and gives its bytes as they come over the wire. `fetch` unpacks what a server declares as
 * packed: the announced length is then wrong, and a `.gz` file arrives as text.
 */
import type { IncomingMessage } from 'node:http';
import { messageOf, systemCodeOf } from '../../runtime/errors.ts';
import { loadHttpFor } from '../../runtime/http.ts';

/** A temporary failure: the connection broke, the server is busy. */
export class Interrupted extends Error {}

export interface Response {
  readonly status: number;
  /** Length of the body as announced; undefined when the server does not say. */
  readonly length: number | undefined;
  readonly etag: string | undefined;
  /** Last-Modified, if it is a date. */
  readonly modified: string | undefined;
  readonly contentRange: string | undefined;
  readonly contentType: string;
  /** Throws Interrupted when the connection breaks or nothing comes for too long. */
  readonly body: AsyncIterable<Buffer>;
  readonly close: () => void;
}

const redirectsMax = 5;

/**
 * Asks for a file and follows redirections.
 * @param idleMs a server that sends nothing for this long counts as gone
 * @returns the response, with status 200, 206, 304 or 416
 * @throws Interrupted; Error for every other status
 */
export async function requestFile(
  url: string,
  headers: Readonly<Record<string, string>>,
  idleMs: number,
  signal?: AbortSignal,
): Promise<Response> {
  let at = url;
  for (let redirects = 0; ; redirects++) {
    const response = await ask(at, headers, idleMs, signal);
    const { statusCode: status = 0, statusMessage = '', headers: received } = response;
    if ([301, 302, 303, 307, 308].includes(status) && received.location !== undefined) {
      response.destroy();
      if (redirects === redirectsMax) throw new Error(`more than ${redirectsMax} redirections`);
      at = redirected(at, received.location);
      continue;
    }
    if ([200, 206, 304, 416].includes(status)) return responseOf(response);
    response.destroy();
    const said = `the server said ${status} ${statusMessage}`.trimEnd();
    throw status >= 500 || status === 429 || status === 408 ? new Interrupted(said) : new Error(said);
  }
}

function redirected(from: string, location: string): string {
  const to = URL.canParse(location, from) ? new URL(location, from) : undefined;
  const isSecure = from.startsWith('https:');
  if (to === undefined || !(isSecure ? ['https:'] : ['https:', 'http:']).includes(to.protocol)) {
    throw new Error(`the server redirects to ${location}, which is not followed`);
  }
  return to.href;
}

async function ask(
  url: string,
  headers: Readonly<Record<string, string>>,
  idleMs: number,
  signal: AbortSignal | undefined,
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  // `identity`: a length is that of the file, not of a compression on the way. Some servers compress all the same.
  const outgoing = loadHttpFor(url).request(url, {
    headers: { ...headers, 'accept-encoding': 'identity' },
    agent: false,
    ...(signal !== undefined && { signal }),
  });
  let received: IncomingMessage | undefined;
  // The error of the response is the one that the reader of the body sees.
  outgoing.setTimeout(idleMs, () =>
    (received ?? outgoing).destroy(new Error(`nothing came for ${idleMs / 1000} s`)),
  );
  outgoing.on('error', reject);
  outgoing.once('response', (response) => {
    received = response;
    resolve(response);
  });
  outgoing.end();
  try {
    return await promise;
  } catch (thrown) {
    throw new Interrupted(reasonOf(thrown));
  }
}

function responseOf(response: IncomingMessage): Response {
  const { headers, statusCode: status = 0 } = response;
  const modified = headers['last-modified'];
  async function* body(): AsyncGenerator<Buffer> {
    try {
      for await (const piece of response) yield piece;
    } catch (thrown) {
      throw new Interrupted(reasonOf(thrown));
    }
  }
  return {
    status,
    length: headers['content-length'] === undefined ? undefined : Number(headers['content-length']),
    etag: headers.etag,
    modified: modified !== undefined && !Number.isNaN(Date.parse(modified)) ? modified : undefined,
    contentRange: headers['content-range'],
    contentType: headers['content-type'] ?? 'no type',
    body: body(),
    close: () => response.destroy(),
  };
}

/** The text of a failed connection; several addresses fail with one error each. */
function reasonOf(thrown: unknown): string {
  const each = (thrown as { errors?: unknown }).errors;
  const text = Array.isArray(each) && each.length > 0 ? each.map(messageOf).join('; ') : messageOf(thrown);
  const code = systemCodeOf(thrown);
  return code === undefined || text.includes(code) ? text : `${code} ${text}`.trimEnd();
}
