// What tests ask of a page that is open before them.

// Of axe: what keeps people out, and where.
window.barriers = async (rules) => {
  for (const moving of document.getAnimations()) {
    if (moving.effect.getComputedTiming().endTime !== Infinity) moving.finish(); // a colour on its way is none of the theme's
  }
  const found = await axe.run({ runOnly: rules, resultTypes: ["violations"] });
  const told = ({ html, any }) => `${html.slice(0, 160)} ${any[0]?.message ?? ""}`;
  return found.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(told).join(" | ")}`);
};

// What reaches beyond the right edge, when the page can be moved sideways.
window.tooWide = () => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide <= 0) return [];
  const beyond = [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5);
  return [`${wide} px beyond ${innerWidth}: ${beyond.slice(0, 3).map((each) => each.outerHTML.slice(0, 120)).join(" | ")}`];
};

// What stands on paper although nobody can press it there, or is missing on it.
window.wrongOnPaper = () => {
  const isThere = (each) => each.checkVisibility({ visibilityProperty: true });
  const wrong = [...document.querySelectorAll(".top, main .btn, main .menu")].filter(isThere);
  const missing = [...document.querySelectorAll("main h1")].filter((each) => !isThere(each));
  return [...wrong, ...missing].map((each) => `on paper: ${each.outerHTML.slice(0, 120)}`);
};

// Numbers all that can be focused, in the order of the document; what is folded away cannot.
window.markControls = () => {
  const kinds = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]";
  const isThere = (each) => each.checkVisibility({ visibilityProperty: true }) && each.getClientRects().length;
  window.controls = [...document.querySelectorAll(kinds)].filter((each) => each.tabIndex >= 0 && !each.disabled && isThere(each));
  return window.controls.length;
};

// The number of what has the focus, and whether it can be seen that it has.
window.lookAtFocus = () => {
  const at = window.controls.indexOf(document.activeElement);
  if (at < 0) return null;
  const drawn = getComputedStyle(document.activeElement);
  return [at, (drawn.outlineStyle !== "none" && parseFloat(drawn.outlineWidth) >= 1) || drawn.boxShadow !== "none"];
};

// How often Tab goes from one part of a date to the next: day, month, year, hour, minute, half of the day, the calendar.
window.partsOfDates = () => 7 * window.controls.filter((each) => /^(date|time)/.test(each.type)).length;

window.tellControls = (numbers) => {
  return numbers.map((at) => window.controls[at].outerHTML.slice(0, 120));
};

// The value of it all, which would be called if it were a function.
void 0;
