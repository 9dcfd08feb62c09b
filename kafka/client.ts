/**
 * Configures kafkajs, and nothing else does. Every stage receives a Broker: producers, admin and membership come from
 * `kafka`, reads at exact offsets from `log.ts`.
 */
import './clocks.ts';
import './codecs.ts';
import './connect.ts';
import './rights.ts';
import kafkajs, { type Admin, type Kafka, type logCreator, type RetryOptions } from 'kafkajs';
import kafkajsAdmin from 'kafkajs/src/admin/index.js';
import Cluster from 'kafkajs/src/cluster/index.js';
import loggers from 'kafkajs/src/loggers/index.js';
import type { Endpoints } from '../runtime/config.ts';
import type { Logger } from '../runtime/logger.ts';
import { asBrokerError } from './failures.ts';
import { OutageMonitor } from './outage.ts';
import { kafkajsSecurity } from './security.ts';
import { seedOf } from './seeds.ts';

const clientId = 'reelflow';
const connectionTimeoutMs = 3_000;
const requestTimeoutMs = 30_000;
const metadataMaxAgeMs = 60_000;

export interface Broker {
  readonly kafka: Kafka;
  readonly endpoints: Endpoints;
  readonly logger: Logger;
  readonly outages: OutageMonitor;
  /** kafkajs' own cluster object, for requests that its public interface lacks. */
  createCluster(retry?: RetryOptions): Cluster;
  /** An admin client that gives up after a few attempts. */
  createAdmin(): Admin;
}

/** For requests that the caller repeats, and for commands that a person waits for. */
const impatient: RetryOptions = { initialRetryTime: 100, maxRetryTime: 1_000, retries: 4 };

/** A command that only looks stops connecting after this time, once it has tried each address. */
const lookMs = 5_000;

/**
 * A client of the cluster; nothing is connected yet.
 * @param use a command that only looks gives up earlier on addresses that do not answer
 */
export function createBroker(endpoints: Endpoints, logger: Logger, use: 'stage' | 'look' = 'stage'): Broker {
  hideTimeoutNoise();
  const brokers = endpoints.brokers.map(seedOf);
  const retry = { initialRetryTime: 100, maxRetryTime: 3_000, retries: 8 };
  const toPino = logTo(logger);
  const secured = kafkajsSecurity(endpoints.security);
  const kafka = new kafkajs.Kafka({
    ...secured,
    clientId,
    brokers,
    connectionTimeout: connectionTimeoutMs,
    requestTimeout: requestTimeoutMs,
    retry,
    logLevel: kafkajs.logLevel.INFO,
    logCreator: toPino,
  });
  const kafkajsLogger = loggers.createLogger({ level: kafkajs.logLevel.INFO, logCreator: toPino });
  const createCluster = (retryOf: RetryOptions = retry) => {
    const cluster = new Cluster({
      ...secured,
      logger: kafkajsLogger,
      clientId,
      brokers,
      connectionTimeout: connectionTimeoutMs,
      requestTimeout: requestTimeoutMs,
      enforceRequestTimeout: true,
      metadataMaxAge: metadataMaxAgeMs,
      retry: retryOf,
      allowAutoTopicCreation: false,
    });
    if (use === 'look') endSoon(cluster.brokerPool, brokers.length);
    return cluster;
  };
  // `kafka.admin()` would connect with the retries of the whole client.
  const createAdmin = () =>
    kafkajsAdmin({ logger: kafkajsLogger, retry: impatient, cluster: createCluster(impatient) });
  const outages = new OutageMonitor(logger, 'Kafka broker');
  return { kafka, endpoints, logger, outages, createCluster, createAdmin };
}

/**
 * Ends the attempts to connect after `lookMs`: a host that is down, or a port that accepts connections and does not answer,
 * takes seconds at each attempt. At least two attempts give a slow broker its time.
 */
function endSoon(pool: Cluster['brokerPool'], addresses: number): void {
  const repeated = pool.retrier;
  pool.retrier = (attempt) => {
    const startedMs = performance.now();
    return repeated(async (bail, attempts, pauseMs) => {
      try {
        return await attempt(bail, attempts, pauseMs);
      } catch (thrown) {
        const isTried = attempts + 1 >= Math.max(2, addresses) && performance.now() - startedMs > lookMs;
        if (isTried && (thrown as Error).name === 'KafkaJSConnectionError') bail(thrown);
        throw thrown;
      }
    });
  };
}

/**
 * Runs `work` with a connected admin client.
 * @throws ReelflowError brokerUnreachable, when no broker answers within a few seconds
 */
export async function withAdmin<T>(broker: Broker, work: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = broker.createAdmin();
  try {
    await admin.connect();
    return await work(admin);
  } catch (thrown) {
    throw asBrokerError(thrown, broker.endpoints);
  } finally {
    await admin.disconnect().catch(() => undefined);
  }
}

/**
 * Runs `work` with a connected cluster object that knows the topics.
 * @throws ReelflowError brokerUnreachable, when no broker answers within a few seconds; KafkaJSProtocolError
 *   UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE
 */
export async function withCluster<T>(
  broker: Broker,
  topics: readonly string[],
  work: (cluster: Cluster) => Promise<T>,
): Promise<T> {
  const cluster = broker.createCluster(impatient);
  try {
    await cluster.connect();
    if (topics.length > 0) await cluster.addMultipleTargetTopics([...topics]);
    return await work(cluster);
  } catch (thrown) {
    throw asBrokerError(thrown, broker.endpoints);
  } finally {
    await cluster.disconnect().catch(() => undefined);
  }
}

interface ClusterTopics {
  /** Ties state and gold to one cluster. */
  readonly clusterId: string;
  /** Partition counts of all topics. */
  readonly partitions: ReadonlyMap<string, number>;
}

/** Reads the metadata of the cluster by one request; kafkajs' admin would send four. @throws ReelflowError brokerUnreachable */
export async function clusterTopics(broker: Broker): Promise<ClusterTopics> {
  return withCluster(broker, [], async (cluster) => {
    await cluster.refreshMetadata();
    const { clusterId, topicMetadata } = cluster.brokerPool.metadata;
    const counts = topicMetadata.map(
      ({ topic, partitionMetadata }) => [topic, partitionMetadata.length] as const,
    );
    return { clusterId, partitions: new Map(counts) };
  });
}

/** The id of the cluster, which shows that a broker answers. @throws ReelflowError brokerUnreachable */
export async function clusterIdOf(broker: Broker): Promise<string> {
  return (await clusterTopics(broker)).clusterId;
}

// kafkajs retries after most errors that it logs, and succeeds; the caller reports the others.
const logTo =
  (logger: Logger): logCreator =>
  () =>
  ({ namespace, level, log }) => {
    const { message, timestamp: _, logger: __, stack: ___, ...rest } = log;
    const line = { kafkajs: namespace, ...rest };
    if (level <= kafkajs.logLevel.WARN) logger.debug(line, message);
    else logger.trace(line, message);
  };

let noiseHidden = false;

/** kafkajs 2.2.4 sets timers with small negative delays, which mean "now"; Node ≥ 22 warns about each. */
function hideTimeoutNoise(): void {
  if (noiseHidden) return;
  noiseHidden = true;
  const emitWarning = process.emitWarning.bind(process) as (...args: unknown[]) => void;
  process.emitWarning = ((warning: string | Error, ...rest: unknown[]) => {
    const [type] = rest;
    const name = typeof type === 'string' ? type : (type as { type?: string } | undefined)?.type;
    if (name === 'TimeoutNegativeWarning') return;
    emitWarning(warning, ...rest);
  }) as typeof process.emitWarning;
}
