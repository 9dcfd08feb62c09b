import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';

/** File that receives the results as JSON, for a continuous integration that counts them. */
const report = process.env.TEST_REPORT;

/** Tests that start local services and share one broker and registry. */
const shared = {
  globalSetup: 'test/support/global-setup.ts',
  pool: 'forks',
  // Far above what anything takes on a quiet machine: a loaded one must not fail a test.
  testTimeout: 240_000,
  hookTimeout: 240_000,
  // A counted run must not fail because of one hiccup of a shared machine. It names each test that needed a second try.
  retry: report === undefined ? 0 : 1,
} as const;

const project = (
  name: string,
  include: string | readonly string[],
  options: object = shared,
): TestProjectInlineConfiguration => ({
  test: { name, include: [include].flat(), ...options },
});

/** What needs brokers of its own or waits for clocks: lost input, access, states of lag, the local services, outages. */
const field = [
  'test/kafka/{acls,security,security-rotation}.test.ts',
  'test/kafka/local/services.test.ts',
  'test/monitor/lag-{states,clusters}.test.ts',
  'test/pipeline/loss*.test.ts',
  'test/producers/outage.test.ts',
];

export default defineConfig({
  test: {
    // Tests wait for processes, brokers and clocks most of the time; broker, registry and DuckDB take the cores too.
    maxWorkers: 3,
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/{crash,chaos,flink/cluster,hosts,package,soak}/**', ...field],
        },
      },
      project('field', field),
      // Kills, pauses and resets services: minutes of waiting for sessions to end.
      project('crash', 'test/crash/*.test.ts'),
      // Needs Java 17 and Maven, minutes each.
      project('flink', 'test/flink/cluster/*.test.ts', { ...shared, fileParallelism: false }),
      // Members on several hosts, which are network namespaces: needs root on Linux, `ip`, Java and Maven.
      project('hosts', 'test/hosts/*.test.ts', { pool: 'forks', fileParallelism: false }),
      // Starts a Spark session, up to minutes: needs pyspark and Java.
      project('spark', 'test/docs/examples.test.ts'),
      // Packs, installs from the registry, and runs the installed package.
      project('package', 'test/package/*.test.ts'),
      // An hour of dumps in fast motion.
      project('soak', 'test/soak/*.test.ts'),
    ],
  },
});
