/**
 * Cluster, registry, folders and namespace. The command line reads and validates them once and passes them on as values;
 * there is no global configuration.
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { messageOf, ReelflowError } from './errors.ts';

const addressList = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .pipe(
    z.array(z.string().regex(/^[^\s/:]+:\d{1,5}$|^\[[0-9a-fA-F:]+\]:\d{1,5}$/, 'host:port expected')).min(1),
  );

const protocols = ['PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'] as const;
const mechanisms = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const;

/** Names and meanings are those of Kafka's clients. A password is set directly or as the path of its file. */
const environment = z.object({
  KAFKA_BROKERS: addressList.optional(),
  SCHEMA_REGISTRY_URL: z
    .url({ protocol: /^https?$/ })
    // Errors and logs show the URL.
    .refine(
      (url) => !hasCredentials(url),
      'the URL must not contain a user or password; use SCHEMA_REGISTRY_USERNAME',
    )
    .optional(),
  KAFKA_SECURITY_PROTOCOL: z.enum(protocols).default('PLAINTEXT'),
  KAFKA_SSL_CA_FILE: z.string().optional(),
  KAFKA_SASL_MECHANISM: z.enum(mechanisms).optional(),
  KAFKA_SASL_USERNAME: z.string().optional(),
  KAFKA_SASL_PASSWORD: z.string().optional(),
  KAFKA_SASL_PASSWORD_FILE: z.string().optional(),
  SCHEMA_REGISTRY_USERNAME: z.string().optional(),
  SCHEMA_REGISTRY_PASSWORD: z.string().optional(),
  SCHEMA_REGISTRY_PASSWORD_FILE: z.string().optional(),
});

type Environment = z.infer<typeof environment>;

function hasCredentials(url: string): boolean {
  const { username, password } = new URL(url);
  return username !== '' || password !== '';
}

/** A text that no log, error or JSON shows; only `reveal` returns it. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }
}

export interface Credentials {
  readonly username: string;
  readonly password: Secret;
}

/** Broker security; absent means plaintext without authentication. */
export interface BrokerSecurity {
  /** `ca`: certificates (PEM) to trust instead of the system's. */
  readonly tls?: { readonly ca?: string };
  readonly sasl?: Credentials & { readonly mechanism: (typeof mechanisms)[number] };
}

/** Addresses and credentials of broker and registry. */
export interface Endpoints {
  /** host:port of one or more brokers */
  readonly brokers: string[];
  readonly registryUrl: string;
  readonly security?: BrokerSecurity;
  /** Basic authentication to the registry. */
  readonly registryCredentials?: Credentials;
}

/** Folders and namespace, which every command takes as options. */
export interface Places {
  /** gold folder: snapshots and CURRENT */
  readonly gold: string;
  /** state folder: shard stores, the sink's cubes, replay journals */
  readonly state: string;
  /** empty without a namespace */
  readonly namespace: string;
}

/**
 * The endpoints of the environment, or undefined when it sets none.
 * @throws ReelflowError usage, when only one of the two is set, one is malformed, or security settings conflict
 */
export function endpointsFromEnvironment(env: NodeJS.ProcessEnv): Endpoints | undefined {
  const named = Object.keys(environment.shape).map((name) => [name, env[name]] as const);
  const parsed = environment.safeParse(
    Object.fromEntries(named.filter(([, value]) => value !== undefined && value.trim() !== '')),
  );
  if (!parsed.success) {
    throw new ReelflowError('usage', 'An environment variable is not valid', {
      detail: z.prettifyError(parsed.error),
      hint: 'KAFKA_BROKERS is host:port[,host:port …], SCHEMA_REGISTRY_URL an http or https URL; the documentation lists the others.',
    });
  }
  const { KAFKA_BROKERS: brokers, SCHEMA_REGISTRY_URL: registryUrl } = parsed.data;
  if (brokers === undefined && registryUrl === undefined) return undefined;
  if (brokers === undefined || registryUrl === undefined) {
    const [set, unset] =
      brokers === undefined
        ? ['SCHEMA_REGISTRY_URL', 'KAFKA_BROKERS']
        : ['KAFKA_BROKERS', 'SCHEMA_REGISTRY_URL'];
    throw new ReelflowError('usage', `${set} is set but ${unset} is not`, {
      detail: 'A broker without its registry, or the reverse, would mix two installations.',
      hint: `Set ${unset} too, or unset ${set} to use local services.`,
    });
  }
  const security = securityOf(parsed.data);
  const registryCredentials = credentialsOf(parsed.data, 'SCHEMA_REGISTRY');
  return {
    brokers,
    registryUrl,
    ...(security !== undefined && { security }),
    ...(registryCredentials !== undefined && { registryCredentials }),
  };
}

