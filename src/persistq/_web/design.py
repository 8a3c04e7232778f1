"""How the page looks, and the script that renews it: nothing of it comes from elsewhere.

Text has a contrast of 4.5 to 1 at least, and what bars and charts are drawn with 3 to 1 (WCAG 2.1,
AA), in the light and in the dark.
"""

from __future__ import annotations

RENEWED_EVERY_S = 5
RELOADED_EVERY_S = 10
"""How often the page renews itself, with JavaScript; and how often a browser without loads it."""

STYLE = """
:root { color-scheme: light dark;
  --page: #f4f5f6; --card: #fff; --edge: #d5d9de; --text: #1b1f24; --sub: #545c66;
  --done: #2a7d3c; --failed: #c22b22; --hand: #1b69c4; --waiting: #858d96; --none: #e6e8eb;
  --attention: #a3170f; --attention-back: #fdecea; --work: #0c4f9e; --over: #1d6530; }
@media (prefers-color-scheme: dark) { :root {
  --page: #121518; --card: #1b1f23; --edge: #353c43; --text: #e5e8eb; --sub: #a5adb6;
  --done: #4ea866; --failed: #f4695d; --hand: #5c9ff2; --waiting: #78818b; --none: #2b3137;
  --attention: #ff9d93; --attention-back: #3a1d1b; --work: #8fc3ff; --over: #85d39a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 2rem; max-width: 80rem; color: var(--text);
  background: var(--page); font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: break-word;
  -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
bdi { overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0; }
p { margin: .25rem 0; }
.sub { color: var(--sub); font-size: .875rem; }
header, .counts { margin-bottom: 1rem; }
.counts { font-weight: 600; }
.cards { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
article, .wrong { background: var(--card); border: 1px solid var(--edge); border-radius: .5rem;
  padding: .85rem 1rem; min-width: 0; }
.wrong { margin-bottom: 1rem; }
article.attention, .wrong { border-color: var(--attention); }
.title { display: flex; flex-wrap: wrap; gap: .1rem .75rem; align-items: baseline;
  justify-content: space-between; }
.state { font-weight: 600; font-size: .9375rem; }
.state.attention, .wrong h2 { color: var(--attention); }
.state.work { color: var(--work); }
.state.idle { color: var(--sub); }
.state.over { color: var(--over); }
.bar { display: block; width: 100%; height: .8rem; margin: .6rem 0 .35rem; border-radius: .2rem; }
.chart { display: block; width: 100%; height: 2.6rem; border-bottom: 1px solid var(--waiting); }
.done { fill: var(--done); background: var(--done); }
.failed { fill: var(--failed); background: var(--failed); }
.hand { fill: var(--hand); background: var(--hand); }
.waiting { fill: var(--waiting); background: var(--waiting); }
.none { fill: var(--none); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 0; padding: 0; list-style: none;
  font-size: .9375rem; font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: .15rem;
  margin-right: .35rem; }
.charts { display: grid; gap: .75rem 1rem; margin-top: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 10.5rem), 1fr)); }
figure { margin: 0; }
figcaption { font-size: .875rem; }
figcaption .sub { display: block; }
details { margin-top: .6rem; border-top: 1px solid var(--edge); padding-top: .45rem; }
summary { cursor: pointer; font-size: .9375rem; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; margin-top: .4rem; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th { text-align: left; color: var(--sub); font-weight: 600; }
th, td { padding: .25rem .6rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--edge); }
tr:last-child td { border-bottom: 0; }
.number bdi { overflow-wrap: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
th, .short, .number { white-space: nowrap; }
.name { width: 35%; }
.wide { width: 45%; }
.dead { color: var(--attention); font-weight: 600; }
footer { margin-top: 1.5rem; }
a { color: var(--work); }
:focus-visible { outline: 2px solid var(--work); outline-offset: 2px; }
@media (max-width: 30rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, td { display: block; }
  td, td.number, td.name, td.wide { width: auto; border: 0; padding: .1rem 0; text-align: left; }
  td::before { content: attr(data-name) ": "; color: var(--sub); }
  tr { border-bottom: 1px solid var(--edge); padding: .3rem 0; }
  tr:last-child { border-bottom: 0; }
}
@media print { body { background: #fff; } article { break-inside: avoid; } }
"""

SCRIPT = """
"use strict";
(() => {
  const opened = new Map(); // what the reader has opened and closed stays so
  document.addEventListener("toggle", (event) => {
    if (event.target.id) opened.set(event.target.id, event.target.open);
  }, true);
  let renewing = false;
  const renew = async () => {
    const selection = getSelection();
    if (renewing || document.hidden || (selection && !selection.isCollapsed)) return;
    renewing = true;
    const said = document.getElementById("said");
    try {
      const answer = await fetch(location.pathname,
        { cache: "no-store", signal: AbortSignal.timeout(20000) });
      if (!answer.ok) throw new Error(String(answer.status));
      // Its style is the one that is here, and its nonce is none that this page's policy knows.
      const text = (await answer.text()).replace(/<style[^]*?<\\/style>/, "");
      const fresh = new DOMParser().parseFromString(text, "text/html");
      for (const [id, open] of opened) {
        const other = fresh.getElementById(id);
        if (other) other.open = open;
      }
      const focus = document.activeElement ? document.activeElement.id : "";
      for (const id of ["when", "now"]) {
        const other = fresh.getElementById(id);
        if (other) document.getElementById(id).replaceWith(document.adoptNode(other));
      }
      document.title = fresh.title;
      if (focus && document.getElementById(focus)) document.getElementById(focus).focus();
      if (said.textContent) said.textContent = "";
    } catch {
      const text = "No answer: what is shown here is old. Trying again.";
      if (said.textContent !== text) said.textContent = text;
    }
    renewing = false;
  };
  setInterval(renew, EVERY_MS);
  document.addEventListener("visibilitychange", renew);
})();
""".replace("EVERY_MS", str(RENEWED_EVERY_S * 1000))
