/**
 * Node's http and https, loaded when they are needed. A module that imports `node:http` receives all its exports, among them
 * WebSocket, and so loads undici, which takes longer than the rest of a short command. Only types are imported from there.
 */
export const loadHttp = () => process.getBuiltinModule('node:http');

/** The module for the protocol of a URL. */
export const loadHttpFor = (url: string) =>
  url.startsWith('https:') ? process.getBuiltinModule('node:https') : loadHttp();
