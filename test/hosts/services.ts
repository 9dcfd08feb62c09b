/**
 * Broker and registry on the address of this host, until SIGTERM: `node services.ts FOLDER JARS ADDRESS`. Both
 * listen on 127.0.0.1 only, so this sets the broker to listen on all addresses and puts a relay in front of the registry.
 */
import { connect, createServer } from 'node:net';
import { startJvmServices } from '../../kafka/local/jvm.ts';

export const brokerPort = 9_092;
export const registryPort = 8_081;

if (import.meta.main) {
  const [folder = '', jars = '', address = ''] = process.argv.slice(2);
  const services = await startJvmServices({
    folder,
    jars,
    brokerPort,
    registryPort,
    env: process.env,
    brokerProperties: {
      listeners: `PLAINTEXT://0.0.0.0:${brokerPort},CONTROLLER://127.0.0.1:${brokerPort + 1}`,
      'advertised.listeners': `PLAINTEXT://${address}:${brokerPort}`,
    },
  });
  const relay = createServer((near) => {
    const far = connect(registryPort, '127.0.0.1');
    near.on('error', () => far.destroy()).pipe(far);
    far.on('error', () => near.destroy()).pipe(near);
  });
  relay.listen(registryPort, address, () => process.stdout.write('ready\n'));
  process.once('SIGTERM', async () => {
    await services.stop();
    process.exit(0);
  });
}
