/**
 * What is in deploy/ and the compose file can be trusted. Method: the manifests are compiled against the types of the
 * Kubernetes API, which knows every field, and validated by its schemas; units go through systemd's own check, the
 * compose file through docker's; every command in them is read by our own command line. Where a tool is absent its test
 * is skipped, and the run says so.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { StatefulSet } from 'kubernetes-models/apps/v1';
import { CronJob } from 'kubernetes-models/batch/v1';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1';
import { ConfigMap, PersistentVolumeClaim, Service } from 'kubernetes-models/v1';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { monitorCommand } from '../../cli/monitor.ts';
import { processCommand } from '../../cli/process.ts';
import { refreshCommand } from '../../cli/refresh.ts';
import { runCommand } from '../../cli/run.ts';
import { sinkCommand } from '../../cli/sink.ts';
import { endpointsFromEnvironment } from '../../runtime/config.ts';
import { exitCodes } from '../../runtime/errors.ts';

vi.setConfig({ testTimeout: 120_000 });

const root = fileURLToPath(new URL('../..', import.meta.url));
const manifestText = ['reelflow', 'monitor', 'network', 'refresh']
  .map((name) => readFileSync(join(root, `deploy/kubernetes/${name}.yaml`), 'utf8'))
  .join('---\n');
const compose = parse(readFileSync(join(root, 'docker-compose.yml'), 'utf8'), { merge: true });
const units = globSync('deploy/systemd/*.service', { cwd: root });
const timers = globSync('deploy/systemd/*.timer', { cwd: root });

/** As much of a manifest as these tests look at. */
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Record<string, string>;
  // biome-ignore lint/suspicious/noExplicitAny: its types are what is being tested
  readonly spec?: any;
}

const documents = (text: string) =>
  parseAllDocuments(text, { merge: true }).map((document) => document.toJS() as Manifest);
const manifests = documents(manifestText);
const kinds = {
  ConfigMap,
  CronJob,
  NetworkPolicy,
  PersistentVolumeClaim,
  Service,
  StatefulSet,
  PodDisruptionBudget,
};
const modules: Record<string, string> = {
  ConfigMap: 'kubernetes-models/v1',
  CronJob: 'kubernetes-models/batch/v1',
  NetworkPolicy: 'kubernetes-models/networking.k8s.io/v1',
  PersistentVolumeClaim: 'kubernetes-models/v1',
  Service: 'kubernetes-models/v1',
  StatefulSet: 'kubernetes-models/apps/v1',
  PodDisruptionBudget: 'kubernetes-models/policy/v1',
};

