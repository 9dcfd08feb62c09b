/**
 * `deploy/flink/kubernetes.yaml` against the definition that the operator installs in a cluster, of the newest version on
 * Maven Central. The test refuses a field that the definition does not name. Kubernetes would drop it silently.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv, type ValidateFunction } from 'ajv';
import { beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { findJvm, type JarSet, resolveJars } from '../../../kafka/local/jars.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const jars = join(root, '.reelflow', 'jars');
const set: JarSet = { pom: 'test/flink/cluster/operator.xml', programs: "the operator's API", megabytes: 1 };
const java = await findJvm(process.env, jars, set);

interface Schema {
  type?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  additionalProperties?: Schema | boolean;
  'x-kubernetes-preserve-unknown-fields'?: boolean;
}

/** The same schema, closed: it refuses a field that it does not name. */
function closed(schema: Schema): Schema {
  const { properties, items, additionalProperties } = schema;
  const isOpen = schema['x-kubernetes-preserve-unknown-fields'] || additionalProperties !== undefined;
  return {
    ...schema,
    ...(properties && {
      properties: Object.fromEntries(Object.entries(properties).map(([name, of]) => [name, closed(of)])),
      ...(!isOpen && { additionalProperties: false }),
    }),
    ...(items && { items: closed(items) }),
    ...(typeof additionalProperties === 'object' && { additionalProperties: closed(additionalProperties) }),
  };
}

describe.skipIf('why' in java)('the manifest for the operator', () => {
  const manifest = parse(readFileSync(join(root, 'deploy/flink/kubernetes.yaml'), 'utf8'));
  let definition: { group: string; names: { kind: string }; name: string };
  let validate: ValidateFunction;
  beforeAll(async () => {
    const folder = await resolveJars({ jars, env: process.env, set });
    const file = join(folder, 'META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml');
    const { group, names, versions } = parse(readFileSync(file, 'utf8')).spec;
    const [{ name, schema }] = versions;
    definition = { group, names, name };
    const { spec } = schema.openAPIV3Schema.properties;
    validate = new Ajv({ allErrors: true, strict: false }).compile(closed(spec));
  }, 600_000);
  const complaints = (value: { spec: unknown }) => {
    validate(value.spec);
    return (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
  };

  test('has the kind and version of the definition', () => {
    const { group, names, name } = definition;
    expect(manifest).toMatchObject({ apiVersion: `${group}/${name}`, kind: names.kind });
  });

  test('has only fields of the definition; Flink 2.3 is newer than the definition', () => {
    expect(complaints(manifest)).toEqual(['/flinkVersion must be equal to one of the allowed values']);
    expect(complaints({ spec: { ...manifest.spec, flinkVersion: 'v1_20' } })).toEqual([]);
  });

  test('fails with a field of another name or a number for a text', () => {
    const spec = { ...manifest.spec, flinkVersion: 'v1_20' };
    expect(complaints({ spec: { ...spec, jobManagers: {} } })).toHaveLength(1);
    const flinkConfiguration = { ...spec.flinkConfiguration, 'taskmanager.numberOfTaskSlots': 4 };
    expect(complaints({ spec: { ...spec, flinkConfiguration } })).toEqual([
      '/flinkConfiguration/taskmanager.numberOfTaskSlots must be string',
    ]);
  });
});
