// What makes the panel live: when something happens, the page is fetched again and what differs
// is changed in place. Without this script everything works but by reload.
"use strict";
(() => {
  const body = document.body;
  if (!body.dataset.live) return;
  // The answer to a form that was refused stays as it is: the page fetched again would not have
  // the reason, nor what was typed.
  if (performance.getEntriesByType("navigation")[0]?.responseStatus >= 400) return;
  const every = Number(body.dataset.live) * 1000;
  let busy = false, again = false, timer = 0;

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");

  function attributes(from, to) {
    for (const { name } of [...from.attributes])
      if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
    for (const { name, value } of to.attributes)
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }

  // Nothing that a person types into or chooses is touched.
  const held = (node) => node.nodeType === 1 && (node.matches("input:not([type=hidden]), select, textarea") || node.hasAttribute("data-keep"));

  function morph(from, to) {
    if (from.nodeType === 3) { if (from.data !== to.data) from.data = to.data; return; }
    if (from.nodeType !== 1 || held(from)) return;
    attributes(from, to);
    const old = [...from.childNodes];
    let next = 0;
    for (const node of to.childNodes) {
      // What stands further down has moved up: a form stays the form that somebody fills in.
      const found = old.findIndex((it, i) => i >= next && same(it, node));
      if (found < 0) { from.insertBefore(document.importNode(node, true), old[next] ?? null); continue; }
      old.slice(next, found).forEach((it) => it.remove());
      morph(old[found], node);
      next = found + 1;
    }
    old.slice(next).forEach((it) => it.remove());
  }

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { "x-panel": "refresh" } });
      if (answer.redirected) { location.assign(answer.url); return; }
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const to = page.querySelector("main");
        if (to) morph(document.querySelector("main"), to);
        document.title = page.title;
      }
    } catch { /* The instance is gone or the line is; the stream comes back by itself. */ }
    busy = false;
    if (again) { again = false; soon(); }
  }

  const soon = () => { clearTimeout(timer); timer = setTimeout(refresh, 120); };
  new EventSource("/live").addEventListener("change", soon);
  if (every > 0) setInterval(() => { if (!document.hidden) refresh(); }, every);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
})();
