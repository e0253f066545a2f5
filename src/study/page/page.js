// The page works as a document without this; with it rows are linked, the metric is switched and keys move.
'use strict';
const root = document.documentElement;
const stored = (key, value) => {
  try { if (value === undefined) return localStorage.getItem(key); localStorage.setItem(key, value); } catch { return null; }
};
const darkSystem = matchMedia('(prefers-color-scheme: dark)');
function theme(name) {
  if (name) root.dataset.theme = name; else delete root.dataset.theme;
}
theme(stored('ugatit-theme'));
function toggleTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : darkSystem.matches;
  const next = dark ? 'light' : 'dark';
  theme(next);
  stored('ugatit-theme', next);
}
document.getElementById('theme')?.addEventListener('click', toggleTheme);

// ---------------------------------------------------------------- choice of GPU
function gpu(key) {
  let found = false;
  for (const e of document.querySelectorAll('.gpu')) { const is = e.dataset.gpu === key; e.classList.toggle('on', is); found ||= is; }
  return found;
}
for (const s of document.querySelectorAll('select.gpus')) {
  s.addEventListener('change', () => { gpu(s.value); for (const o of document.querySelectorAll('select.gpus')) o.value = s.value; });
}

// ---------------------------------------------------------------- tables that sort
for (const th of document.querySelectorAll('th.sort')) {
  th.tabIndex = 0;
  const sort = () => {
    const table = th.closest('table'), at = [...th.parentNode.children].indexOf(th);
    const down = th.getAttribute('aria-sort') !== 'descending';
    for (const o of th.parentNode.children) o.removeAttribute('aria-sort');
    th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const key = (row) => { const c = row.children[at]; return c.dataset.v === undefined ? c.textContent : +c.dataset.v; };
    const rows = [...table.tBodies[0].rows].sort((a, b) => { const x = key(a), y = key(b); return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1); });
    table.tBodies[0].append(...rows);
  };
  th.addEventListener('click', sort);
  th.addEventListener('keydown', (e) => { if (e.key === 'Enter') sort(); });
}

