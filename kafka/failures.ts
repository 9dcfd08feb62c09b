/**
 * Classifies failed requests: whether waiting helps, or what a person has to change. kafkajs' own `retriable` flag is not
 * enough, because it does not cover failures that kafkajs has wrapped, or after which it has given up.
 */
import type { Endpoints } from '../runtime/config.ts';
import {
  causesOf,
  isCertificateAlert,
  isCertificateError,
  isConnectionError,
  messageOf,
  ReelflowError,
} from '../runtime/errors.ts';
import { type MissingRight, missingRightOf } from './rights.ts';
import { certificateRefused, problemOfFiles } from './security.ts';
import { seedOf } from './seeds.ts';

/** A fetch failed in a way that a later one may not: a broker stopped, or a leader moved. */
export class LogInterrupted extends Error {
  constructor(cause: unknown) {
    super(messageOf(cause), { cause });
    this.name = 'LogInterrupted';
  }
}

type BrokerFailure =
  /** No broker answers. Waiting helps. */
  | 'connection'
  /** A broker answers, but a leader, coordinator or replica is missing. Waiting helps. */
  | 'unavailable'
  /** The consumer group has changed. Joining again helps. */
  | 'group'
  | 'unknown-topic'
  | 'outside-log'
  | 'login'
  | 'rights'
  | 'mechanism'
  /** This client does not trust the broker. */
  | 'certificate'
  /** The broker does not accept this client's certificate, or requires one. */
  | 'client-certificate'
  /** The broker refuses the request permanently. */
  | 'refused';

/** Kafka's error codes, as kafkajs names them. A code that is missing here is a permanent refusal. */
const byCode: Readonly<Record<string, BrokerFailure>> = {
  ...all('unavailable', [
    // The broker's own failure, or a code that is newer than kafkajs: neither is known to be permanent.
    'UNKNOWN',
    'KAFKAJS_UNKNOWN_ERROR_CODE',
    'CORRUPT_MESSAGE',
    'LEADER_NOT_AVAILABLE',
    'NOT_LEADER_FOR_PARTITION',
    'REQUEST_TIMED_OUT',
    'BROKER_NOT_AVAILABLE',
    'REPLICA_NOT_AVAILABLE',
    'STALE_CONTROLLER_EPOCH',
    'NETWORK_EXCEPTION',
    'GROUP_LOAD_IN_PROGRESS',
    'GROUP_COORDINATOR_NOT_AVAILABLE',
    'NOT_COORDINATOR_FOR_GROUP',
    'NOT_ENOUGH_REPLICAS',
    'NOT_ENOUGH_REPLICAS_AFTER_APPEND',
    'NOT_CONTROLLER',
    'CONCURRENT_TRANSACTIONS',
    'OPERATION_NOT_ATTEMPTED',
    'KAFKA_STORAGE_ERROR',
    'LOG_DIR_NOT_FOUND',
    'REASSIGNMENT_IN_PROGRESS',
    'FETCH_SESSION_ID_NOT_FOUND',
    'INVALID_FETCH_SESSION_EPOCH',
    'LISTENER_NOT_FOUND',
    'FENCED_LEADER_EPOCH',
    'UNKNOWN_LEADER_EPOCH',
    'STALE_BROKER_EPOCH',
    'OFFSET_NOT_AVAILABLE',
    'PREFERRED_LEADER_NOT_AVAILABLE',
    'ELIGIBLE_LEADERS_NOT_AVAILABLE',
    'ELECTION_NOT_NEEDED',
    'UNSTABLE_OFFSET_COMMIT',
    // The broker refuses to authenticate a connection twice within a second; a later attempt succeeds.
    'ILLEGAL_SASL_STATE',
  ]),
  ...all('group', ['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS', 'MEMBER_ID_REQUIRED']),
  ...all('unknown-topic', ['UNKNOWN_TOPIC_OR_PARTITION']),
  ...all('outside-log', ['OFFSET_OUT_OF_RANGE']),
  ...all('login', [
    'SASL_AUTHENTICATION_FAILED',
    'DELEGATION_TOKEN_AUTH_DISABLED',
    'DELEGATION_TOKEN_NOT_FOUND',
    'DELEGATION_TOKEN_OWNER_MISMATCH',
    'DELEGATION_TOKEN_REQUEST_NOT_ALLOWED',
    'DELEGATION_TOKEN_EXPIRED',
  ]),
  ...all('mechanism', ['UNSUPPORTED_SASL_MECHANISM']),
  ...all('rights', [
    'TOPIC_AUTHORIZATION_FAILED',
    'GROUP_AUTHORIZATION_FAILED',
    'CLUSTER_AUTHORIZATION_FAILED',
    'TRANSACTIONAL_ID_AUTHORIZATION_FAILED',
    'DELEGATION_TOKEN_AUTHORIZATION_FAILED',
  ]),
};

