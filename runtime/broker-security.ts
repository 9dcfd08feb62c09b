/**
 * How a client connects to a secured broker: TLS, client certificates, SASL. Tokens stay file names here, like
 * certificates: another program replaces the files while a process runs, so every new connection reads them again.
 */
import { type Credentials, credentialsOf, fileText, type Secret, secretOf } from './credentials.ts';
import { anyText, httpUrl, oneOf, refuseCredentials, type ValuesOf } from './environment.ts';
import { ReelflowError } from './errors.ts';
import { type TlsFiles, tlsFilesOf } from './tls-files.ts';

const protocols = ['PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'] as const;
const passwordMechanisms = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const;
const mechanisms = [...passwordMechanisms, 'OAUTHBEARER'] as const;

/** Names and meanings are those of Kafka's own clients. */
export const securityVariables = {
  KAFKA_SECURITY_PROTOCOL: oneOf(protocols),
  KAFKA_SSL_CA_FILE: anyText,
  KAFKA_SSL_CERTIFICATE_FILE: anyText,
  KAFKA_SSL_KEY_FILE: anyText,
  KAFKA_SSL_KEY_PASSWORD: anyText,
  KAFKA_SSL_KEY_PASSWORD_FILE: anyText,
  KAFKA_SASL_MECHANISM: oneOf(mechanisms),
  KAFKA_SASL_USERNAME: anyText,
  KAFKA_SASL_PASSWORD: anyText,
  KAFKA_SASL_PASSWORD_FILE: anyText,
  KAFKA_SASL_OAUTHBEARER_TOKEN_FILE: anyText,
  KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: httpUrl((url) => {
    refuseCredentials(url, 'KAFKA_SASL_OAUTHBEARER_CLIENT_ID');
    if (!isHttpsOrLoopback(url)) {
      throw new RangeError('expected https: plain http would send the client secret unencrypted');
    }
  }),
  KAFKA_SASL_OAUTHBEARER_CLIENT_ID: anyText,
  KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET: anyText,
  KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET_FILE: anyText,
  KAFKA_SASL_OAUTHBEARER_SCOPE: anyText,
};

type Environment = ValuesOf<typeof securityVariables>;

/** Where bearer tokens come from: a file that another program renews, or the client credentials grant of OAuth 2.0. */
export type TokenSource =
  | { readonly kind: 'file'; readonly path: string }
  | {
      readonly kind: 'endpoint';
      readonly url: string;
      readonly clientId: string;
      readonly clientSecret: Secret;
      readonly scope?: string;
    };

export type Sasl =
  | (Credentials & { readonly mechanism: (typeof passwordMechanisms)[number] })
  | { readonly mechanism: 'OAUTHBEARER'; readonly tokens: TokenSource };

/** Absent means plaintext without authentication. */
export interface BrokerSecurity {
  readonly tls?: TlsFiles;
  readonly sasl?: Sasl;
}

/** Whether credentials may be sent to this address: encrypted, or to this machine only. */
export function isHttpsOrLoopback({ protocol, hostname }: URL): boolean {
  return protocol !== 'http:' || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
}

/**
 * The security that the environment names, or undefined for plaintext without authentication. Reads each file once, so
 * that a wrong path or a wrong password of a key ends the command at its start.
 * @throws ReelflowError usage
 */
export function securityOf(env: Environment): BrokerSecurity | undefined {
  const protocol = env.KAFKA_SECURITY_PROTOCOL ?? 'PLAINTEXT';
  const wantsTls = protocol === 'SSL' || protocol === 'SASL_SSL';
  const wantsSasl = protocol === 'SASL_PLAINTEXT' || protocol === 'SASL_SSL';
  // A setting without effect is a mistake that could send a password, or all data, unencrypted.
  for (const name of Object.keys(securityVariables) as (keyof Environment)[]) {
    if (env[name] === undefined) continue;
    if (!wantsTls && name.startsWith('KAFKA_SSL_')) throw unfit(name, protocol, 'SSL or SASL_SSL');
    if (!wantsSasl && name.startsWith('KAFKA_SASL_')) throw unfit(name, protocol, 'SASL_SSL');
  }
  if (!wantsTls && !wantsSasl) return undefined;
  const tls = wantsTls ? tlsFilesOf(env, 'KAFKA_SSL') : undefined;
  const sasl = wantsSasl ? saslOf(env) : undefined;
  return { ...(tls !== undefined && { tls }), ...(sasl !== undefined && { sasl }) };
}

