/**
 * A declaration is one SQL file: metadata as YAML in the leading comment, then one SELECT. Every problem of a declaration
 * names the file and the line.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { messageOf, pathHint } from '../runtime/errors.ts';
import { DeclarationProblem } from './declaration-problem.ts';

/** A key or an index at each level of the metadata. */
export type MetadataPath = readonly PropertyKey[];

export class DeclarationFile {
  readonly path: string;
  /** Of the file, without its ending: the name of the cube or table. */
  readonly name: string;
  /** The statement, without the metadata and without white space, comments and semicolons after it. */
  readonly sql: string;
  /** The line on which the statement starts. */
  readonly sqlLine: number;
  readonly #document: ReturnType<typeof parseDocument>;
  readonly #lines = new LineCounter();
  /** The number of lines before the first character of the metadata. */
  readonly #linesBefore: number;

  /** @throws DeclarationProblem */
  constructor(path: string) {
    this.path = path;
    this.name = basename(path, '.sql');
    if (!/^[a-z][a-z0-9_]{0,62}$/.test(this.name)) {
      this.fail(
        1,
        `${this.name} is not a valid table name`,
        'Name the file with lower-case letters, digits and _.',
      );
    }
    const text = this.#read();
    const [comment, before = '', metadata = ''] = /^(\s*\/\*)([\s\S]*?)\*\/\s*/.exec(text) ?? [];
    if (comment === undefined) {
      this.fail(
        1,
        'the file does not begin with a comment',
        'Put the metadata into a leading /* … */ as YAML.',
      );
    }
    this.#linesBefore = linesIn(before);
    this.#document = parseDocument(metadata, { lineCounter: this.#lines, prettyErrors: false });
    // A warning is of a tag that YAML does not know.
    const [error] = [...this.#document.errors, ...this.#document.warnings];
    if (error !== undefined) {
      const [sentence = ''] = error.message.split('\n');
      this.fail(this.#lineAt(error.pos[0]), `the metadata is not YAML: ${sentence}`, yamlHint);
    }
    this.sql = withoutTail(text.slice(comment.length));
    this.sqlLine = linesIn(comment) + 1;
    if (this.sql === '') this.fail(this.sqlLine, 'there is no SELECT after the comment', 'Write one SELECT.');
  }

  /** `cube`, `table` or whatever the metadata says. */
  get kind(): unknown {
    return isMap(this.#document.contents) ? this.#document.get('kind') : undefined;
  }

  /** The metadata. @throws DeclarationProblem at the first value that the schema does not allow */
  metadata<T>(schema: z.ZodType<T>): T {
    const parsed = schema.safeParse(this.#values());
    if (parsed.success) return parsed.data;
    const { issues } = parsed.error;
    // A word that is not a property may be a property misspelt, which is then missing.
    const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
    const unknown = issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
    const path = [...(issue?.path ?? []), ...unknown];
    const what = path.length === 0 ? 'the metadata' : path.map(String).join('.');
    const reason =
      unknown.length > 0
        ? `${what} is not a property of a declaration`
        : `${what}: ${issue?.message.replace(/^./, (first) => first.toLowerCase())}`;
    throw this.problem(this.lineOf(path), reason, 'Compare with an example: `reelflow tables new NAME`.');
  }

  #values(): unknown {
    try {
      return this.#document.toJS();
    } catch (thrown) {
      throw this.problem(
        1,
        `the metadata cannot be read: ${messageOf(thrown)}`,
        'Write out what aliases stand for.',
      );
    }
  }

  /** The line of a value of the metadata, or of the innermost one around it that exists. */
  lineOf(path: MetadataPath): number {
    let node: unknown = this.#document.contents;
    let offset = 0;
    for (const part of path) {
      if (isMap(node)) {
        const pair = node.items.find(({ key }) => isScalar(key) && key.value === part);
        if (pair === undefined) break;
        offset = (pair.key as { range?: [number] }).range?.[0] ?? offset;
        node = pair.value;
      } else {
        node = (node as { items?: unknown[] } | undefined)?.items?.[Number(part)];
        if (node === undefined) break;
        offset = (node as { range?: [number] }).range?.[0] ?? offset;
      }
    }
    return this.#lineAt(offset);
  }

  problem(line: number, reason: string, hint: string): DeclarationProblem {
    return new DeclarationProblem({ file: this.path, line, reason, hint });
  }

  fail(line: number, reason: string, hint: string): never {
    throw this.problem(line, reason, hint);
  }

  #lineAt(offset: number): number {
    return this.#linesBefore + Math.max(1, this.#lines.linePos(offset).line);
  }

  #read(): string {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(readFileSync(this.path));
    } catch (thrown) {
      const isRead = thrown instanceof TypeError;
      const hint = isRead ? 'Write it as text in UTF-8.' : `${pathHint(thrown)}.`;
      throw this.problem(1, isRead ? 'the file is not text in UTF-8' : messageOf(thrown), hint);
    }
  }
}

const yamlHint = 'Write `key: value` on each line; put texts with a colon or a # into quotes.';

const linesIn = (text: string) => text.split('\n').length - 1;

/** A text, a quoted name, a comment or a word of SQL. */
export const sqlToken = /'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\/|\w+/y;

/** SQL without what follows its last word. A comment at the end would swallow the bracket in which the SQL is used. */
function withoutTail(sql: string): string {
  let end = 0;
  for (let at = 0; at < sql.length; ) {
    sqlToken.lastIndex = at;
    const token = sqlToken.exec(sql)?.[0] ?? (sql[at] as string);
    at += token.length;
    if (!/^(--|\/\*|[\s;]$)/.test(token)) end = at;
  }
  return sql.slice(0, end);
}