/** kafkajs' errors without a code of Kafka. */
const byName: Readonly<Record<string, BrokerFailure>> = {
  ...all('connection', [
    'KafkaJSConnectionError',
    'KafkaJSConnectionClosedError',
    'KafkaJSRequestTimeoutError',
    'KafkaJSBrokerNotFound',
    'KafkaJSNoBrokerAvailableError',
    'KafkaJSMetadataNotLoaded',
    'KafkaJSTopicMetadataNotLoaded',
    'KafkaJSTimeout',
    'KafkaJSLockTimeout',
  ]),
  ...all('unavailable', ['KafkaJSStaleTopicMetadataAssignment', 'KafkaJSGroupCoordinatorNotFound']),
  ...all('login', ['KafkaJSSASLAuthenticationError']),
  ...all('refused', [
    'KafkaJSServerDoesNotSupportApiKey',
    'KafkaJSNotImplemented',
    'KafkaJSUnsupportedMagicByteInMessageSet',
  ]),
};

/**
 * Texts of errors that kafkajs throws without a class of its own, because another request has lost the connection or not opened
 * it yet: then its metadata is null, and it has no seed broker.
 */
const lostConnection =
  /^Broker not connected$|^Cannot .* null\b|^Cannot read properties of undefined \(reading '(connectionPool|nodeId)'\)/;

/** What a failure means, or undefined if it does not come from the broker. */
export function brokerFailureOf(thrown: unknown): BrokerFailure | undefined {
  if (isCertificateError(thrown)) return 'certificate';
  if ([...causesOf(thrown)].some(isCertificateAlert)) return 'client-certificate';
  let isInterrupted = false;
  for (const error of causesOf(thrown)) {
    isInterrupted ||= error instanceof LogInterrupted;
    const code = codeOf(error);
    if (code !== undefined) return byCode[code] ?? 'refused';
    const failure = byName[error.name];
    if (failure !== undefined) return failure;
    // An error of a socket that kafkajs has not wrapped yet.
    if (isConnectionError(error)) return 'connection';
    if (lostConnection.test(error.message) && /\Wkafkajs\W/.test(error.stack ?? '')) return 'connection';
  }
  if (thrown instanceof ReelflowError && thrown.kind === 'brokerUnreachable') return 'connection';
  return isInterrupted ? 'unavailable' : undefined;
}

/** Whether a request may succeed later without any change by a person. */
export function isPassing(thrown: unknown): boolean {
  const failure = brokerFailureOf(thrown);
  return (
    failure === 'connection' ||
    failure === 'unavailable' ||
    failure === 'group' ||
    // While a broker starts, it does not know all topics yet.
    failure === 'unknown-topic'
  );
}

/** Whether a topic does not exist, or the broker that answers does not know it yet. */
export const isUnknownTopic = (thrown: unknown) => brokerFailureOf(thrown) === 'unknown-topic';

/** Whether a partition has no leader at the moment. */
export const isWithoutLeader = (thrown: unknown) =>
  ['LEADER_NOT_AVAILABLE', 'NOT_LEADER_FOR_PARTITION'].includes(kafkaCodeOf(thrown) ?? '');

/** The error that a broker answered with. kafkajs wraps it, in some cases without its reason. */
export function answerOf(thrown: unknown): Error | undefined {
  for (const error of causesOf(thrown)) if (codeOf(error) !== undefined) return error;
  return undefined;
}

/** Kafka's error code, as kafkajs names it. */
export function kafkaCodeOf(thrown: unknown): string | undefined {
  const answer = answerOf(thrown);
  return answer && codeOf(answer);
}

/** Whether the broker refuses this request permanently. */
export function isRefusal(thrown: unknown): boolean {
  return (
    thrown instanceof ReelflowError &&
    (thrown.kind === 'accessRefused' || thrown.kind === 'untrusted' || thrown.kind === 'brokerRefused')
  );
}

/**
 * Turns a failure of a request into an error that a person can act on. Anything that does not come from the broker, and a
 * position outside the log, passes unchanged.
 * @param topic of the request, for the error's detail
 */
