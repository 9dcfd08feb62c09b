/** Spark from PyPI, in local mode on two cores: its batch over the files, its Structured Streaming over the topics. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { schemaText } from '../../topics/registry.ts';
import type { Program } from '../measure.ts';
import { goldDatasets } from '../workload.ts';
import { here, jarsOf, java, type Peer, pythonOf, type Workshop } from './peer.ts';
import { rowSchema } from './rows.ts';

const version = 'Spark 4.2.0, local[2], 8 GB heap, 4 shuffle partitions';

export const sparkBatch: Peer = {
  name: 'pyspark',
  input: 'files',
  setup: `${version}, declared schemas, ratings and rated titles cached`,
  without: 'a batch: no broker, nothing kept for the next time; rows are not checked',
  prepare: async ({ data, out, say }) =>
    script(await pythonOf('spark/requirements.txt', say), 'batch.py', [data, out]),
};

export const sparkStreaming = (input: 'chunks' | 'rows'): Peer => ({
  name: `spark-streaming-${input}`,
  input,
  setup: `${version}, micro-batches of about 1 M rows, ratings and names read as tables, partial aggregates in foreachBatch`,
  without:
    'rows that change or come twice would count twice; replay not included: the topics are full before',
  prepare: async (workshop) => {
    const { endpoints, prefix, out, say } = workshop;
    const python = await pythonOf('spark/requirements.txt', say);
    const jars = await jarsOf('spark/pom.xml', say);
    return script(
      python,
      'stream.py',
      [endpoints.brokers.join(','), prefix(input), input, schemas(workshop, input), out],
      ['--driver-class-path', join(jars, '*')],
    );
  },
});

async function script(
  python: string,
  name: string,
  args: readonly string[],
  submit: readonly string[] = [],
): Promise<Program> {
  await java();
  return {
    command: python,
    args: [here(`spark/${name}`), ...args],
    env: {
      PYSPARK_PYTHON: python,
      PYTHONDONTWRITEBYTECODE: '1',
      SPARK_LOCAL_IP: '127.0.0.1',
      // The heap of a driver that Python starts can only be given here.
      PYSPARK_SUBMIT_ARGS: ['--driver-memory', '8g', ...submit, 'pyspark-shell'].join(' '),
    },
  };
}

function schemas({ out }: Workshop, input: 'chunks' | 'rows'): string {
  const folder = join(out, 'schemas');
  mkdirSync(folder);
  for (const dataset of goldDatasets) {
    const text = input === 'chunks' ? schemaText(`imdb.${dataset}`) : rowSchema(dataset);
    writeFileSync(join(folder, `${dataset}.avsc`), text);
  }
  return folder;
}
