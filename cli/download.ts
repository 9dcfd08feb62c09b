/**
 * `reelflow download`: the official dumps, with the licence shown before the first byte is asked for.
 */
import { Command, InvalidArgumentError } from 'commander';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';

interface Flags {
  out: string;
  datasets?: DatasetName[];
  from?: string;
  json?: true;
}

export function downloadCommand(): Command {
  return new Command('download')
    .description('fetch the official IMDb dumps (personal and non-commercial use only)')
    .requiredOption('--out <dir>', 'folder for the files; whole ones are kept, broken ones continued')
    .option('--datasets <list>', `only these, separated by commas: ${datasetNames.join(', ')}`, datasetList)
    .option('--from <url>', 'another place that has the files')
    .option('--json', 'the result as one line of JSON')
    .option('--verbose', 'show stack traces')
    .action(run);
}

function datasetList(text: string): DatasetName[] {
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.filter((name) => !datasetNames.includes(name as DatasetName));
  if (unknown.length > 0) throw new InvalidArgumentError(`No dataset is called ${unknown.join(', ')}.`);
  return names as DatasetName[];
}

async function run({ out, datasets, from, json }: Flags): Promise<void> {
  const { download, licence } = await import('../producers/download/download.ts');
  process.stderr.write(`${licence}\n\n`);
  const progress = await bars(process.stderr.isTTY === true && json !== true);
  const start = performance.now();
  const files = await download({
    out,
    ...(datasets !== undefined && { datasets }),
    ...(from !== undefined && { from }),
    onProgress: progress.show,
  }).finally(progress.end);
  const seconds = (performance.now() - start) / 1000;
  if (json) {
    process.stdout.write(`${JSON.stringify({ out, seconds, files })}\n`);
    return;
  }
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['file', 'MB', ''],
    colAligns: ['left', 'right', 'left'],
    style: { head: [], border: [] },
  });
  const said = { downloaded: 'downloaded', resumed: 'continued', complete: 'was there, unchanged' };
  for (const { file, bytes, outcome } of files) table.push([file, (bytes / 1e6).toFixed(1), said[outcome]]);
  process.stdout.write(`${table.toString()}\n${out}: ${seconds.toFixed(1)} s\n`);
}

/** A bar per file, or nothing where nobody watches. */
async function bars(watched: boolean) {
  if (!watched) return { show: () => {}, end: () => {} };
  const { default: cliProgress } = await import('cli-progress');
  const all = new cliProgress.MultiBar({
    format: '{dataset} {bar} {percentage}%  {mb} MB',
    hideCursor: true,
    stream: process.stderr,
  });
  const started = new Map<DatasetName, ReturnType<typeof all.create>>();
  return {
    show({ dataset, bytes, bytesTotal }: { dataset: DatasetName; bytes: number; bytesTotal: number }) {
      const payload = { dataset: dataset.padEnd(16), mb: (bytesTotal / 1e6).toFixed(1) };
      const bar = started.get(dataset) ?? all.create(bytesTotal, 0, payload);
      started.set(dataset, bar);
      bar.update(bytes, payload);
    },
    end: () => all.stop(),
  };
}
