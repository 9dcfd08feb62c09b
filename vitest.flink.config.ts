import { mergeConfig } from 'vitest/config';
import usual from './vitest.config.ts';

/** The tests that run Flink: minutes each, and Java 17 and Maven besides what the usual tests need. */
const { include: _, ...test } = usual.test ?? {};

export default mergeConfig({ test }, { test: { include: ['test/flink/*.test.ts'], maxWorkers: 1 } });
