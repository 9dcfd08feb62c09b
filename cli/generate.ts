/** `reelflow generate`: a synthetic dataset in IMDb's layout, for demos, tests and measurements. */
import { Command, Option } from 'commander';
import { counted } from '../runtime/counted.ts';
import { whole } from './figures.ts';
import { integerIn, outputOptions } from './options.ts';
import { print, printJson } from './output.ts';
import { openProgress } from './progress.ts';
import { tableText } from './table.ts';

interface Flags {
  titles: number;
  out: string;
  seed: number;
  order: 'id' | 'random';
  gzip?: true;
  json?: true;
}

export function generateCommand(): Command {
  const command = new Command('generate')
    .description('write a synthetic dataset in the layout of the IMDb dumps')
    .requiredOption('--titles <n>', 'number of titles; all other rows are in proportion', integerIn(1))
    .requiredOption('--out <dir>', 'an empty or new folder')
    .option('--seed <s>', 'the same seed and number of titles give the same bytes', integerIn(0), 1)
    .addOption(
      new Option('--order <order>', 'rows sorted by id, as in the dumps, or shuffled')
        .choices(['id', 'random'])
        .default('id'),
    )
    .option('--gzip', 'write .tsv.gz files');
  return outputOptions(command).action(run);
}

async function run({ titles, out, seed, order, gzip, json }: Flags): Promise<void> {
  const { generate } = await import('../producers/synthetic/synthetic.ts');
  type Step = { dataset: string; rows: number; rowsTotal: number };
  const progress = await openProgress(({ dataset, rows, rowsTotal }: Step) => ({
    name: dataset,
    done: rows,
    total: rowsTotal,
    text: counted(rowsTotal, 'row'),
  }));
  const start = performance.now();
  const files = await generate({
    titles,
    out,
    seed,
    order,
    gzip: gzip === true,
    onProgress: progress.show,
  }).finally(progress.end);
  const seconds = (performance.now() - start) / 1000;
  const rows = files.reduce((sum, file) => sum + file.rows, 0);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  if (json) return printJson({ out, seed, titles, rows, bytes, seconds, files });
  const table = tableText(
    [
      { head: 'file', cell: ({ file }) => file },
      { head: 'rows', align: 'right', cell: (line) => whole(line.rows) },
      { head: 'bytes', align: 'right', cell: (line) => whole(line.bytes) },
    ],
    [...files, { file: 'total', rows, bytes }],
  );
  print(`${table}\n${out}: ${seconds.toFixed(1)} s, ${whole(rows / seconds)} rows/s, seed ${seed}`);
}
