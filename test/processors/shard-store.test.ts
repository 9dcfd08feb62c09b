import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openInstance } from '../../database/duckdb.ts';
import { ShardStore } from '../../processors/shard-store.ts';
import { createStore } from '../../processors/store-folder.ts';
import { identity } from '../support/shard-lab.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

test('each caller that closes a store waits until its file is detached', async () => {
  const folder = temporaryFolder();
  const instance = await openInstance({
    memoryLimit: '500MB',
    threads: 1,
    spillFolder: join(folder, 'spill'),
  });
  const store = await createStore(instance, folder, identity);
  const first = store.close();
  await store.close();
  const again = await ShardStore.open(instance, store.path, identity);
  if (!(again instanceof ShardStore)) throw new Error(again.unusable);
  expect(again.path).toBe(store.path);
  await again.close();
  await first;
  instance.closeSync();
});
