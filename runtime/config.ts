/**
 * Cluster, registry, folders and namespace. The command line reads and validates them once and passes them on as values;
 * there is no global configuration.
 */
import { isIPv6 } from 'node:net';
import { type BrokerSecurity, securityOf, securityVariables } from './broker-security.ts';
import { httpUrl, type Reader, readVariables, refuseCredentials } from './environment.ts';
import { ReelflowError } from './errors.ts';
import { type RegistrySecurity, registrySecurityOf, registryVariables } from './registry-security.ts';

const addressList: Reader<string[]> = (text) => {
  // As Kafka's Java clients do, it takes a list with a trailing comma.
  const addresses = text.split(',').flatMap((part) => part.trim() || []);
  if (addresses.length === 0) throw new RangeError('expected host:port or [IPv6]:port');
  const wrong = addresses.find((address) => !isAddress(address));
  if (wrong !== undefined) throw new RangeError(`expected host:port or [IPv6]:port, not '${wrong}'`);
  return addresses;
};

function isAddress(text: string): boolean {
  const [, ipv6, name, port] = /^(?:\[([^\s\]]+)\]|([^\s/:[\]|]+)):(\d{1,5})$/.exec(text) ?? [];
  return (name !== undefined || isIPv6(ipv6 ?? '')) && Number(port) >= 1 && Number(port) <= 65_535;
}

/** Named after the settings of Kafka's clients. A variable holds a password, or the path of its file. */
const variables = {
  KAFKA_BROKERS: addressList,
  SCHEMA_REGISTRY_URL: httpUrl((url) => refuseCredentials(url, 'SCHEMA_REGISTRY_USERNAME')),
  ...securityVariables,
  ...registryVariables,
};

/** Addresses and credentials of broker and registry. */
export interface Endpoints {
  /** host:port of one or more brokers. */
  readonly brokers: string[];
  readonly registryUrl: string;
  readonly security?: BrokerSecurity;
  readonly registrySecurity?: RegistrySecurity;
  /** The environment names none: these are the services of `services up`. */
  readonly areLocal?: true;
}

/** Folders and namespace, which every command takes as options. */
export interface Places {
  /** Gold folder: snapshots and CURRENT. */
  readonly gold: string;
  /** State folder: shard stores, the sink's cubes, replay journals. */
  readonly state: string;
  /** Prefix of topics and groups; empty without one. */
  readonly namespace: string;
}

/** The variables that name these endpoints, for a child process. */
export const environmentOf = ({ brokers, registryUrl }: Pick<Endpoints, 'brokers' | 'registryUrl'>) => ({
  KAFKA_BROKERS: brokers.join(','),
  SCHEMA_REGISTRY_URL: registryUrl,
});

/**
 * The endpoints of the environment, or undefined when it sets none.
 * @throws ReelflowError usage, when only one of the two is set, one is malformed, or security settings conflict
 */
export function endpointsFromEnvironment(env: NodeJS.ProcessEnv): Endpoints | undefined {
  const {
    KAFKA_BROKERS: brokers,
    SCHEMA_REGISTRY_URL: registryUrl,
    ...access
  } = readVariables(env, variables);
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
  const security = securityOf(access);
  const registrySecurity = registrySecurityOf(access, registryUrl);
  return {
    brokers,
    registryUrl,
    ...(security !== undefined && { security }),
    ...(Object.keys(registrySecurity).length > 0 && { registrySecurity }),
  };
}