function securityOf(env: Environment): BrokerSecurity | undefined {
  const protocol = env.KAFKA_SECURITY_PROTOCOL;
  const credentials = credentialsOf(env, 'KAFKA_SASL');
  const mechanism = env.KAFKA_SASL_MECHANISM;
  const wantsTls = protocol === 'SSL' || protocol === 'SASL_SSL';
  const wantsSasl = protocol === 'SASL_PLAINTEXT' || protocol === 'SASL_SSL';
  // An unused setting is a mistake that could send a password, or all data, unencrypted.
  if (!wantsTls && env.KAFKA_SSL_CA_FILE !== undefined) {
    throw unfit(`KAFKA_SSL_CA_FILE is set but KAFKA_SECURITY_PROTOCOL is ${protocol}`, 'SSL or SASL_SSL');
  }
  if (!wantsSasl && (credentials !== undefined || mechanism !== undefined)) {
    throw unfit(`KAFKA_SASL_… is set but KAFKA_SECURITY_PROTOCOL is ${protocol}`, 'SASL_SSL');
  }
  if (wantsSasl && (credentials === undefined || mechanism === undefined)) {
    throw new ReelflowError('usage', `${protocol} needs a mechanism, a user and a password`, {
      hint: `Set KAFKA_SASL_MECHANISM (${mechanisms.join(', ')}), KAFKA_SASL_USERNAME, and KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE.`,
    });
  }
  if (!wantsTls && !wantsSasl) return undefined;
  const ca = env.KAFKA_SSL_CA_FILE && fileText('KAFKA_SSL_CA_FILE', env.KAFKA_SSL_CA_FILE);
  return {
    ...(wantsTls && { tls: ca === undefined ? {} : { ca } }),
    ...(credentials !== undefined && mechanism !== undefined && { sasl: { ...credentials, mechanism } }),
  };
}

function unfit(what: string, wanted: string): ReelflowError {
  return new ReelflowError('usage', what, {
    detail: 'It would have no effect, and the connection would be less secure than it seems.',
    hint: `Set KAFKA_SECURITY_PROTOCOL to ${wanted}, or unset the other.`,
  });
}

function credentialsOf(env: Environment, prefix: 'KAFKA_SASL' | 'SCHEMA_REGISTRY'): Credentials | undefined {
  const username = env[`${prefix}_USERNAME`];
  const password = env[`${prefix}_PASSWORD`];
  const file = env[`${prefix}_PASSWORD_FILE`];
  if (username === undefined && password === undefined && file === undefined) return undefined;
  if (username === undefined || (password === undefined) === (file === undefined)) {
    throw new ReelflowError('usage', `${prefix}_USERNAME needs exactly one password`, {
      hint: `Set ${prefix}_USERNAME and either ${prefix}_PASSWORD or ${prefix}_PASSWORD_FILE.`,
    });
  }
  const text = password ?? fileText(`${prefix}_PASSWORD_FILE`, file as string).replace(/\r?\n$/, '');
  return { username, password: new Secret(text) };
}

function fileText(variable: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (thrown) {
    throw new ReelflowError('usage', `The file of ${variable} cannot be read`, {
      detail: messageOf(thrown),
      cause: thrown,
    });
  }
}
