/** Kafka Streams in one JVM over row topics, which is the form that it is made for. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { goldDatasets } from '../workload.ts';
import { here, jarsOf, java, type Peer } from './peer.ts';
import { rowSchema } from './rows.ts';

export const kafkaStreams: Peer = {
  name: 'kafka-streams',
  input: 'rows',
  setup:
    'Kafka Streams 4.3.1, 2 threads, 4 GB heap, 512 MB of caches, RocksDB with changelogs, at least once, streams joined to the table of ratings',
  without:
    'ratings that come after their titles are missed; rows that change or come twice would count twice; no files; replay not included',
  prepare: async ({ endpoints, prefix, namespace, out, say }) => {
    const command = await java();
    const jars = await jarsOf('kafka-streams/pom.xml', say);
    const schemas = join(out, 'schemas');
    mkdirSync(schemas);
    for (const dataset of goldDatasets) writeFileSync(join(schemas, `${dataset}.avsc`), rowSchema(dataset));
    return {
      command,
      args: [
        ...['-Xmx4g', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-cp', join(jars, '*')],
        ...[here('kafka-streams/Gold.java'), endpoints.brokers.join(','), prefix('rows')],
        ...[`${namespace}.kafka-streams`, schemas, out],
      ],
    };
  },
};
