/** The meaning of every failure that kafkajs can report, and that none of them reaches a user as a defect. */
import errors from 'kafkajs/src/errors.js';
import protocol from 'kafkajs/src/protocol/error.js';
import { describe, expect, test } from 'vitest';
import {
  asBrokerError,
  brokerFailureOf,
  isPassing,
  isRefusal,
  LogInterrupted,
} from '../../kafka/failures.ts';
import { ReelflowError } from '../../runtime/errors.ts';

/** An error as kafkajs makes it. */
function make(name: string, ...args: [message?: unknown, options?: Record<string, unknown>]): Error {
  const Class = errors[`KafkaJS${name}`];
  if (Class === undefined) throw new RangeError(`kafkajs has no error ${name}`);
  return new Class(...args);
}

const endpoints = { brokers: ['broker:9092'] };
const ofCode = (type: string) => make('ProtocolError', { type, code: 0, message: type, retriable: false });
const codes = protocol.errorCodes.map(({ type }) => type);

const passing = [
  'CORRUPT_MESSAGE',
  'UNKNOWN_TOPIC_OR_PARTITION',
  'LEADER_NOT_AVAILABLE',
  'NOT_LEADER_FOR_PARTITION',
  'REQUEST_TIMED_OUT',
  'BROKER_NOT_AVAILABLE',
  'REPLICA_NOT_AVAILABLE',
  'NETWORK_EXCEPTION',
  'GROUP_LOAD_IN_PROGRESS',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR_FOR_GROUP',
  'NOT_ENOUGH_REPLICAS',
  'NOT_ENOUGH_REPLICAS_AFTER_APPEND',
  'NOT_CONTROLLER',
  'KAFKA_STORAGE_ERROR',
  'UNKNOWN_MEMBER_ID',
  'ILLEGAL_GENERATION',
  'REBALANCE_IN_PROGRESS',
  'ILLEGAL_SASL_STATE',
];
const permanent = [
  'MESSAGE_TOO_LARGE',
  'RECORD_LIST_TOO_LARGE',
  'INVALID_REQUIRED_ACKS',
  'INVALID_TOPIC_EXCEPTION',
  'INVALID_TIMESTAMP',
  'UNSUPPORTED_VERSION',
  'INVALID_REPLICATION_FACTOR',
  'INVALID_CONFIG',
  'POLICY_VIOLATION',
  'UNSUPPORTED_COMPRESSION_TYPE',
  'UNSUPPORTED_FOR_MESSAGE_FORMAT',
  'INVALID_RECORD',
  'GROUP_MAX_SIZE_REACHED',
  'OFFSET_METADATA_TOO_LARGE',
  'INVALID_SESSION_TIMEOUT',
  'SECURITY_DISABLED',
];

describe('a code of Kafka', () => {
  test.each(codes)('%s has a meaning, and is an error for people', (code) => {
    const thrown = ofCode(code);
    expect(brokerFailureOf(thrown)).toBeDefined();
    const shown = asBrokerError(thrown, endpoints, 'a-topic');
    if (code === 'OFFSET_OUT_OF_RANGE') expect(shown).toBe(thrown);
    else expect(shown).toBeInstanceOf(ReelflowError);
  });

  test.each(passing)('%s passes', (code) => {
    expect(codes).toContain(code);
    expect(isPassing(ofCode(code))).toBe(true);
    expect(isPassing(make('NumberOfRetriesExceeded', ofCode(code), retried))).toBe(true);
  });

  test.each(permanent)('%s is a refusal that names topic and remedy', (code) => {
    expect(codes).toContain(code);
    expect(isPassing(ofCode(code))).toBe(false);
    const shown = asBrokerError(
      make('NonRetriableError', code, { cause: ofCode(code) }),
      endpoints,
      'a-topic',
    );
    expect(isRefusal(shown)).toBe(true);
    expect(shown).toMatchObject({ kind: 'brokerRefused', detail: expect.stringContaining(code) });
    expect((shown as ReelflowError).detail).toContain('a-topic');
    expect((shown as ReelflowError).hint).not.toBe('');
  });

  test.each(codes.filter((code) => code.endsWith('_AUTHORIZATION_FAILED')))(
    '%s is a missing right',
    (code) => {
      expect(isPassing(ofCode(code))).toBe(false);
      expect(asBrokerError(ofCode(code), endpoints)).toMatchObject({ kind: 'accessRefused' });
    },
  );
});

