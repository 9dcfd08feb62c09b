import { expect } from 'vitest';
import { type FailureKind, ReelflowError } from '../../runtime/errors.ts';

/** What `work` fails with; it must fail, with an error of ours, of this kind if one is given. */
export async function failureOf(
  work: Promise<unknown> | (() => unknown),
  kind?: FailureKind,
): Promise<ReelflowError> {
  const thrown = await (typeof work === 'function' ? (async () => work())() : work).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(thrown).toBeInstanceOf(ReelflowError);
  const failure = thrown as ReelflowError;
  if (kind !== undefined) expect(failure.kind, String(failure)).toBe(kind);
  return failure;
}
