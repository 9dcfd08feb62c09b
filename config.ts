/**
 * Where things are: the cluster, the registry, the folders, the namespace. Read once from the environment and
 * the command line, validated, then passed on as a value; there is no global configuration.
 */
import { z } from 'zod';
import { ReelflowError } from './errors.ts';

const addressList = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .pipe(
    z.array(z.string().regex(/^[^\s/:]+:\d{1,5}$|^\[[0-9a-fA-F:]+\]:\d{1,5}$/, 'host:port expected')).min(1),
  );

const environment = z.object({
  KAFKA_BROKERS: addressList.optional(),
  SCHEMA_REGISTRY_URL: z.url({ protocol: /^https?$/ }).optional(),
});

/** The services that a stage talks to. */
export interface Endpoints {
  /** host:port of one or more brokers */
  readonly brokers: string[];
  readonly registryUrl: string;
}

/** Folders and namespace, the same options on every command. */
export interface Places {
  /** gold folder: snapshots and CURRENT */
  readonly gold: string;
  /** state folder: shard stores, the sink's cubes, replay journals */
  readonly state: string;
  /** '' for none */
  readonly namespace: string;
}

/**
 * The endpoints named by the environment, or undefined when it names none.
 * @throws ReelflowError usage, when only one of the two is set or one is malformed
 */
export function endpointsFromEnvironment(env: NodeJS.ProcessEnv): Endpoints | undefined {
  const blank = (value: string | undefined) =>
    value === undefined || value.trim() === '' ? undefined : value;
  const parsed = environment.safeParse({
    KAFKA_BROKERS: blank(env.KAFKA_BROKERS),
    SCHEMA_REGISTRY_URL: blank(env.SCHEMA_REGISTRY_URL),
  });
  if (!parsed.success) {
    throw new ReelflowError('usage', 'The environment is not usable', {
      detail: z.prettifyError(parsed.error),
      hint: 'KAFKA_BROKERS is host:port[,host:port …], SCHEMA_REGISTRY_URL an http or https URL.',
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
      detail: 'A broker without its registry (or the reverse) would mix two installations.',
      hint: `Set ${unset} too, or unset ${set} to use local services.`,
    });
  }
  return { brokers, registryUrl };
}
