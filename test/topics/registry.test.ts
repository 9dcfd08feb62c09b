/** The stages' registry client against a real Schema Registry. */
import { randomBytes } from 'node:crypto';
import { expect, inject, test } from 'vitest';
import { Registry } from '../../topics/registry.ts';

// Method: new subjects, one after the other, and several clients that register at once.
test('clients that register the same schema at the same moment all get the same id', async () => {
  const namespace = `test-${randomBytes(5).toString('hex')}`;
  const clients = Array.from({ length: 6 }, () => new Registry({ url: inject('registryUrl') }));
  for (let round = 0; round < 10; round++) {
    const topic = `${namespace}.${round}.imdb.title.ratings`;
    const ids = await Promise.all(clients.map((client) => client.register(topic, 'imdb.title.ratings')));
    expect(new Set(ids).size).toBe(1);
    const response = await fetch(`${inject('registryUrl')}/config/${topic}-value`);
    expect(await response.json()).toMatchObject({ compatibilityLevel: 'BACKWARD' });
  }
});
