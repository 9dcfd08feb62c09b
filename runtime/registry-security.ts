/**
 * Secures requests to the Schema Registry: basic authentication, a bearer token, client certificates. Reads files of tokens and
 * certificates for each request, so that another program may renew them.
 */
import { isHttpsOrLoopback } from './broker-security.ts';
import { type Credentials, credentialsOf, fileText } from './credentials.ts';
import { anyText, type ValuesOf } from './environment.ts';
import { ReelflowError } from './errors.ts';
import type { Exchange } from './registry-http.ts';
import { readTls, type TlsFiles, tlsFilesOf } from './tls-files.ts';

export const registryVariables = {
  SCHEMA_REGISTRY_USERNAME: anyText,
  SCHEMA_REGISTRY_PASSWORD: anyText,
  SCHEMA_REGISTRY_PASSWORD_FILE: anyText,
  SCHEMA_REGISTRY_BEARER_TOKEN_FILE: anyText,
  SCHEMA_REGISTRY_SSL_CA_FILE: anyText,
  SCHEMA_REGISTRY_SSL_CERTIFICATE_FILE: anyText,
  SCHEMA_REGISTRY_SSL_KEY_FILE: anyText,
  SCHEMA_REGISTRY_SSL_KEY_PASSWORD: anyText,
  SCHEMA_REGISTRY_SSL_KEY_PASSWORD_FILE: anyText,
};

type Environment = ValuesOf<typeof registryVariables>;

const sslPrefix = 'SCHEMA_REGISTRY_SSL';

/** An absent property means no authentication, or the authorities of the system. */
export interface RegistrySecurity {
  readonly credentials?: Credentials;
  readonly tokenFile?: string;
  readonly tls?: TlsFiles;
}

/** The security that the environment names. @throws ReelflowError usage, when settings conflict, have no effect or name unusable files */
export function registrySecurityOf(env: Environment, url: string | undefined): RegistrySecurity {
  const credentials = credentialsOf(env, 'SCHEMA_REGISTRY');
  const tokenFile = env.SCHEMA_REGISTRY_BEARER_TOKEN_FILE;
  if (tokenFile !== undefined) {
    if (credentials !== undefined) {
      throw new ReelflowError('usage', 'Two ways to authenticate to the registry are set', {
        hint: 'Unset SCHEMA_REGISTRY_USERNAME or SCHEMA_REGISTRY_BEARER_TOKEN_FILE.',
      });
    }
    if (url !== undefined && !isHttpsOrLoopback(new URL(url))) {
      throw new ReelflowError('usage', 'A bearer token needs an https registry', {
        detail: 'Plain http would send the token unencrypted.',
        hint: 'Set SCHEMA_REGISTRY_URL to an https URL.',
      });
    }
    fileText('SCHEMA_REGISTRY_BEARER_TOKEN_FILE', tokenFile);
  }
  const tls = tlsOf(env, url);
  return {
    ...(credentials !== undefined && { credentials }),
    ...(tokenFile !== undefined && { tokenFile }),
    ...(tls !== undefined && { tls }),
  };
}

function tlsOf(env: Environment, url: string | undefined): TlsFiles | undefined {
  const isSet = Object.keys(env).some((name) => name.startsWith(sslPrefix));
  if (isSet && url?.startsWith('http:')) {
    throw new ReelflowError('usage', `${sslPrefix}_… is set but the registry's URL is http`, {
      detail: 'It would have no effect, and the connection would be less secure than it seems.',
      hint: `Set SCHEMA_REGISTRY_URL to an https URL, or unset ${sslPrefix}_….`,
    });
  }
  return isSet ? tlsFilesOf(env, sslPrefix) : undefined;
}

export interface RegistryAccess {
  /** Headers and certificates for a request now. @throws ReelflowError usage, when a file cannot be read */
  request(): Pick<Exchange, 'headers' | 'tls'>;
  /** How this client authenticates, for errors; without secrets. */
  readonly login: string;
}

/** Reads token and certificate files again at each request. */
export function registryAccess({ credentials, tokenFile, tls }: RegistrySecurity = {}): RegistryAccess {
  const authorization = () => {
    if (tokenFile !== undefined) {
      return `Bearer ${fileText('SCHEMA_REGISTRY_BEARER_TOKEN_FILE', tokenFile).trim()}`;
    }
    if (credentials === undefined) return undefined;
    const pair = `${credentials.username}:${credentials.password.reveal()}`;
    return `Basic ${Buffer.from(pair).toString('base64')}`;
  };
  const ways = [
    ...(credentials === undefined ? [] : [`as ${credentials.username}`]),
    ...(tokenFile === undefined ? [] : [`with the token of ${tokenFile}`]),
    ...(tls?.client === undefined ? [] : [`with the certificate of ${tls.client.certificateFile}`]),
  ];
  return {
    request: () => {
      const value = authorization();
      return {
        headers: value === undefined ? {} : { authorization: value },
        tls: tls === undefined ? {} : readTls(tls, sslPrefix).options,
      };
    },
    login: ways.length === 0 ? 'without a user' : ways.join(', '),
  };
}
