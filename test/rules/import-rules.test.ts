/** The checker against sources that break one rule each, and against the project itself. */
import { expect, test } from 'vitest';
import { brokenImportRules, projectSources, unusedExports } from './import-rules.ts';

const broken = (sources: Record<string, string>) => brokenImportRules(new Map(Object.entries(sources)));

test('the project keeps its import rules', () => {
  const sources = projectSources();
  expect(sources.size).toBeGreaterThan(40);
  expect(brokenImportRules(sources)).toEqual([]);
  expect(unusedExports(sources)).toEqual([]);
});

test.each([
  ["import { other } from './own.ts';\nconst shared = other;", ['shared']],
  ["import { shared } from './third.ts';\nimport type { other } from './own.ts';", ['shared']],
  ["import {\n  shared,\n  type other as another,\n} from './own.ts';", []],
  ["export { shared, other } from './own.ts';", []],
  ["import * as own from './own.ts';\nown.shared();", ['other']],
  ["const { other } = await import('./own.ts');", ['shared']],
])('an export is used if an import names it: %j leaves %j', (user, unused) => {
  const own = 'export const shared = () => other;\nexport type other = 1;';
  const sources = new Map([
    ['topics/user.ts', user],
    ['topics/own.ts', own],
    ['test/third.ts', 'export const shared = 1;'],
  ]);
  expect(unusedExports(sources)).toEqual(
    unused.map((name) => `topics/own.ts exports ${name}, which no other file imports`),
  );
});

test.each([
  ['kafka/log.ts', '../topics/catalog.ts'],
  ['topics/chunk.ts', '../kafka/client.ts'],
  ['topics/chunk.ts', '../runtime/config.ts'],
  ['database/duckdb.ts', '../kafka/log.ts'],
  ['producers/replay.ts', '../processors/store.ts'],
  ['processors/apply.ts', '../sinks/manifest.ts'],
  ['sinks/manifest.ts', '../producers/replay.ts'],
  ['monitor/lag.ts', '../processors/store.ts'],
  ['flink/sql.ts', '../processors/store.ts'],
  ['flink/sql.ts', '../sinks/sink.ts'],
  ['sinks/manifest.ts', '../cli/context.ts'],
  ['runtime/config.ts', '../kafka/client.ts'],
  ['runtime/files.ts', '../topics/catalog.ts'],
  ['tables/cubes/cube.ts', '../../sinks/sink.ts'],
  ['flink/sql.ts', '../sinks/verify/verify.ts'],
])('%s may not import %s', (path, forbidden) => {
  const forms = [
    `import { a } from '${forbidden}';`,
    `import type { A } from '${forbidden}';`,
    `import {\n  a,\n  type B,\n} from '${forbidden}';`,
    `export * from '${forbidden}';`,
    `import '${forbidden}';`,
    `const a = await import('${forbidden}');`,
  ];
  for (const code of forms) expect(broken({ [path]: code })).toHaveLength(1);
});

test.each([
  ['topics/registry.ts', 'kafkajs'],
  ['topics/registry.ts', '@duckdb/node-api'],
  ['database/duckdb.ts', 'kafkajs'],
  ['kafka/client.ts', '@duckdb/node-api'],
  ['kafka/client.ts', 'avsc'],
  ['kafka/client.ts', '@kafkajs/confluent-schema-registry'],
])('%s may not import the package %s', (path, forbidden) => {
  expect(broken({ [path]: `import { a } from '${forbidden}';` })).toEqual([
    `${path} must not import ${forbidden}`,
  ]);
});

test('a stage may import topics, kafka and database, and topics may import the registry client', () => {
  expect(
    broken({
      'processors/apply.ts':
        "import { a } from '../topics/a.ts';\nimport { b } from '../kafka/b.ts';\nimport { c } from '../database/c.ts';",
      'topics/registry.ts':
        "import { d } from '@kafkajs/confluent-schema-registry';\nimport avsc from 'avsc';",
      'cli/demo.ts': "import { e } from '../sinks/e.ts';\nimport { f } from '../producers/f.ts';",
    }),
  ).toEqual([]);
});

test('a folder without a rule is refused', () => {
  expect(broken({ 'utils/text.ts': '' })).toHaveLength(1);
});

test('modules that import each other are a cycle, unless one imports only types', () => {
  const back = (code: string) =>
    broken({
      'topics/a.ts': "import { b } from './b.ts';",
      'topics/b.ts': "import { c } from './c.ts';",
      'topics/c.ts': code,
    });
  expect(back("import { a } from './a.ts';")).toEqual([
    'cycle: topics/a.ts → topics/b.ts → topics/c.ts → topics/a.ts',
  ]);
  expect(back("import type { A } from './a.ts';")).toEqual([]);
});