const retried = { retryCount: 5, retryTime: 300 };
const made: Readonly<Record<string, Error>> = {
  'a refused connection': make('ConnectionError', 'connect ECONNREFUSED', { code: 'ECONNREFUSED' }),
  'a closed connection': make('ConnectionClosedError', 'Closed connection', { host: 'h', port: 1 }),
  'a request without an answer': make('RequestTimeoutError', 'Request timed out', {}),
  'no broker in the metadata': make('BrokerNotFound', 'Broker 1 not found'),
  'no broker at all': make('NoBrokerAvailableError', ''),
  'metadata without the topic': make('MetadataNotLoaded', 'Producing to topic without metadata'),
  'no coordinator': make('GroupCoordinatorNotFound', 'Failed to find group coordinator'),
  'a lock that was not released': make('LockTimeout', 'Timeout while acquiring lock'),
  'a socket error': Object.assign(new Error('getaddrinfo ENOTFOUND broker'), { code: 'ENOTFOUND' }),
  'an interrupted fetch': new LogInterrupted(new Error('t/0 has no leader')),
};

describe('a failure without a code', () => {
  test.each(Object.keys(made))('%s passes, also when kafkajs has given up', (name) => {
    const thrown = made[name] as Error;
    expect(isPassing(thrown)).toBe(true);
    expect(isPassing(make('NumberOfRetriesExceeded', thrown, retried))).toBe(true);
    expect(asBrokerError(thrown, endpoints)).toMatchObject({ kind: 'brokerUnreachable' });
  });

  test.each([
    ['broker:9092', ['broker:9092'], 'No Kafka broker answers'],
    ['::1:9092', ['[::1]:9092'], 'No Kafka broker answers'],
    ['kafka:29092', ['broker:9092'], 'A broker does not answer at the address that it advertises'],
  ])('a connection to %s, where %j are configured: %s', (broker, brokers, what) => {
    const refused = make('ConnectionError', 'connect ECONNREFUSED', { broker, code: 'ECONNREFUSED' });
    const shown = asBrokerError(make('NumberOfRetriesExceeded', refused, retried), { brokers });
    expect(shown).toMatchObject({ kind: 'brokerUnreachable', message: what });
  });

  test('a hint to start local services says to unset the variables, if they name the brokers', () => {
    const hintAt = (from: object) =>
      (asBrokerError(made['a refused connection'], { ...endpoints, ...from }) as ReelflowError).hint;
    expect(hintAt({})).toMatch(/^Check KAFKA_BROKERS, or unset it and SCHEMA_REGISTRY_URL and start local/);
    expect(hintAt({ areLocal: true })).toBe('Start local services with `reelflow services up`.');
  });

  test('a missing coordinator is not taken for brokers that do not answer', () => {
    expect(asBrokerError(made['no coordinator'], endpoints)).toMatchObject({
      message: 'The brokers cannot serve a request at the moment',
    });
  });

  test('a failure that an error for people wraps passes as before', () => {
    const shown = asBrokerError(made['a closed connection'], endpoints);
    expect(isPassing(shown)).toBe(true);
    expect(isPassing(new LogInterrupted(shown))).toBe(true);
  });

  test('an API that the broker lacks is a refusal', () => {
    const thrown = make('ServerDoesNotSupportApiKey', 'The Kafka server does not support DeleteRecords', {});
    expect(asBrokerError(thrown, endpoints)).toMatchObject({ kind: 'brokerRefused' });
  });

  test('an error inside an aggregate counts', () => {
    const thrown = Object.assign(make('AggregateError', 'Topic creation errors'), {
      errors: [ofCode('POLICY_VIOLATION')],
    });
    expect(asBrokerError(thrown, endpoints)).toMatchObject({ kind: 'brokerRefused' });
  });

  test.each([
    new Error('anything'),
    new TypeError('x is not a function'),
    new RangeError('1'),
    'text',
    undefined,
  ])('an error of the program stays as it is: %s', (thrown) => {
    expect(brokerFailureOf(thrown)).toBeUndefined();
    expect(isPassing(thrown)).toBe(false);
    expect(asBrokerError(thrown, endpoints)).toBe(thrown);
  });
});
