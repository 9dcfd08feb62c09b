/**
 * SASL OAUTHBEARER: bearer tokens from a file or from the token endpoint of an OAuth 2.0 server, and the exchange that
 * presents one to a broker. Each authentication presents a token that stays valid for some time. kafkajs authenticates again
 * before the session that the broker granted ends (KIP-368), so renewed tokens reach open connections.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Mechanism } from 'kafkajs';
import type { TokenSource } from '../runtime/broker-security.ts';
import { isCertificateError, messageOf, ReelflowError } from '../runtime/errors.ts';
import { jsonObjectOf } from '../runtime/json.ts';

/** Bounds of an answer of the token endpoint. */
const requestBoundMs = 8_000;
const answerBytesMax = 64 * 1024;
/** A token of the endpoint with less time left is renewed. */
const remainingMsMin = 15_000;
/** The session of a token with less time left would end before kafkajs may authenticate again. */
const sessionMsMin = 6_000;

interface Token {
  readonly value: string;
  /** On the clock of `performance.now`; undefined when the endpoint does not say how long the token is valid. */
  readonly renewAtMs: number | undefined;
  /** On the same clock. */
  readonly endMs: number | undefined;
}

/** The tokens of one client, shared by its connections. */
export class BearerTokens {
  readonly #source: TokenSource;
  #token: Token | undefined;
  #request: Promise<Token> | undefined;

  constructor(source: TokenSource) {
    this.#source = source;
  }

