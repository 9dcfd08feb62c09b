/**
 * A failure that a person can act on is a ReelflowError: what happened, detail, hint, and an exit code for its kind. Any
 * other error that reaches the command line is a defect.
 */
import { constants } from 'node:os';

/** Exit codes, one per kind of failure; 0 is success and 2 is wrong usage. */
export const exitCodes = {
  defect: 1,
  usage: 2,
  input: 3,
  brokerUnreachable: 4,
  registryUnreachable: 5,
  services: 6,
  stateUnusable: 7,
  goldUnusable: 8,
  diskFull: 9,
  sourceLost: 10,
  sourceReplaced: 11,
  undecodableBatch: 12,
  foreignCluster: 13,
  deltaRefused: 14,
  deltasTrimmed: 15,
  verifyFailed: 16,
  stuck: 17,
  topicMismatch: 18,
  busy: 19,
  accessRefused: 20,
  untrusted: 21,
  lagging: 22,
  flinkUnreachable: 23,
  flinkFailed: 24,
  bucketUnusable: 25,
  brokerRefused: 26,
  tooManyRemoved: 27,
  cutFile: 28,
  datasetAbsent: 29,
  olderDump: 30,
  futureDump: 31,
  inputChanged: 32,
  newerIndex: 33,
  rowsRejected: 34,
  declarationUnusable: 35,
  dumpsUnreachable: 36,
  lakeUnusable: 37,
  unsorted: 38,
} as const;

export type FailureKind = keyof typeof exitCodes;

/** The kind of failure with which another process ended; a code of another program counts as a defect. */
export function failureKindOf(exitCode: number | null): FailureKind {
  const found = Object.entries(exitCodes).find(([, code]) => code === exitCode);
  return (found?.[0] ?? 'defect') as FailureKind;
}

/** A failure with message, detail, hint and exit code. */
export class ReelflowError extends Error {
  readonly kind: FailureKind;
  readonly detail: string;
  readonly hint: string;

  /**
   * @param kind selects the exit code
   * @param what what happened, one clause without a full stop
   * @param parts `detail`: values of this case; `hint`: what to do, as an imperative
   */
  constructor(
    kind: FailureKind,
    what: string,
    parts: { detail?: string; hint?: string; cause?: unknown } = {},
  ) {
    super(what, parts.cause === undefined ? undefined : { cause: parts.cause });
    this.name = 'ReelflowError';
    this.kind = kind;
    this.detail = parts.detail ?? '';
    this.hint = parts.hint ?? '';
  }

  get exitCode(): number {
    return exitCodes[this.kind];
  }
}

/** The text of any thrown value, without its stack. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** An error, what it wraps, and what each of those wraps. kafkajs wraps the errors of several partitions in one. */
export function* causesOf(thrown: unknown): Generator<Error> {
  const seen = new Set<unknown>();
  const queue: unknown[] = [thrown];
  for (let error = queue.shift(); error !== undefined; error = queue.shift()) {
    if (!(error instanceof Error) || seen.has(error)) continue;
    seen.add(error);
    yield error;
    const { errors, partitions } = error as { errors?: unknown; partitions?: unknown };
    if (Array.isArray(errors)) queue.push(...errors);
    if (Array.isArray(partitions))
      queue.push(...partitions.map((each) => (each as { error?: unknown })?.error));
    queue.push(error.cause);
  }
}

/** Why something failed, in one line: what happened, and its detail. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof ReelflowError && thrown.detail !== ''
    ? `${thrown.message}: ${thrown.detail}`
    : messageOf(thrown);
}

/** Whether an abort signal ended a wait. */
export function isAbort(thrown: unknown): boolean {
  return systemCodeOf(thrown) === 'ABORT_ERR';
}

/** System errors that only a mistake of a program causes. */
const ownCodes =
  /^E(BADF|FAULT|DOM|RANGE|2BIG|CHILD|NOTSOCK|DESTADDRREQ|PROTOTYPE|NOPROTOOPT|ISCONN|ALREADY)$/;

const connectionCodes =
  /^(E(CONN\w+|ADDR\w+|NET\w+|HOST\w+|TIMEDOUT|TIME|PIPE|PROTO|PROTONOSUPPORT|AFNOSUPPORT|MSGSIZE|NOTCONN|INPROGRESS|NOBUFS|AI_\w+|NOTFOUND)|ERR_(SSL|TLS)_\w+|UND_ERR_(SOCKET|CONNECT_TIMEOUT|HEADERS_TIMEOUT|BODY_TIMEOUT))$/;

/** Whether a thrown value concerns a connection. */
export function isConnectionError(thrown: unknown): boolean {
  return connectionCodes.test(systemCodeOf(thrown) ?? '');
}

/** Whether a thrown value concerns a file or folder rather than a connection or a wait: any other error of the system. */
export function isFileError(thrown: unknown): boolean {
  const code = systemCodeOf(thrown) ?? '';
  return code in constants.errno && !ownCodes.test(code) && !connectionCodes.test(code);
}

/** The system error code (`ENOENT`, `ENOSPC`, …) of a thrown value, or undefined. */
export function systemCodeOf(thrown: unknown): string | undefined {
  const code = (thrown as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** The beginning of a hint about a file or folder that cannot be used. */
export function pathHint(thrown: unknown): string {
  const code = systemCodeOf(thrown);
  if (code === 'ELOOP') return 'Check its links, which lead back to themselves';
  if (code === 'ENOTDIR') return 'Check its path, of which a part is a file, not a folder';
  return 'Check its permissions';
}

/** Node's codes for a certificate that it does not accept: "X509 certificate error codes" in its tls documentation. */
const certificateErrors =
  /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_(GET|VERIFY|DECRYPT)_|CERT_|ERR_TLS_CERT_|INVALID_CA|HOSTNAME_MISMATCH)/;

/** Whether a connection failed because the certificate of the peer is not trusted. */
export function isCertificateError(thrown: unknown): boolean {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    if (certificateErrors.test(systemCodeOf(error) ?? '')) return true;
  }
  return false;
}

/** Alerts of a TLS peer that does not accept the certificate of a client (RFC 8446, section 6.2), in OpenSSL's names. */
const certificateAlerts =
  /ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_(REVOKED|EXPIRED|UNKNOWN|REQUIRED)|UNKNOWN_CA|ACCESS_DENIED)/;

/** Whether a connection failed because the peer refused the certificate of this client, or the absence of one. */
export const isCertificateAlert = (thrown: unknown): boolean =>
  certificateAlerts.test(systemCodeOf(thrown) ?? '');
