/**
 * `reelflow generate`: a synthetic dataset in IMDb's layout, for demos, tests and measurements.
 */
import { Command, Option } from 'commander';
import { integerOption } from './context.ts';

interface Flags {
  titles: number;
  out: string;
  seed: number;
  order: 'id' | 'random';
  gzip?: true;
  json?: true;
}

export function generateCommand(): Command {
  return new Command('generate')
    .description('write a synthetic dataset in the layout of the IMDb dumps')
    .requiredOption('--titles <n>', 'number of titles; all other rows follow in proportion', integerOption(1))
    .requiredOption('--out <dir>', 'an empty or new folder')
    .option('--seed <s>', 'the same seed and number of titles give the same bytes', integerOption(0), 1)
    .addOption(
      new Option('--order <order>', 'rows sorted by id, as in the dumps, or shuffled')
        .choices(['id', 'random'])
        .default('id'),
    )
    .option('--gzip', 'write .tsv.gz files')
    .option('--json', 'the result as one line of JSON')
    .option('--verbose', 'show stack traces')
    .action(run);
}

async function run({ titles, out, seed, order, gzip, json }: Flags): Promise<void> {
  const { generate } = await import('../producers/synthetic/synthetic.ts');
  const { default: cliProgress } = await import('cli-progress');
  const bar =
    process.stderr.isTTY && !json
      ? new cliProgress.SingleBar({
          format: '{dataset} {bar} {percentage}% {value}/{total} rows',
          hideCursor: true,
          clearOnComplete: true,
        })
      : undefined;
  const start = performance.now();
  let current = '';
  const files = await generate({
    titles,
    out,
    seed,
    order,
    gzip: gzip === true,
    onProgress: ({ dataset, rows, rowsTotal }) => {
      if (bar === undefined) return;
      if (dataset !== current) bar.start(rowsTotal, 0, { dataset: dataset.padEnd(16) });
      current = dataset;
      bar.update(rows);
    },
  }).finally(() => bar?.stop());
  const seconds = (performance.now() - start) / 1000;
  const rows = files.reduce((sum, file) => sum + file.rows, 0);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  if (json) {
    process.stdout.write(`${JSON.stringify({ out, seed, titles, rows, bytes, seconds, files })}\n`);
    return;
  }
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['file', 'rows', 'MB'],
    colAligns: ['left', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const line = (name: string, count: number, size: number) =>
    table.push([name, count.toLocaleString('en-US'), (size / 1e6).toFixed(1)]);
  for (const file of files) line(file.file, file.rows, file.bytes);
  line('together', rows, bytes);
  const rate = (rows / seconds / 1e6).toFixed(2);
  process.stdout.write(
    `${table.toString()}\n${out}: ${seconds.toFixed(1)} s, ${rate} M rows/s, seed ${seed}\n`,
  );
}
