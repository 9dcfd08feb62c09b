/** Reads user names, passwords and other secrets, each from a variable or from the file that a variable names. */
import { readFileSync } from 'node:fs';
import { messageOf, ReelflowError } from './errors.ts';

/** A text that no log, error or JSON shows; only `reveal` returns it. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }
}

export interface Credentials {
  readonly username: string;
  readonly password: Secret;
}

type Variables = Readonly<Record<string, string | undefined>>;

/**
 * The user of `<prefix>_USERNAME` with its password, or undefined when neither is set.
 * @throws ReelflowError usage, when one is missing, the password is given twice or its file cannot be read
 */
export function credentialsOf(env: Variables, prefix: string): Credentials | undefined {
  const username = env[`${prefix}_USERNAME`];
  const given = [env[`${prefix}_PASSWORD`], env[`${prefix}_PASSWORD_FILE`]].filter(
    (value) => value !== undefined,
  );
  if (username === undefined && given.length === 0) return undefined;
  if (username === undefined || given.length !== 1) {
    throw new ReelflowError('usage', `${prefix}_USERNAME needs exactly one password`, {
      hint: `Set ${prefix}_USERNAME and either ${prefix}_PASSWORD or ${prefix}_PASSWORD_FILE.`,
    });
  }
  return { username, password: secretOf(env, `${prefix}_PASSWORD`) as Secret };
}

/**
 * The secret of `variable`, or of the file that `<variable>_FILE` names; undefined when neither is set.
 * @throws ReelflowError usage, when both are set or the file cannot be read
 */
export function secretOf(env: Variables, variable: string): Secret | undefined {
  const text = env[variable];
  const file = env[`${variable}_FILE`];
  if (text !== undefined && file !== undefined) {
    throw new ReelflowError('usage', `${variable} and ${variable}_FILE are both set`, {
      hint: 'Unset one of them.',
    });
  }
  if (file === undefined) return text === undefined ? undefined : new Secret(text);
  return new Secret(fileText(`${variable}_FILE`, file).replace(/\r?\n$/, ''));
}

/** @throws ReelflowError usage, when the file that `variable` names cannot be read */
export function fileText(variable: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (thrown) {
    throw new ReelflowError('usage', `The file of ${variable} cannot be read`, {
      detail: messageOf(thrown),
      hint: 'Check the path and its permissions.',
      cause: thrown,
    });
  }
}