// ---------------------------------------------------------------- the code viewer
const code = document.getElementById('code');
if (code) viewer();
function viewer() {
  const src = code.querySelector('.src'), asm = code.querySelector('.asm'), status = code.querySelector('.status');
  const total = (src.dataset.total || '').split(' ').map(Number);
  let metric = 0, pinned = null, cursor = null;

  const metrics = [...code.querySelectorAll('.metric button')];
  function setMetric(m) {
    metric = m;
    for (const pane of [src, asm]) pane.className = pane.className.replace(/\bm\d\b/, 'm' + m);
    metrics.forEach((b, i) => b.setAttribute('aria-pressed', i === m));
  }
  metrics.forEach((b, i) => b.addEventListener('click', () => setMetric(i)));
  const all = code.querySelector('#all');
  const setAll = (on) => { src.classList.toggle('all', on); all.setAttribute('aria-pressed', on); };
  all.addEventListener('click', () => setAll(!src.classList.contains('all')));

  const tabs = [...code.querySelectorAll('.tabs button')];
  const view = () => asm.querySelector('.view.on');
  function setView(name) {
    for (const v of asm.querySelectorAll('.view')) v.classList.toggle('on', v.dataset.view === name);
    for (const t of tabs) t.setAttribute('aria-selected', t.dataset.view === name);
    if (pinned) { const p = pinned; show(p); reveal(p); }
  }
  for (const t of tabs) t.addEventListener('click', () => setView(t.dataset.view));

  // Source row -> rows of a view, and whether it is their own line or one they were inlined at.
  const maps = new Map();
  function links(v) {
    if (!maps.has(v)) {
      const map = new Map();
      for (const row of v.querySelectorAll('.r[data-s]')) {
        row.dataset.s.split(' ').forEach((id, depth) => {
          if (!map.has(id)) map.set(id, []);
          map.get(id).push([row, depth]);
        });
      }
      maps.set(v, map);
    }
    return maps.get(v);
  }
  const isSource = (row) => row.id[0] === 's';
  const partners = (row) => isSource(row) ? links(view()).get(row.id.slice(1)) || []
    : (row.dataset.s || '').split(' ').filter(Boolean).map((id, depth) => [document.getElementById('s' + id), depth]).filter(([r]) => r);

  let lit = [];
  function clear() { for (const r of lit) r.classList.remove('on', 'via'); lit = []; }
  function show(row) {
    clear();
    if (!row) { status.replaceChildren(...hint); return; }
    row.classList.add('on'); lit.push(row);
    const found = partners(row);
    for (const [r, depth] of found) { r.classList.add(depth ? 'via' : 'on'); lit.push(r); }
    if (!isSource(row) && found.length) for (const [r] of links(view()).get(found[0][0].id.slice(1)) || []) if (r !== row) { r.classList.add('via'); lit.push(r); }
    describe(row, found);
  }
  function reveal(row) {
    const found = partners(row);
    const first = found.find(([, depth]) => depth === 0) || found[0];
    if (!first) return;
    const r = first[0], pane = isSource(r) ? src : asm;
    const at = r.getBoundingClientRect(), box = pane.getBoundingClientRect();
    if (at.top < box.top + 40 || at.bottom > box.bottom - 20) pane.scrollTop += at.top - box.top - box.height / 3;
  }
  const number = (n) => { const u = ['', 'k', 'M', 'G', 'T']; let i = 0; while (n >= 999.5 && i < 4) { n /= 1000; i++; } return (i && n < 99.95 ? n.toFixed(1) : Math.round(n)) + u[i]; };
  const hint = [...status.childNodes];
  function part(text, strong) { const e = document.createElement(strong ? 'b' : 'span'); e.textContent = text; return e; }
  function describe(row, found) {
    const c = (row.dataset.c || '').split(' ').map(Number), out = [];
    out.push(part(isSource(row) ? row.dataset.at || 'no source line' : (row.querySelector('code').textContent), true));
    if (row.dataset.c) {
      out.push(part(number(c[0]) + ' warp instructions, ' + (100 * c[0] / Math.max(total[0], 1)).toFixed(1) + ' %'));
      out.push(part((c[0] ? c[1] / c[0] : 0).toFixed(1) + ' of 32 lanes'));
      if (c[3]) out.push(part(number(c[2]) + ' B in ' + number(c[3]) + ' sectors' + (c[4] ? ', ' + (c[3] / c[4]).toFixed(2) + 'x the minimum' : '')));
      if (c[6]) out.push(part(number(c[5]) + ' bank conflicts in ' + number(c[6]) + ' shared accesses'));
      if (c[7]) out.push(part(number(c[7]) + ' FLOP'));
      if (c[8]) out.push(part(number(c[8]) + ' divergent branches'));
    }
    if (isSource(row)) { const own = found.filter(([, d]) => d === 0).length; out.push(part(own + ' instructions' + (found.length > own ? ', ' + (found.length - own) + ' inlined here' : ''))); }
    else if (found.length) out.push(part('from ' + found.map(([r]) => r.dataset.at).join(', inlined at ')));
    status.replaceChildren(...out);
  }

  const target = (e) => e.target.closest?.('.r[id]');
  for (const pane of [src, asm]) {
    pane.addEventListener('mouseover', (e) => { const row = target(e); if (row) { cursor = row; show(row); } });
    pane.addEventListener('mouseleave', () => show(pinned));
    pane.addEventListener('click', (e) => { const row = target(e); if (row) pin(row === pinned ? null : row); });
    pane.addEventListener('focus', () => { if (!document.querySelector('.r.on')) move(pane, 1); });
  }
  function pin(row) {
    pinned?.classList.remove('pin');
    pinned = row;
    row?.classList.add('pin');
    show(row);
    if (row) { cursor = row; reveal(row); history.replaceState(null, '', '#' + row.id); }
    else history.replaceState(null, '', location.pathname + location.search);
  }
  const live = (pane) => [...(pane === src ? src : view()).querySelectorAll('.r[data-c], .r[data-s]')].filter((r) => r.id && r.offsetParent);
  function move(pane, by) {
    const rows = live(pane);
    if (!rows.length) return;
    let at = rows.indexOf(cursor);
    if (at < 0) at = by > 0 ? -1 : rows.length;
    const row = rows[Math.max(0, Math.min(rows.length - 1, at + by))];
    pin(row);
    row.scrollIntoView({ block: 'nearest' });
  }
  document.addEventListener('keydown', (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(SELECT|INPUT|TEXTAREA)$/.test(e.target.tagName)) return;
    const pane = document.activeElement === asm ? asm : src;
    const on = (by) => { if (document.activeElement !== asm && document.activeElement !== src) src.focus({ preventScroll: false }); move(document.activeElement === asm ? asm : src, by); };
    const inside = document.activeElement === asm || document.activeElement === src;
    switch (e.key) {
      case 'j': on(1); break;
      case 'k': on(-1); break;
      case 'ArrowDown': if (!inside) return; move(pane, 1); break;
      case 'ArrowUp': if (!inside) return; move(pane, -1); break;
      case 'ArrowRight': case 'l': if (e.key !== 'l' && !inside) return; asm.focus(); break;
      case 'ArrowLeft': case 'h': if (e.key !== 'h' && !inside) return; src.focus(); break;
      case 'x': hottest(); break;
      case 'a': all.click(); break;
      case 't': toggleTheme(); break;
      case 's': { const at = tabs.findIndex((t) => t.getAttribute('aria-selected') === 'true'); setView(tabs[(at + 1) % tabs.length].dataset.view); break; }
      case 'n': case 'p': document.querySelector(e.key === 'n' ? 'a[rel=next]' : 'a[rel=prev]')?.click(); break;
      case 'Escape': pin(null); break;
      default:
        if (/^[1-6]$/.test(e.key)) { setMetric(+e.key - 1); break; }
        return;
    }
    e.preventDefault();
  });
  // The next hottest line by the chosen metric.
  const column = [0, -1, 2, 3, 5, 7];
  function heat(row) { const c = row.dataset.c.split(' ').map(Number); return metric === 1 ? 32 * c[0] - c[1] : c[column[metric]]; }
  let hot = -1;
  function hottest() {
    const rows = [...src.querySelectorAll('.r[data-c]')].filter((r) => heat(r) > 0).sort((a, b) => heat(b) - heat(a));
    if (!rows.length) return;
    hot = pinned && rows.includes(pinned) ? rows.indexOf(pinned) + 1 : 0;
    const row = rows[hot % rows.length];
    pin(row);
    center(row);
  }
  function center(row) { row.scrollIntoView({ block: 'center' }); code.scrollIntoView(); }
  code.querySelector('#hottest').addEventListener('click', hottest);

  // `#s12` or `#p45` selects a row; `?metric=2&view=sass80&theme=dark&gpu=a100&all=1` set the rest.
  function go() {
    const row = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (row && row.classList.contains('r')) {
      if (!isSource(row)) setView(row.closest('.view').dataset.view);
      pin(row);
      center(row);
    }
  }
  const q = new URLSearchParams(location.search);
  if (innerWidth >= 1560) setAll(true);
  if (q.has('metric')) setMetric(+q.get('metric'));
  if (q.has('view')) setView(q.get('view'));
  if (q.has('all')) setAll(q.get('all') === '1');
  addEventListener('hashchange', go);
  go();
  // A script may press keys: `?keys=jjj2`, for tests without a driver.
  for (const key of q.get('keys') || '') document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  if (q.has('hover')) document.getElementById(q.get('hover'))?.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
}
{
  const q = new URLSearchParams(location.search);
  if (q.has('theme')) theme(q.get('theme'));
  if (q.has('gpu') && gpu(q.get('gpu'))) for (const o of document.querySelectorAll('select.gpus')) o.value = q.get('gpu');
}
root.dataset.ready = '1';
