import { mergeConfig } from 'vitest/config';
import usual from './vitest.config.ts';

/** An hour of dumps in fast motion: many minutes, apart from the usual run. */
const { include: _, ...test } = usual.test ?? {};

export default mergeConfig({ test }, { test: { include: ['test/soak/*.test.ts'] } });
