/**
 * Maps faults from outside that reach the command line unmapped. Modules map errors of the broker, the registry, DuckDB and the
 * file system where they enter. One that they miss is still no defect of reelflow, and the command must not call it one.
 */
import { relative } from 'node:path';
import {
  causesOf,
  isConnectionError,
  isFileError,
  messageOf,
  ReelflowError,
  systemCodeOf,
} from '../runtime/errors.ts';
import { packageFile } from '../runtime/package.ts';

/** Folders of the package. In a checkout, data and state of a user may lie beside them. */
const ownFolders =
  /^(dist|cli|database|flink|kafka|monitor|processors|producers|runtime|sinks|tables|topics)[\\/]/;
/** DuckDB has no codes, only names of errors. Other names than these mean a mistake in our queries. */
const duckdbStorage = /^(IO|Permission|Serialization|Out of Memory) Error: /;

/** @returns a ReelflowError for a fault from outside, or the error itself: a defect */
export async function asExternalFault(thrown: unknown): Promise<unknown> {
  const chain = [...causesOf(thrown)];
  const known = chain.find((error) => error instanceof ReelflowError);
  if (known !== undefined) return known;
  if (chain.some(({ name }) => name.startsWith('KafkaJS'))) {
    const { asBrokerError, brokerFailureOf } = await import('../kafka/failures.ts');
    if (brokerFailureOf(thrown) === 'outside-log') {
      return new ReelflowError('sourceLost', 'A topic does not hold a position any more', {
        detail: messageOf(thrown),
        hint: 'The topic was trimmed or recreated meanwhile: run the command again.',
        cause: thrown,
      });
    }
    if (chain.some(({ name }) => /^KafkaJS(PartialMessage|InvalidVarInt|InvalidLong)Error$/.test(name))) {
      return new ReelflowError('undecodableBatch', 'An answer of the broker cannot be decoded', {
        detail: messageOf(thrown),
        hint: 'Check the logs of the brokers, and any proxy before them.',
        cause: thrown,
      });
    }
    const mapped = asBrokerError(thrown, { brokers: ['the brokers'] });
    if (mapped instanceof ReelflowError) return mapped;
  }
  if (chain.some(isOwnFileMissing)) return thrown;
  const detail = messageOf(thrown);
  for (const error of chain) {
    const code = systemCodeOf(error) ?? '';
    if (code === 'ENOSPC' || code === 'EDQUOT' || /no space left|max_temp_directory_size/i.test(detail)) {
      return new ReelflowError('diskFull', 'A disk is full', {
        detail,
        hint: 'Free disk space and start again; nothing is lost.',
        cause: thrown,
      });
    }
    if (/^Out of Memory Error: /.test(error.message)) {
      return new ReelflowError('stateUnusable', 'The memory limit is too small', {
        detail: detail.split('\n', 1)[0] ?? '',
        hint: 'Raise --memory.',
        cause: thrown,
      });
    }
    if (isFileError(error) || duckdbStorage.test(error.message)) {
      return new ReelflowError('stateUnusable', 'A file or folder cannot be used', {
        detail,
        hint: 'Check that the path in the detail exists, its permissions and its disk.',
        cause: thrown,
      });
    }
    if (isConnectionError(error)) {
      return new ReelflowError('brokerUnreachable', 'A connection has failed', {
        detail,
        hint: 'Check that the service at the address in the detail answers from this machine.',
        cause: thrown,
      });
    }
  }
  return thrown;
}

/** Whether a file of the package is missing, which is a defect, rather than a file of the user. */
function isOwnFileMissing(error: Error): boolean {
  const { path } = error as { path?: unknown };
  return (
    systemCodeOf(error) === 'ENOENT' &&
    typeof path === 'string' &&
    ownFolders.test(relative(packageFile(''), path))
  );
}
