// The keys of the pages of jobs.browse.
"use strict";
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "/") {
    const box = document.querySelector("input[type=search]");
    if (box) { box.focus(); event.preventDefault(); }
    return;
  }
  if (event.key === "o") {
    const all = [...document.querySelectorAll("details")], open = all.some(d => !d.open);
    all.forEach(d => { d.open = open; });
    return;
  }
  const rel = {ArrowRight: "next", j: "next", ArrowLeft: "prev", k: "prev", u: "up"}[event.key];
  const link = rel && document.querySelector(`a[data-rel=${rel}]`);
  if (link) location.href = link.href;
});
