/**
 * How a client connects to a secured broker: TLS, client certificates, SASL. Certificates, keys and tokens stay file
 * names here, because their files are replaced while a process runs: every new connection reads them again.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { type Credentials, credentialsOf, fileText, type Secret, secretOf } from './credentials.ts';
import { anyText, httpUrl, oneOf, refuseCredentials, type ValuesOf } from './environment.ts';
import { messageOf, ReelflowError } from './errors.ts';

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

/** PEM files. */
export interface TlsFiles {
  /** Authorities to trust instead of the system's. */
  readonly caFile?: string;
  /** The certificate, with its chain, and the key by which the broker recognises this client. */
  readonly client?: {
    readonly certificateFile: string;
    readonly keyFile: string;
    readonly keyPassword?: Secret;
  };
}

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
  const tls = wantsTls ? tlsOf(env) : undefined;
  const sasl = wantsSasl ? saslOf(env) : undefined;
  return { ...(tls !== undefined && { tls }), ...(sasl !== undefined && { sasl }) };
}

function unfit(name: string, protocol: string, wanted: string): ReelflowError {
  return new ReelflowError('usage', `${name} is set but KAFKA_SECURITY_PROTOCOL is ${protocol}`, {
    detail: 'It would have no effect, and the connection would be less secure than it seems.',
    hint: `Set KAFKA_SECURITY_PROTOCOL to ${wanted}, or unset ${name}.`,
  });
}

function tlsOf(env: Environment): TlsFiles {
  const { KAFKA_SSL_CA_FILE: caFile, KAFKA_SSL_CERTIFICATE_FILE: certificateFile } = env;
  const keyFile = env.KAFKA_SSL_KEY_FILE;
  const keyPassword = secretOf(env, 'KAFKA_SSL_KEY_PASSWORD');
  if ((certificateFile === undefined) !== (keyFile === undefined)) {
    throw new ReelflowError('usage', 'A client certificate goes with its key', {
      hint: 'Set both KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE.',
    });
  }
  if (keyFile === undefined && keyPassword !== undefined) {
    throw new ReelflowError('usage', 'KAFKA_SSL_KEY_PASSWORD is set but KAFKA_SSL_KEY_FILE is not', {
      hint: 'Set KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE, or unset the password.',
    });
  }
  const tls = {
    ...(caFile !== undefined && { caFile }),
    ...(certificateFile !== undefined &&
      keyFile !== undefined && {
        client: { certificateFile, keyFile, ...(keyPassword !== undefined && { keyPassword }) },
      }),
  };
  readTls(tls);
  return tls;
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

/** What the files hold at the moment. */
interface TlsMaterial {
  /** PEM */
  readonly ca?: string;
  readonly client?: {
    /** PEM: the certificate, then its chain. */
    readonly chain: string;
    readonly certificate: X509Certificate;
    readonly key: KeyObject;
  };
}

/**
 * @param prefix of the variables that name the files, for errors
 * @throws ReelflowError usage, when a file cannot be read, is not what it should be, or the key is another's
 */
export function readTls({ caFile, client }: TlsFiles, prefix = 'KAFKA_SSL'): TlsMaterial {
  const ca = caFile === undefined ? undefined : fileText(`${prefix}_CA_FILE`, caFile);
  return {
    ...(ca !== undefined && { ca }),
    ...(client !== undefined && { client: readClient(client, prefix) }),
  };
}

function readClient(
  { certificateFile, keyFile, keyPassword }: NonNullable<TlsFiles['client']>,
  prefix: string,
) {
  const chain = fileText(`${prefix}_CERTIFICATE_FILE`, certificateFile);
  const keyText = fileText(`${prefix}_KEY_FILE`, keyFile);
  const certificate = parsed(
    `${prefix}_CERTIFICATE_FILE`,
    'It must be a PEM certificate, followed by its chain.',
    () => new X509Certificate(chain),
  );
  const key = parsed(
    `${prefix}_KEY_FILE`,
    `It must be a PEM private key. An encrypted one needs ${prefix}_KEY_PASSWORD or ${prefix}_KEY_PASSWORD_FILE.`,
    () =>
      createPrivateKey({
        key: keyText,
        ...(keyPassword !== undefined && { passphrase: keyPassword.reveal() }),
      }),
  );
  if (!certificate.checkPrivateKey(key)) {
    throw new ReelflowError('usage', 'The key is not that of the client certificate', {
      detail: `${certificateFile}, ${keyFile}`,
      hint: `Set ${prefix}_CERTIFICATE_FILE and ${prefix}_KEY_FILE to files of one pair.`,
    });
  }
  return { chain, certificate, key };
}

function parsed<T>(variable: string, hint: string, parse: () => T): T {
  try {
    return parse();
  } catch (thrown) {
    throw new ReelflowError('usage', `The file of ${variable} cannot be used`, {
      detail: messageOf(thrown),
      hint,
      cause: thrown,
    });
  }
}