/** What the compiler says of the manifests as literals of the API's types; '' when nothing. */
function compile(all: readonly Manifest[]): string {
  // Beneath the project, so that its packages are found.
  const folder = mkdtempSync(join(root, 'node_modules', '.reelflow-manifests-'));
  try {
    const lines = all.map(
      ({ kind, ...rest }, at) =>
        `import type { I${kind} as T${at} } from '${modules[kind]}';\nconst m${at}: T${at} = ${JSON.stringify({ kind, ...rest })};\nvoid m${at};`,
    );
    writeFileSync(join(folder, 'manifests.ts'), lines.join('\n'));
    const flags = [
      '--noEmit',
      '--strict',
      '--skipLibCheck',
      '--module',
      'nodenext',
      '--target',
      'esnext',
      '--ignoreConfig',
    ];
    const { status, stdout } = spawnSync(join(root, 'node_modules/.bin/tsc'), [...flags, 'manifests.ts'], {
      cwd: folder,
      encoding: 'utf8',
    });
    return status === 0 ? '' : stdout || 'tsc failed';
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const templateOf = ({ spec }: Manifest) => spec?.jobTemplate?.spec.template ?? spec?.template;
const containers = manifests.flatMap((manifest) => templateOf(manifest)?.spec.containers ?? []);

describe('the Kubernetes manifests', () => {
  test('have no field that the API does not know, and no value of another type', () => {
    expect(manifests).toHaveLength(6 + 1 + 1 + 2);
    expect(compile(manifests)).toBe('');
  });

  test('a misspelt field would be found', () => {
    expect(compile(documents(manifestText.replace('periodSeconds:', 'periodSecond:')))).toContain(
      'periodSecond',
    );
  });

  test.for(manifests.map((manifest) => [manifest.kind, manifest.metadata.name, manifest] as const))(
    '%s %s follows the schema',
    ([kind, , manifest]) => {
      const Kind = kinds[kind as keyof typeof kinds] as unknown as new (
        from: Manifest,
      ) => { validate(): void };
      new Kind(manifest).validate();
    },
  );

  test('select the pods that they make, mount the volumes that they name, and probe ports that are open', () => {
    const sets = manifests.filter(({ kind }) => kind === 'StatefulSet');
    const labels = sets.map(({ spec }) => spec.template.metadata.labels);
    for (const { kind, spec } of manifests) {
      const selector = spec?.selector?.matchLabels ?? spec?.selector;
      if (!['ConfigMap', 'CronJob', 'NetworkPolicy', 'PersistentVolumeClaim'].includes(kind)) {
        expect(labels).toContainEqual(selector);
      }
    }
    const makers = [...sets, ...manifests.filter(({ kind }) => kind === 'CronJob')];
    expect(makers).toHaveLength(3);
    const claims = manifests.filter(({ kind }) => kind === 'PersistentVolumeClaim');
    for (const manifest of makers) {
      const { spec } = templateOf(manifest);
      for (const { persistentVolumeClaim: claim } of spec.volumes) {
        if (claim !== undefined)
          expect(claims.map(({ metadata }) => metadata.name)).toContain(claim.claimName);
      }
      const volumes = [
        ...spec.volumes,
        ...(manifest.spec.volumeClaimTemplates ?? []).map((claim: Manifest) => claim.metadata),
      ];
      for (const { volumeMounts, ports = [], ...container } of spec.containers) {
        for (const { name } of volumeMounts)
          expect(volumes).toContainEqual(expect.objectContaining({ name }));
        for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
          const port = container[probe]?.httpGet.port;
          if (port !== undefined) expect(ports).toContainEqual(expect.objectContaining({ name: port }));
        }
      }
    }
  });

  test('their environment is one that we understand, and holds no password', () => {
    const env = { ...manifests.find(({ kind }) => kind === 'ConfigMap')?.data };
    const files = Object.keys(env).filter((name) => name.endsWith('_FILE'));
    expect(files).toEqual(['KAFKA_SASL_PASSWORD_FILE', 'SCHEMA_REGISTRY_PASSWORD_FILE']);
    for (const name of files) env[name] = join(root, 'package.json');
    expect(endpointsFromEnvironment(env)).toMatchObject({
      security: { tls: {}, sasl: { username: 'reelflow' } },
    });
    expect(Object.keys(env)).not.toContain('KAFKA_SASL_PASSWORD');
  });

  test('run without privileges, on a read-only file system', () => {
    for (const { securityContext, resources } of containers) {
      expect(securityContext).toMatchObject({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
      });
      expect(resources).toMatchObject({
        requests: { memory: expect.any(String) },
        limits: { memory: expect.any(String) },
      });
    }
  });
});

test('every command in deploy/ and the compose file is one that we have', () => {
  const starts = units.map(
    (unit) =>
      /^ExecStart=\/usr\/bin\/env reelflow (.*)$/m.exec(readFileSync(join(root, unit), 'utf8'))?.[1] ?? '',
  );
  const commands: string[][] = [
    ...containers.map(({ args }: { args: string[] }) => args),
    ...Object.values(
      compose.services as Record<string, { image: string; command: string[]; entrypoint?: string[] }>,
    ).flatMap(({ image, command, entrypoint }) =>
      image === 'reelflow' && entrypoint === undefined ? [command] : [],
    ),
    // What the image runs without a command.
    JSON.parse(/^CMD (\[.*\])$/m.exec(readFileSync(join(root, 'Dockerfile'), 'utf8'))?.[1] ?? '[]'),
    // systemd puts the instance's name in place of %i.
    ...starts.map((start) => start.replaceAll('%i', '1').split(' ')),
  ];
  expect(commands).toHaveLength(4 + 3 + 1 + 4);
  const known: Record<string, () => Command> = {
    process: processCommand,
    sink: sinkCommand,
    refresh: refreshCommand,
    monitor: monitorCommand,
    run: runCommand,
  };
  for (const [name = '', ...args] of commands) {
    const command = known[name]?.().exitOverride();
    const { operands, unknown } = (command as Command).parseOptions(args);
    expect({ command: name, operands, unknown }).toEqual({ command: name, operands: [], unknown: [] });
  }
});

const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0;
/** Exit codes after which the operations guide lets a supervisor start again. */
const restarts = () => {
  const guide = readFileSync(join(root, 'docs/operations.md'), 'utf8');
  const [, list = ''] = /Let a supervisor restart after ([\d, and\n]+)\./.exec(guide) ?? [];
  const codes = (list.match(/\d+/g) ?? []).map(Number);
  expect(codes).toContain(exitCodes.brokerUnreachable);
  return codes;
};
const persistent = () => Object.values(exitCodes).filter((code) => !restarts().includes(code));

test.each(units)('%s restarts after exactly the exit codes that the operations guide names', (unit) => {
  const [, prevented = ''] =
    /^RestartPreventExitStatus=(.*)$/m.exec(readFileSync(join(root, unit), 'utf8')) ?? [];
  expect(prevented.split(' ').map(Number)).toEqual(persistent());
});

test('the daily job on Kubernetes is repeated after exactly these exit codes', () => {
  const { spec } = manifests.find(({ kind }) => kind === 'CronJob') as Manifest;
  const [rule] = spec.jobTemplate.spec.podFailurePolicy.rules;
  expect(rule).toMatchObject({ action: 'FailJob', onExitCodes: { operator: 'In' } });
  expect(rule.onExitCodes.values).toEqual(persistent());
  // The policy needs pods that are not restarted in place.
  expect(spec.jobTemplate.spec.template.spec.restartPolicy).toBe('Never');
});

test.each(timers)('%s starts a unit that exists, also after the machine was off', (timer) => {
  const text = readFileSync(join(root, timer), 'utf8');
  expect(units).toContain(timer.replace('.timer', '.service'));
  expect(text).toMatch(/^OnCalendar=/m);
  expect(text).toMatch(/^Persistent=yes$/m);
  expect(text).toMatch(/^WantedBy=timers\.target$/m);
});

describe.skipIf(!hasSystemd)(
  `the systemd units${hasSystemd ? '' : ' (skipped: there is no systemd-analyze)'}`,
  () => {
    const folder = mkdtempSync(join(root, 'node_modules', '.reelflow-units-'));
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    const verify = (unit: string, text: string) => {
      // An instance of a template is what can be checked.
      const path = join(folder, (unit.split('/').at(-1) as string).replace('@.', '@1.'));
      writeFileSync(path, text);
      return spawnSync('systemd-analyze', ['verify', '--man=no', path], { encoding: 'utf8' })
        .stderr.split('\n')
        .filter((line) => line.includes(folder));
    };

    test.for(units)('%s has nothing that systemd does not know', (unit) => {
      const text = readFileSync(join(root, unit), 'utf8');
      expect(verify(unit, text)).toEqual([]);
      expect(verify(unit, text.replace('PrivateTmp=', 'PrivateTemp='))).not.toEqual([]);
    });

    test.for(timers)('%s has nothing that systemd does not know', (timer) => {
      const text = readFileSync(join(root, timer), 'utf8');
      const unit = timer.replace('.timer', '.service');
      writeFileSync(join(folder, unit.split('/').at(-1) as string), readFileSync(join(root, unit), 'utf8'));
      expect(verify(timer, text)).toEqual([]);
      expect(verify(timer, text.replace('Persistent=', 'Persistant='))).not.toEqual([]);
    });
  },
);

const hasCompose = spawnSync('docker', ['compose', 'version']).status === 0;
test.skipIf(!hasCompose)(
  `docker compose understands the compose file${hasCompose ? '' : ' (skipped: there is no docker compose)'}`,
  () => {
    const args = [
      'compose',
      '--file',
      join(root, 'docker-compose.yml'),
      '--profile',
      'pipeline',
      'config',
      '--services',
    ];
    const services = execFileSync('docker', args, { encoding: 'utf8' }).trim().split('\n').sort();
    expect(services).toEqual(['broker', 'gold-owner', 'monitor', 'processor', 'registry', 'sink']);
  },
);
