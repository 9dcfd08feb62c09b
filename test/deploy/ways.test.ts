/**
 * The ways of deployment agree: systemd, Kubernetes (plain, kustomize, Helm), Docker and `reelflow run` use the same ports and
 * names, and Prometheus finds them. Method: ports, names and jobs are read from each and compared; the chart is generated from
 * the manifests, and where kubectl and helm are, what they print is compared too.
 */
import { spawnSync } from 'node:child_process';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { memberPorts } from '../../cli/ports.ts';
import { chartTemplates, templates } from '../../deploy/helm/chart.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
type Document = {
  kind: string;
  metadata: { name: string };
  // biome-ignore lint/suspicious/noExplicitAny: only some fields of some kinds are looked at
  spec?: any;
};
const documents = (text: string) =>
  parseAllDocuments(text, { merge: true })
    .map((one) => one.toJS() as Document)
    .filter((one) => one !== null);
const plain = ['reelflow', 'monitor', 'network', 'refresh'].flatMap((name) =>
  documents(read(`deploy/kubernetes/${name}.yaml`)),
);
const compose = parse(read('docker-compose.yml'), { merge: true });

const ports = { processor: memberPorts.processor(1), sink: memberPorts.sink, monitor: memberPorts.monitor };
/** The port behind --listen in a command line. */
const listenOf = (args: readonly string[]) =>
  Number(/(\d+)$/.exec(args[args.indexOf('--listen') + 1] ?? '')?.[1]);

test('the units listen where Prometheus looks', () => {
  const started = (unit: string, instance = '') =>
    (/^ExecStart=.*? reelflow (.*)$/m.exec(read(`deploy/systemd/${unit}`))?.[1] ?? '')
      .replaceAll('%i', instance)
      .split(' ');
  expect(listenOf(started('reelflow-processor@.service', '1'))).toBe(memberPorts.processor(1));
  expect(listenOf(started('reelflow-processor@.service', '2'))).toBe(memberPorts.processor(2));
  expect(listenOf(started('reelflow-sink.service'))).toBe(ports.sink);
  expect(listenOf(started('reelflow-monitor.service'))).toBe(ports.monitor);
  const jobs: { job_name: string; static_configs: { targets: string[] }[] }[] = parse(
    read('deploy/prometheus/prometheus.yml'),
  ).scrape_configs;
  const targets = jobs.map(({ job_name: name, static_configs: [of] }) => [name, of?.targets]);
  expect(Object.fromEntries(targets)).toEqual({
    'reelflow-process': [1, 2].map((n) => `127.0.0.1:${memberPorts.processor(n)}`),
    'reelflow-sink': [`127.0.0.1:${ports.sink}`],
    'reelflow-monitor': [`127.0.0.1:${ports.monitor}`],
  });
});

test('containers on Kubernetes and in the compose file listen on the same ports, and their probes ask them', () => {
  const containers = plain.flatMap(({ spec }) => spec?.template?.spec?.containers ?? []);
  for (const { name, args, ports: open, livenessProbe } of containers) {
    expect([name, listenOf(args)]).toEqual([name, ports[name as keyof typeof ports]]);
    expect(open).toEqual([expect.objectContaining({ containerPort: listenOf(args) })]);
    expect(livenessProbe.httpGet).toEqual({ path: '/healthz', port: open[0].name });
  }
  expect(containers.map(({ name }) => name).sort()).toEqual(['monitor', 'processor', 'sink']);
  for (const name of ['processor', 'sink', 'monitor'] as const) {
    expect([name, listenOf(compose.services[name].command)]).toEqual([name, ports[name]]);
  }
  const health = /^ {2}CMD \[.*\[([\d, ]+)\]\.map/m.exec(read('Dockerfile'))?.[1]?.split(', ').map(Number);
  expect(health).toEqual(Object.values(ports).sort());
});

test('services, network policy and service monitor name these ports and exist for each stage', () => {
  const services = plain.filter(({ kind }) => kind === 'Service');
  expect(
    Object.fromEntries(services.map(({ metadata, spec }) => [metadata.name, spec.ports[0].port])),
  ).toEqual({
    'reelflow-processor': ports.processor,
    'reelflow-sink': ports.sink,
    'reelflow-monitor': ports.monitor,
  });
  const policy = plain.find(({ kind }) => kind === 'NetworkPolicy');
  expect(policy?.spec.ingress[0].ports.map(({ port }: { port: number }) => port)).toEqual(
    Object.values(ports).sort(),
  );
  const [monitor] = documents(read('deploy/kubernetes/service-monitor.yaml'));
  const named = services.map(({ spec }) => spec.ports[0].name);
  expect(monitor?.spec.endpoints.map(({ port }: { port: string }) => port).sort()).toEqual(
    [...new Set(named)].sort(),
  );
});

test('every job name fits the rules, and every rule has a section in the operations guide', () => {
  const rules = (
    parse(read('deploy/prometheus/alerts.yml')) as {
      groups: { rules: { alert: string; expr: string; annotations: { runbook_url: string } }[] }[];
    }
  ).groups.flatMap((group) => group.rules);
  const [, jobs = ''] =
    rules.map(({ expr }) => /job=~"([^"]+)"/.exec(expr)).find((found) => found !== null) ?? [];
  for (const job of ['reelflow-process', 'reelflow-processor', 'reelflow-sink', 'reelflow-monitor']) {
    expect(job).toMatch(new RegExp(`^(?:${jobs})$`));
  }
  const guide = read('docs/operations.md');
  for (const { alert, annotations } of rules) {
    expect(guide).toContain(`\n### ${alert}\n`);
    expect(annotations.runbook_url).toBe(`docs/operations.md#${alert.toLowerCase()}`);
  }
});

