/** The Java of the tests that start services of their own. */
import { fileURLToPath } from 'node:url';
import { findJvm } from '../../kafka/local/jars.ts';

/** The cache of jars. */
export const jars = fileURLToPath(new URL('../../.reelflow/jars', import.meta.url));

export const jvm = await findJvm(process.env, jars);

/** Why there is no Java; undefined when there is. */
export const whyNoJava = 'why' in jvm ? jvm.why : undefined;

/** For the name of a test that is skipped without Java. */
export const skippedText = (why = whyNoJava) => (why === undefined ? '' : ` (skipped: ${why})`);
