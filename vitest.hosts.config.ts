import { defineConfig } from 'vitest/config';

/** Members on several hosts, which are network namespaces: needs root on Linux, `ip`, Java and Maven. */
export default defineConfig({ test: { include: ['test/hosts/*.test.ts'], pool: 'forks', maxWorkers: 1 } });