test('each way restarts after a failure and keeps namespace and gold where the guide says', () => {
  for (const name of ['processor', 'sink', 'monitor']) {
    expect(compose.services[name]).toMatchObject({
      restart: 'unless-stopped',
      logging: { options: { 'max-size': '10m' } },
    });
    expect(compose.services[name].environment).toHaveProperty('REELFLOW_NAMESPACE');
  }
  const volumes: string[] = compose.services.sink.volumes;
  expect(volumes).toContain(['$', '{REELFLOW_GOLD:-./gold}:/data/gold'].join(''));
  expect(read('deploy/systemd/environment.example')).toContain('REELFLOW_NAMESPACE=');
  for (const unit of globSync('deploy/systemd/*.service', { cwd: root })) {
    const text = read(unit);
    expect(text, unit).toMatch(/^User=reelflow\nGroup=reelflow$/m);
    expect(text, unit).toMatch(/^Restart=on-failure$/m);
  }
  expect(read('deploy/systemd/reelflow.sysusers')).toMatch(/^u reelflow /m);
  expect(read('deploy/systemd/reelflow-monitor.service')).toContain('--gold /var/lib/reelflow/sink/gold');
});

test('the chart is generated from the manifests: run `npm run chart` after a change', () => {
  const made = chartTemplates();
  expect(readdirSync(templates).sort()).toEqual([...made.keys()].sort());
  for (const [file, text] of made) expect(readFileSync(join(templates, file), 'utf8'), file).toBe(text);
  // Nothing that a release is to name differently is left.
  for (const text of made.values()) expect(text).not.toMatch(/^\s+(?:- )?(?:name|serviceName): reelflow/m);
});

test('every value of the chart is used, and every used value exists', () => {
  const values = parse(read('deploy/helm/reelflow/values.yaml'));
  const text = [...chartTemplates().values()].join('\n');
  const used = new Set([...text.matchAll(/\.Values\.([\w.]+)/g)].map(([, path]) => path as string));
  const leaves = (of: object, path = ''): string[] =>
    Object.entries(of).flatMap(([key, value]) =>
      value !== null && typeof value === 'object' && key !== 'environment'
        ? leaves(value, `${path}${key}.`)
        : [`${path}${key}`],
    );
  expect([...used].sort()).toEqual(leaves(values).sort());
  expect(values.environment).toEqual(
    parseAllDocuments(read('deploy/kubernetes/reelflow.yaml'))[0]?.toJS().data,
  );
});

const has = (command: string, ...args: string[]) => spawnSync(command, args).status === 0;
const sorted = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(sorted)
    : value !== null && typeof value === 'object'
      ? Object.fromEntries(
          Object.entries(value)
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([key, of]) => [key, sorted(of)]),
        )
      : value;
const byName = (text: string) =>
  Object.fromEntries(
    documents(text).map((one) => [`${one.kind}/${one.metadata.name}`, JSON.stringify(sorted(one))]),
  );

const kubectl = has('kubectl', 'version', '--client');
test.skipIf(!kubectl)(
  `kustomize gives all manifests${kubectl ? '' : ' (skipped: there is no kubectl)'}`,
  () => {
    const { stdout } = spawnSync('kubectl', ['kustomize', join(root, 'deploy/kubernetes')], {
      encoding: 'utf8',
    });
    expect(Object.keys(byName(stdout)).sort()).toEqual(
      plain.map(({ kind, metadata }) => `${kind}/${metadata.name}`).sort(),
    );
  },
);

const helm = kubectl && has('helm', 'version');
test.skipIf(!helm)(`Helm gives what kustomize gives${helm ? '' : ' (skipped: there is no helm)'}`, () => {
  const kustomized = spawnSync('kubectl', ['kustomize', join(root, 'deploy/kubernetes')], {
    encoding: 'utf8',
  });
  const args = ['template', 'reelflow', join(root, 'deploy/helm/reelflow'), '--set', 'image.tag=latest'];
  const templated = spawnSync('helm', [...args, '--kube-version', '1.31'], { encoding: 'utf8' });
  expect(templated.stderr).toBe('');
  expect(byName(templated.stdout)).toEqual(byName(kustomized.stdout));
});
