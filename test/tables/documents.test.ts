/** The declarations in docs/tables.md are complete: what a reader copies passes the check. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { readFolder } from '../../tables/declaration-folder.ts';
import { exampleTable } from '../../tables/example.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

test('the walk-through and the example of `tables new` pass the check', async () => {
  const text = readFileSync(fileURLToPath(new URL('../../docs/tables.md', import.meta.url)), 'utf8');
  const names = [...text.matchAll(/`tables\/(\w+)\.sql`/g)].map(([, name]) => name);
  const declarations = [...text.matchAll(/```sql\n([\s\S]*?)```/g)].map(([, sql]) => sql ?? '');
  expect(names).toHaveLength(declarations.length);
  const folder = temporaryFolder();
  try {
    for (const [i, sql] of declarations.entries()) writeFileSync(join(folder, `${names[i]}.sql`), sql);
    writeFileSync(join(folder, 'example.sql'), exampleTable);
    const { problems, cubes, tables } = await readFolder(folder);
    expect(problems).toEqual([]);
    expect(cubes.map(({ name }) => name)).toEqual(['categories']);
    expect(tables.map(({ name }) => name)).toEqual(['category_analysis', 'example', 'genre_votes']);
  } finally {
  }
});
