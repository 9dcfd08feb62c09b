/**
 * The texts of a source file: its comments and its strings of more than one word. Code is blanked, so that an
 * identifier, a keyword or a name is never taken for prose; every character keeps its offset, and every line its number.
 */

/** Stands for a character of code. No phrase matches it or reaches across it. */
const code = '\0';

const blank = (text: string) => text.replace(/[^\s]/g, code);
const spaces = (text: string) => text.replace(/[^\n]/g, ' ');

/** Comment marks at the start of a line become spaces, so that a phrase may be broken between two lines. */
const comment = (text: string) =>
  text.replace(/^(?:\/\*\*?|\/\/+|#+)|^[ \t]*(?:\*(?!\/)|\/\/+|#+)/gm, spaces).replace(/\*\/$/, spaces);

/** A name, a path or an option is not text. */
const string = (text: string) => (/\S\s+\S/.test(text.slice(1, -1)) ? text : blank(text));

const startsRegExp =
  /(?:^|[(,=:[!&|?{};+\-*%~^<>]|=>|\b(?:return|typeof|case|in|of|await|yield|do|else))\s*$/;
const regExp = /\/(?:[^\\/[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;

const javaScriptTokens =
  /(?<comment>\/\/[^\n]*|\/\*.*?\*\/)|(?<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|(?<template>`)|(?<slash>\/)/gs;
const pythonTokens =
  /(?<comment>#[^\n]*)|(?<string>""".*?"""|'''.*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')/gs;

/** TypeScript, JavaScript and Java. */
function javaScript(source: string): string {
  let out = '';
  let at = 0;
  /** Takes code to the bracket that closes it, or to the end. */
  const takeCode = (isNested: boolean): void => {
    const start = at;
    let depth = 0;
    let plain = start;
    const flush = (to: number) => {
      out += blank(source.slice(plain, to));
    };
    while (at < source.length) {
      const char = source[at];
      if (char === '{') depth++;
      if (char === '}' && isNested && depth-- === 0) break;
      javaScriptTokens.lastIndex = at;
      const match = /[/'"`]/.test(char as string) ? javaScriptTokens.exec(source) : null;
      if (match === null || match.index !== at) {
        at++;
        continue;
      }
      const groups = match.groups ?? {};
      if (groups.slash !== undefined) {
        regExp.lastIndex = at;
        const isRegExp = startsRegExp.test(source.slice(Math.max(0, at - 40), at)) && regExp.test(source);
        at = isRegExp ? regExp.lastIndex : at + 1;
        continue;
      }
      flush(at);
      if (groups.template !== undefined) takeTemplate();
      else {
        out += groups.comment === undefined ? string(match[0]) : comment(match[0]);
        at += match[0].length;
      }
      plain = at;
    }
    flush(at);
  };
  const takeTemplate = (): void => {
    const start = out.length;
    let text = '';
    const take = (length: number) => {
      text += source.slice(at, at + length);
      out += source.slice(at, at + length);
      at += length;
    };
    take(1);
    while (at < source.length && source[at] !== '`') {
      if (source.startsWith('${', at)) {
        out += code + code;
        at += 2;
        takeCode(true);
      } else take(source[at] === '\\' ? 2 : 1);
    }
    take(1);
    if (string(text) !== text) out = out.slice(0, start) + blank(out.slice(start));
  };
  takeCode(false);
  return out;
}

function python(source: string): string {
  let out = '';
  let at = 0;
  for (const match of source.matchAll(pythonTokens)) {
    out += blank(source.slice(at, match.index));
    out += match.groups?.comment === undefined ? string(match[0]) : comment(match[0]);
    at = match.index + match[0].length;
  }
  return out + blank(source.slice(at));
}

/** @returns a text of the same length; files of other kinds (documents, configuration) are texts as a whole */
export function textsOf(path: string, source: string): string {
  if (/\.(?:ts|js|mjs|java)$/.test(path)) return javaScript(source);
  if (path.endsWith('.py')) return python(source);
  return source.replace(/^[ \t]*(?:#+|>)/gm, spaces);
}
