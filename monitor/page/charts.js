// Small charts. Every chart has its figures as text, too.

/** An element with properties, attributes (`aria-…`, `data-…`, `class` …) and children; text is never markup. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(
    ...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

export const number = (value, digits = 0) =>
  value === null || value === undefined
    ? 'unknown'
    : value.toLocaleString('en-US', { maximumFractionDigits: digits });

/** A count with its noun. */
export const counted = (count, noun, plural = `${noun}s`) =>
  `${number(count)} ${count === 1 ? noun : plural}`;

/** Values over time as a thin line; unknown values are gaps. */
export function spark(values, label) {
  const known = values.filter((value) => value !== null);
  const picture = svg('svg', { class: 'spark', viewBox: '0 0 90 22', role: 'img', 'aria-label': label });
  if (known.length < 2) return picture;
  const most = Math.max(...known, 1);
  let path = '';
  values.forEach((value, at) => {
    if (value === null) return;
    const start = path === '' || values[at - 1] === null;
    path += `${start ? 'M' : 'L'}${(at / (values.length - 1)) * 88 + 1} ${20 - (value / most) * 18}`;
  });
  picture.append(svg('path', { d: path, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5 }));
  return picture;
}

/** A plot of a gold table: `{ table, title, kind, points }`. */
export function plot({ table, title, kind, points }) {
  const caption = el('figcaption', {}, `${title} `, el('span', { class: 'quiet' }, table));
  if (points.length === 0)
    return el('figure', { class: 'card' }, caption, el('p', { class: 'quiet' }, 'No rows.'));
  return el('figure', { class: 'card' }, caption, kind === 'bar' ? bars(points) : line(title, points));
}

function bars(points) {
  const most = Math.max(...points.map(([, y]) => y));
  const list = el('div', { class: 'bars' });
  for (const [x, y] of points.slice(0, 12)) {
    const bar = el('i', { class: 'bar' });
    bar.style.width = `${(y / most) * 100}%`;
    list.append(el('span', { title: x }, x), bar, el('span', {}, number(y, 2)));
  }
  return list;
}

function line(title, points) {
  const [width, height, left, bottom] = [360, 190, 46, 22];
  const xs = points.map(([x]) => numberOf(x));
  const ys = points.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  // Counts start at zero; other values at their minimum.
  const isCount = ys.every(Number.isInteger);
  const [low, high] = isCount
    ? [0, Math.max(...ys)]
    : [Math.floor(Math.min(...ys)), Math.ceil(Math.max(...ys))];
  const place = ([x, y]) => [
    left + ((numberOf(x) - x0) / (x1 - x0 || 1)) * (width - left - 8),
    8 + (1 - (y - low) / (high - low || 1)) * (height - bottom - 14),
  ];
  const first = points[0];
  const last = points.at(-1);
  const label = `${title}: ${first[0]} ${number(first[1], 2)}, … ${last[0]} ${number(last[1], 2)}; lowest ${number(Math.min(...ys), 2)}, highest ${number(Math.max(...ys), 2)}.`;
  const picture = svg('svg', {
    class: 'line',
    viewBox: `0 0 ${width} ${height}`,
    role: 'img',
    'aria-label': label,
  });
  for (const y of [low, (low + high) / 2, high]) {
    const [, at] = place([x0, y]);
    picture.append(
      svg('line', { class: 'grid', x1: left, x2: width - 8, y1: at, y2: at }),
      svg('text', { x: left - 6, y: at + 4, 'text-anchor': 'end' }, short(y)),
    );
  }
  for (const [x, anchor] of [
    [first[0], 'start'],
    [last[0], 'end'],
  ]) {
    const [at] = place([x, low]);
    picture.append(svg('text', { x: at, y: height - 5, 'text-anchor': anchor }, String(x)));
  }
  const d = points.map(
    (point, at) =>
      `${at === 0 ? 'M' : 'L'}${place(point)
        .map((n) => n.toFixed(1))
        .join(' ')}`,
  );
  picture.append(
    svg('path', {
      d: d.join(''),
      fill: 'none',
      stroke: 'currentColor',
      'stroke-width': 2,
      'stroke-linejoin': 'round',
    }),
  );
  const rows = points.map(([x, y]) =>
    el('tr', {}, el('th', { scope: 'row' }, String(x)), el('td', { class: 'number' }, number(y, 2))),
  );
  const figures = el('details', {}, el('summary', {}, 'Figures'), el('table', {}, el('tbody', {}, rows)));
  return el('div', {}, picture, figures);
}

/** A number, or a date such as 2026-11-27 as days. */
const numberOf = (x) => (typeof x === 'number' ? x : Date.parse(x) / 86_400_000);

const short = (value) =>
  new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 }).format(value);
