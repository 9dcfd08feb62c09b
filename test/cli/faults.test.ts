/** Errors that no code has mapped: faults from outside are named as such, and only our own mistakes are defects. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import errors from 'kafkajs/src/errors.js';
import protocol from 'kafkajs/src/protocol/error.js';
import { expect, test } from 'vitest';
import { asExternalFault } from '../../cli/faults.ts';
import { type FailureKind, ReelflowError } from '../../runtime/errors.ts';
import { packageFile } from '../../runtime/package.ts';
import { onDatabase } from '../support/damage.ts';

const thrownBy = (work: () => unknown): unknown => {
  try {
    work();
  } catch (thrown) {
    return thrown;
  }
  throw new Error('it did not fail');
};
const rejectionOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );

const withCode = (code: string, message = code) => Object.assign(new Error(message), { code });
const ofKafka = (name: string, message: string) =>
  new (errors[name] as new (m: string, o: object) => Error)(message, {});

test.for<[string, () => unknown, FailureKind]>([
  ['a file that is gone', () => thrownBy(() => readFileSync('/none/at/all')), 'stateUnusable'],
  [
    'a folder without rights',
    () => withCode('EACCES', 'EACCES: permission denied, open /x'),
    'stateUnusable',
  ],
  ['a network file system that was restarted', () => withCode('ESTALE'), 'stateUnusable'],
  ['too many open files', () => withCode('EMFILE'), 'stateUnusable'],
  ['a full disk', () => withCode('ENOSPC'), 'diskFull'],
  [
    'a full disk, within another error',
    () => new Error('it failed', { cause: withCode('ENOSPC') }),
    'diskFull',
  ],
  [
    "DuckDB's memory limit",
    () => new Error('Out of Memory Error: could not allocate block'),
    'stateUnusable',
  ],
  [
    'a file that DuckDB cannot read',
    () => new Error('IO Error: Could not read from file "a"'),
    'stateUnusable',
  ],
  ['a connection that was cut', () => withCode('ECONNRESET', 'read ECONNRESET'), 'brokerUnreachable'],
  [
    'several addresses of which none answers',
    () => new AggregateError([withCode('ECONNREFUSED')], ''),
    'brokerUnreachable',
  ],
  [
    'a broker that does not answer',
    () => ofKafka('KafkaJSRequestTimeoutError', 'Request timed out'),
    'brokerUnreachable',
  ],
  [
    'a refusal of the broker',
    () => Object.assign(ofKafka('KafkaJSProtocolError', 'no'), { type: 'POLICY_VIOLATION' }),
    'brokerRefused',
  ],
  [
    'a known error within another one',
    () => new Error('x', { cause: new ReelflowError('busy', 'held') }),
    'busy',
  ],
])('%s is not a defect', async ([, make, kind]) => {
  expect(await asExternalFault(make())).toMatchObject({ kind });
});

// The whole list of this system: what is new on it needs a decision.
test('every error of the system is a fault from outside, except for those that only a program provokes', async () => {
  const ours: string[] = [];
  for (const code of Object.keys(constants.errno)) {
    if (!((await asExternalFault(withCode(code))) instanceof ReelflowError)) ours.push(code);
  }
  expect(ours.sort()).toEqual(
    'E2BIG EALREADY EBADF ECHILD EDESTADDRREQ EDOM EFAULT EISCONN ENOPROTOOPT ENOTSOCK EPROTOTYPE ERANGE'.split(
      ' ',
    ),
  );
});

test('every error of kafkajs is a fault from outside', async () => {
  for (const { type } of protocol.errorCodes) {
    const thrown = Object.assign(ofKafka('KafkaJSProtocolError', type), { type });
    expect(await asExternalFault(thrown), type).toBeInstanceOf(ReelflowError);
  }
  const ours: string[] = [];
  for (const name of Object.keys(errors).filter((one) => one.startsWith('KafkaJS'))) {
    if (!((await asExternalFault(Object.assign(new Error('x'), { name }))) instanceof ReelflowError))
      ours.push(name);
  }
  // What only wraps another error, and what never leaves kafkajs.
  const inner =
    'AggregateError AlterPartitionReassignmentsError CreateTopicError DeleteGroupsError DeleteTopicRecordsError Error ' +
    'FetcherRebalanceError InvariantViolation MemberIdRequired NonRetriableError NumberOfRetriesExceeded OffsetOutOfRange ' +
    'ProtocolError';
  expect(ours.sort()).toEqual(inner.split(' ').map((name) => `KafkaJS${name}`));
});

test('what DuckDB and a socket really throw is not a defect', async () => {
  const missing = await rejectionOf(onDatabase(':memory:', "SELECT * FROM read_csv('/none/at/all.csv')"));
  expect(await asExternalFault(missing)).toMatchObject({ kind: 'stateUnusable' });
  const ours = await rejectionOf(onDatabase(':memory:', 'SELECT no_such_column FROM range(1)'));
  expect(await asExternalFault(ours)).toBe(ours);
  const { promise, resolve } = Promise.withResolvers<unknown>();
  createConnection({ host: '127.0.0.1', port: 1 }).on('error', resolve);
  expect(await asExternalFault(await promise)).toMatchObject({ kind: 'brokerUnreachable' });
});

test('a missing file is a defect if it belongs to the package, not if it lies beside it', async () => {
  const missing = (path: string) => thrownBy(() => readFileSync(packageFile(path)));
  for (const path of ['topics/schemas/none.avsc', 'dist/monitor/page/none.js']) {
    expect(await asExternalFault(missing(path))).toMatchObject({ code: 'ENOENT' });
  }
  for (const path of ['gold/CURRENT.none', '.reelflow/state/none', '../none']) {
    expect(await asExternalFault(missing(path))).toMatchObject({ kind: 'stateUnusable' });
  }
});

test.for([
  ['a TypeError', new TypeError('x is undefined')],
  ['a RangeError', new RangeError('the shard is not open')],
  ['an error of our own about a checksum', new Error('the checksum of a read-only file is corrupt')],
  ['a text', 'what'],
] as const)('%s stays a defect', async ([, thrown]) => {
  expect(await asExternalFault(thrown)).toBe(thrown);
});

// Method: a timer of a running command fails, as a stream without a listener does.
test.for([
  [
    'a fault from outside',
    "Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })",
    4,
    'A connection has failed',
  ],
  ['a defect', "new TypeError('x is undefined')", 1, 'This is a defect of reelflow'],
] as const)(
  '%s that no code waits for ends the command with words and an exit code',
  ([, error, code, words]) => {
    const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
    const program = `
    import { main } from ${JSON.stringify(main)};
    setTimeout(() => { throw ${error}; }, 50);
    await main(['node', 'reelflow', 'completion', '--help']);
    await new Promise((resolve) => setTimeout(resolve, 20_000));`;
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
    });
    expect(stderr).toContain(words);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(status).toBe(code);
  },
);
