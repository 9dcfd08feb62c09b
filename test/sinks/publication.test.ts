/** A publication whose look at the dump index fails. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Broker } from '../../kafka/client.ts';
import { OutageMonitor } from '../../kafka/outage.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { createLogger } from '../../runtime/logger.ts';
import { Publication } from '../../sinks/publication.ts';
import { builtIn } from '../../tables/built-in.ts';
import { topicNamesIn } from '../../topics/catalog.ts';
import { labIdentity, openCubes } from '../support/gold-lab.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// Vitest fails if the rejection is unhandled while the tables are written.
test('a failure of the look at the dump index ends the publication, with no snapshot', async () => {
  const folder = temporaryFolder();
  const gold = join(folder, 'gold');
  const store = await openCubes(join(folder, 'state'));
  const logger = createLogger('silent');
  const broker = {
    logger,
    outages: new OutageMonitor(logger, 'Kafka broker'),
    createCluster: () => {
      throw new ReelflowError('brokerRefused', 'no look at the index');
    },
  } as unknown as Broker;
  const publication = new Publication({
    ...{ broker, store, gold, folder, clusterId: labIdentity.clusterId, names: topicNamesIn('') },
    ...{ schemas: {}, keep: { newest: 1 }, reelflowVersion: '1', historyDays: 1, declarations: builtIn },
  });
  await expect(publication.publish()).rejects.toThrow('no look at the index');
  expect(existsSync(join(gold, 'CURRENT'))).toBe(false);
  store.close();
});
