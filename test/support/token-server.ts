/** An OAuth 2.0 server of a test: issues unsigned tokens for the client credentials grant. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** An unsigned JSON web token, which a broker without a key set accepts. */
function unsignedToken(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part(claims)}.`;
}

/** @param seconds of life; negative for a token that has expired */
export function tokenFor(sub: string, seconds: number): string {
  const now = Date.now() / 1_000;
  return unsignedToken({ sub, iss: 'a-test', iat: now + Math.min(seconds, 0) - 60, exp: now + seconds });
}

interface TokenRequest {
  readonly authorization: string | undefined;
  readonly body: string;
}

type Answer = {
  readonly status: number;
  readonly body: string | Buffer;
  readonly headers?: Record<string, string>;
};

export class TokenServer {
  readonly requests: TokenRequest[] = [];
  /** How it answers; changes at any time. undefined: not at all. */
  answer: (request: TokenRequest) => Answer | undefined;
  readonly #server: Server;

  private constructor(answer: TokenServer['answer']) {
    this.answer = answer;
    this.#server = createServer(async (incoming, outgoing) => {
      let body = '';
      for await (const part of incoming) body += part;
      const request = { authorization: incoming.headers.authorization, body };
      this.requests.push(request);
      const answer = this.answer(request);
      if (answer === undefined) return;
      outgoing.on('error', () => undefined);
      outgoing.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers });
      outgoing.end(answer.body);
    });
  }

  static async start(answer: TokenServer['answer']): Promise<TokenServer> {
    const server = new TokenServer(answer);
    const { promise, resolve } = Promise.withResolvers<void>();
    server.#server.listen(0, '127.0.0.1', resolve);
    await promise;
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/token`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

export const issued = (token: string, expiresIn?: unknown): Answer => ({
  status: 200,
  body: JSON.stringify({ access_token: token, token_type: 'Bearer', expires_in: expiresIn }),
});
