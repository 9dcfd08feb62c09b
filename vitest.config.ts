import { defineConfig } from 'vitest/config';

/** Where the results go as JSON besides the terminal, for a continuous integration that counts them. */
const report = process.env.TEST_REPORT;

export default defineConfig({
  test: {
    include: ['test/*.test.ts'],
    globalSetup: 'test/global-setup.ts',
    pool: 'forks',
    // Tests wait for processes, brokers and clocks most of the time; broker, registry and DuckDB take the cores too.
    maxWorkers: 3,
    // Far above what anything takes on a quiet machine: a loaded one must not fail a test.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
  },
});
