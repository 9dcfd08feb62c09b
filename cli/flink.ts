/** `reelflow flink`: the gold tables on Apache Flink, from the same topics and declarations. */
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { FlinkContext } from '../flink/run.ts';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { openContext } from './context.ts';
import { declarationsOf } from './declared.ts';
import { type CommonFlags, commonOptions, localFolder, type TablesFlags, tablesOptions } from './options.ts';
import { print, printJson } from './output.ts';
import { stopSignal } from './stop.ts';

interface DeclaredFlags extends CommonFlags, TablesFlags {}

interface JavaFlags extends DeclaredFlags {
  jars: string;
}

interface SubmitFlags extends JavaFlags {
  gateway?: string;
  rest?: string;
  checkpoints?: string;
  from?: string;
}

interface RunFlags extends JavaFlags {
  bounded?: true;
  out?: string;
}

export function flinkCommand(): Command {
  const command = new Command('flink').description('compute the gold tables on Apache Flink');
  command.addCommand(
    declaredOptions(
      new Command('sql').description(
        'print the statements that keep the tables up to date on topics, without passwords',
      ),
    ).action(sql),
  );
  command.addCommand(
    javaOptions(
      new Command('submit')
        .description('start the job on a cluster; it writes the tables to compacted topics')
        .addOption(new Option('--gateway <url>', 'SQL gateway of the cluster').env('FLINK_SQL_GATEWAY_URL'))
        .addOption(new Option('--rest <url>', 'REST address of the cluster').env('FLINK_REST_URL'))
        .option('--checkpoints <uri>', "folder of the checkpoints; default the cluster's setting")
        .option('--from <uri>', 'start from this checkpoint or savepoint'),
    ).action(submit),
  );
  command.addCommand(
    javaOptions(
      new Command('run')
        .description('run the job on this machine until SIGTERM, from its newest checkpoint')
        .option('--bounded', 'compute the tables from the present content of the topics, and end')
        .option('--out <dir>', 'write <table>.parquet to this folder, with --bounded'),
    ).action(run),
  );
  return command;
}

function declaredOptions(command: Command): Command {
  return commonOptions(tablesOptions(command));
}

function javaOptions(command: Command): Command {
  return declaredOptions(command).option(
    '--jars <dir>',
    'folder that caches jars',
    join(localFolder, 'jars'),
  );
}

async function contextOf(flags: DeclaredFlags, jars = ''): Promise<FlinkContext> {
  const declarations = await declarationsOf(flags);
  const signal = stopSignal();
  const { broker, registry, names, endpoints, places, logger } = await openContext(flags, { signal });
  return {
    broker,
    registry,
    names,
    declarations,
    endpoints,
    signal,
    folder: join(places.state, 'flink', places.namespace || 'default'),
    jars,
    env: process.env,
    onProgress: (line) => logger.info(line),
  };
}

async function sql(flags: DeclaredFlags): Promise<void> {
  const [{ flinkStatements }, { inspectSources }] = await Promise.all([
    import('../flink/sql.ts'),
    import('../flink/sources.ts'),
  ]);
  const context = await contextOf(flags);
  const { names, endpoints, declarations } = context;
  const { shards } = await inspectSources(context, declarations.cubes);
  const destination = { kind: 'topics' } as const;
  const statements = flinkStatements({ ...declarations, names, endpoints, shards, destination }, String);
  print(flags.json ? JSON.stringify(statements) : statements.map((each) => `${each};`).join('\n\n'));
}

async function submit(flags: SubmitFlags): Promise<void> {
  const { gateway, rest, checkpoints, from } = flags;
  if ((gateway === undefined) === (rest === undefined)) {
    throw new ReelflowError('usage', 'One of --gateway and --rest is needed', {
      hint: 'Set --gateway or FLINK_SQL_GATEWAY_URL, or --rest or FLINK_REST_URL.',
    });
  }
  for (const url of [gateway, rest]) requireUrl(url);
  const { submit: submitJob } = await import('../flink/run.ts');
  const context = await contextOf(flags, flags.jars);
  const cluster = gateway === undefined ? { rest: rest as string } : { gateway };
  const job = await submitJob(context, cluster, {
    ...(checkpoints !== undefined && { checkpoints }),
    ...(from !== undefined && { from }),
  });
  print(flags.json ? JSON.stringify({ job }) : `Job ${job} runs on ${gateway ?? rest}`);
}

function requireUrl(url: string | undefined): void {
  if (url === undefined || /^https?:$/.test(URL.parse(url)?.protocol ?? '')) return;
  throw new ReelflowError('usage', `${url} is not an HTTP address`, {
    hint: 'Use http://host:port.',
  });
}

async function run(flags: RunFlags): Promise<void> {
  if ((flags.bounded === true) !== (flags.out !== undefined)) {
    throw new ReelflowError('usage', '--bounded and --out belong together', {
      detail: 'A bounded run writes files and ends; without --bounded the tables go to topics.',
    });
  }
  const { runBounded, runUnbounded } = await import('../flink/run.ts');
  const context = await contextOf(flags, flags.jars);
  if (flags.out === undefined) {
    await runUnbounded(context, (from) =>
      context.onProgress?.(`starting from ${from ?? 'the start of the topics'}`),
    );
    return;
  }
  const report = await runBounded(context, flags.out);
  if (flags.json) return printJson(report);
  for (const [name, { rows }] of Object.entries(report.tables)) {
    print(`${join(flags.out, `${name}.parquet`)}: ${counted(rows, 'row')}`);
  }
}
