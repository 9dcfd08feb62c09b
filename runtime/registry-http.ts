/**
 * HTTP requests to a Schema Registry, and whether the registry itself answered. A proxy before it (an ingress, a load balancer,
 * a login page) may answer instead, and such an answer contains nothing about a schema.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { RequestOptions } from 'node:https';
import { messageOf } from './errors.ts';
import { loadHttpFor } from './http.ts';
import { jsonObjectOf } from './json.ts';

export interface Exchange {
  readonly method: 'GET' | 'POST' | 'PUT';
  readonly headers: Readonly<Record<string, string>>;
  /** Sent as it is. */
  readonly body?: string;
  /** Certificates, for https. */
  readonly tls?: Pick<RequestOptions, 'ca' | 'cert' | 'key'>;
  readonly signal?: AbortSignal;
}

export interface Answer {
  readonly status: number;
  /** The body as an object; undefined if it is not a JSON object. */
  readonly body: Readonly<Record<string, unknown>> | undefined;
  /** The registry's own error code, which follows the status: 40403 is a 404. */
  readonly errorCode: number | undefined;
  /** Status and message, for an error's detail. */
  readonly text: string;
  /** The wait that Retry-After requests, in milliseconds from now; undefined without a valid one. */
  readonly retryAfterMs: number | undefined;
}

/** A registry that sends nothing for this time does not answer. */
const silenceMs = 10_000;
/** A whole answer may take this long, even if bytes arrive. */
const answerMs = 30_000;
const bodyBytesMax = 16 * 1024 * 1024;
const textLengthMax = 300;

/** Sends a request. @throws Error of the connection, also for an answer that ends early; the reason of `signal` */
export async function exchange(url: string, options: Exchange): Promise<Answer> {
  const { method, headers, body, tls, signal } = options;
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const outgoing = loadHttpFor(url).request(url, {
    method,
    headers: {
      accept: 'application/vnd.schemaregistry.v1+json, application/json',
      ...headers,
    },
    ...tls,
    // A kept connection would continue to use a certificate after its renewal, and requests are rare.
    agent: false,
    ...(signal !== undefined && { signal }),
  });
  outgoing.setTimeout(silenceMs, () => outgoing.destroy(new Error(`no answer in ${silenceMs / 1000} s`)));
  const tooLate = new Error(`no whole answer in ${answerMs / 1000} s`);
  const timer = setTimeout(() => outgoing.destroy(tooLate), answerMs);
  outgoing.once('error', reject);
  outgoing.once('response', (response) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    response.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes > bodyBytesMax) outgoing.destroy(new Error(`an answer of more than ${bodyBytesMax} bytes`));
      parts.push(part);
    });
    response.once('error', reject);
    response.once('end', () => {
      const { statusCode: status = 0, headers: received } = response;
      const retryAfterMs = retryAfter(received['retry-after'], Date.now());
      resolve(answerOf(status, Buffer.concat(parts).toString(), received, retryAfterMs));
    });
  });
  outgoing.end(body);
  try {
    return await promise;
  } catch (thrown) {
    signal?.throwIfAborted();
    throw thrown;
  } finally {
    clearTimeout(timer);
  }
}

function answerOf(
  status: number,
  text: string,
  headers: IncomingHttpHeaders,
  retryAfterMs: number | undefined,
): Answer {
  const body = jsonObjectOf(text);
  const errorCode = typeof body?.error_code === 'number' ? body.error_code : undefined;
  const said =
    typeof body?.message === 'string'
      ? `${errorCode === undefined || errorCode === status ? '' : `error ${errorCode}, `}${body.message}`
      : `${headers.location ?? headers['content-type'] ?? 'without a type'}, ${text.length} characters`;
  const line = said.replace(/\s+/g, ' ').slice(0, textLengthMax);
  return { status, body, errorCode, text: `HTTP ${status}: ${line}`, retryAfterMs };
}

/**
 * Retry-After in milliseconds: a number of seconds or an HTTP date (RFC 9110, section 10.2.3).
 * @returns undefined when it is absent or neither of the two; 0 for a date that has passed
 */
export function retryAfter(value: string | undefined, nowMs: number): number | undefined {
  if (value === undefined) return undefined;
  const text = value.trim();
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  // Date.parse also takes a plain number with a sign or a fraction, which is not a date.
  const dateMs = /[a-z]/i.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs);
}

/**
 * Why the registry did not answer the request; undefined if it did.
 *
 * - `busy`: it asks to repeat the request later, or something between us and it failed;
 * - `foreign`: another program answered. A 404 of an ingress without a backend does not mean that a schema is absent.
 */
export function obstacleOf({ status, body, errorCode }: Answer): 'busy' | 'foreign' | undefined {
  if (status === 429 || status === 408 || status === 425 || status >= 500) return 'busy';
  if (status === 401 || status === 403) return undefined;
  if (status >= 200 && status < 300) return body === undefined ? 'foreign' : undefined;
  // A registry of Confluent answers an unknown path with the plain code 404.
  const isOwn = errorCode !== undefined && (status !== 404 || errorCode !== 404);
  return isOwn && status >= 400 ? undefined : 'foreign';
}

/** Codes for a subject, a version or a schema that does not exist, or a subject without a compatibility of its own. */
const absentCodes = new Set([40401, 40402, 40403, 40408]);

/** Whether the registry answered that the requested object does not exist. */
export const isAbsent = ({ status, errorCode }: Answer): boolean =>
  status === 404 && errorCode !== undefined && absentCodes.has(errorCode);

/** The text of a failed connection. Of a host with several addresses Node hides the error of each; this shows them. */
export function connectionFailure(thrown: unknown): string {
  const each = (thrown as { errors?: unknown }).errors;
  return Array.isArray(each) && each.length > 0 ? each.map(messageOf).join('; ') : messageOf(thrown);
}
