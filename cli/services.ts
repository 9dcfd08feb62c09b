/** `services up|down|status`: the local broker and registry. */
import { Command } from 'commander';

interface Options {
  folder: string;
  brokerPort?: string;
  registryPort?: string;
  json?: true;
  verbose?: true;
}

/** The command with its three subcommands. Throws ReelflowError; prints its results to standard output. */
export function servicesCommand(): Command {
  const command = new Command('services').description('local broker and registry');
  const common = (name: string, description: string) =>
    command
      .command(name)
      .description(description)
      .option('--folder <path>', 'where their data, logs and jars are', '.reelflow')
      .option('--json', 'one line of JSON')
      .option('--verbose', 'log what is tried');

  common('up', 'start them, or find them running; they stay up after this command')
    .option('--broker-port <port>', 'instead of REELFLOW_BROKER_PORT or 19092; the next port is used too')
    .option('--registry-port <port>', 'instead of REELFLOW_REGISTRY_PORT or 18081')
    .action(up);
  common('down', 'stop what `up` started; data stays').action(down);
  common('status', 'show what runs').action(status);
  return command;
}

async function up(options: Options): Promise<void> {
  const { findServices, portsFrom } = await import('../kafka/local/services.ts');
  const found = await findServices({
    ...(await context(options)),
    ports: portsFrom(process.env, options),
  });
  if (options.json) return print(JSON.stringify(found));
  const ways = {
    environment: 'named by KAFKA_BROKERS and SCHEMA_REGISTRY_URL',
    docker: 'containers of docker-compose.yml',
    jvm: 'Java processes of this machine',
  };
  print(`Broker and registry: ${ways[found.how]}`);
  for (const line of found.why) print(`  ${line}`);
  print(`KAFKA_BROKERS=${found.endpoints.brokers.join(',')}`);
  print(`SCHEMA_REGISTRY_URL=${found.endpoints.registryUrl}`);
  if (found.how === 'environment') return;
  print(found.started.length === 0 ? 'They were running already.' : `Started: ${found.started.join(', ')}.`);
  print('They stay up until: npx reelflow services down');
}

async function down(options: Options): Promise<void> {
  const { stopServices } = await import('../kafka/local/services.ts');
  const stopped = await stopServices(await context(options));
  if (options.json) return print(JSON.stringify({ stopped }));
  print(stopped.length === 0 ? 'Nothing of ours was running.' : `Stopped: ${stopped.join(', ')}.`);
}

async function status(options: Options): Promise<void> {
  const { servicesStatus } = await import('../kafka/local/services.ts');
  const found = await servicesStatus(await context(options));
  if (options.json) return print(JSON.stringify(found));
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['service', 'state', 'pid', 'address', 'log'],
    style: { head: [], border: [] },
  });
  for (const { name, running, healthy, pid, address, log } of found.services) {
    const state = healthy ? 'healthy' : running ? 'not answering' : 'not running';
    table.push([name, state, pid ?? '', address ?? '', log ?? '']);
  }
  print(table.toString());
}

/** What all three hand on: progress goes to standard error, so that standard output stays for the result. */
async function context({ folder, json, verbose }: Options) {
  const { createLogger } = await import('../runtime/logger.ts');
  return {
    env: process.env,
    folder,
    logger: createLogger(verbose ? 'debug' : 'warn'),
    ...(!json && { onProgress: (line: string) => void process.stderr.write(`${line}\n`) }),
  };
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
