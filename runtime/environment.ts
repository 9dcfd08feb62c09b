/**
 * Reads variables of the environment, each with a function for its text. It does not use zod, which takes as long to load as a
 * whole `--help`: every command with a broker reads these.
 */
import { messageOf, ReelflowError } from './errors.ts';

/** Reads the text of a variable. @throws RangeError that says what is expected */
export type Reader<T> = (text: string) => T;

/** The values of a set of variables; an unset or blank variable is absent. */
export type ValuesOf<Readers> = {
  readonly [Name in keyof Readers]?: Readers[Name] extends Reader<infer T> ? T : never;
};

/** Accepts any text. */
export const anyText: Reader<string> = (text) => text;

/** Reads a variable that has one of these values. @throws RangeError, for any other */
export function oneOf<T extends string>(allowed: readonly T[]): Reader<T> {
  return (text) => {
    const found = allowed.find((one) => one === text);
    if (found === undefined) throw new RangeError(`expected one of ${allowed.join(', ')}`);
    return found;
  };
}

/** An http or https URL. @param check throws a RangeError for one that is not allowed */
export function httpUrl(check: (url: URL) => void): Reader<string> {
  return (text) => {
    const trimmed = text.trim();
    const url = /^https?:\/\//i.test(trimmed) ? URL.parse(trimmed) : null;
    if (url === null) throw new RangeError('expected an http or https URL');
    check(url);
    return trimmed;
  };
}

/** Refuses a URL with a user or a password, because errors and logs show URLs. @throws RangeError */
export function refuseCredentials({ username, password }: URL, instead: string): void {
  if (username !== '' || password !== '') {
    throw new RangeError(`the URL must not contain a user or password; use ${instead}`);
  }
}

/** @throws ReelflowError usage, with the expected form of each malformed variable */
export function readVariables<Readers extends Readonly<Record<string, Reader<unknown>>>>(
  env: NodeJS.ProcessEnv,
  readers: Readers,
): ValuesOf<Readers> {
  const values: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [name, read] of Object.entries(readers)) {
    const text = env[name];
    if (text === undefined || text.trim() === '') continue;
    try {
      values[name] = read(text);
    } catch (thrown) {
      problems.push(`${name}: ${messageOf(thrown)}`);
    }
  }
  if (problems.length === 0) return values as ValuesOf<Readers>;
  throw new ReelflowError('usage', 'An environment variable is not valid', {
    detail: problems.join('\n'),
    hint: 'KAFKA_BROKERS is host:port[,host:port …], with an IPv6 address in brackets, SCHEMA_REGISTRY_URL an http or https URL; the documentation lists the others.',
  });
}
