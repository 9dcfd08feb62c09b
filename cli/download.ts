/** `reelflow download`: the official dumps. The licence is printed before the first request. */
import { Command, Option } from 'commander';
import { filled, terminalWidth } from '../runtime/terminal.ts';
import type { DatasetName } from '../topics/catalog.ts';
import { megabytes } from './figures.ts';
import { datasetsOption, outputOptions } from './options.ts';
import { print, printJson } from './output.ts';
import { openProgress } from './progress.ts';
import { tableText } from './table.ts';

interface Flags {
  out: string;
  datasets?: DatasetName[];
  from?: string;
  json?: true;
}

const outcomes = { downloaded: 'downloaded', resumed: 'continued', complete: 'unchanged' } as const;

export function downloadCommand(): Command {
  const command = new Command('download')
    .description('fetch the official IMDb dumps (personal and non-commercial use only)')
    .requiredOption('--out <dir>', 'folder for the files; unchanged ones are kept, partial ones continued')
    .addOption(datasetsOption())
    .addOption(fromOption());
  return outputOptions(command).action(run);
}

async function run({ out, datasets, from, json }: Flags): Promise<void> {
  const { download, licence } = await import('../producers/download/download.ts');
  process.stderr.write(`${filled(licence, terminalWidth(process.stderr))}\n\n`);
  const progress = await downloadProgress();
  const start = performance.now();
  const files = await download({
    out,
    ...(datasets !== undefined && { datasets }),
    ...(from !== undefined && { from }),
    onProgress: progress.show,
  }).finally(progress.end);
  const seconds = (performance.now() - start) / 1000;
  if (json) return printJson({ out, seconds, files });
  const table = tableText(
    [
      { head: 'file', cell: ({ file }) => file },
      { head: 'MB', align: 'right', cell: ({ bytes }) => megabytes(bytes) },
      { head: 'result', cell: ({ outcome }) => outcomes[outcome] },
    ],
    files,
  );
  print(`${table}\n${out}: ${seconds.toFixed(1)} s`);
}

/** The address of the dumps. */
export const fromOption = () => new Option('--from <url>', 'fetch from this address instead');

/** One bar per file, by its bytes. */
export function downloadProgress() {
  type Step = { dataset: DatasetName; bytes: number; bytesTotal: number };
  return openProgress(({ dataset, bytes, bytesTotal }: Step) => ({
    name: dataset,
    done: bytes,
    total: bytesTotal,
    text: `${megabytes(bytesTotal)} MB`,
  }));
}
