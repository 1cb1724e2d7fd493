"""How the pages of `jobs.browse` look, and their keys: literal CSS and JavaScript, without any text of a run."""

CSS = """
:root { color-scheme: light dark; --ground: #fbfaf8; --card: #fff; --ink: #1d1d1f; --soft: #66645f; --line: #dedbd5; --link: #14539a;
  --good: #1c6b3a; --bad: #a32626; --mark: #fff2c2; --bar: #8aa9cf; }
@media (prefers-color-scheme: dark) { :root { --ground: #17181b; --card: #1f2125; --ink: #e6e4df; --soft: #9b9992; --line: #34373d; --link: #8db8ee;
  --good: #7ccf98; --bad: #f09090; --mark: #4a4020; --bar: #4c6a92; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline; padding: .55rem 1.2rem;
  background: var(--card); border-bottom: 1px solid var(--line); }
header b { font-size: 1.05rem; } header .keys { margin-left: auto; color: var(--soft); font-size: .8rem; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem 1.2rem 4rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
nav a, .chips a { display: inline-block; padding: .1rem .55rem; border-radius: 1rem; border: 1px solid transparent; }
nav a.here, .chips a.here { border-color: var(--link); background: color-mix(in srgb, var(--link) 12%, transparent); }
.chips { display: flex; flex-wrap: wrap; gap: .25rem; margin: .35rem 0; font-size: .88rem; } .chips span { color: var(--soft); padding: .1rem 0; min-width: 4.5rem; }
form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: .6rem 0 1rem; font-size: .88rem; }
input, select, button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: .3rem; padding: .2rem .45rem; }
input[type=search] { min-width: 18rem; } input[type=number] { width: 5rem; }
table { width: 100%; border-collapse: collapse; background: var(--card); font-size: .9rem; }
th, td { padding: .32rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; overflow-wrap: normal; } td.tight { width: 1%; white-space: nowrap; overflow-wrap: normal; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr:hover td { background: color-mix(in srgb, var(--link) 5%, transparent); }
.fate { white-space: nowrap; } .kept, .correct { color: var(--good); } .dropped, .wrong, .unparsed { color: var(--bad); } .soft, .undecided { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: .8rem 0; }
.card h2 { margin: 0 0 .4rem; font-size: .8rem; letter-spacing: .04em; text-transform: uppercase; color: var(--soft); }
pre { margin: 0; font: .86rem/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.question { font-size: 1.08rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.why { font-weight: 600; } dl { display: flex; flex-wrap: wrap; gap: .2rem 1.6rem; margin: .5rem 0 0; } dl div { display: flex; gap: .45rem; } dt { color: var(--soft); } dd { margin: 0; }
.bar { display: inline-block; height: .7rem; border-radius: .15rem; background: var(--bar); vertical-align: baseline; }
.votes { display: inline-flex; width: 9rem; height: .75rem; border-radius: .2rem; overflow: hidden; background: var(--line); vertical-align: middle; }
.votes i { display: block; height: 100%; border-right: 1px solid var(--card); } .class { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; vertical-align: -.08rem; }
details { border-top: 1px solid var(--line); padding: .35rem 0; } summary { cursor: pointer; display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; font-size: .88rem; }
details pre { margin: .4rem 0 .5rem 1.1rem; } .pager { display: flex; gap: 1rem; align-items: baseline; margin: .8rem 0; font-size: .9rem; } bdi { unicode-bidi: isolate; }
.c0 { background: #4477aa; } .c1 { background: #cc8963; } .c2 { background: #55a868; } .c3 { background: #c44e52; } .c4 { background: #8172b3; } .c5 { background: #937860; }
.c6 { background: #da8bc3; } .c7 { background: #7f8c3d; } .none { background: repeating-linear-gradient(45deg, var(--line) 0 3px, var(--card) 3px 6px); }
@media (max-width: 46rem) { tr { display: flex; flex-wrap: wrap; border-bottom: 1px solid var(--line); } tr:has(th) { display: none; }
  td { border: 0; padding: .15rem .6rem; } td.tight { width: auto; } td.text { flex: 1 0 100%; } input[type=search] { min-width: 0; width: 100%; } .keys { display: none; } }
"""

KEYS = """
"use strict";
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key === "/") { const box = document.querySelector("input[type=search]"); if (box) { box.focus(); event.preventDefault(); } return; }
  if (event.key === "o") { const all = [...document.querySelectorAll("details")]; const open = all.some(d => !d.open); all.forEach(d => { d.open = open; }); return; }
  const rel = {ArrowRight: "next", j: "next", ArrowLeft: "prev", k: "prev", u: "up"}[event.key];
  const link = rel && document.querySelector(`a[data-rel=${rel}]`);
  if (link) location.href = link.href;
});
"""
