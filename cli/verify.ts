/** `reelflow verify`: recomputes a snapshot and compares. */
import { Command } from 'commander';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { filled } from '../runtime/terminal.ts';
import type { ReadProgress } from '../sinks/verify/topic-rows.ts';
import type { Verification, VerifyOptions } from '../sinks/verify/verify.ts';
import { inNamespaceOf, logLevelOf, namespaceText, openContext } from './context.ts';
import { declarationsOf } from './declared.ts';
import { whole } from './figures.ts';
import {
  type CommonFlags,
  commonOptions,
  memoryOption,
  severalOption,
  type TablesFlags,
  tablesOptions,
} from './options.ts';
import { print } from './output.ts';
import { openProgress, type Progress } from './progress.ts';
import { endInterrupted, stopSignal } from './stop.ts';
import { tableText, wholeColumn } from './table.ts';

interface Flags extends CommonFlags, TablesFlags {
  data?: string;
  memory: string;
  skipBatch: string[];
}

export function verifyCommand(): Command {
  const command = new Command('verify')
    .description('recompute a snapshot from exactly its input, and compare')
    .argument('[snapshot]', 'id of the snapshot; default the newest')
    .option('--data <dir>', 'recompute it from these IMDb files instead of the topics')
    .addOption(
      severalOption(
        '--skip-batch <topic:partition:offset>',
        'skip a batch that the processors skipped',
        'none',
      ),
    )
    .addOption(memoryOption("limit of DuckDB's memory"));
  return commonOptions(tablesOptions(command)).action(run);
}

async function run(snapshot: string | undefined, given: Flags, command: Command): Promise<void> {
  const declarations = await declarationsOf(given);
  const [{ verifySnapshot }, { currentSnapshot }] = await Promise.all([
    import('../sinks/verify/verify.ts'),
    import('../sinks/gold/manifest.ts'),
  ]);
  const signal = stopSignal();
  const flags = await inNamespaceOf(snapshot ?? currentSnapshot(given.gold), given, command);
  const progress = await verifyProgress(flags);
  const verifying = (input: VerifyOptions['input']) =>
    verifySnapshot({
      gold: flags.gold,
      ...(snapshot !== undefined && { snapshot }),
      input,
      memoryLimit: flags.memory,
      skipBatches: flags.skipBatch,
      declarations,
      signal,
      onProgress: progress.show,
    });
  let verification: Verification;
  let hint = '';
  try {
    verification = await verifying(
      flags.data === undefined ? await openContext(flags) : { folder: flags.data },
    );
    if (!verification.equal)
      hint = await reasonOf(verification, flags, async () => verifying(await openContext(flags)));
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
    endInterrupted(': the snapshot was not verified.');
    return;
  } finally {
    progress.end();
  }
  print(flags.json === true ? JSON.stringify(verification) : verificationText(verification, flags.data));
  if (verification.equal) return;
  const { findings } = verification;
  throw new ReelflowError('verifyFailed', `Snapshot ${verification.snapshot} differs from its input`, {
    detail: findings
      .slice(0, 3)
      .map(({ about, text: what }) => `${about}: ${what}`)
      .join('\n'),
    hint,
  });
}

const defectHint =
  'No file of the snapshot was altered, and the topics hold its input whole: this is a defect of reelflow. Report it with this output.';

/**
 * A hint why a snapshot differs. Only a difference from its own, complete input on the topics shows a defect: the named files
 * may differ from the replayed ones.
 */
async function reasonOf(
  { altered, undeclared, absent }: Verification,
  { data }: Flags,
  fromTopics: () => Promise<Verification>,
): Promise<string> {
  if (altered.length > 0) {
    return `Files were altered after publication: ${altered.join(', ')}. Remove CURRENT, then run \`reelflow sink --once\` to publish again.`;
  }
  if (undeclared.length > 0) {
    return `Name the folder that declares ${undeclared.join(', ')} with --tables, as the sink did.`;
  }
  if (absent.length > 0) {
    return `Pass the same --only and --tables as the sink did: the snapshot has no ${absent.join(', ')}.`;
  }
  if (data === undefined) return defectHint;
  try {
    const { equal } = await fromTopics();
    return equal
      ? `The snapshot equals its input on the topics. If ${data} was replayed since then, wait for the next snapshot; otherwise the topics hold other rows: replay it with \`reelflow replay ${data}\`, then verify the next snapshot.`
      : defectHint;
  } catch (thrown) {
    if (!(thrown instanceof ReelflowError)) throw thrown;
    return `Check whether ${data} is what the topics hold: its input on the topics cannot be read (${thrown.message}).`;
  }
}

/** What was compared, as tables for people. */
function verificationText(verification: Verification, data?: string): string {
  const lines = [
    tableText(
      [
        { head: 'table', cell: ([name]) => name },
        { head: 'rows', align: 'right', cell: ([, { rows }]) => whole(rows) },
        { head: 'differences', align: 'right', cell: ([, { differences }]) => whole(differences) },
      ],
      Object.entries(verification.tables),
    ),
  ];
  if (verification.accounting !== null) {
    const counts = ['records', 'applied', 'duplicate', 'rejected'] as const;
    const topics = Object.entries(verification.accounting);
    lines.push(
      '',
      tableText(
        [
          { head: 'topic', keep: 'end' as const, cell: ([name]: (typeof topics)[number]) => name },
          ...counts.map((head) => wholeColumn<(typeof topics)[number]>(head, ([, own]) => own[head])),
        ],
        topics,
      ),
    );
  }
  const said = findingLines(verification.findings);
  said.push(...verification.unchecked.map((text) => `Not checked: ${text}`));
  const { snapshot, namespace, equal, seconds } = verification;
  const from = data === undefined ? 'its input on the topics' : data;
  said.push(
    `Snapshot ${snapshot} ${namespaceText(namespace)} ${equal ? 'equals' : 'differs from'} what ${from} gives (${seconds.toFixed(1)} s).`,
  );
  return [...lines, ...said.map((line) => filled(line))].join('\n');
}

/** How many differences of one table, file or topic are shown. */
const findingsShown = 3;

/** The first findings about each table, and how many there are. */
export function findingLines(findings: Verification['findings']): string[] {
  const subjects = Map.groupBy(findings, ({ about }) => about);
  let left = 0;
  const lines = [...subjects].flatMap(([about, own]) => {
    left += Math.max(0, own.length - findingsShown);
    return own.slice(0, findingsShown).map(({ text }) => `${about}: ${text}`);
  });
  return left === 0 ? lines : [...lines, `${whole(left)} more findings; --json prints all.`];
}

async function verifyProgress(flags: Flags): Promise<Progress<ReadProgress>> {
  const { createLogger } = await import('../runtime/logger.ts');
  const logger = createLogger(logLevelOf(flags), { component: 'verify' });
  return openProgress(
    ({ topic, messages, messagesTotal, records }) => ({
      name: '',
      done: messages,
      total: messagesTotal,
      text: `${counted(records, 'record')}  ${messages < messagesTotal ? topic : 'computing'}`,
    }),
    (now) => logger.info(now, 'verifying'),
  );
}
