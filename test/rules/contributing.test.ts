/** CONTRIBUTING.md against the tree: every variable and every script is in it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { projectTexts } from './prose.ts';

const root = join(import.meta.dirname, '../..');
const guide = readFileSync(join(root, 'CONTRIBUTING.md'), 'utf8');
const forUsers = ['README.md', 'docs/operations.md', 'docs/gold.md']
  .map((path) => readFileSync(join(root, path), 'utf8'))
  .join('\n');
/** Variables of the operating system and of other programs. */
const foreign = /^(?:TMPDIR|JAVA_HOME|NO_COLOR|PATH|HOME|COLUMNS|AWS_\w+|FLINK_\w+)$/;

/** Names that a source reads from the environment. */
const variablesIn = (source: string) =>
  [...source.matchAll(/\benv\.([A-Z][A-Z0-9_]+)\b|\benv\[['"`]([A-Z][A-Z0-9_]+)['"`]\]/g)].map(
    ([, dotted, quoted]) => dotted ?? quoted ?? '',
  );

test('every variable that the tree reads is documented, a developer variable in CONTRIBUTING.md', () => {
  const read = new Set<string>();
  for (const [path, source] of projectTexts()) {
    if (/\.(?:ts|js|py)$/.test(path)) for (const name of variablesIn(source)) read.add(name);
  }
  expect(read).toContain('SIMULATOR_SEED');
  const names = [...read].filter((name) => !foreign.test(name)).sort();
  expect(names.filter((name) => !`${guide}${forUsers}`.includes(`\`${name}\``))).toEqual([]);
  const ofDevelopers = names.filter((name) => !forUsers.includes(`\`${name}\``));
  expect(ofDevelopers.filter((name) => !guide.includes(`| \`${name}\``))).toEqual([]);
});

test('every script of package.json is in the table, and no other', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const listed = [...guide.matchAll(/^\| `npm (?:run )?([\w:]+)`/gm)].map(([, name]) => name);
  expect(listed.sort()).toEqual(
    Object.keys(scripts)
      .filter((name) => name !== 'prepack')
      .sort(),
  );
});
