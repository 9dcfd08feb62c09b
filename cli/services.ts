/** `reelflow services up|down|status`: the local broker and registry. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { ReelflowError } from '../runtime/errors.ts';
import { shellWord } from '../runtime/terminal.ts';
import { localFolder, type OutputFlags, outputOptions } from './options.ts';
import { print, printFilled, printJson } from './output.ts';
import { tableText } from './table.ts';

interface Options extends OutputFlags {
  folder: string;
  brokerPort?: string;
  registryPort?: string;
}

export function servicesCommand(): Command {
  const command = new Command('services').description('start, stop and show a local broker and registry');
  const common = (name: string, description: string) =>
    outputOptions(
      command
        .command(name)
        .description(description)
        .option('--folder <path>', 'folder of their data, logs and jars', localFolder),
    );

  common('up', 'start broker and registry unless they are running; they stay up after this command')
    .option(
      '--broker-port <port>',
      'port of the broker, which uses the next one too; default REELFLOW_BROKER_PORT or 19092',
    )
    .option('--registry-port <port>', 'port of the registry; default REELFLOW_REGISTRY_PORT or 18081')
    .action(up);
  common('down', 'stop what `up` started; data stays').action(down);
  common('status', 'show which services run').action(status);
  return command;
}

async function up(options: Options, command: Command): Promise<void> {
  const { findServices, portsFrom } = await import('../kafka/local/services.ts');
  const found = await findServices({
    ...(await context(options)),
    ports: portsFrom(process.env, options),
  });
  if (found.how === 'environment') refuseLocalOptions(command);
  if (options.json) return printJson(found);
  const ways = {
    environment: 'from KAFKA_BROKERS and SCHEMA_REGISTRY_URL',
    docker: 'containers of docker-compose.yml',
    jvm: 'Java processes of this machine',
  };
  print(`Broker and registry: ${ways[found.how]}`);
  for (const line of found.why) printFilled(`  ${line}`);
  print(`KAFKA_BROKERS=${found.endpoints.brokers.join(',')}`);
  print(`SCHEMA_REGISTRY_URL=${found.endpoints.registryUrl}`);
  if (found.how === 'environment') {
    printFilled('Nothing was started, because both variables are set. Unset them to start local services.');
    return;
  }
  print(found.started.length === 0 ? 'They are already running.' : `Started: ${found.started.join(', ')}.`);
  const folder = options.folder === localFolder ? '' : ` --folder ${shellWord(options.folder)}`;
  print(`They stay up until: npx reelflow services down${folder}`);
}

/** @throws ReelflowError usage, for an option of services that are not started here */
function refuseLocalOptions(command: Command): void {
  const given = command.options.filter(
    (option) =>
      ['--folder', '--broker-port', '--registry-port'].includes(option.long ?? '') &&
      command.getOptionValueSource(option.attributeName()) === 'cli',
  );
  if (given.length === 0) return;
  throw new ReelflowError('usage', 'No local services start while KAFKA_BROKERS is set', {
    detail: `${given.map(({ long }) => long).join(' and ')} would have no effect.`,
    hint: 'Unset KAFKA_BROKERS and SCHEMA_REGISTRY_URL to start local services, or leave the options out.',
  });
}

async function down(options: Options): Promise<void> {
  const { stopServices } = await import('../kafka/local/services.ts');
  const stopped = await stopServices(await context(options));
  if (options.json) return printJson({ stopped });
  print(
    stopped.length === 0
      ? `No services were started ${elsewhere(options)}`
      : `Stopped: ${stopped.join(', ')}.`,
  );
}

async function status(options: Options): Promise<void> {
  const { servicesStatus } = await import('../kafka/local/services.ts');
  const found = await servicesStatus(await context(options));
  if (options.json) return printJson(found);
  print(
    tableText(
      [
        { head: 'service', cell: ({ name }) => name },
        {
          head: 'state',
          cell: ({ healthy, running }) => (healthy ? 'healthy' : running ? 'not answering' : 'not running'),
        },
        { head: 'pid', cell: ({ pid }) => String(pid ?? ''), drop: 1 },
        { head: 'address', cell: ({ address }) => address ?? '' },
        { head: 'log', cell: ({ log }) => log ?? '', drop: 2 },
      ],
      found.services,
    ),
  );
  if (found.how === null) printFilled(`No services were started ${elsewhere(options)}`);
}

/** The folder of the services, and how to find others: each working directory has services of its own. */
const elsewhere = ({ folder }: Options) =>
  `in ${resolve(folder)}. Those of another folder are found from there, or with --folder.`;

/** What the three subcommands share. Progress goes to standard error, the result to standard output. */
async function context({ folder, json, verbose }: Options) {
  const { createLogger } = await import('../runtime/logger.ts');
  return {
    env: process.env,
    folder,
    logger: createLogger(verbose ? 'debug' : 'warn'),
    ...(!json && { onProgress: (line: string) => void process.stderr.write(`${line}\n`) }),
  };
}
