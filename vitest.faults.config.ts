import { mergeConfig } from 'vitest/config';
import usual from './vitest.config.ts';

/** The tests that kill, pause and reset services: minutes of waiting for sessions to end, apart from the usual run. */
const { include: _, ...test } = usual.test ?? {};

export default mergeConfig({ test }, { test: { include: ['test/faults/*.test.ts'] } });