export function asBrokerError(
  thrown: unknown,
  { brokers, security, areLocal }: Pick<Endpoints, 'brokers' | 'security' | 'areLocal'>,
  topic?: string,
): unknown {
  const known = [...causesOf(thrown)].find((error) => error instanceof ReelflowError);
  if (known !== undefined) return known;
  const about = topic === undefined ? '' : `${topic}: `;
  const detail = `${about}${brokers.join(', ')}: ${withoutOpenssl(messageOf(thrown))}`;
  const cause = thrown;
  const failure = brokerFailureOf(thrown);
  if (failure === 'connection' || failure === 'client-certificate') {
    const problem = problemOfFiles(security?.tls ?? {}, detail);
    if (problem !== undefined) return problem;
  }
  switch (failure) {
    case 'login': {
      const { sasl } = security ?? {};
      const user = sasl !== undefined && 'username' in sasl ? ` as ${sasl.username}` : '';
      return new ReelflowError('accessRefused', 'The broker refuses the user or the password', {
        detail: `${detail} (${sasl?.mechanism}${user})`,
        hint: 'Check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and the password.',
        cause,
      });
    }
    case 'mechanism':
      return new ReelflowError('accessRefused', `The broker does not support ${security?.sasl?.mechanism}`, {
        detail,
        hint: 'Set KAFKA_SASL_MECHANISM to one of sasl.enabled.mechanisms of this port.',
        cause,
      });
    case 'client-certificate':
      return certificateRefused(security?.tls ?? {}, detail, cause);
    case 'rights': {
      const right = [...causesOf(thrown)].map(missingRightOf).find((each) => each !== undefined);
      return new ReelflowError('accessRefused', 'The broker does not allow this', {
        detail: right === undefined ? detail : `${detail}. Missing: ${rightText(right)}`,
        hint:
          right === undefined
            ? 'The user lacks a right on a topic, a group or the cluster: check the ACLs.'
            : `Allow the user ${rightText(right)}.`,
        cause,
      });
    }
    case 'certificate':
      return new ReelflowError('untrusted', "The broker's certificate is not trusted", {
        detail,
        hint: 'Set KAFKA_SSL_CA_FILE to the certificate of its authority (PEM), and use a broker name that the certificate contains.',
        cause,
      });
    case 'connection': {
      const advertised = advertisedAddress(thrown, brokers);
      if (advertised !== undefined && !requiresTls.test(detail) && !speaksNoTls.test(detail)) {
        return new ReelflowError(
          'brokerUnreachable',
          'A broker does not answer at the address that it advertises',
          {
            detail: `${advertised}, which ${brokers.join(', ')} names: ${messageOf(thrown)}`,
            hint: 'Check that this broker is running, that this host can reach the address, and advertised.listeners of the broker.',
            cause,
          },
        );
      }
      return new ReelflowError('brokerUnreachable', 'No Kafka broker answers', {
        detail:
          security?.tls !== undefined && speaksNoTls.test(detail)
            ? `${detail} (does the port speak TLS?)`
            : detail,
        hint: connectionHint(detail, security, areLocal),
        cause,
      });
    }
    case 'unavailable':
      return new ReelflowError('brokerUnreachable', 'The brokers cannot serve a request at the moment', {
        detail,
        hint:
          kafkaCodeOf(thrown) === 'ILLEGAL_SASL_STATE'
            ? 'If this persists, the port takes no login: set KAFKA_SECURITY_PROTOCOL to PLAINTEXT, or to SSL for a port with TLS.'
            : 'Check that all brokers are running, and that each partition has a leader and enough in-sync replicas.',
        cause,
      });
    case 'unknown-topic':
      return new ReelflowError('sourceLost', 'The broker does not know a topic', {
        detail,
        hint: 'The topic was deleted, or --namespace is wrong. Replaying a dataset creates its topic again.',
        cause,
      });
    case 'group':
      return new ReelflowError('busy', 'The members of the consumer group have changed', {
        detail,
        hint: 'Run the command again; `reelflow reset` requires that all members have ended.',
        cause,
      });
    case 'refused':
      return new ReelflowError('brokerRefused', 'The broker refuses a request permanently', {
        detail: `${about}${brokers.join(', ')}: ${kafkaCodeOf(thrown) ?? ''} ${messageOf(thrown)}`.trim(),
        hint: hintFor(kafkaCodeOf(thrown), topic ?? 'the topic'),
        cause,
      });
    default:
      return thrown;
  }
}

