/**
 * The templates of the Helm chart, made from the plain manifests: what a value may change is replaced by its expression. So chart
 * and manifests cannot differ. `npm run chart` writes them.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const manifests = join(import.meta.dirname, '../kubernetes');
export const templates = join(import.meta.dirname, 'reelflow/templates');

type Replacement = readonly [from: string | RegExp, to: string];

const name = '{{ .Release.Name }}';
const image = '{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}';

/** For every file. */
const common: readonly Replacement[] = [
  [/\bimage: reelflow\b/g, `image: "${image}"`],
  [/app\.kubernetes\.io\/name: reelflow\b/g, `app.kubernetes.io/name: ${name}`],
  [/\b(name|serviceName|claimName): reelflow(-\w+)\b/g, `$1: ${name}$2`],
  [/^( +name): reelflow$/gm, `$1: ${name}`],
  [/configMapRef: \{ name: reelflow \}/g, `configMapRef: { name: ${name} }`],
  [/secretKeyRef: \{ name: reelflow,/g, 'secretKeyRef: { name: {{ .Values.secret }},'],
  [/secretName: reelflow\b/g, 'secretName: {{ .Values.secret }}'],
  [/credentials: \{ name: reelflow,/g, 'credentials: { name: {{ .Values.secret }},'],
];

/** By file: what only it has. */
const own: Readonly<Record<string, readonly Replacement[]>> = {
  'reelflow.yaml': [
    [/^data:\n(?: {2}.*\n)+/m, 'data:\n{{ .Values.environment | toYaml | indent 2 }}\n'],
    ['replicas: 2', 'replicas: {{ .Values.processors.replicas }}'],
    [/--memory, 1GB/g, '--memory, {{ .Values.memory | quote }}'],
    [/storage: 20Gi/g, 'storage: {{ .Values.storage }}'],
  ],
  'monitor.yaml': [],
  'network.yaml': [],
  'refresh.yaml': [
    [/schedule: "(.*)"/, 'schedule: {{ .Values.refresh.schedule | quote }}'],
    [/storage: 10Gi/g, 'storage: {{ .Values.refresh.storage }}'],
  ],
  'service-monitor.yaml': [[/regex: reelflow-/, `regex: ${name}-`]],
};

/** Files that a value turns on or off. */
const optional: Readonly<Record<string, string>> = {
  'network.yaml': '.Values.networkPolicy',
  'refresh.yaml': '.Values.refresh.enabled',
  'service-monitor.yaml': '.Values.serviceMonitor',
};

/** The templates by name. @throws when a manifest no longer has what a value replaces */
export function chartTemplates(): Map<string, string> {
  const files = Object.entries(own).map(([file, replacements]): [string, string] => {
    // How to use the plain file is not part of the chart.
    let text = readFileSync(join(manifests, file), 'utf8').replace(/^(?:#.*\n)+/, '');
    for (const [from, to] of replacements) {
      const replaced = text.replace(from, to);
      if (replaced === text) throw new Error(`${file} has no ${from}`);
      text = replaced;
    }
    for (const [from, to] of common) text = text.replace(from, to);
    const condition = optional[file];
    return [file, condition === undefined ? text : `{{- if ${condition} }}\n${text}{{- end }}\n`];
  });
  return new Map(files);
}

if (import.meta.main) {
  mkdirSync(templates, { recursive: true });
  for (const [file, text] of chartTemplates()) writeFileSync(join(templates, file), text);
}
