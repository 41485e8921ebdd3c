// Keeps an open page current: fetches it again when the daemon says that something changed, and puts its <main> in place.
// Without this script the page reloads itself by a meta element.
"use strict";
(() => {
  const LEAST = 1000; // between two fetches, in ms
  const MOST = 15000; // without a change, so that relative times stay true
  let last = Date.now();
  let took = 0;
  let timer = 0;
  let busy = false;

  const state = (word) => { document.documentElement.dataset.live = word; };

  // What somebody has begun to write must not go. What the browser fills in by itself is nobody's beginning.
  const begun = () => [...document.querySelectorAll("main input:not([type=password], [autocomplete=username]), main select")]
    .some((field) => field.options
      ? Math.max(0, [...field.options].findIndex((option) => option.defaultSelected)) !== field.selectedIndex
      : field.value !== field.defaultValue);

  const inUse = () => {
    const focus = document.activeElement;
    const selection = getSelection();
    return begun() || (focus && focus.matches("main input, main select")) ||
      (selection && !selection.isCollapsed && document.querySelector("main").contains(selection.anchorNode));
  };

  const refresh = async () => {
    timer = 0;
    if (busy || document.hidden || inUse()) return plan(LEAST);
    busy = true;
    const began = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(10000) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      const shown = document.querySelector("main");
      if (fresh && !inUse()) {
        for (const open of shown.querySelectorAll("details[id]")) {
          const other = fresh.querySelector("#" + CSS.escape(open.id));
          if (other) other.open = open.open;
        }
        const focus = document.activeElement;
        const key = focus && shown.contains(focus) && (focus.id ? "#" + CSS.escape(focus.id)
          : focus.hasAttribute("href") && `a[href="${CSS.escape(focus.getAttribute("href"))}"]`);
        shown.replaceWith(document.adoptNode(fresh));
        if (key) document.querySelector("main " + key)?.focus({ preventScroll: true });
        document.title = page.title;
        state("on");
      }
    } catch {
      state("lost");
    }
    last = Date.now();
    took = last - began;
    busy = false;
    plan(MOST);
  };

  // A page that takes long to make is asked for less often: at most a tenth of the time.
  const plan = (wait) => {
    const due = Math.max(last + Math.max(LEAST, took * 10), Math.min(Date.now() + wait, last + Math.max(MOST, LEAST)));
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(0, due - Date.now()));
  };

  const events = new EventSource("/events");
  events.addEventListener("hello", () => { state("on"); if (Date.now() - last > LEAST) plan(0); });
  events.addEventListener("change", () => plan(0));
  events.addEventListener("error", () => state("lost"));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) plan(0); });
  plan(MOST);
})();