/** The address of a failed connection, if it is none of the configured ones: then a broker has named it. */
function advertisedAddress(thrown: unknown, brokers: readonly string[]): string | undefined {
  const configured = new Set(brokers.flatMap((address) => [seedOf(address), address.replace(/[[\]]/g, '')]));
  for (const error of causesOf(thrown)) {
    const { broker } = error as { broker?: unknown };
    if (typeof broker === 'string') return configured.has(broker) ? undefined : broker;
  }
  return undefined;
}

/** Errors of a client without TLS at a port with TLS, and of a client with TLS at a port without. */
const requiresTls = /it requires TLS/;
const speaksNoTls = /before secure TLS connection was established|wrong version number/;

function connectionHint(detail: string, security: Endpoints['security'], areLocal = false): string {
  if (requiresTls.test(detail)) return 'Set KAFKA_SECURITY_PROTOCOL to SSL, or to SASL_SSL with a login.';
  if (areLocal) return 'Start local services with `reelflow services up`.';
  if (security === undefined) {
    return 'Check KAFKA_BROKERS, or unset it and SCHEMA_REGISTRY_URL and start local services with `reelflow services up`. A port that requires TLS or a login needs KAFKA_SECURITY_PROTOCOL.';
  }
  if (security.tls !== undefined && speaksNoTls.test(detail)) {
    return 'Name a port with TLS in KAFKA_BROKERS, or set KAFKA_SECURITY_PROTOCOL to PLAINTEXT, or to SASL_PLAINTEXT with a login.';
  }
  return 'Check KAFKA_BROKERS, and that its ports accept the protocol in KAFKA_SECURITY_PROTOCOL.';
}

const rightText = ({ operation, resource, name }: MissingRight) =>
  `${operation} on ${resource === 'cluster' ? 'the cluster' : `${resource} ${name}`}`;

function hintFor(code: string | undefined, topic: string): string {
  switch (code) {
    case 'MESSAGE_TOO_LARGE':
    case 'RECORD_LIST_TOO_LARGE':
      return `Raise max.message.bytes (and, if it is smaller, segment.bytes) of ${topic}, and message.max.bytes of the brokers.`;
    case 'INVALID_REQUIRED_ACKS':
      return `Messages are sent with acks=all: check min.insync.replicas of ${topic}, and any proxy before the brokers.`;
    case 'UNSUPPORTED_COMPRESSION_TYPE':
    case 'UNSUPPORTED_FOR_MESSAGE_FORMAT':
      return `Messages are compressed with zstd: check compression.type of ${topic} and the version of the brokers (2.1 or later).`;
    case 'INVALID_TIMESTAMP':
      return `Check message.timestamp.type and the message.timestamp limits of ${topic}, and the clocks.`;
    case 'POLICY_VIOLATION':
      return 'A policy of the cluster forbids this. Its administrator can change the policy or create the topics.';
    case 'INVALID_RECORD':
      return `A validation of the cluster rejects the messages: check the schema validation of ${topic}.`;
    case 'INVALID_TOPIC_EXCEPTION':
    case 'INVALID_PARTITIONS':
    case 'INVALID_REPLICATION_FACTOR':
    case 'INVALID_REPLICA_ASSIGNMENT':
    case 'INVALID_CONFIG':
      return 'The cluster does not accept this topic: check --namespace, --shards and the default replication factor.';
    case 'INVALID_SESSION_TIMEOUT':
      return 'Check group.min.session.timeout.ms and group.max.session.timeout.ms of the brokers: sessions are 6 s.';
    case 'GROUP_MAX_SIZE_REACHED':
      return 'Raise group.max.size of the brokers, or run fewer members.';
    case 'OFFSET_METADATA_TOO_LARGE':
    case 'INVALID_COMMIT_OFFSET_SIZE':
      return 'Raise offset.metadata.max.bytes of the brokers.';
    case undefined:
    case 'UNSUPPORTED_VERSION':
    case 'INVALID_REQUEST':
      return 'Check the version of the brokers (2.1 or later), and any proxy before them.';
    default:
      return 'Check the setting of the broker or topic that the detail names.';
  }
}

/** OpenSSL puts addresses and its own source lines around the reason. */
const withoutOpenssl = (text: string) =>
  text.replace(/[0-9A-F]{8,}:error:[0-9A-F]+:SSL routines:[^:]*:([^:]+):.*$/s, '$1');

function codeOf(error: Error): string | undefined {
  const { type } = error as { type?: unknown };
  return typeof type === 'string' && /^[A-Z][A-Z_]+$/.test(type) ? type : undefined;
}

function all(failure: BrokerFailure, names: readonly string[]): Record<string, BrokerFailure> {
  return Object.fromEntries(names.map((name) => [name, failure]));
}