  /**
   * A token to present now: from the file, read again each time, or from the endpoint, renewed after four fifths of its life.
   * @throws KafkaJSConnectionError, when there is none and waiting can help; KafkaJSNonRetriableError, when the
   *   endpoint refuses the client or is not trusted. The cause is the ReelflowError.
   */
  async current(): Promise<string> {
    const source = this.#source;
    if (source.kind === 'file') return this.#fromFile(source.path);
    const held = this.#token;
    if (held?.renewAtMs !== undefined && performance.now() < held.renewAtMs) return held.value;
    this.#request ??= requestToken(source).finally(() => {
      this.#request = undefined;
    });
    try {
      this.#token = await this.#request;
      return this.#token.value;
    } catch (thrown) {
      // The old token bridges an outage of the endpoint for the last fifth of its life.
      if (held?.endMs !== undefined && performance.now() < held.endMs) return held.value;
      throw thrown;
    }
  }

  /** Waits for the successor of a token that is about to expire. The broker refuses one that has expired. */
  async #fromFile(path: string): Promise<string> {
    for (;;) {
      const value = tokenOfFile(path);
      const { exp } = claimsOf(value);
      const remainingMs = exp === undefined ? undefined : exp * 1_000 - Date.now();
      if (remainingMs === undefined || remainingMs <= 0 || remainingMs > sessionMsMin) return value;
      await sleep(Math.min(200, remainingMs));
    }
  }

  /** Drops a token that the broker refused, so that the next attempt requests another. */
  drop(value: string): void {
    if (this.#token?.value === value) this.#token = undefined;
  }

  /** The error for a token that a broker refused. @param said the reason in the broker's answer */
  explain(value: string, broker: string, said: string): ReelflowError {
    const { validity, owner, hasExpired } = describe(value);
    const file = this.#source.kind === 'file' ? this.#source.path : undefined;
    const origin = file ?? shown((this.#source as { url: string }).url);
    return new ReelflowError(
      'accessRefused',
      hasExpired ? 'The access token has expired' : 'The broker refuses the access token',
      {
        detail: `${broker}: ${said} (token from ${origin}${owner}${validity})`,
        hint: hasExpired
          ? file === undefined
            ? 'The token endpoint issues expired tokens: check its clock and the clock of this machine.'
            : 'Check the program that renews the file of KAFKA_SASL_OAUTHBEARER_TOKEN_FILE.'
          : 'Check issuer, audience and scope of the token against the OAUTHBEARER settings of the broker.',
      },
    );
  }
}

/** RFC 6750. Any other character could end the protocol's message early. */
const tokenSyntax = /^[A-Za-z0-9\-._~+/]+=*$/;

function tokenOfFile(path: string): string {
  const unusable = (detail: string) =>
    unavailable('The access token cannot be read', {
      detail,
      hint: 'Check the program that renews the file of KAFKA_SASL_OAUTHBEARER_TOKEN_FILE, and the permissions of the file.',
    });
  let text: string;
  try {
    text = readFileSync(path, 'utf8').trim();
  } catch (thrown) {
    throw unusable(messageOf(thrown));
  }
  if (text.length > answerBytesMax) throw unusable(`${path} holds more than ${answerBytesMax} bytes`);
  if (!tokenSyntax.test(text))
    throw unusable(`${path} ${text === '' ? 'is empty' : 'holds no bearer token'}`);
  return text;
}

async function requestToken(source: Extract<TokenSource, { kind: 'endpoint' }>): Promise<Token> {
  const { url, clientId, clientSecret, scope } = source;
  const login = [clientId, clientSecret.reveal()].map(formEncoded).join(':');
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    ...(scope !== undefined && { scope }),
  });
  const askedMs = performance.now();
  let status: number;
  let text: string;
  try {
    const response = await fetch(url, {
      method: 'POST',
      body,
      headers: {
        authorization: `Basic ${Buffer.from(login).toString('base64')}`,
        accept: 'application/json',
      },
      // A redirect could carry the secret to another host.
      redirect: 'manual',
      signal: AbortSignal.timeout(requestBoundMs),
    });
    status = response.status;
    text = await textOf(response);
  } catch (thrown) {
    const detail = `${shown(url)}: ${messageOf((thrown as Error).cause ?? thrown)}`;
    if (isCertificateError(thrown)) {
      throw refused('untrusted', 'The certificate of the token endpoint is not trusted', {
        detail,
        hint: 'Set NODE_EXTRA_CA_CERTS to the PEM file of its authority, and use the host name that its certificate has.',
      });
    }
    throw unavailable('The token endpoint does not answer', { detail, hint: endpointHint });
  }
  const answer = jsonObjectOf(text) ?? {};
  const reason = [answer.error, answer.error_description]
    .filter((part) => typeof part === 'string')
    .map((part) => harmless(part, clientSecret.reveal()))
    .join(': ');
  const detail = `${shown(url)}: status ${status}${reason && `, ${reason}`} (as ${clientId})`;
  if (status === 401 || status === 403 || (status === 400 && reason !== '')) {
    throw refused('accessRefused', 'The token endpoint refuses the client', {
      detail,
      hint: 'Check KAFKA_SASL_OAUTHBEARER_CLIENT_ID, the client secret and KAFKA_SASL_OAUTHBEARER_SCOPE.',
    });
  }
  const value = answer.access_token;
  if (status !== 200 || typeof value !== 'string' || !tokenSyntax.test(value)) {
    throw unavailable('The token endpoint gives no token', { detail, hint: endpointHint });
  }
  return { value, ...lifeOf(askedMs, answer.expires_in, value) };
}

const endpointHint = 'Check KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL and the server behind it.';

/** @param seconds `expires_in`, which is optional: the token itself may contain its end */
function lifeOf(askedMs: number, seconds: unknown, token: string): Omit<Token, 'value'> {
  const { exp } = claimsOf(token);
  const lifeMs =
    Number(seconds) > 0 ? Number(seconds) * 1_000 : exp === undefined ? undefined : exp * 1_000 - Date.now();
  if (lifeMs === undefined || !Number.isFinite(lifeMs)) return { renewAtMs: undefined, endMs: undefined };
  const endMs = askedMs + lifeMs;
  return { endMs, renewAtMs: endMs - Math.max(lifeMs / 5, remainingMsMin) };
}

