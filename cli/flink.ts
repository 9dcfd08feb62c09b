/** `reelflow flink`: the gold tables by Apache Flink, from the same topics and declarations. */
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { FlinkContext } from '../flink/run.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type CommonFlags, commonOptions, localFolder, openContext, stopSignal } from './context.ts';

interface JavaFlags extends CommonFlags {
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
  const command = new Command('flink').description('the same gold tables by Apache Flink');
  command.addCommand(
    commonOptions(
      new Command('sql').description(
        'print the statements that keep the tables up to date on topics; passwords left out',
      ),
    ).action(sql),
  );
  command.addCommand(
    javaOptions(
      new Command('submit')
        .description('start the job on a cluster; the tables go to compacted topics')
        .addOption(new Option('--gateway <url>', 'SQL gateway of the cluster').env('FLINK_SQL_GATEWAY_URL'))
        .addOption(new Option('--rest <url>', 'REST address of the cluster').env('FLINK_REST_URL'))
        .option('--checkpoints <uri>', "where checkpoints go; default the cluster's setting")
        .option('--from <uri>', 'checkpoint or savepoint to go on from'),
    ).action(submit),
  );
  command.addCommand(
    javaOptions(
      new Command('run')
        .description('run the job here until SIGTERM, going on from its newest checkpoint')
        .option('--bounded', 'compute the tables from what is on the topics now, and end')
        .option('--out <dir>', 'folder for <table>.parquet, with --bounded'),
    ).action(run),
  );
  return command;
}

function javaOptions(command: Command): Command {
  return commonOptions(command).option('--jars <dir>', 'cache of jars', join(localFolder, 'jars'));
}

async function contextOf(flags: CommonFlags, jars = ''): Promise<FlinkContext> {
  const signal = stopSignal();
  const { broker, registry, names, endpoints, places, logger } = await openContext(flags, undefined, signal);
  return {
    broker,
    registry,
    names,
    endpoints,
    signal,
    folder: join(places.state, 'flink', places.namespace || 'default'),
    jars,
    env: process.env,
    onProgress: (line) => logger.info(line),
  };
}

async function sql(flags: CommonFlags): Promise<void> {
  const [{ flinkStatements }, { inspectSources }, { cubes }, { goldTables }] = await Promise.all([
    import('../flink/sql.ts'),
    import('../flink/sources.ts'),
    import('../tables/cubes/cube.ts'),
    import('../tables/gold-tables.ts'),
  ]);
  const context = await contextOf(flags);
  const { names, endpoints } = context;
  const { shards } = await inspectSources(context, cubes);
  const destination = { kind: 'topics' } as const;
  const statements = flinkStatements(
    { cubes, tables: goldTables, names, endpoints, shards, destination },
    String,
  );
  process.stdout.write(
    flags.json ? `${JSON.stringify(statements)}\n` : statements.map((each) => `${each};\n`).join('\n'),
  );
}

async function submit(flags: SubmitFlags): Promise<void> {
  const { gateway, rest, checkpoints, from } = flags;
  if ((gateway === undefined) === (rest === undefined)) {
    throw new ReelflowError('usage', 'One of --gateway and --rest is needed', {
      hint: 'FLINK_SQL_GATEWAY_URL and FLINK_REST_URL set them, too.',
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
  process.stdout.write(
    flags.json ? `${JSON.stringify({ job })}\n` : `Job ${job} runs on ${gateway ?? rest}\n`,
  );
}

function requireUrl(url: string | undefined): void {
  if (url === undefined || /^https?:$/.test(URL.parse(url)?.protocol ?? '')) return;
  throw new ReelflowError('usage', `${url} is not an address of Flink`, {
    hint: 'http://host:port is expected.',
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
      context.onProgress?.(`going on from ${from ?? 'the start of the topics'}`),
    );
    return;
  }
  const report = await runBounded(context, flags.out);
  if (flags.json) process.stdout.write(`${JSON.stringify(report)}\n`);
  else {
    for (const [name, { rows }] of Object.entries(report.tables)) {
      process.stdout.write(`${join(flags.out, `${name}.parquet`)}: ${rows.toLocaleString('en-US')} rows\n`);
    }
  }
}