function unfit(name: string, protocol: string, wanted: string): ReelflowError {
  return new ReelflowError('usage', `${name} is set but KAFKA_SECURITY_PROTOCOL is ${protocol}`, {
    detail: 'It would have no effect, and the connection would be less secure than it seems.',
    hint: `Set KAFKA_SECURITY_PROTOCOL to ${wanted}, or unset ${name}.`,
  });
}

function saslOf(env: Environment): Sasl {
  const protocol = env.KAFKA_SECURITY_PROTOCOL;
  const mechanism = env.KAFKA_SASL_MECHANISM;
  if (mechanism === 'OAUTHBEARER') return { mechanism, tokens: tokensOf(env) };
  const oauth = Object.keys(securityVariables).find(
    (name) => name.startsWith('KAFKA_SASL_OAUTHBEARER_') && env[name as keyof Environment] !== undefined,
  );
  if (oauth !== undefined) {
    throw new ReelflowError('usage', `${oauth} is set but KAFKA_SASL_MECHANISM is ${mechanism ?? 'not'}`, {
      hint: 'Set KAFKA_SASL_MECHANISM to OAUTHBEARER, or unset the other.',
    });
  }
  const credentials = credentialsOf(env, 'KAFKA_SASL');
  if (credentials === undefined || mechanism === undefined) {
    throw new ReelflowError('usage', `${protocol} needs a mechanism, a user and a password`, {
      hint: `Set KAFKA_SASL_MECHANISM (${passwordMechanisms.join(', ')}), KAFKA_SASL_USERNAME, and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE. OAUTHBEARER needs KAFKA_SASL_OAUTHBEARER_… instead.`,
    });
  }
  return { ...credentials, mechanism };
}

function tokensOf(env: Environment): TokenSource {
  const path = env.KAFKA_SASL_OAUTHBEARER_TOKEN_FILE;
  const url = env.KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL;
  const clientId = env.KAFKA_SASL_OAUTHBEARER_CLIENT_ID;
  const clientSecret = secretOf(env, 'KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET');
  const scope = env.KAFKA_SASL_OAUTHBEARER_SCOPE;
  const ofEndpoint = [url, clientId, clientSecret, scope].some((value) => value !== undefined);
  const ofPassword = ['KAFKA_SASL_USERNAME', 'KAFKA_SASL_PASSWORD', 'KAFKA_SASL_PASSWORD_FILE'] as const;
  const surplus = ofPassword.find((name) => env[name] !== undefined);
  if (surplus !== undefined) {
    throw new ReelflowError('usage', `${surplus} is set but KAFKA_SASL_MECHANISM is OAUTHBEARER`, {
      hint: `Unset ${surplus}, or choose another mechanism.`,
    });
  }
  if (path !== undefined && !ofEndpoint) {
    fileText('KAFKA_SASL_OAUTHBEARER_TOKEN_FILE', path);
    return { kind: 'file', path };
  }
  if (path !== undefined || url === undefined || clientId === undefined || clientSecret === undefined) {
    throw new ReelflowError('usage', 'OAUTHBEARER needs a token endpoint or a token file', {
      hint:
        'Set KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL, KAFKA_SASL_OAUTHBEARER_CLIENT_ID, and ' +
        'KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET or KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET_FILE; or only KAFKA_SASL_OAUTHBEARER_TOKEN_FILE.',
    });
  }
  return { kind: 'endpoint', url, clientId, clientSecret, ...(scope !== undefined && { scope }) };
}