async function textOf(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    // Leaving the loop cancels the rest.
    if (bytes > answerBytesMax) throw new Error(`The answer has more than ${answerBytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

/** RFC 6749, section 2.3.1. */
const formEncoded = (text: string) => new URLSearchParams([['', text]]).toString().slice(1);

/** A URL for people, without its query, which may hold a key. */
function shown(url: string): string {
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

function harmless(text: string, secret: string): string {
  return text
    .replaceAll(secret, '[secret]')
    .replace(/[^\x20-\x7e]/g, ' ')
    .slice(0, 200);
}

// Claims

/** The claims of a JSON web token, not verified; none of an opaque token. */
function claimsOf(token: string): { exp?: number; sub?: string; iss?: string } {
  const [, payload] = token.split('.');
  const { exp, sub, iss } = jsonObjectOf(Buffer.from(payload ?? '', 'base64url').toString('utf8')) ?? {};
  return {
    ...(typeof exp === 'number' && Math.abs(exp) < 8e12 && { exp }),
    ...(typeof sub === 'string' && { sub: sub.slice(0, 100) }),
    ...(typeof iss === 'string' && { iss: iss.slice(0, 200) }),
  };
}

function describe(token: string): { owner: string; validity: string; hasExpired: boolean } {
  const { exp, sub, iss } = claimsOf(token);
  const hasExpired = exp !== undefined && exp * 1_000 <= Date.now();
  return {
    owner: `${sub === undefined ? '' : `, subject ${sub}`}${iss === undefined ? '' : `, issuer ${iss}`}`,
    validity:
      exp === undefined
        ? ''
        : `, ${hasExpired ? 'expired at' : 'valid until'} ${new Date(exp * 1_000).toISOString()}`,
    hasExpired,
  };
}

// The exchange with a broker

/**
 * kafkajs' own authenticator reads a refused token as success, because the broker sends its reason first and the error
 * only when asked for it: the connection then ends without a word. This one asks.
 */
export function bearerMechanism(tokens: BearerTokens): Mechanism {
  return {
    mechanism: 'OAUTHBEARER',
    authenticationProvider: ({ host, port, saslAuthenticate }) => ({
      authenticate: async () => {
        const value = await tokens.current();
        const broker = `${host}:${port}`;
        const present = (message: string) =>
          saslAuthenticate({
            request: { encode: () => sized(Buffer.from(message)) },
            response: { decode: (raw) => raw.subarray(4), parse: (bytes) => bytes.toString('utf8') },
          });
        try {
          const reason = await present(`n,,\x01auth=Bearer ${value}\x01\x01`);
          if (reason) {
            await present('\x01');
            throw new Error(reason);
          }
        } catch (thrown) {
          if (isConnectionLoss(thrown)) throw thrown;
          tokens.drop(value);
          throw withCause(
            new kafkajs.KafkaJSNonRetriableError('OAUTHBEARER authentication failed'),
            tokens.explain(value, broker, harmless(messageOf(thrown), value)),
          );
        }
      },
    }),
  };
}

/** Bytes as the protocol counts them. */
function sized(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

const isConnectionLoss = (thrown: unknown) =>
  thrown instanceof kafkajs.KafkaJSConnectionError || thrown instanceof kafkajs.KafkaJSRequestTimeoutError;

type Parts = { readonly detail: string; readonly hint: string };

/** An error after which kafkajs repeats the attempt, as it does when a broker does not answer. */
function unavailable(what: string, parts: Parts): Error {
  return withCause(
    new kafkajs.KafkaJSConnectionError(what),
    new ReelflowError('brokerUnreachable', what, parts),
  );
}

/** An error after which kafkajs gives up. */
function refused(kind: 'accessRefused' | 'untrusted', what: string, parts: Parts): Error {
  return withCause(new kafkajs.KafkaJSNonRetriableError(what), new ReelflowError(kind, what, parts));
}

/** Adds the cause, which kafkajs' constructors do not take. */
function withCause(error: Error, cause: ReelflowError): Error {
  return Object.assign(error, { cause });
}
