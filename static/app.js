// What pages cannot do without a script: keep times true between two answers, ask for news at the chosen pace and
// pause that, change only what is new, tell when the server is silent, keys, copy, close menus. Everything else is
// htmx, and every form works without either.
"use strict";

(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Times. The server's clock counts, not this machine's: each answer tells it as `data-now`.

  let ahead = null;
  let lastTold = null;

  function readClock() {
    const told = $("[data-now]")?.dataset.now;
    if (!told || told === lastTold) return;
    lastTold = told;
    // An answer is some way old when it is read. The youngest of all tells best, unless a clock was set anew.
    const found = Date.parse(told) - Date.now();
    if (ahead === null || found > ahead || ahead - found > 30000) ahead = found;
  }

  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  function elapsed(seconds) {
    for (let i = 0; i < units.length - 1; i++) {
      const [size, unit] = units[i];
      const [smaller, smallerUnit] = units[i + 1];
      if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ${Math.floor((seconds % size) / smaller)} ${smallerUnit}`;
    }
    return `${seconds} s`;
  }

  function ago(seconds) {
    if (seconds < 1) return "just now";
    const [size, unit] = units.find(([size]) => seconds >= size);
    return `${Math.floor(seconds / size)} ${unit} ago`;
  }

  function tick() {
    const now = Date.now() + ahead;
    for (const time of $$("time[data-tick]")) {
      if (time.closest(".is-stale")) continue;
      const kind = time.dataset.tick;
      const since = Math.floor((now - Date.parse(time.dateTime)) / 1000);
      const seconds = Math.max(0, kind === "left" ? -since : since);
      const text = kind === "ago" ? ago(seconds) : elapsed(seconds);
      if (time.textContent !== text) time.textContent = text;
    }
    for (const stamp of $$(".fresh")) stamp.classList.toggle("fresh--paused", !every || isPaused());
    tellRetry();
    countAgain();
    if (Date.now() >= nextAsk && !document.hidden) askAgain();
  }

  // What is new goes into what is there, so that focus, selection, scroll and open parts stay as they are.

  function morph(old, fresh) {
    if (old.nodeName !== fresh.nodeName || old.id !== fresh.id) return old.replaceWith(fresh);
    if (old.hasAttribute("data-keep")) return;
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !keeps(old, name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value && !keeps(old, name)) old.setAttribute(name, value);
    }
    if (old.matches("input, textarea, select")) return takeValue(old, fresh);
    morphChildren(old, fresh);
  }

  // What a person has opened or ticked since, and what htmx and this script write.
  function keeps(element, name) {
    if (name === "tabindex") return element === document.activeElement;
    return (name === "open" && element.matches("details")) || (name === "class" && element.matches(".is-copied"));
  }

  function takeValue(old, fresh) {
    if (old === document.activeElement || old.matches(".pick, [type=checkbox], [type=radio]")) return;
    if (old.value === old.defaultValue || old.type === "hidden") old.value = fresh.value;
  }

  function morphChildren(old, fresh) {
    const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    const staying = new Set([...fresh.children].map((child) => child.id));
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const twin = child.id ? named.get(child.id) : sameKind(place, child);
      if (twin && twin !== place) place = withoutGone(place, twin, staying);
      if (!twin) {
        if (child.nodeName === "TR" && old.firstElementChild) child.classList.add("is-new");
        old.insertBefore(child, place);
        continue;
      }
      if (twin === place) place = place.nextSibling;
      else old.insertBefore(twin, place);
      if (twin.nodeType !== Node.ELEMENT_NODE) {
        if (twin.data !== child.data) twin.data = child.data;
      } else if (!twin.isEqualNode(child)) {
        morph(twin, child);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  // What is moved loses its scroll and its focus, so what stands before it and goes is taken away instead.
  function withoutGone(place, twin, staying) {
    if (!place || !(place.compareDocumentPosition(twin) & Node.DOCUMENT_POSITION_FOLLOWING)) return place;
    while (place !== twin && !(place.id && staying.has(place.id))) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
    return place;
  }

  function sameKind(place, child) {
    return place && place.nodeName === child.nodeName && !place.id ? place : null;
  }

  htmx.defineExtension("morph", {
    isInlineSwap: (style) => style === "morph",
    handleSwap(style, target, fragment) {
      if (style !== "morph") return false;
      morph(target, fragment.querySelector(`#${CSS.escape(target.id)}`) ?? fragment.firstElementChild);
      return [document.getElementById(target.id)];
    },
  });

  // Polls, at the pace that was chosen. Paused while nobody looks, while rows are ticked and while a menu is open; slower
  // and slower while the server is silent, and said so.

  const every = 1000 * Number(document.body.dataset.every ?? 0);
  const firstPause = 2;
  const longestPause = 15;
  const pauseAfter = (times) => 1000 * Math.min(longestPause, firstPause * 2 ** (times - 1));
  let failures = 0;
  let nextTry = 0;
  let nextPoll = Date.now() + every;

  const isPaused = () => document.hidden || Boolean($(".pick:checked, [data-poll] details.menu[open]"));

  // Once it was not answered it asks until it is, as it says, also where the pace is slow or off.
  function poll() {
    if (failures ? Date.now() < nextTry : !every || Date.now() < nextPoll) return;
    nextPoll = Date.now() + every;
    for (const poller of $$("[data-poll]")) htmx.trigger(poller, "poll");
  }

  // How many forms were answered: what a poll was told before that is old when it comes after it.
  let acts = 0;

  // Of the element that asked, which may have been replaced by the answer.
  const asker = (event) => event.detail.requestConfig?.elt ?? event.detail.elt;
  const isPoll = (element) => element.hasAttribute("data-poll");

  function pollNow() {
    nextTry = 0;
    for (const poller of $$("[data-poll]")) htmx.trigger(poller, "poll");
  }

  function stale(is) {
    const banner = $("#stale");
    for (const part of $$("[data-poll], .is-stale:not(.is-over)")) part.classList.toggle("is-stale", is);
    for (const stamp of $$(".fresh")) stamp.classList.toggle("fresh--broken", is || Boolean($(".is-over")));
    if (banner) banner.hidden = !is;
  }

  // An answer that will be the same the next time: what is asked for is gone, or not for who asks. It is said once, in
  // the sentence that the page has for it, and the part asks no more.

  const isSilence = (status) => status === 0 || status >= 500 || status === 408 || status === 429;

  function over(part, status) {
    const why = status === 401 ? "out" : [403, 404, 410].includes(status) ? "gone" : "refused";
    const says = $(`[data-over=${why}]`);
    part.removeAttribute("data-poll");
    part.removeAttribute("data-counted");
    part.classList.remove("is-missed");
    part.classList.add("is-over", "is-stale");
    tellMissed();
    failures = 0;
    stale(false);
    if (says) says.hidden = false;
    else if (why === "out") location.reload(); // which leads to the login, where a page has no words of its own
  }

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { status } = event.detail.xhr;
    const part = asker(event);
    if (!part.matches("[data-poll], [hx-trigger~=news]") || status < 400 || isSilence(status)) return;
    event.preventDefault();
    over(part, status);
  });

  function tellRetry() {
    const says = $("#stale-retry");
    if (!failures || !says) return;
    const seconds = Math.max(0, Math.ceil((nextTry - Date.now()) / 1000));
    says.textContent = seconds ? `Trying again in ${seconds} s…` : "Trying again…";
  }

  function failed() {
    failures += 1;
    nextTry = Date.now() + pauseAfter(failures);
    stale(true);
    tellRetry();
  }

  // What is counted beside a list is counted again after news, though `data-counted` seconds after the last time at the
  // earliest, for counting takes a while; and now and then without, for a list has no news of what it leaves out.

  const countsLast = Math.max(30000, every);
  const opened = Date.now();
  const countedAt = new WeakMap();
  let newsAt = 0;

  const isCounted = (element) => element.hasAttribute("data-counted");

  function count(counted) {
    countedAt.set(counted, Date.now());
    htmx.trigger(counted, "news");
  }

  function isCountOld(counted) {
    const at = countedAt.get(counted) ?? opened;
    if (newsAt > at) return Date.now() >= at + 1000 * counted.dataset.counted;
    return every > 0 && Date.now() >= at + countsLast;
  }

  // What is sorted by its counts is left alone while somebody is about to choose from it.
  const isInHand = (counted) => counted.closest(".facets")?.matches(":hover, :focus-within");

  function countAgain() {
    if (!$("[data-poll]") || isPaused() || failures) return;
    for (const counted of $$("[data-counted]")) {
      if (isCountOld(counted) && counted.checkVisibility() && !isInHand(counted)) count(counted);
    }
  }

  // What is opened is to be right, also where nothing else is asked for.
  document.addEventListener("toggle", (event) => {
    if (event.newState === "open") for (const counted of $$("[data-counted]", event.target)) count(counted);
  }, true);

  function answered() {
    failures = 0;
    nextTry = 0;
    stale(false);
    readClock();
    const stamp = $("#fresh time");
    if (stamp) stamp.dateTime = new Date(Date.now() + ahead).toISOString();
    tick();
  }

  // What is fetched once the page is there, as the counts of a list: where it does not come a line says so, and it is
  // asked for again, later and later.

  let asked = 0;
  let nextAsk = Infinity;

  function missed(part) {
    part.classList.add("is-missed");
    nextAsk = Date.now() + pauseAfter(asked + 1);
    tellMissed();
  }

  function askAgain() {
    asked += 1;
    nextAsk = Infinity;
    for (const part of $$(".is-missed")) htmx.trigger(part, "news");
  }

  function tellMissed() {
    const says = $("#missed");
    if (says) says.hidden = !$(".is-missed");
  }

  document.addEventListener("htmx:afterRequest", (event) => {
    if (!event.detail.successful) return;
    asker(event).classList.remove("is-missed");
    if (!$(".is-missed")) asked = 0;
    tellMissed();
  });

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (!isPoll(asker(event))) return;
    if (isPaused() || Date.now() < nextTry) event.preventDefault();
    event.detail.requestConfig.acts = acts;
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    if (isCounted(asker(event))) return;
    if (!isPoll(asker(event))) acts += 1;
    else if (event.detail.xhr.status === 200) newsAt = Date.now();
    if (event.detail.successful) answered();
  });

  for (const trouble of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(trouble, (event) => {
      const { status } = event.detail.xhr;
      const silent = isSilence(status);
      if (silent && isPoll(asker(event))) failed();
      if (asker(event).matches("[hx-trigger~=news]")) missed(asker(event));
      const says = (silent || (status === 403 && !isPoll(asker(event)))) && $("[role=alert]", asker(event));
      if (!says) return;
      says.textContent = silent
        ? "That did not arrive: the server does not answer. Try it again in a moment."
        : "That was not sent: you have been logged in or out elsewhere. Load the page again and send it once more.";
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && (every || failures)) pollNow();
  });

  // A button that is replaced between press and release is not clicked: the answer to the next poll will do.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (!isPoll(asker(event))) return;
    const isOld = event.detail.requestConfig.acts !== acts;
    if (isOld || $(":is(a, button, summary):active", event.detail.target)) event.detail.shouldSwap = false;
  });

  // A log that is read at its end stays there; of a very long one the oldest lines go, they can be had again.

  const mostLines = 3000;
  let followed = [];

  const isAtEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 8;
  const toEnd = (box) => { box.scrollTop = box.scrollHeight; };

  document.addEventListener("htmx:beforeSwap", () => {
    followed = $$("[data-follow]").filter(isAtEnd);
  });

  document.addEventListener("htmx:afterSwap", () => {
    for (const box of followed) {
      for (const line of [...$("ol", box).children].slice(0, -mostLines)) line.remove();
      toEnd(box);
    }
  });

  for (const box of $$("[data-follow]")) toEnd(box);

  // Somebody has done something from this page, so there is news.
  document.addEventListener("changed", () => {
    const left = document.activeElement?.closest("details.menu[open]");
    closeMenus();
    if (left) $("summary", left).focus();
    pollNow();
  });

  // Controls

  function closeMenus(except) {
    for (const menu of $$("details.menu[open]")) if (menu !== except) menu.open = false;
  }

  async function copy(button) {
    const source = $(button.dataset.copy);
    if (!source) return;
    const text = source.textContent;
    try {
      // Over plain http a browser has no clipboard for scripts; the old way still works there.
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else copyBySelecting(text);
    } catch {
      copyBySelecting(text);
    }
    button.classList.add("is-copied");
    setTimeout(() => button.classList.remove("is-copied"), 1500);
  }

  function copyBySelecting(text) {
    const area = document.createElement("textarea");
    const focused = document.activeElement;
    area.className = "vh";
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused?.focus?.();
  }

  document.addEventListener("click", (event) => {
    // The second click of a double click is no second order.
    if (event.detail > 1 && event.target.closest(":is(form[hx-post], form[data-once]) button")) {
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    closeMenus(event.target.closest("details.menu"));
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
    if (event.target.closest("#stale-now")) {
      event.preventDefault();
      pollNow();
    }
    if (event.target.closest("#missed-now")) askAgain();
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = $("details.menu[open]");
    closeMenus();
    if (open) $("summary", open).focus();
  });

  // Ticked rows: how many they are, and one box for those of the page.

  function tellTicks() {
    const form = $("#bulk");
    if (!form) return;
    const [boxes, ticked] = [$$(".pick", form), $$(".pick:checked", form)];
    const says = $("#ticked", form);
    const whole = $("thead input[type=checkbox]", form);
    if (says) says.textContent = `${ticked.length} ticked`;
    if (!ticked.length && $("#all-matching", form)) $("#all-matching", form).checked = false;
    if (!whole) return;
    whole.checked = ticked.length > 0 && ticked.length === boxes.length;
    whole.indeterminate = ticked.length > 0 && !whole.checked;
  }

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!box.matches("#bulk [type=checkbox]")) return;
    if (box.matches("thead *")) for (const each of $$("#bulk .pick")) each.checked = box.checked;
    tellTicks();
  });
  window.addEventListener("pageshow", tellTicks);

  // Keys

  let hasG = false;

  const go = (key) => $(`[data-key="${CSS.escape(key)}"]`)?.click();

  // Where j and k stop: at what a row is about, else at its link or its head, else at the row. The cells of a result are
  // read, and lead nowhere.
  const rows = () => $$("main :is(.task, tbody tr:not(:has(.task), .grid *), .log [id^=line-])").filter((row) => row.checkVisibility());

  function step(by) {
    const all = rows();
    if (!all.length) return;
    const here = all.findIndex((row) => (row.closest("tr, li") ?? row).contains(document.activeElement));
    const row = all[here < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(here + by, 0), all.length - 1)];
    const stop = row.matches(".task") ? row : ($("a[href]", row) ?? $("th", row) ?? row);
    if (stop.tabIndex < 0) stop.tabIndex = -1; // as an attribute, without which nothing but a control takes the focus
    stop.focus();
  }

  const keys = {
    "/": () => ($("main [type=search]") ?? $("[type=search]"))?.focus(),
    "?": () => go("?"),
    j: () => step(1),
    k: () => step(-1),
    x: () => document.activeElement.closest("tr")?.querySelector(".pick")?.click(),
    r: () => pollNow(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]")) return;
    if (hasG && /^[a-z]$/.test(event.key)) {
      event.preventDefault();
      go(event.key);
    } else if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
    hasG = !hasG && event.key === "g";
  });

  // A file that is too large is not even sent.
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (!input.dataset?.most) return;
    const tooLarge = [...input.files].some((file) => file.size > Number(input.dataset.most));
    input.setCustomValidity(tooLarge ? input.dataset.tooLarge : "");
    input.toggleAttribute("aria-invalid", tooLarge);
    const says = $("[role=alert]", input.form);
    if (says) says.textContent = tooLarge ? input.dataset.tooLarge : "";
  });

  // The page of the time zone offers the browser's own.
  const offer = $("#this-browsers-zone button");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (offer && zone) {
    offer.value = zone;
    offer.textContent = `Use this browser's: ${zone}`;
    offer.form.hidden = false;
  }

  readClock();
  setInterval(tick, 1000);
  setInterval(poll, Math.min(every || 1000, 1000) / 4);
})();
