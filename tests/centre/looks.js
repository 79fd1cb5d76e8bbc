// What tests ask of a page that is open before them.

(() => {

const isThere = (each) => each.checkVisibility({ visibilityProperty: true }) && each.getClientRects().length > 0;
const cut = (each) => each.outerHTML.slice(0, 160);

// What keeps people out, as axe finds it in these parts of the page.
async function found(parts, rules) {
  for (const moving of document.getAnimations()) {
    if (moving.effect.getComputedTiming().endTime !== Infinity) moving.finish(); // a colour on its way is none of the theme's
  }
  const isWhole = parts === document; // whose style sheets are looked at once
  const options = { runOnly: rules, resultTypes: ["violations"], preload: isWhole, selectors: false, elementRef: true };
  const { violations } = await axe.run(parts, options);
  const told = ({ element, any }) => `${cut(element)} ${any[0]?.message ?? ""}`;
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(told).join(" | ")}`);
}

// Of the whole page as it stands, then by these rules of what folds out of it and is there once a row is ticked.
window.barriers = async (rules, rulesOfParts) => {
  const barriers = await found(document, rules);
  const pick = document.querySelector(".pick");
  pick?.click();
  const menus = [...document.querySelectorAll("details.menu")].filter(isThere);
  const kept = menus.map((menu) => [menu.name, menu.lastElementChild.style.position]);
  for (const menu of menus) {
    menu.name = ""; // which has one close another
    menu.open = true;
    menu.lastElementChild.style.position = "static"; // and none covers another
  }
  const parts = [...menus.map((menu) => menu.lastElementChild), ...(pick ? [document.querySelector("#bulk-bar"), pick.closest("tr")] : [])];
  if (parts.length) barriers.push(...(await found({ include: parts }, rulesOfParts)));
  menus.forEach((menu, at) => {
    menu.open = false;
    [menu.name, menu.lastElementChild.style.position] = kept[at];
  });
  pick?.click();
  return barriers;
};

// What reaches beyond the right edge, when the page can be moved sideways.
window.tooWide = () => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide <= 0) return [];
  const beyond = [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5);
  return [`${wide} px beyond ${innerWidth}: ${beyond.slice(0, 3).map(cut).join(" | ")}`];
};

// Words of usual length that are cut in two, because what they stand in is narrower than they are.
window.brokenWords = (part = document.body) => {
  const found = [];
  const texts = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    range.selectNodeContents(text);
    const { parentElement: parent } = text;
    if (range.getClientRects().length < 2 || !isThere(parent) || getComputedStyle(parent).wordBreak === "break-all") continue;
    for (const { 0: word, index } of text.data.matchAll(/(?<!\S)\p{L}{2,16}(?=[.,:;]?(?!\S))/gu)) {
      range.setStart(text, index);
      range.setEnd(text, index + word.length);
      const lines = [...range.getClientRects()];
      if (lines.at(-1)?.top >= lines[0]?.bottom) found.push(`${word} is broken at ${innerWidth}: ${cut(parent)}`);
    }
  }
  return found;
};

// What hides a part of it: whatever scrolls or cuts off hides what is placed within.
function isClipped(list) {
  const { left, right, bottom } = list.getBoundingClientRect();
  for (let each = list.offsetParent; each && each !== document.body; each = each.parentElement) {
    const box = each.getBoundingClientRect();
    const isOut = left < box.left - 1 || right > box.right + 1 || bottom > box.bottom + 1;
    if (isOut && getComputedStyle(each).overflow !== "visible") return true;
  }
  return false;
}

// What is wrong with menus once they are open: one beyond the window on its left could not even be scrolled to.
window.brokenMenus = () => {
  const found = [];
  for (const menu of [...document.querySelectorAll("details.menu")].filter(isThere)) {
    const { lastElementChild: list } = menu;
    menu.open = true;
    const { left, right } = list.getBoundingClientRect();
    if (left < 0 || right > innerWidth) found.push(`${Math.round(left)} to ${Math.round(right)} of ${innerWidth}: ${cut(menu)}`);
    if (isClipped(list)) found.push(`cut off at ${innerWidth}: ${cut(menu)}`);
    found.push(...brokenWords(list));
    menu.open = false;
  }
  return found;
};

// What stands on paper although nobody can press it there, or is missing on it.
window.wrongOnPaper = () => {
  const isDrawn = (each) => each.checkVisibility({ visibilityProperty: true });
  const wrong = [...document.querySelectorAll(".top, main .btn, main .menu")].filter(isDrawn);
  const missing = [...document.querySelectorAll("main h1")].filter((each) => !isDrawn(each));
  return [...wrong, ...missing].map((each) => `on paper: ${cut(each)}`);
};

// What a reader finds: headings, links, buttons and figures, but for times, which go on, and for counts, which come late.
window.said = () => {
  const late = "#facet-counts, #matching, #this-browsers-zone, #fresh time, noscript";
  const kinds = "h1, h2, h3, a[href], button, summary, label, p, li, dt, dd, th, td, pre";
  const text = (each) => {
    const copy = each.cloneNode(true);
    for (const part of copy.querySelectorAll("time, #tabs .num")) part.remove();
    return copy.textContent.replaceAll(/[\d.]+ (ms|s|min|h|d)\b/g, "…").replaceAll(/\s+/g, " ").trim();
  };
  return [...document.querySelectorAll(`main :is(${kinds})`)]
    .filter((each) => isThere(each) && !each.closest(late) && !each.querySelector(late))
    .map((each) => [each.localName, each.closest("#tabs") ? each.firstChild.data.trim() : text(each), each.getAttribute("href") ?? each.value ?? ""].join(" "));
};

// Everything that Tab should reach in there, in the order of the document; what is folded away it cannot.
function controlsOf(part) {
  const kinds = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]";
  return [...part.querySelectorAll(kinds)].filter((each) => each.tabIndex >= 0 && !each.disabled && isThere(each));
}

// How often Tab goes from one part of a date to the next: day, month, year, hour, minute, half of the day, the calendar.
const steps = (controls) => controls.length + 7 * controls.filter((each) => /^(date|time)/.test(each.type)).length;

let controls = [];
let reached = [];
let seen = new Set();

function isSeen(each) {
  const drawn = getComputedStyle(each);
  return (drawn.outlineStyle !== "none" && parseFloat(drawn.outlineWidth) >= 1) || drawn.boxShadow !== "none";
}

document.addEventListener("focusin", ({ target }) => {
  const at = controls.indexOf(target);
  if (at < 0) return;
  reached.push(at);
  if (isSeen(target)) seen.add(at);
});

// From here on it is noted where the focus goes; the number of times that Tab has to be pressed to have been everywhere.
window.beginWalk = (part = document) => {
  controls = controlsOf(part);
  reached = [];
  seen = new Set();
  return steps(controls);
};

// What was not reached, or not seen to be, and whether it went another way than the page does.
window.endWalk = () => {
  const once = [...new Set(reached)];
  const turns = once.filter((at, place) => place && at < once[place - 1]).length;
  return [
    ...controls.filter((_, at) => !reached.includes(at)).map((each) => `not reached: ${cut(each)}`),
    ...once.filter((at) => !seen.has(at)).map((at) => `not seen: ${cut(controls[at])}`),
    ...(turns > 1 ? [`${turns} times back: ${once}`] : []), // from wherever the page put the focus at first
  ];
};

// The same for a menu, which is opened by a key.
let menus = [];

window.countMenus = () => {
  menus = [...document.querySelectorAll("details.menu")].filter(isThere);
  return menus.length;
};

window.beginMenu = (number) => {
  const menu = menus[number];
  menu.open = true;
  const count = window.beginWalk(menu.lastElementChild);
  menu.open = false;
  menu.querySelector("summary").focus();
  return count;
};

window.endMenu = (number) => {
  const menu = menus[number];
  const summary = menu.querySelector("summary");
  const isBack = !menu.open && document.activeElement === summary;
  return [...window.endWalk(), ...(controls.length ? [] : [`empty: ${cut(menu)}`]), ...(isBack ? [] : [`Escape leads not back: ${cut(summary)}`])];
};

})();
